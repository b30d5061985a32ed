"""The end of an utterance: what the prefixes of the beam become, and their final scores: compiled."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.arena import UNKNOWN, Beam
from asr.decoding.compiled import allocating
from asr.decoding.fusion import (
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
from asr.lm.packed import PackedNgrams
from asr.lm.packed import advance as say_one

__all__ = ["close", "say_ends", "settle"]


@allocating
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


@allocating
def say_ends(
    nodes: NDArray[Any], rows: NDArray[np.int32], tables: Tables, lm: PackedNgrams, end: int
) -> NDArray[np.float64]:
    """(rows,) what an n-gram model says of how each row ends, `</s>` (its id is `end`) included."""
    said = np.zeros(rows.shape[0])
    if tables.lm_kind == WORDS or tables.lm_kind == CHARACTERS:
        for row in range(rows.shape[0]):
            nats, state = say(nodes, rows[row], tables, lm)
            said[row] = nats + say_one(lm, state, end)[0]
    return said


@allocating
def settle(
    beam: Beam, rows: NDArray[np.int32], said: NDArray[np.float64], tables: Tables
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The scores of the texts that `close` gave.

    Args:
        beam: the search, at its end.
        rows: (results, COLUMNS) int32: by place in the beam.
        said: (results,) float64: what the language model says of their ends.
        tables: what scores.

    Returns:
        All (results,): score, nats; the part of it that is not acoustic; what the language model says of
        the whole text, unweighted.
    """
    count = rows.shape[0]
    score, fused, lm = np.empty(count), np.empty(count), np.empty(count)
    for row in range(count):
        node = beam.nodes[rows[row, PARENT]]
        mass = beam.blank[node.slot] + beam.token[node.slot]
        nats = gained(beam.nodes, rows[row], said[row], tables)
        score[row] = math.log(mass) + beam.log_scale[0] + nats
        fused[row] = node.fused + nats
        lm[row] = node.lm + said[row]
    return score, fused, lm
