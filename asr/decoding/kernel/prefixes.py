"""New prefixes, and how prefixes end: the score of a proposal without the acoustic one; compiled.

Where a token ends a word, the word is scored. Within a word the prefix carries the best that the words below
its node of the lexicon tree could get from the language model's unigrams (look-ahead); at the word's end that
is taken back, so that look-ahead changes what the beam keeps, never a final score.

Source: Ortmanns, Ney and Eiden, "Language-model look-ahead for large vocabulary speech recognition", 1996.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import N_NODES, N_PREFIXES, NONE, OUT_OF_TREE, ROOT, UNKNOWN, Beam
from asr.decoding.kernel.proposals import (
    CHARACTER_LM,
    COLUMNS,
    END_OF_TEXT,
    HOT_STATE,
    PARENT,
    SPELLING,
    STARTS_UNKNOWN,
    TOKEN,
    TREE_NODE,
    WORD,
    WORD_LM,
    ScoreTables,
    propose,
)  # fmt: skip
from asr.lm.ngram.packed import PackedNgrams, advance
from asr.lm.ngram.trie import UNKNOWN_ID

__all__ = ["add_prefix", "add_prefixes", "fused_gain", "lm_score", "propose_ends", "score_ends"]


@kernel(allocates=False, inline=True)
def lm_score(
    nodes: NDArray[Any], row: NDArray[np.int32], tables: ScoreTables, lm: PackedNgrams
) -> tuple[float, int]:
    """The log-probability that an n-gram model gives to a proposal, and its state after it.

    A word is scored when it ends, one outside the vocabulary when it leaves the tree; characters are scored
    one by one. A first token that both begins a word and has letters is scored without a space before it.

    Args:
        nodes: (capacity,) NODE: the arena.
        row: (COLUMNS,) int32: the proposal.
        tables: hold the kind of model and its ids.
        lm: the model.

    Returns:
        nats, not weighted; the state.
    """
    parent, token = row[PARENT], row[TOKEN]
    state = nodes[parent].lm_state
    log_prob = 0.0
    if tables.lm_kind == WORD_LM:
        word = row[WORD]
        if word >= 0:
            added, state = advance(lm, state, tables.lm_ids[word])
            log_prob += added
        elif word == UNKNOWN and nodes[parent].tree_node != OUT_OF_TREE:
            added, state = advance(lm, state, UNKNOWN_ID)
            log_prob += added
        if row[STARTS_UNKNOWN]:
            added, state = advance(lm, state, UNKNOWN_ID)
            log_prob += added
    elif tables.lm_kind == CHARACTER_LM and token != END_OF_TEXT:
        first, last = tables.letter_start[token], tables.letter_start[token + 1]
        if tables.begins_word[token] and (parent != ROOT or first == last):
            added, state = advance(lm, state, tables.lm_ids[-1])
            log_prob += added
        for position in range(first, last):
            added, state = advance(lm, state, tables.lm_ids[tables.letters[position]])
            log_prob += added
    return log_prob, state


@kernel(allocates=False, inline=True)
def fused_gain(nodes: NDArray[Any], row: NDArray[np.int32], lm_log_prob: float, tables: ScoreTables) -> float:
    """What a proposal adds to the fused score of its parent, nats.

    Args:
        nodes: (capacity,) NODE: the arena.
        row: (COLUMNS,) int32: the proposal.
        lm_log_prob: of the proposal by the language model, nats, not weighted.
        tables: what scores.
    """
    before, hot_state = nodes[row[PARENT]].tree_node, nodes[row[PARENT]].hot_state
    token = row[TOKEN]
    ends = token == END_OF_TEXT or tables.begins_word[token]
    nats = -tables.look_ahead[before]
    if tables.lm_weight > 0.0:  # 0 times the logarithm of 0 is not a number
        nats += tables.lm_weight * lm_log_prob
    if token != END_OF_TEXT:
        nats += tables.look_ahead[row[TREE_NODE]]
    word = row[WORD]
    if word != NONE:
        nats += tables.word_bonus
        if word >= 0:
            nats += tables.word_boost[word] + tables.spelling_log_prob[row[SPELLING]]
        elif tables.has_vocabulary and before != OUT_OF_TREE:
            nats += tables.unknown_penalty + tables.unknown_letter_penalty * tables.depth[before]
    if row[STARTS_UNKNOWN] or (tables.has_vocabulary and before == OUT_OF_TREE and not ends):
        letters = tables.letter_start[token + 1] - tables.letter_start[token]
        if row[STARTS_UNKNOWN]:
            nats += tables.unknown_penalty
            letters += 0 if ends else tables.depth[before]  # those that the tree still held
        nats += tables.unknown_letter_penalty * letters
    if ends:
        nats += tables.hot_gain[hot_state]  # 0 where no word ends
    if token == END_OF_TEXT:
        return float(nats - tables.hot_advance[hot_state])
    return float(nats + tables.hot_advance[row[HOT_STATE]] - tables.hot_advance[hot_state])


@kernel(allocates=False, inline=True)
def add_prefix(
    beam: Beam, row: NDArray[np.int32], lm_log_prob: float, lm_state: int, tables: ScoreTables
) -> None:
    """Make the prefix of a proposal; the arena must have room.

    Args:
        beam: gets the prefix into its arena.
        row: (COLUMNS,) int32: the proposal.
        lm_log_prob: of the proposal by the language model, nats, not weighted.
        lm_state: of the language model after it.
        tables: what scores.
    """
    nodes = beam.nodes
    nats = fused_gain(nodes, row, lm_log_prob, tables)
    number = beam.sizes[N_NODES]
    beam.sizes[N_NODES] += 1
    parent = row[PARENT]
    node = nodes[number]
    node.parent = parent
    node.token = row[TOKEN]
    node.child = NONE
    node.sibling = nodes[parent].child
    nodes[parent].child = number
    node.beam_index = NONE
    node.word = row[WORD]
    node.tree_node = row[TREE_NODE]
    node.lm_state = lm_state
    node.hot_state = row[HOT_STATE]
    node.factor = math.exp(nats)
    node.fused_score = nodes[parent].fused_score + nats
    node.lm_log_prob = nodes[parent].lm_log_prob + lm_log_prob


@kernel(allocates=False)
def add_prefixes(
    beam: Beam,
    rows: NDArray[np.int32],
    lm_log_probs: NDArray[np.float64],
    lm_states: NDArray[np.int64],
    tables: ScoreTables,
) -> None:
    """Make the prefixes of proposals; the arena must have room.

    Args:
        beam: gets the prefixes into its arena.
        rows: (n, COLUMNS) int32: the proposals.
        lm_log_probs: (n,) float64 nats of each by the language model, not weighted.
        lm_states: (n,) int64: of the language model after each.
        tables: what scores.
    """
    for row in range(rows.shape[0]):
        add_prefix(beam, rows[row], lm_log_probs[row], lm_states[row], tables)


# -------------------------------------------------------------------------------- the end of an utterance


def propose_ends(beam: Beam, tables: ScoreTables) -> NDArray[np.int32]:
    """What the prefixes of the beam become if the utterance ends here.

    Where all of them are within a word that may not end there, each ends with an unknown word.

    Args:
        beam: the search, at its end.
        tables: what scores.

    Returns:
        (ends, COLUMNS) int32: proposals.
    """
    rows = np.empty((int(beam.sizes[N_PREFIXES]) * tables.max_proposals, COLUMNS), np.int32)
    return rows[: _propose_ends(beam, tables, rows)]


@kernel(allocates=False)
def _propose_ends(beam: Beam, tables: ScoreTables, rows: NDArray[np.int32]) -> int:
    """`propose_ends` into the first of `rows`, (at least ends, COLUMNS) int32; returns how many."""
    count = 0
    for index in range(beam.sizes[N_PREFIXES]):
        count += propose(beam.nodes, beam.node[index], END_OF_TEXT, tables, rows[count:])
    if count == 0:
        for index in range(beam.sizes[N_PREFIXES]):
            rows[count, PARENT] = beam.node[index]
            rows[count, TOKEN] = END_OF_TEXT
            rows[count, WORD] = UNKNOWN
            rows[count, STARTS_UNKNOWN], rows[count, SPELLING] = 0, NONE
            count += 1
    return count


def score_ends(
    beam: Beam,
    rows: NDArray[np.int32],
    end_log_probs: NDArray[np.float64],
    tables: ScoreTables,
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
    tables: ScoreTables,
    lm: PackedNgrams,
    end_id: int,
    score: NDArray[np.float64],
    fused: NDArray[np.float64],
    log_probs: NDArray[np.float64],
) -> None:
    """`score_ends`, whose three results (ends,) are filled; `log_probs` holds those of the ends before."""
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
