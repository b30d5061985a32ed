"""The tree of a vocabulary against dictionaries."""

import itertools
import random

import numpy as np
import pytest

from asr.decoding.kernel.lexicon_tree import LexiconTree, best_below, build_tree


def walk(tree: LexiconTree, letters: tuple[int, ...]) -> int | None:
    node = 0
    for letter in letters:
        below = range(tree.child_start[node], tree.child_start[node + 1])
        found = [child for child in below if tree.letter[child] == letter]
        if not found:
            return None
        [node] = found
    return node


@pytest.mark.parametrize("seed", range(5))
def test_every_spelling_is_found_and_nothing_else(seed: int) -> None:
    """Guards shared beginnings, words within words, homophones, and the order of siblings."""
    chance = random.Random(seed)
    spellings = {
        (word, tuple(chance.randrange(3) for _ in range(chance.randint(1, 5))))
        for word in range(40)
        for _ in "ab"
    }
    tree = build_tree(sorted(spellings))
    scores = np.array([chance.uniform(-9, 0) for _ in range(40)])
    best = best_below(tree, scores[tree.words])
    prefixes = {spelled[:length] for _, spelled in spellings for length in range(len(spelled) + 1)}
    assert len(tree.letter) == len(prefixes)
    for length in range(6):
        for letters in itertools.product(range(3), repeat=length):
            node = walk(tree, letters)
            assert (node is not None) == (letters in prefixes)
            if node is None:
                continue
            here = {word for word, spelled in spellings if spelled == letters}
            assert set(tree.words[tree.word_start[node] : tree.word_start[node + 1]].tolist()) == here
            below = [scores[word] for word, spelled in spellings if spelled[:length] == letters]
            assert best[node] == max(below)
    for node in range(len(tree.letter)):
        siblings = tree.letter[tree.child_start[node] : tree.child_start[node + 1]]
        assert (np.diff(siblings) > 0).all()
