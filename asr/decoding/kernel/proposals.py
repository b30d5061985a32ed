"""Proposals: what one more token can make of a prefix, along the lexicon tree; compiled."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import NONE, OOV_WORD, OUT_OF_TREE, TREE_ROOT

__all__ = [
    "CHARACTER_LM", "END_OF_TEXT", "NO_LM", "PROPOSAL", "PYTHON_LM", "WORD_LM", "ScoreTables",
    "fill_proposal", "propose",
]  # fmt: skip

END_OF_TEXT = -1  # instead of a token: the end of the utterance

# Kinds of language model: none, n-grams of words or characters, or an object that is called from Python.
NO_LM, WORD_LM, CHARACTER_LM, PYTHON_LM = 0, 1, 2, 3

# A prefix that may be made. Numba reads the fields by name.
PROPOSAL = np.dtype(
    [
        ("parent", np.int32),  # the prefix without its last token, a node of the arena
        ("token", np.int32),  # its id, or END_OF_TEXT
        ("word", np.int32),  # the word that the token completes: its id, OOV_WORD or NONE
        ("spelling", np.int32),  # index of this word's spelling in `ScoreTables.words`, or NONE
        ("tree_node", np.int32),  # node of the lexicon tree, or OUT_OF_TREE
        ("hot_state", np.int32),  # state of the hot words
        ("starts_oov", np.int32),  # 1 where the token begins an unknown word or leaves the tree, else 0
    ]
)


class ScoreTables(NamedTuple):
    """Everything that scores a prefix, as numba takes it.

    Attributes:
        scale: factor on log-probabilities.
        bias: (vocab,) float64: added to them after that: priors, blank.
        begins_word: (vocab,) bool: whether the token begins a word, so that the word before it ends.
        symbol_start: (vocab + 1,) int32: where a token's symbols begin in `symbols`.
        symbols: (symbols of all tokens,) int32: their ids from 0, token by token.
        separated: whether tokens show where words end; without it a word can end with each of its symbols.
        has_vocabulary: whether words come from the tree.
        allow_unknown: whether words outside the tree may be written.
        child_start: (tree nodes + 1,) int32: the children of node n begin at node child_start[n].
        symbol: (tree nodes,) int32: the symbol that leads to the node; ascending among siblings.
        word_start: (tree nodes + 1,) int32: where a node's words begin in `words`.
        words: (spellings,) int32: word ids, node by node; more than one where they are spelled or
            sound alike.
        spelling_log_prob: (spellings,) float64, weighted nats, at most 0: of each element of `words`.
        depth: (tree nodes + 1,) int32: symbols from the root to the node; the last is for OUT_OF_TREE, 0.
        look_ahead: (tree nodes + 1,) float64, weighted nats; the last is for OUT_OF_TREE, 0.
        max_gain_within: (tree nodes + 1,) float64: the greatest factor by which a token within a word
            multiplies a prefix's probability.
        max_gain_word_end: (tree nodes + 1,) float64: likewise for tokens that end a word.
        word_bonus: nats per word.
        unknown_penalty: nats an unknown word.
        unknown_letter_penalty: nats a symbol of it.
        word_boost: (words,) float64, nats: of hot words that are not found by their symbols, and the penalty
            of words that the language model does not know.
        hot_next: (hot states, symbols + 1) int32: by symbol; last column: a word's end.
        hot_advance: (hot states,) float64: nats that a hot word that has begun is given in advance.
        hot_gain: (hot states,) float64: nats for the hot words that are complete if the word ends here.
        lm_kind: one of the kinds of language model.
        lm_weight: factor on the language model's log-probabilities.
        word_lm_ids: (words,) int32: id of each word in an n-gram model of words.
        symbol_lm_ids: (symbols + 1,) int32: id of each symbol and, last, of the space in one of characters.
        max_proposals: most proposals that `propose` makes.
    """

    scale: float
    bias: NDArray[np.float64]
    begins_word: NDArray[np.bool_]
    symbol_start: NDArray[np.int32]
    symbols: NDArray[np.int32]
    separated: bool
    has_vocabulary: bool
    allow_unknown: bool
    child_start: NDArray[np.int32]
    symbol: NDArray[np.int32]
    word_start: NDArray[np.int32]
    words: NDArray[np.int32]
    spelling_log_prob: NDArray[np.float64]
    depth: NDArray[np.int32]
    look_ahead: NDArray[np.float64]
    max_gain_within: NDArray[np.float64]
    max_gain_word_end: NDArray[np.float64]
    word_bonus: float
    unknown_penalty: float
    unknown_letter_penalty: float
    word_boost: NDArray[np.float64]
    hot_next: NDArray[np.int32]
    hot_advance: NDArray[np.float64]
    hot_gain: NDArray[np.float64]
    lm_kind: int
    lm_weight: float
    word_lm_ids: NDArray[np.int32]
    symbol_lm_ids: NDArray[np.int32]
    max_proposals: int


@kernel(allocates=False, inline=True)
def _child(tree_node: int, symbol: int, tables: ScoreTables) -> int:
    """The node of the lexicon tree after one more symbol, or NONE.

    Args:
        tree_node: the node before.
        symbol: its id.
        tables: hold the tree.
    """
    low, high = tables.child_start[tree_node], tables.child_start[tree_node + 1]
    while low < high:
        middle = (low + high) // 2
        if tables.symbol[middle] < symbol:
            low = middle + 1
        else:
            high = middle
    if low < tables.child_start[tree_node + 1] and tables.symbol[low] == symbol:
        return int(low)
    return NONE


@kernel(allocates=False, inline=True)
def _walk(tree_node: int, token: int, tables: ScoreTables) -> int:
    """The node of the lexicon tree after a token's symbols, or OUT_OF_TREE where the tree has no such word.

    Args:
        tree_node: the node before, or OUT_OF_TREE.
        token: its id.
        tables: hold the tree.
    """
    for position in range(tables.symbol_start[token], tables.symbol_start[token + 1]):
        if tree_node == OUT_OF_TREE:
            return OUT_OF_TREE
        tree_node = _child(tree_node, tables.symbols[position], tables)  # NONE is OUT_OF_TREE
    return tree_node


@kernel(allocates=False, inline=True)
def fill_proposal(
    proposal: Any,
    parent: int,
    token: int,
    word: int,
    spelling: int,
    tree_node: int,
    hot_state: int,
    starts_oov: bool,
) -> None:
    """Write the fields of a proposal, see PROPOSAL."""
    proposal.parent = parent
    proposal.token = token
    proposal.word = word
    proposal.spelling = spelling
    proposal.tree_node = tree_node
    proposal.hot_state = hot_state
    proposal.starts_oov = 1 if starts_oov else 0


@kernel(allocates=False, inline=True)
def propose(
    nodes: NDArray[Any], parent: int, token: int, tables: ScoreTables, proposals: NDArray[Any]
) -> int:
    """What a prefix can become by one more token: more than one thing where words sound alike.

    Where the prefix is      the token begins a word, or END_OF_TEXT        the token goes on with the word
    ---------------------    -------------------------------------------    -------------------------------
    TREE_ROOT                completes nothing                              down the tree, or out of it
    in the tree              completes each word of the node, else OOV      down the tree, or out of it
    OUT_OF_TREE              completes OOV                                  stays out of it

    A token that begins a word goes down the tree from its root, or out of it. Where unknown words are
    forbidden, there is no proposal instead of OOV or of leaving the tree.

    Args:
        nodes: (capacity,) NODE: the arena.
        parent: the prefix.
        token: its id, or END_OF_TEXT.
        tables: what scores.
        proposals: (max_proposals,) PROPOSAL: filled from the first on.

    Returns:
        How many there are.
    """
    tree_node, hot_state = nodes[parent].tree_node, nodes[parent].hot_state
    if not tables.separated:
        return _propose_joined(parent, token, tree_node, tables, proposals)
    completes_word = token == END_OF_TEXT or tables.begins_word[token]
    next_tree_node = TREE_ROOT if completes_word else tree_node
    if token != END_OF_TEXT:
        next_tree_node = _walk(next_tree_node, token, tables)
    is_oov = tables.has_vocabulary and next_tree_node == OUT_OF_TREE
    if is_oov and not tables.allow_unknown:
        return 0
    starts_oov = is_oov and (completes_word or tree_node != OUT_OF_TREE)
    hot_state = _hot_after(hot_state, completes_word, token, tables)
    if not completes_word or tree_node == TREE_ROOT:
        fill_proposal(proposals[0], parent, token, NONE, NONE, next_tree_node, hot_state, starts_oov)
        return 1
    first, count, completes_oov = _completed_words(tree_node, tables)
    for index in range(count):
        word, spelling = OOV_WORD, NONE
        if not completes_oov:
            spelling = first + index
            word = tables.words[spelling]
        fill_proposal(proposals[index], parent, token, word, spelling, next_tree_node, hot_state, starts_oov)
    return count


@kernel(allocates=False, inline=True)
def _completed_words(tree_node: int, tables: ScoreTables) -> tuple[int, int, bool]:
    """The words that end with a prefix within a word.

    Args:
        tree_node: the prefix's node of the lexicon tree, not its root; or OUT_OF_TREE.
        tables: hold the tree.

    Returns:
        The first of them in `tables.words`; how many there are; whether it is one outside the vocabulary
        instead, which `tables.words` does not hold.
    """
    if tree_node != OUT_OF_TREE:
        first = tables.word_start[tree_node]
        count = tables.word_start[tree_node + 1] - first
        if count > 0:
            return first, count, False
    return NONE, 1 if tables.allow_unknown else 0, True


@kernel(allocates=False, inline=True)
def _propose_joined(
    parent: int, token: int, tree_node: int, tables: ScoreTables, proposals: NDArray[Any]
) -> int:
    """`propose` where tokens do not show where words end: a word can end with its last symbol.

    Args:
        parent: node of the prefix.
        token: its id, or END_OF_TEXT.
        tree_node: the prefix's node of the lexicon tree.
        tables: what scores.
        proposals: (max_proposals,) PROPOSAL: filled from the first on.

    Returns:
        How many there are.
    """
    if token == END_OF_TEXT or not tables.has_vocabulary:
        if tree_node != TREE_ROOT:
            return 0  # within a word
        fill_proposal(proposals[0], parent, token, NONE, NONE, TREE_ROOT, 0, False)
        return 1
    next_tree_node = _walk(tree_node, token, tables)
    if next_tree_node == OUT_OF_TREE:
        return 0
    count = 0
    if tables.child_start[next_tree_node] < tables.child_start[next_tree_node + 1]:
        fill_proposal(proposals[0], parent, token, NONE, NONE, next_tree_node, 0, False)
        count = 1
    for spelling in range(tables.word_start[next_tree_node], tables.word_start[next_tree_node + 1]):
        fill_proposal(proposals[count], parent, token, tables.words[spelling], spelling, TREE_ROOT, 0, False)
        count += 1
    return count


@kernel(allocates=False, inline=True)
def _hot_after(hot_state: int, completes_word: bool, token: int, tables: ScoreTables) -> int:
    """The state of the hot words after a token.

    Args:
        hot_state: the state before.
        completes_word: whether the word before the token ends.
        token: its id, or END_OF_TEXT.
        tables: hold the automaton.
    """
    if completes_word:
        hot_state = tables.hot_next[hot_state, -1]
    if token != END_OF_TEXT:
        for position in range(tables.symbol_start[token], tables.symbol_start[token + 1]):
            hot_state = tables.hot_next[hot_state, tables.symbols[position]]
    return hot_state
