"""New prefixes: what a token makes of one, its score besides the acoustic one, its node; compiled.

A token moves a prefix along the lexicon tree, and where it ends a word, the word is scored. Within a word the
prefix carries the best that the words below its node of the tree could get from the language model's unigrams
(look-ahead); at the word's end that is taken back, so that look-ahead changes what the beam keeps, never a
final score.

Source: Ortmanns, Ney and Eiden, "Language-model look-ahead for large vocabulary speech recognition", 1996.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import INSIDE, NONE, ROOT, UNKNOWN, Beam
from asr.lm.ngram.packed import PackedNgrams, advance

__all__ = [
    "CHARACTERS", "COLUMNS", "END", "EXTERNAL", "LEAVES", "NO_LM", "PARENT", "TOKEN", "WORD", "WORDS",
    "Tables", "add_prefix", "add_prefixes", "fused_gain", "lm_score", "propose",
]  # fmt: skip

END = -1  # instead of a token: the end of the utterance

# Kinds of language model: none, n-grams of words or characters, or an object that is called from Python.
NO_LM, WORDS, CHARACTERS, EXTERNAL = 0, 1, 2, 3

# Columns of a proposal, a prefix that may be made: node of its parent, token, word that the token completes
# (a number, UNKNOWN or NONE), node of the lexicon tree, state of the hot words, and whether (0 or 1) the
# token begins a word outside the vocabulary or leaves it within one.
PARENT, TOKEN, WORD, TREE_NODE, HOT_STATE, LEAVES = 0, 1, 2, 3, 4, 5
COLUMNS = 6


class Tables(NamedTuple):
    """Everything that scores a prefix, as numba takes it.

    Attributes:
        scale: factor on log-probabilities.
        bias: (vocab,) float64: added to them after that: priors, blank.
        begins_word: (vocab,) bool: whether the token begins a word, so that the word before it ends.
        letter_start: (vocab + 1,) int32: where a token's letters begin in `letters`.
        letters: (letters of all tokens,) int32: numbers of letters from 0, token by token.
        separated: whether tokens show where words end; without it a word ends wherever one can.
        has_vocabulary: whether words come from the tree.
        allow_unknown: whether words outside the tree may be written.
        child_start: (tree nodes + 1,) int32: the children of node n begin at node child_start[n].
        letter: (tree nodes,) int32: the letter that leads to the node; ascending among siblings.
        word_start: (tree nodes + 1,) int32: where a node's words begin in `words`.
        words: (spellings,) int32: word numbers, node by node; several where words are spelled or sound alike.
        depth: (tree nodes + 1,) int32: letters from the root to the node; the last is for INSIDE, 0.
        look_ahead: (tree nodes + 1,) float64, weighted nats; the last is for INSIDE, 0.
        gain_within: (tree nodes + 1,) float64: the greatest factor by which a token within a word multiplies
            a prefix's probability.
        gain_end: (tree nodes + 1,) float64: likewise for tokens that end a word.
        word_bonus: nats per word.
        unknown_penalty: nats an unknown word.
        unknown_letter_penalty: nats a letter of it.
        word_boost: (words,) float64, nats: of hot words, where they are not found by their letters.
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
def _child(tree_node: int, letter: int, tables: Tables) -> int:
    """The node of the lexicon tree after one more letter, or NONE.

    Args:
        tree_node: the node before.
        letter: its number.
        tables: hold the tree.
    """
    low, high = int(tables.child_start[tree_node]), int(tables.child_start[tree_node + 1])
    while low < high:
        middle = (low + high) // 2
        if tables.letter[middle] < letter:
            low = middle + 1
        else:
            high = middle
    if low < tables.child_start[tree_node + 1] and tables.letter[low] == letter:
        return low
    return NONE


@kernel(allocates=False, inline=True)
def _walk(tree_node: int, token: int, tables: Tables) -> int:
    """The node of the lexicon tree after a token's letters, or INSIDE where the tree has no such word.

    Args:
        tree_node: the node before, or INSIDE.
        token: its id.
        tables: hold the tree.
    """
    for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
        if tree_node == INSIDE:
            return INSIDE
        tree_node = _child(tree_node, int(tables.letters[position]), tables)  # NONE is INSIDE
    return tree_node


@kernel(allocates=False, inline=True)
def propose(nodes: NDArray[Any], parent: int, token: int, tables: Tables, rows: NDArray[np.int32]) -> int:
    """What a prefix can become by one more token: more than one thing where words sound alike.

    Args:
        nodes: the arena.
        parent: the prefix.
        token: its id, or END.
        tables: what scores.
        rows: (max_proposals, COLUMNS) int32: filled from the top.

    Returns:
        How many rows are filled; 0 where no word of the vocabulary goes on like this.
    """
    tree_node, hot_state = (
        int(nodes[parent].tree_node),
        int(nodes[parent].hot_state),
    )  # one integer type, one compilation
    if not tables.separated:
        return _propose_joined(parent, token, tree_node, tables, rows)
    ends = token == END or tables.begins_word[token]
    after = ROOT if ends else tree_node
    if token != END:
        after = _walk(after, token, tables)
    if tables.has_vocabulary and not tables.allow_unknown and after == INSIDE:
        return 0
    leaves = tables.has_vocabulary and after == INSIDE and (ends or tree_node != INSIDE)
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
        rows[row, LEAVES] = leaves
        if not ends or tree_node == ROOT:
            rows[row, WORD] = NONE
        elif tree_node == INSIDE or first == NONE:
            rows[row, WORD] = UNKNOWN
        else:
            rows[row, WORD] = tables.words[first + row]
    return count


@kernel(allocates=False, inline=True)
def _propose_joined(parent: int, token: int, tree_node: int, tables: Tables, rows: NDArray[np.int32]) -> int:
    """`propose` where tokens do not show where words end: a word can end with its last letter.

    Args:
        parent: node of the prefix.
        token: its id, or END.
        tree_node: the prefix's node of the lexicon tree.
        tables: what scores.
        rows: (max_proposals, COLUMNS) int32: filled from the top.

    Returns:
        How many rows are filled.
    """
    count = 0
    if token == END or not tables.has_vocabulary:
        if tree_node != ROOT:
            return 0  # within a word
        rows[0, WORD] = NONE
        rows[0, TREE_NODE] = ROOT
        count = 1
    else:
        after = _walk(tree_node, token, tables)
        if after == INSIDE:
            return 0
        if tables.child_start[after] < tables.child_start[after + 1]:
            rows[0, WORD] = NONE
            rows[0, TREE_NODE] = after
            count = 1
        for position in range(tables.word_start[after], tables.word_start[after + 1]):
            rows[count, WORD] = tables.words[position]
            rows[count, TREE_NODE] = ROOT
            count += 1
    for row in range(count):
        rows[row, PARENT] = parent
        rows[row, TOKEN] = token
        rows[row, HOT_STATE] = 0
        rows[row, LEAVES] = 0
    return count


@kernel(allocates=False, inline=True)
def _hot_after(hot_state: int, ends: bool, token: int, tables: Tables) -> int:
    """The state of the hot words after a token.

    Args:
        hot_state: the state before.
        ends: whether the word before the token ends.
        token: its id, or END.
        tables: hold the automaton.
    """
    if ends:
        hot_state = tables.hot_next[hot_state, -1]
    if token != END:
        for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
            hot_state = tables.hot_next[hot_state, tables.letters[position]]
    return hot_state


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
    # one integer type, one compilation of `advance`
    state = int(np.int64(nodes[parent].lm_state))
    unknown = int(np.int64(0))
    log_prob = 0.0
    if tables.lm_kind == WORDS:
        word = row[WORD]
        if word >= 0:
            added, state = advance(lm, state, int(np.int64(tables.lm_ids[word])))
            log_prob += added
        elif word == UNKNOWN and nodes[parent].tree_node != INSIDE:
            added, state = advance(lm, state, unknown)
            log_prob += added
        if row[LEAVES]:
            added, state = advance(lm, state, unknown)
            log_prob += added
    elif tables.lm_kind == CHARACTERS and token != END:
        first, last = tables.letter_start[token], tables.letter_start[token + 1]
        if tables.begins_word[token] and (parent != ROOT or first == last):
            added, state = advance(lm, state, int(np.int64(tables.lm_ids[-1])))
            log_prob += added
        for position in range(first, last):
            added, state = advance(lm, state, int(np.int64(tables.lm_ids[tables.letters[position]])))
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
    ends = token == END or tables.begins_word[token]
    nats = -tables.look_ahead[before]
    if tables.lm_weight > 0.0:  # 0 times the logarithm of 0 is not a number
        nats += tables.lm_weight * lm_log_prob
    if token != END:
        nats += tables.look_ahead[row[TREE_NODE]]
    word = row[WORD]
    if word != NONE:
        nats += tables.word_bonus
        if word >= 0:
            nats += tables.word_boost[word]
        elif tables.has_vocabulary and before != INSIDE:
            nats += tables.unknown_penalty + tables.unknown_letter_penalty * tables.depth[before]
    if row[LEAVES] or (tables.has_vocabulary and before == INSIDE and not ends):
        letters = tables.letter_start[token + 1] - tables.letter_start[token]
        if row[LEAVES]:
            nats += tables.unknown_penalty
            letters += 0 if ends else tables.depth[before]  # those that the tree still held
        nats += tables.unknown_letter_penalty * letters
    if ends:
        nats += tables.hot_gain[hot_state]  # 0 where no word ends
    if token == END:
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
    number = beam.sizes[0]
    beam.sizes[0] += 1
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
