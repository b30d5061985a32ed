"""The end of an utterance: what the prefixes of the beam become, and their final scores; compiled."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import N_PREFIXES, UNKNOWN, Beam
from asr.decoding.kernel.prefixes import fused_gain, lm_score
from asr.decoding.kernel.proposals import (
    CHARACTER_LM,
    COLUMNS,
    END_OF_TEXT,
    PARENT,
    STARTS_UNKNOWN,
    TOKEN,
    WORD,
    WORD_LM,
    Tables,
    propose,
)  # fmt: skip
from asr.lm.ngram.packed import PackedNgrams, advance

__all__ = ["propose_ends", "score_ends"]


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
    rows = np.empty((int(beam.sizes[N_PREFIXES]) * tables.max_proposals, COLUMNS), np.int32)
    return rows[: _propose_ends(beam, tables, rows)]


@kernel(allocates=False)
def _propose_ends(beam: Beam, tables: Tables, rows: NDArray[np.int32]) -> int:
    """`propose_ends` into the first of `rows`, (at least ends, COLUMNS) int32; returns how many."""
    count = 0
    for index in range(beam.sizes[N_PREFIXES]):
        count += propose(beam.nodes, beam.node[index], END_OF_TEXT, tables, rows[count:])
    if count == 0:
        for index in range(beam.sizes[N_PREFIXES]):
            rows[count, PARENT] = beam.node[index]
            rows[count, TOKEN] = END_OF_TEXT
            rows[count, WORD] = UNKNOWN
            rows[count, STARTS_UNKNOWN] = 0
            count += 1
    return count


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
    score, fused = np.empty(len(rows)), np.empty(len(rows))
    log_probs = end_log_probs.copy()
    _score_ends(beam, rows, tables, lm, end_id, score, fused, log_probs)
    return score, fused, log_probs


@kernel(allocates=False)
def _score_ends(
    beam: Beam,
    rows: NDArray[np.int32],
    tables: Tables,
    lm: PackedNgrams,
    end_id: int,
    score: NDArray[np.float64],
    fused: NDArray[np.float64],
    log_probs: NDArray[np.float64],
) -> None:
    """`score_ends`, whose three results are filled; `log_probs` holds the log-probabilities of the ends."""
    for row in range(rows.shape[0]):
        node = beam.nodes[rows[row, PARENT]]
        log_prob = log_probs[row]
        if tables.lm_kind == WORD_LM or tables.lm_kind == CHARACTER_LM:
            log_prob, state = lm_score(beam.nodes, rows[row], tables, lm)
            log_prob += advance(lm, state, end_id)[0]
        gain = fused_gain(beam.nodes, rows[row], log_prob, tables)
        total = beam.blank_prob[node.beam_index] + beam.nonblank_prob[node.beam_index]
        score[row] = math.log(total) + beam.log_scale[0] + gain
        fused[row] = node.fused_score + gain
        log_probs[row] = node.lm_log_prob + log_prob
