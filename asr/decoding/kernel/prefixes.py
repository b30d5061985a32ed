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
from asr.decoding.kernel.arena import (
    EMPTY_PREFIX,
    N_NODES,
    N_PREFIXES,
    NONE,
    OOV_WORD,
    OUT_OF_TREE,
    TREE_ROOT,
    Beam,
)
from asr.decoding.kernel.proposals import (
    CHARACTER_LM,
    END_OF_TEXT,
    PROPOSAL,
    WORD_LM,
    ScoreTables,
    fill_proposal,
    propose,
)
from asr.lm.ngram.packed import PackedNgrams, advance
from asr.lm.ngram.trie import UNK_ID

__all__ = [
    "add_prefix",
    "add_prefixes",
    "advance_lm",
    "fused_score_delta",
    "propose_ends",
    "score_final_prefixes",
]


@kernel(allocates=False, inline=True)
def advance_lm(
    nodes: NDArray[Any], proposal: Any, tables: ScoreTables, lm: PackedNgrams
) -> tuple[float, int]:
    """The log-probability that an n-gram model gives to a proposal, and its state after it.

    A word is scored when it ends, one outside the vocabulary when it leaves the tree; characters are scored
    one by one. A first token that both begins a word and has symbols is scored without a space before it.

    Args:
        nodes: (capacity,) NODE: the arena.
        proposal: an element of an array of PROPOSAL.
        tables: hold the kind of model and its ids.
        lm: the model.

    Returns:
        nats, not weighted; the state.
    """
    parent, token = proposal.parent, proposal.token
    state = nodes[parent].lm_state
    log_prob = 0.0
    if tables.lm_kind == WORD_LM:
        word = proposal.word
        if word >= 0:
            added, state = advance(lm, state, tables.word_lm_ids[word])
            log_prob += added
        elif word == OOV_WORD and nodes[parent].tree_node != OUT_OF_TREE:
            added, state = advance(lm, state, UNK_ID)
            log_prob += added
        if proposal.starts_oov:
            added, state = advance(lm, state, UNK_ID)
            log_prob += added
    elif tables.lm_kind == CHARACTER_LM and token != END_OF_TEXT:
        first, last = tables.symbol_start[token], tables.symbol_start[token + 1]
        if tables.begins_word[token] and (parent != EMPTY_PREFIX or first == last):
            added, state = advance(lm, state, tables.symbol_lm_ids[-1])
            log_prob += added
        for position in range(first, last):
            added, state = advance(lm, state, tables.symbol_lm_ids[tables.symbols[position]])
            log_prob += added
    return log_prob, state


@kernel(allocates=False, inline=True)
def fused_score_delta(nodes: NDArray[Any], proposal: Any, lm_log_prob: float, tables: ScoreTables) -> float:
    """What a proposal adds to the fused score of its parent, nats.

    Args:
        nodes: (capacity,) NODE: the arena.
        proposal: an element of an array of PROPOSAL.
        lm_log_prob: of the proposal by the language model, nats, not weighted.
        tables: what scores.
    """
    before, hot_state = nodes[proposal.parent].tree_node, nodes[proposal.parent].hot_state
    token = proposal.token
    completes_word = token == END_OF_TEXT or tables.begins_word[token]
    nats = -tables.look_ahead[before]
    if tables.lm_weight > 0.0:  # 0 times the logarithm of 0 is not a number
        nats += tables.lm_weight * lm_log_prob
    if token != END_OF_TEXT:
        nats += tables.look_ahead[proposal.tree_node]
    word = proposal.word
    if word != NONE:
        nats += tables.word_bonus
        if word >= 0:
            nats += tables.word_boost[word] + tables.spelling_log_prob[proposal.spelling]
        elif tables.has_vocabulary and before != OUT_OF_TREE:
            nats += tables.unknown_penalty + tables.unknown_letter_penalty * tables.depth[before]
    if proposal.starts_oov or (tables.has_vocabulary and before == OUT_OF_TREE and not completes_word):
        symbols = tables.symbol_start[token + 1] - tables.symbol_start[token]
        if proposal.starts_oov:
            nats += tables.unknown_penalty
            symbols += 0 if completes_word else tables.depth[before]  # those that the tree still held
        nats += tables.unknown_letter_penalty * symbols
    if completes_word:
        nats += tables.hot_gain[hot_state]  # 0 where no word ends
    if token == END_OF_TEXT:
        return float(nats - tables.hot_advance[hot_state])
    return float(nats + tables.hot_advance[proposal.hot_state] - tables.hot_advance[hot_state])


@kernel(allocates=False, inline=True)
def add_prefix(beam: Beam, proposal: Any, lm_log_prob: float, lm_state: int, tables: ScoreTables) -> None:
    """Make the prefix of a proposal; the arena must have room.

    Args:
        beam: gets the prefix into its arena.
        proposal: an element of an array of PROPOSAL.
        lm_log_prob: of the proposal by the language model, nats, not weighted.
        lm_state: of the language model after it.
        tables: what scores.
    """
    nodes = beam.nodes
    nats = fused_score_delta(nodes, proposal, lm_log_prob, tables)
    index = beam.sizes[N_NODES]
    beam.sizes[N_NODES] += 1
    parent = proposal.parent
    node = nodes[index]
    node.parent = parent
    node.token = proposal.token
    node.child = NONE
    node.sibling = nodes[parent].child
    nodes[parent].child = index
    node.beam_index = NONE
    node.word = proposal.word
    node.tree_node = proposal.tree_node
    node.lm_state = lm_state
    node.hot_state = proposal.hot_state
    node.factor = math.exp(nats)
    node.fused_score = nodes[parent].fused_score + nats
    node.lm_log_prob = nodes[parent].lm_log_prob + lm_log_prob


@kernel(allocates=False)
def add_prefixes(
    beam: Beam,
    proposals: NDArray[Any],
    lm_log_probs: NDArray[np.float64],
    lm_states: NDArray[np.int64],
    tables: ScoreTables,
) -> None:
    """Make the prefixes of proposals; the arena must have room.

    Args:
        beam: gets the prefixes into its arena.
        proposals: (n,) PROPOSAL.
        lm_log_probs: (n,) float64 nats of each by the language model, not weighted.
        lm_states: (n,) int64: of the language model after each.
        tables: what scores.
    """
    for index in range(proposals.shape[0]):
        add_prefix(beam, proposals[index], lm_log_probs[index], lm_states[index], tables)


# -------------------------------------------------------------------------------- the end of an utterance


def propose_ends(beam: Beam, tables: ScoreTables) -> NDArray[Any]:
    """What the prefixes of the beam become if the utterance ends here.

    Where all of them are within a word that may not end there, each ends with an unknown word, which
    `BeamSearch.finish` leaves out where unknown words are forbidden.

    Args:
        beam: the search, at its end.
        tables: what scores.

    Returns:
        (ends,) PROPOSAL.
    """
    proposals = np.empty(int(beam.sizes[N_PREFIXES]) * tables.max_proposals, PROPOSAL)
    return proposals[: _propose_ends(beam, tables, proposals)]


@kernel(allocates=False)
def _propose_ends(beam: Beam, tables: ScoreTables, proposals: NDArray[Any]) -> int:
    """`propose_ends` into the first of `proposals`, (at least ends,) PROPOSAL; returns how many."""
    count = 0
    for index in range(beam.sizes[N_PREFIXES]):
        count += propose(beam.nodes, beam.node[index], END_OF_TEXT, tables, proposals[count:])
    if count == 0:
        for index in range(beam.sizes[N_PREFIXES]):
            fill_proposal(
                proposals[index], beam.node[index], END_OF_TEXT, OOV_WORD, NONE, TREE_ROOT, 0, False
            )
            count += 1
    return count


@kernel(allocates=False)
def score_final_prefixes(
    beam: Beam,
    proposals: NDArray[Any],
    tables: ScoreTables,
    lm: PackedNgrams,
    end_id: int,
    score: NDArray[np.float64],
    fused_score: NDArray[np.float64],
    lm_log_prob: NDArray[np.float64],
) -> None:
    """The search's scores of the texts that `propose_ends` gave.

    Args:
        beam: the search, at its end.
        proposals: (ends,) PROPOSAL.
        tables: what scores.
        lm: the n-gram model, if it is one.
        end_id: its id of `</s>`.
        score: (ends,) float64: gets the score of each, nats.
        fused_score: (ends,) float64: gets the part of it that is not acoustic.
        lm_log_prob: (ends,) float64 nats: gets the language model's log-probability of the whole text,
            unweighted; holds that of the end by a language model in Python, 0 for others.
    """
    for index in range(proposals.shape[0]):
        proposal = proposals[index]
        node = beam.nodes[proposal.parent]
        log_prob = lm_log_prob[index]
        if tables.lm_kind == WORD_LM or tables.lm_kind == CHARACTER_LM:
            log_prob, state = advance_lm(beam.nodes, proposal, tables, lm)
            log_prob += advance(lm, state, end_id)[0]
        delta = fused_score_delta(beam.nodes, proposal, log_prob, tables)
        total = beam.blank_prob[node.beam_index] + beam.nonblank_prob[node.beam_index]
        score[index] = math.log(total) + beam.log_scale[0] + delta
        fused_score[index] = node.fused_score + delta
        lm_log_prob[index] = node.lm_log_prob + log_prob
