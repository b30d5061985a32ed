"""Proposals: what one more token can make of a prefix, along the lexicon tree; compiled."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import NONE, OUT_OF_TREE, ROOT, UNKNOWN

__all__ = [
    "CHARACTER_LM", "COLUMNS", "END_OF_TEXT", "EXTERNAL_LM", "HOT_STATE", "NO_LM", "PARENT", "SPELLING",
    "STARTS_UNKNOWN", "TOKEN", "TREE_NODE", "WORD", "WORD_LM", "ScoreTables", "propose",
]  # fmt: skip

END_OF_TEXT = -1  # instead of a token: the end of the utterance

# Kinds of language model: none, n-grams of words or characters, or an object that is called from Python.
NO_LM, WORD_LM, CHARACTER_LM, EXTERNAL_LM = 0, 1, 2, 3

# Columns of a proposal, a prefix that may be made: node of its parent, token, word that the token completes
# (a number, UNKNOWN or NONE), node of the lexicon tree, state of the hot words, whether (0 or 1) the token
# begins a word outside the vocabulary or leaves it within one, and where `ScoreTables.words` has the word.
PARENT, TOKEN, WORD, TREE_NODE, HOT_STATE, STARTS_UNKNOWN, SPELLING = 0, 1, 2, 3, 4, 5, 6
COLUMNS = 7


class ScoreTables(NamedTuple):
    """Everything that scores a prefix, as numba takes it.

    Attributes:
        scale: factor on log-probabilities.
        bias: (vocab,) float64: added to them after that: priors, blank.
        begins_word: (vocab,) bool: whether the token begins a word, so that the word before it ends.
        letter_start: (vocab + 1,) int32: where a token's letters begin in `letters`.
        letters: (letters of all tokens,) int32: numbers of letters from 0, token by token.
        separated: whether tokens show where words end; without it a word can end with each of its letters.
        has_vocabulary: whether words come from the tree.
        allow_unknown: whether words outside the tree may be written.
        child_start: (tree nodes + 1,) int32: the children of node n begin at node child_start[n].
        letter: (tree nodes,) int32: the letter that leads to the node; ascending among siblings.
        word_start: (tree nodes + 1,) int32: where a node's words begin in `words`.
        words: (spellings,) int32: word numbers, node by node; more than one where they are spelled or
            sound alike.
        spelling_log_prob: (spellings,) float64, weighted nats, at most 0: of each element of `words`.
        depth: (tree nodes + 1,) int32: letters from the root to the node; the last is for OUT_OF_TREE, 0.
        look_ahead: (tree nodes + 1,) float64, weighted nats; the last is for OUT_OF_TREE, 0.
        gain_within: (tree nodes + 1,) float64: the greatest factor by which a token within a word multiplies
            a prefix's probability.
        gain_end: (tree nodes + 1,) float64: likewise for tokens that end a word.
        word_bonus: nats per word.
        unknown_penalty: nats an unknown word.
        unknown_letter_penalty: nats a letter of it.
        word_boost: (words,) float64, nats: of hot words that are not found by their letters, and the penalty
            of words that the language model does not know.
        hot_next: (hot states, letters + 1) int32: by letter; last column: a word's end.
        hot_advance: (hot states,) float64: nats that a hot word that has begun is given in advance.
        hot_gain: (hot states,) float64: nats for the hot words that are complete if the word ends here.
        lm_kind: one of the kinds of language model.
        lm_weight: factor on the language model's log-probabilities.
        lm_ids: (words,) int32: the n-gram model's id of each word; or (letters + 1,) of each letter and,
            last, of the space.
        max_proposals: most rows that `propose` fills.
    """

    scale: float
    bias: NDArray[np.float64]
    begins_word: NDArray[np.bool_]
    letter_start: NDArray[np.int32]
    letters: NDArray[np.int32]
    separated: bool
    has_vocabulary: bool
    allow_unknown: bool
    child_start: NDArray[np.int32]
    letter: NDArray[np.int32]
    word_start: NDArray[np.int32]
    words: NDArray[np.int32]
    spelling_log_prob: NDArray[np.float64]
    depth: NDArray[np.int32]
    look_ahead: NDArray[np.float64]
    gain_within: NDArray[np.float64]
    gain_end: NDArray[np.float64]
    word_bonus: float
    unknown_penalty: float
    unknown_letter_penalty: float
    word_boost: NDArray[np.float64]
    hot_next: NDArray[np.int32]
    hot_advance: NDArray[np.float64]
    hot_gain: NDArray[np.float64]
    lm_kind: int
    lm_weight: float
    lm_ids: NDArray[np.int32]
    max_proposals: int


@kernel(allocates=False, inline=True)
def _child(tree_node: int, letter: int, tables: ScoreTables) -> int:
    """The node of the lexicon tree after one more letter, or NONE.

    Args:
        tree_node: the node before.
        letter: its number.
        tables: hold the tree.
    """
    low, high = tables.child_start[tree_node], tables.child_start[tree_node + 1]
    while low < high:
        middle = (low + high) // 2
        if tables.letter[middle] < letter:
            low = middle + 1
        else:
            high = middle
    if low < tables.child_start[tree_node + 1] and tables.letter[low] == letter:
        return int(low)
    return NONE


@kernel(allocates=False, inline=True)
def _walk(tree_node: int, token: int, tables: ScoreTables) -> int:
    """The node of the lexicon tree after a token's letters, or OUT_OF_TREE where the tree has no such word.

    Args:
        tree_node: the node before, or OUT_OF_TREE.
        token: its id.
        tables: hold the tree.
    """
    for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
        if tree_node == OUT_OF_TREE:
            return OUT_OF_TREE
        tree_node = _child(tree_node, tables.letters[position], tables)  # NONE is OUT_OF_TREE
    return tree_node


@kernel(allocates=False, inline=True)
def propose(
    nodes: NDArray[Any], parent: int, token: int, tables: ScoreTables, rows: NDArray[np.int32]
) -> int:
    """What a prefix can become by one more token: more than one thing where words sound alike.

    Args:
        nodes: (capacity,) NODE: the arena.
        parent: the prefix.
        token: its id, or END_OF_TEXT.
        tables: what scores.
        rows: (max_proposals, COLUMNS) int32: filled from the top.

    Returns:
        How many rows are filled; 0 where no word of the vocabulary continues like this.
    """
    tree_node, hot_state = nodes[parent].tree_node, nodes[parent].hot_state
    if not tables.separated:
        return _propose_joined(parent, token, tree_node, tables, rows)
    ends = token == END_OF_TEXT or tables.begins_word[token]
    after = ROOT if ends else tree_node
    if token != END_OF_TEXT:
        after = _walk(after, token, tables)
    if tables.has_vocabulary and not tables.allow_unknown and after == OUT_OF_TREE:
        return 0
    leaves = tables.has_vocabulary and after == OUT_OF_TREE and (ends or tree_node != OUT_OF_TREE)
    hot_state = _hot_after(hot_state, ends, token, tables)
    count = 1
    first = 0
    if ends and tree_node > ROOT:
        first = tables.word_start[tree_node]
        count = tables.word_start[tree_node + 1] - first
        if count == 0:
            if not tables.allow_unknown:
                return 0
            count, first = 1, NONE
    for row in range(count):
        rows[row, PARENT] = parent
        rows[row, TOKEN] = token
        rows[row, TREE_NODE] = after
        rows[row, HOT_STATE] = hot_state
        rows[row, STARTS_UNKNOWN] = leaves
        rows[row, SPELLING] = NONE
        if not ends or tree_node == ROOT:
            rows[row, WORD] = NONE
        elif tree_node == OUT_OF_TREE or first == NONE:
            rows[row, WORD] = UNKNOWN
        else:
            rows[row, WORD] = tables.words[first + row]
            rows[row, SPELLING] = first + row
    return count


@kernel(allocates=False, inline=True)
def _propose_joined(
    parent: int, token: int, tree_node: int, tables: ScoreTables, rows: NDArray[np.int32]
) -> int:
    """`propose` where tokens do not show where words end: a word can end with its last letter.

    Args:
        parent: node of the prefix.
        token: its id, or END_OF_TEXT.
        tree_node: the prefix's node of the lexicon tree.
        tables: what scores.
        rows: (max_proposals, COLUMNS) int32: filled from the top.

    Returns:
        How many rows are filled.
    """
    count = 0
    if token == END_OF_TEXT or not tables.has_vocabulary:
        if tree_node != ROOT:
            return 0  # within a word
        rows[0, WORD], rows[0, SPELLING] = NONE, NONE
        rows[0, TREE_NODE] = ROOT
        count = 1
    else:
        after = _walk(tree_node, token, tables)
        if after == OUT_OF_TREE:
            return 0
        if tables.child_start[after] < tables.child_start[after + 1]:
            rows[0, WORD], rows[0, SPELLING] = NONE, NONE
            rows[0, TREE_NODE] = after
            count = 1
        for position in range(tables.word_start[after], tables.word_start[after + 1]):
            rows[count, WORD], rows[count, SPELLING] = tables.words[position], position
            rows[count, TREE_NODE] = ROOT
            count += 1
    for row in range(count):
        rows[row, PARENT] = parent
        rows[row, TOKEN] = token
        rows[row, HOT_STATE] = 0
        rows[row, STARTS_UNKNOWN] = 0
    return count


@kernel(allocates=False, inline=True)
def _hot_after(hot_state: int, ends: bool, token: int, tables: ScoreTables) -> int:
    """The state of the hot words after a token.

    Args:
        hot_state: the state before.
        ends: whether the word before the token ends.
        token: its id, or END_OF_TEXT.
        tables: hold the automaton.
    """
    if ends:
        hot_state = tables.hot_next[hot_state, -1]
    if token != END_OF_TEXT:
        for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
            hot_state = tables.hot_next[hot_state, tables.letters[position]]
    return hot_state
