"""The end of an utterance: what the prefixes of the beam become, and their final scores; compiled."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import UNKNOWN, Beam
from asr.decoding.kernel.prefixes import (
    CHARACTERS,
    COLUMNS,
    END,
    LEAVES,
    PARENT,
    TOKEN,
    WORD,
    WORDS,
    Tables,
    fused_gain,
    lm_score,
    propose,
)  # fmt: skip
from asr.lm.ngram.packed import PackedNgrams, advance

__all__ = ["propose_ends", "score_ends"]


@kernel
def propose_ends(beam: Beam, tables: Tables) -> NDArray[np.int32]:
    """What the prefixes of the beam become if the utterance ends here.

    Where all of them are within a word that may not end there, they end there all the same, with an unknown
    word.

    Args:
        beam: the search, at its end.
        tables: what scores.

    Returns:
        (ends, COLUMNS) int32: proposals.
    """
    rows = np.empty((beam.sizes[1] * tables.max_proposals, COLUMNS), np.int32)
    count = 0
    for index in range(beam.sizes[1]):
        count += propose(beam.nodes, int(beam.node[index]), END, tables, rows[count:])
    if count == 0:
        for index in range(beam.sizes[1]):
            rows[count, PARENT] = beam.node[index]
            rows[count, TOKEN] = END
            rows[count, WORD] = UNKNOWN
            rows[count, LEAVES] = 0
            count += 1
    return rows[:count]


@kernel
def score_ends(
    beam: Beam,
    rows: NDArray[np.int32],
    end_log_probs: NDArray[np.float64],
    tables: Tables,
    lm: PackedNgrams,
    end_id: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The search's scores of the texts that `propose_ends` gave.

    Args:
        beam: the search, at its end.
        rows: (ends, COLUMNS) int32: the proposals.
        end_log_probs: (ends,) float64 nats: of the ends by a language model in Python; 0 for others.
        tables: what scores.
        lm: the n-gram model, if it is one.
        end_id: its id of `</s>`.

    Returns:
        All (ends,) float64: score, nats; the part of it that is not acoustic; the language model's
        log-probability of the whole text, unweighted.
    """
    count = rows.shape[0]
    score, fused, log_prob = np.empty(count), np.empty(count), np.empty(count)
    for row in range(count):
        node = beam.nodes[rows[row, PARENT]]
        nats = end_log_probs[row]
        if tables.lm_kind == WORDS or tables.lm_kind == CHARACTERS:
            nats, state = lm_score(beam.nodes, rows[row], tables, lm)
            nats += advance(lm, int(np.int64(state)), end_id)[0]
        gain = fused_gain(beam.nodes, rows[row], nats, tables)
        total = beam.blank_prob[node.beam_index] + beam.nonblank_prob[node.beam_index]
        score[row] = math.log(total) + beam.log_scale[0] + gain
        fused[row] = node.fused_score + gain
        log_prob[row] = node.lm_log_prob + nats
    return score, fused, log_prob
