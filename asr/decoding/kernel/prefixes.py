"""New prefixes: the score of a proposal besides the acoustic one, and its node in the arena; compiled.

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
from asr.decoding.kernel.arena import N_NODES, NONE, OUT_OF_TREE, ROOT, UNKNOWN, Beam
from asr.decoding.kernel.proposals import (
    CHARACTER_LM,
    END_OF_TEXT,
    HOT_STATE,
    PARENT,
    STARTS_UNKNOWN,
    TOKEN,
    TREE_NODE,
    WORD,
    WORD_LM,
    Tables,
)  # fmt: skip
from asr.lm.ngram.packed import PackedNgrams, advance
from asr.lm.ngram.trie import UNKNOWN_ID

__all__ = ["add_prefix", "add_prefixes", "fused_gain", "lm_score"]


@kernel(allocates=False, inline=True)
def lm_score(
    nodes: NDArray[Any], row: NDArray[np.int32], tables: Tables, lm: PackedNgrams
) -> tuple[float, int]:
    """The log-probability that an n-gram model gives to a proposal, and its state after it.

    A word is scored when it ends, one outside the vocabulary when it leaves the tree; characters are scored
    one by one. A first token that both begins a word and has letters is scored without a space before it.

    Args:
        nodes: the arena.
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
def fused_gain(nodes: NDArray[Any], row: NDArray[np.int32], lm_log_prob: float, tables: Tables) -> float:
    """What a proposal adds to the fused score of its parent, nats.

    Args:
        nodes: the arena.
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
            nats += tables.word_boost[word]
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
def add_prefix(beam: Beam, row: NDArray[np.int32], lm_log_prob: float, lm_state: int, tables: Tables) -> None:
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
    tables: Tables,
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
