"""What a prefix is worth beside its acoustics: words, language model, hot words: the compiled part.

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
from asr.lm.ngram.packed import PackedNgrams
from asr.lm.ngram.packed import advance as say_one

__all__ = [
    "CHARACTERS", "COLUMNS", "END", "EXTERNAL", "LEAVES", "NO_LM", "PARENT", "TOKEN", "WORD", "WORDS",
    "Tables", "add", "add_all", "gained", "propose", "say",
]  # fmt: skip

END = -1  # in place of a token: the end of the utterance

# Kinds of language model: none, n-grams of words or characters, or an object that only Python can ask.
NO_LM, WORDS, CHARACTERS, EXTERNAL = 0, 1, 2, 3

# Columns of a proposal, a prefix that may be made.
PARENT, TOKEN, WORD, LEX, HOT, LEAVES = 0, 1, 2, 3, 4, 5
COLUMNS = 6


class Tables(NamedTuple):
    """Everything that scores a prefix, as numba takes it.

    Attributes:
        scale: factor on log-probabilities.
        bias: (vocab,) float64: added to them after that: priors, blank.
        begins: (vocab,) bool: whether the token ends the word before it.
        letter_start: (vocab + 1,) int32: where a token's letters begin in `letters`.
        letters: int32: numbers of letters from 0, token by token.
        separated: whether tokens say where words end; without it a word ends wherever one can.
        vocabulary: whether words come from the tree.
        unknown: whether words outside the tree may be written.
        child_start: (tree nodes + 1,) int32: the children of node n begin at node child_start[n].
        letter: (tree nodes,) int32: the letter that leads to the node; ascending among siblings.
        word_start: (tree nodes + 1,) int32: where a node's words begin in `words`.
        words: int32: word numbers, node by node; several where words are spelt or sound alike.
        depth: (tree nodes + 1,) int32: letters from the root to the node; the last is for INSIDE, 0.
        ahead: (tree nodes + 1,) float64, weighted nats: look-ahead; the last is for INSIDE, 0.
        gain_within: (tree nodes + 1,) float64: the most by which a token within a word raises a mass.
        gain_end: (tree nodes + 1,) float64: likewise for tokens that end a word.
        word_bonus: nats a word.
        unknown_penalty: nats an unknown word.
        unknown_letter_penalty: nats a letter of it.
        word_boost: (words,) float64, nats: of hot words, where they are not found by their letters.
        hot_next: (hot states, letters + 1) int32: by letter; last column: a word's end.
        hot_value: (hot states,) float64: nats that a begun hot word has been given in advance.
        hot_gain: (hot states,) float64: nats for the hot words that are complete if the word ends here.
        lm_kind: one of the kinds of language model.
        lm_weight: factor on the language model's log-probabilities.
        symbol: int32: the language model's id of each word, or of each letter and, last, of the space.
        most_proposals: most rows that `propose` fills.
    """

    scale: float
    bias: NDArray[np.float64]
    begins: NDArray[np.bool_]
    letter_start: NDArray[np.int32]
    letters: NDArray[np.int32]
    separated: bool
    vocabulary: bool
    unknown: bool
    child_start: NDArray[np.int32]
    letter: NDArray[np.int32]
    word_start: NDArray[np.int32]
    words: NDArray[np.int32]
    depth: NDArray[np.int32]
    ahead: NDArray[np.float64]
    gain_within: NDArray[np.float64]
    gain_end: NDArray[np.float64]
    word_bonus: float
    unknown_penalty: float
    unknown_letter_penalty: float
    word_boost: NDArray[np.float64]
    hot_next: NDArray[np.int32]
    hot_value: NDArray[np.float64]
    hot_gain: NDArray[np.float64]
    lm_kind: int
    lm_weight: float
    symbol: NDArray[np.int32]
    most_proposals: int


@kernel(allocates=False, inline=True)
def _child(lex: int, letter: int, tables: Tables) -> int:
    """The tree's node after one more letter, or NONE."""
    low, high = int(tables.child_start[lex]), int(tables.child_start[lex + 1])
    while low < high:
        middle = (low + high) // 2
        if tables.letter[middle] < letter:
            low = middle + 1
        else:
            high = middle
    if low < tables.child_start[lex + 1] and tables.letter[low] == letter:
        return low
    return NONE


@kernel(allocates=False, inline=True)
def _walk(lex: int, token: int, tables: Tables) -> int:
    """The tree's node after a token's letters, or INSIDE where the tree has no such word."""
    for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
        if lex == INSIDE:
            return INSIDE
        lex = _child(lex, int(tables.letters[position]), tables)  # NONE is INSIDE
    return lex


@kernel(allocates=False, inline=True)
def propose(nodes: NDArray[Any], parent: int, token: int, tables: Tables, rows: NDArray[np.int32]) -> int:
    """What a prefix becomes by one more token: more than one thing where words sound alike.

    Args:
        nodes: the arena.
        parent: the prefix.
        token: what comes, or END.
        tables: what scores.
        rows: (many, COLUMNS) int32: filled from the top.

    Returns:
        How many rows; 0 where no word of the vocabulary goes on so.
    """
    lex, hot = int(nodes[parent].lex), int(nodes[parent].hot)  # one integer type, one compilation
    if not tables.separated:
        return _propose_joined(parent, token, lex, tables, rows)
    ends = token == END or tables.begins[token]
    after = ROOT if ends else lex
    if token != END:
        after = _walk(after, token, tables)
    if tables.vocabulary and not tables.unknown and after == INSIDE:
        return 0
    leaves = tables.vocabulary and after == INSIDE and (ends or lex != INSIDE)
    hot = _hot_after(hot, ends, token, tables)
    count = 1
    first = 0
    if ends and lex > ROOT:
        first = tables.word_start[lex]
        count = tables.word_start[lex + 1] - first
        if count == 0:
            if not tables.unknown:
                return 0
            count, first = 1, NONE
    for row in range(count):
        rows[row, PARENT] = parent
        rows[row, TOKEN] = token
        rows[row, LEX] = after
        rows[row, HOT] = hot
        rows[row, LEAVES] = leaves
        if not ends or lex == ROOT:
            rows[row, WORD] = NONE
        elif lex == INSIDE or first == NONE:
            rows[row, WORD] = UNKNOWN
        else:
            rows[row, WORD] = tables.words[first + row]
    return count


@kernel(allocates=False, inline=True)
def _propose_joined(parent: int, token: int, lex: int, tables: Tables, rows: NDArray[np.int32]) -> int:
    """`propose` where a word ends wherever one can: at once, with its last token."""
    count = 0
    if token == END or not tables.vocabulary:
        if lex != ROOT:
            return 0  # within a word
        rows[0, WORD] = NONE
        rows[0, LEX] = ROOT
        count = 1
    else:
        after = _walk(lex, token, tables)
        if after == INSIDE:
            return 0
        if tables.child_start[after] < tables.child_start[after + 1]:
            rows[0, WORD] = NONE
            rows[0, LEX] = after
            count = 1
        for position in range(tables.word_start[after], tables.word_start[after + 1]):
            rows[count, WORD] = tables.words[position]
            rows[count, LEX] = ROOT
            count += 1
    for row in range(count):
        rows[row, PARENT] = parent
        rows[row, TOKEN] = token
        rows[row, HOT] = 0
        rows[row, LEAVES] = 0
    return count


@kernel(allocates=False, inline=True)
def _hot_after(hot: int, ends: bool, token: int, tables: Tables) -> int:
    """The state of the hot words after a token."""
    if ends:
        hot = tables.hot_next[hot, -1]
    if token != END:
        for position in range(tables.letter_start[token], tables.letter_start[token + 1]):
            hot = tables.hot_next[hot, tables.letters[position]]
    return hot


@kernel(allocates=False, inline=True)
def say(nodes: NDArray[Any], row: NDArray[np.int32], tables: Tables, lm: PackedNgrams) -> tuple[float, int]:
    """What an n-gram model says of a proposal, and its state after it.

    Words are said when they end, those outside the vocabulary when they leave it; characters one by one. A
    first token that both begins a word and has letters begins with no space.

    Returns:
        nats, not weighted; the state.
    """
    parent, token = row[PARENT], row[TOKEN]
    # one integer type, one compilation of `advance`
    state = int(np.int64(nodes[parent].state))
    unknown = int(np.int64(0))
    nats = 0.0
    if tables.lm_kind == WORDS:
        word = row[WORD]
        if word >= 0:
            said, state = say_one(lm, state, int(np.int64(tables.symbol[word])))
            nats += said
        elif word == UNKNOWN and nodes[parent].lex != INSIDE:
            said, state = say_one(lm, state, unknown)
            nats += said
        if row[LEAVES]:
            said, state = say_one(lm, state, unknown)
            nats += said
    elif tables.lm_kind == CHARACTERS and token != END:
        first, last = tables.letter_start[token], tables.letter_start[token + 1]
        if tables.begins[token] and (parent != ROOT or first == last):
            said, state = say_one(lm, state, int(np.int64(tables.symbol[-1])))
            nats += said
        for position in range(first, last):
            said, state = say_one(lm, state, int(np.int64(tables.symbol[tables.letters[position]])))
            nats += said
    return nats, state


@kernel(allocates=False, inline=True)
def gained(nodes: NDArray[Any], row: NDArray[np.int32], lm: float, tables: Tables) -> float:
    """The fused nats that a proposal adds to its parent's.

    Args:
        nodes: the arena.
        row: (COLUMNS,) int32: the proposal.
        lm: what the language model says of the proposal, nats, not weighted.
        tables: what scores.
    """
    before, hot = nodes[row[PARENT]].lex, nodes[row[PARENT]].hot
    token = row[TOKEN]
    ends = token == END or tables.begins[token]
    nats = -tables.ahead[before]
    if tables.lm_weight > 0.0:  # 0 times the logarithm of 0 is no number
        nats += tables.lm_weight * lm
    if token != END:
        nats += tables.ahead[row[LEX]]
    word = row[WORD]
    if word != NONE:
        nats += tables.word_bonus
        if word >= 0:
            nats += tables.word_boost[word]
        elif tables.vocabulary and before != INSIDE:
            nats += tables.unknown_penalty + tables.unknown_letter_penalty * tables.depth[before]
    if row[LEAVES] or (tables.vocabulary and before == INSIDE and not ends):
        letters = tables.letter_start[token + 1] - tables.letter_start[token]
        if row[LEAVES]:
            nats += tables.unknown_penalty
            letters += 0 if ends else tables.depth[before]  # those that the tree still held
        nats += tables.unknown_letter_penalty * letters
    if ends:
        nats += tables.hot_gain[hot]  # 0 where no word ends
    if token == END:
        return float(nats - tables.hot_value[hot])
    return float(nats + tables.hot_value[row[HOT]] - tables.hot_value[hot])


@kernel(allocates=False, inline=True)
def add(beam: Beam, row: NDArray[np.int32], lm: float, state: int, tables: Tables) -> None:
    """Make the prefix of a proposal; the arena must have room.

    Args:
        beam: gets the prefix into its arena.
        row: (COLUMNS,) int32: the proposal.
        lm: what the language model says of it, nats, not weighted.
        state: of the language model after it.
        tables: what scores.
    """
    nodes = beam.nodes
    nats = gained(nodes, row, lm, tables)
    number = beam.sizes[0]
    beam.sizes[0] += 1
    parent = row[PARENT]
    node = nodes[number]
    node.parent = parent
    node.token = row[TOKEN]
    node.child = NONE
    node.sibling = nodes[parent].child
    nodes[parent].child = number
    node.slot = NONE
    node.word = row[WORD]
    node.lex = row[LEX]
    node.state = state
    node.hot = row[HOT]
    node.factor = math.exp(nats)
    node.fused = nodes[parent].fused + nats
    node.lm = nodes[parent].lm + lm


@kernel(allocates=False)
def add_all(
    beam: Beam, rows: NDArray[np.int32], lm: NDArray[np.float64], states: NDArray[np.int64], tables: Tables
) -> None:
    """`add` for each of (n, COLUMNS) proposals."""
    for row in range(rows.shape[0]):
        add(beam, rows[row], lm[row], states[row], tables)
