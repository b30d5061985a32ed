"""The end of an utterance: what the prefixes of the beam become, and their final scores: compiled."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import UNKNOWN, Beam
from asr.decoding.kernel.fusion import (
    CHARACTERS,
    COLUMNS,
    END,
    LEAVES,
    PARENT,
    TOKEN,
    WORD,
    WORDS,
    Tables,
    gained,
    propose,
    say,
)  # fmt: skip
from asr.lm.ngram.packed import PackedNgrams
from asr.lm.ngram.packed import advance as say_one

__all__ = ["close", "score_ends"]


@kernel
def close(beam: Beam, tables: Tables) -> NDArray[np.int32]:
    """What the prefixes of the beam become if the utterance ends here: (many, COLUMNS) int32 proposals.

    Where all of them end within a word and none may, all of them end there, with an unknown word.
    """
    rows = np.empty((beam.sizes[1] * tables.most_proposals, COLUMNS), np.int32)
    count = 0
    for place in range(beam.sizes[1]):
        count += propose(beam.nodes, int(beam.node[place]), END, tables, rows[count:])
    if count == 0:
        for place in range(beam.sizes[1]):
            rows[count, PARENT] = beam.node[place]
            rows[count, TOKEN] = END
            rows[count, WORD] = UNKNOWN
            rows[count, LEAVES] = 0
            count += 1
    return rows[:count]


@kernel
def score_ends(
    beam: Beam, rows: NDArray[np.int32], ends: NDArray[np.float64], tables: Tables, lm: PackedNgrams, end: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The search's scores of the texts that `close` gave.

    Args:
        beam: the search, at its end.
        rows: (results, COLUMNS) int32.
        ends: (results,) float64: an external language model's log-probabilities of their ends; 0 for others.
        tables: what scores.
        lm: the n-gram model, if it is one.
        end: its id of `</s>`.

    Returns:
        All (results,): score, nats; the part of it that is not acoustic; the language model's log-probability
        of the whole text, unweighted.
    """
    count = rows.shape[0]
    score, fused, log_prob = np.empty(count), np.empty(count), np.empty(count)
    for row in range(count):
        node = beam.nodes[rows[row, PARENT]]
        nats = ends[row]
        if tables.lm_kind == WORDS or tables.lm_kind == CHARACTERS:
            nats, state = say(beam.nodes, rows[row], tables, lm)
            nats += say_one(lm, int(np.int64(state)), end)[0]
        gain = gained(beam.nodes, rows[row], nats, tables)
        score[row] = math.log(beam.blank[node.slot] + beam.token[node.slot]) + beam.log_scale[0] + gain
        fused[row] = node.fused + gain
        log_prob[row] = node.lm + nats
    return score, fused, log_prob
