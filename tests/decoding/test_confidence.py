"""Confidences: posteriors of a lattice are sums over its paths, whatever way they are computed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.confidence import LatticePosteriors
from asr.decoding.config import BeamConfig
from asr.decoding.kernel.arena import NODE, NONE, Merges, new_merges
from asr.decoding.lattice import FinalPrefixes, Lattice, paths
from asr.decoding.lattice import Path as LatticePath
from asr.lm.ngram.model import NgramModel
from asr.text.characters import CharTokenizer

TOKENIZER = CharTokenizer((" ", "a", "b"))
MANY = 20000  # more paths than any of these lattices has

Rows = Callable[..., Tensor]


def arena(parents: Sequence[int], words: Sequence[int] | None = None) -> Any:
    """Nodes; each completes a word of its own, where none are given."""
    nodes = np.zeros(len(parents), NODE)
    nodes["parent"] = parents
    nodes["word"] = [NONE, *range(1, len(parents))] if words is None else words
    return nodes


def merged(*rows: tuple[int, int, float]) -> Merges:
    """Merges: kept, dropped, log-ratio of each."""
    merges = new_merges(len(rows))
    merges.size[0] = len(rows)
    for merge, (kept, dropped, log_ratio) in enumerate(rows):
        merges.kept[merge], merges.dropped[merge], merges.log_ratio[merge] = kept, dropped, log_ratio
    return merges


def ends_at(*rows: tuple[int, int, float]) -> FinalPrefixes:
    """FinalPrefixes: node, word, score of each."""
    node, word, score = zip(*rows, strict=True)
    none = np.zeros(len(rows))
    return FinalPrefixes(np.array(node, np.int32), np.array(word, np.int32), np.array(score), none, none)


def by_enumeration(found: Sequence[LatticePath], path: LatticePath, scale: float) -> list[float]:
    """The share of the paths that lead through each node of a path."""
    weights = [math.exp(scale * (other.estimate - found[0].estimate)) for other in found]
    return [
        sum(weight for weight, other in zip(weights, found, strict=True) if node in other.nodes)
        / sum(weights)
        for node in path.nodes
    ]


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_posteriors_are_sums_over_all_paths(scale: float, random_rows: Rows) -> None:
    """Paths that are left out, counted twice, or weighed wrongly, in lattices of searches.

    Merges follow merges in them, there are several into a node, and some spell what others spell.
    """
    chained = 0
    for seed in range(12):
        log_probs = random_rows(seed, steps=6, vocab=4).double().numpy()
        config = BeamConfig(beam_size=6, nbest=2, beam_threshold=math.inf, lattice_threshold=math.inf)
        search = BeamDecoder(TOKENIZER, config)._search(0)
        search.advance(log_probs)
        nodes = search.beam.nodes[: search.beam.sizes[0]].copy()
        nodes["word"] = range(len(nodes))  # no two of them are the same
        nodes["word"][0] = NONE
        ends = replace(
            search.final_prefixes(), word=np.full(len(search.final_prefixes().node), NONE, np.int32)
        )
        lattice = Lattice(nodes, search.merges, ends)
        found = list(islice(paths(lattice), MANY))
        assert 10 < len(found) < MANY
        posteriors = LatticePosteriors(lattice, scale=scale, min_relative_prob=0.0)
        for path in found[:10]:
            assert posteriors.of(path) == pytest.approx(by_enumeration(found, path, scale), abs=1e-9)
        count = int(search.merges.size[0])
        chained += len(set(search.merges.kept[:count]) & set(search.merges.dropped[:count]))
    assert chained > 5


def test_two_merges_that_spell_the_same() -> None:
    """A text that two merges lead to, counted twice.

    Node 2 merged into 1, then 5, which is one longer, into 4: the path to 4 can become that to 5 by both, and
    the later one counts; node 3 knows only the first.
    """
    lattice = Lattice(
        arena([NONE, 0, 0, 1, 1, 2]),
        merged((1, 2, math.log(0.5)), (4, 5, math.log(0.25))),
        ends_at((4, NONE, 0.0), (3, NONE, math.log(0.4))),
    )
    best = next(paths(lattice))
    assert best.nodes == [1, 4]
    total = 1 + 0.25 + 0.4 * (1 + 0.5)
    assert LatticePosteriors(lattice, scale=1.0, min_relative_prob=0.0).of(best) == pytest.approx(
        [(1 + 0.4) / total, 1 / total]
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((10, 11, 12), [1, 1, 1]),
        ((10, 13, 12), [1, 0.8, 1]),  # another word
        ((10, 12), [1, 0.8, 1]),  # one is missing
        ((10, 11, 13, 12), [1, 1, 1]),  # one more
        ((12, 11, 10), [1, 0.8, 0.8]),  # the same in another order: one of them is in common
        ((14, 15, 16), [0.8, 0.8, 0.8]),
    ],
)
@pytest.mark.parametrize("ends", [False, True])
def test_words_of_other_paths(other: tuple[int, ...], expected: list[float], ends: bool) -> None:
    """A word that counts as another because it is at another node, or as the same although it is not.

    The words of the best path are 10, 11 and 12, and the other one has a fifth of its probability and a half
    of that: it merges, or ends, after its last word.
    """
    parents = [NONE, 0, 1, 2, *[0 if index == 0 else 3 + index for index in range(len(other))]]
    nodes = arena(parents, [NONE, 10, 11, 12, *other])
    last = len(parents) - 1
    lattice = Lattice(
        nodes,
        merged() if ends else merged((3, last, math.log(0.25))),
        ends_at((3, NONE, 0.0), *([(last, NONE, math.log(0.25))] if ends else [])),
    )
    best = next(paths(lattice))
    assert LatticePosteriors(lattice, scale=1.0, min_relative_prob=0.0).of(best) == pytest.approx(expected)


def test_a_word_that_comes_twice() -> None:
    """Two words of the best path that count as one because a word of another path is paired with both."""
    lattice = Lattice(
        arena([NONE, 0, 1, 2, 0], [NONE, 5, 6, 5, 5]),
        merged((1, 4, math.log(0.25)), (3, 4, math.log(0.25))),
        ends_at((3, NONE, 0.0)),
    )
    best = next(paths(lattice))
    posteriors = LatticePosteriors(lattice, scale=1.0, min_relative_prob=0.0)
    assert posteriors.of(best) == pytest.approx([1 / 1.5, 1.25 / 1.5, 1.0])


def test_words_that_ends_complete() -> None:
    """The last word, which no node completes, left out or counted with another one."""
    lattice = Lattice(
        arena([NONE, 0, 0], [NONE, 5, 6]),
        merged(),
        ends_at((1, 7, 0.0), (1, 8, math.log(0.5)), (2, 7, math.log(0.5))),
    )
    posteriors = LatticePosteriors(lattice, scale=1.0, min_relative_prob=0.0)
    assert [posteriors.of(path) for path in paths(lattice)] == [
        pytest.approx(wanted) for wanted in ([0.75, 0.75], [0.75, 0.25], [0.25, 0.75])
    ]


ARPA = """\\data\\
ngram 1=5

\\1-grams:
-2 <unk>
-99 <s>
-0.6 </s>
-0.6 a
-0.6 b

\\end\\
"""


def test_only_the_doubtful_word_is_doubted(tmp_path: Path) -> None:
    """Confidences at the wrong word, or of one of the two posteriors alone; or that depend on nbest."""
    (tmp_path / "words.arpa").write_text(ARPA)
    lm = NgramModel.load(tmp_path / "words.arpa")
    sure = {" ": [0.01, 0.97, 0.01, 0.01], "a": [0.01, 0.01, 0.97, 0.01], "b": [0.01, 0.01, 0.01, 0.97]}
    rows = torch.tensor([sure["a"], sure[" "], [0.02, 0.02, 0.5, 0.46], sure[" "], sure["b"]]).double().log()
    for nbest in (1, 3):
        decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=20, nbest=nbest), lm=lm)
        [[best, *others]] = decoder.decode(rows[None], torch.tensor([5]), 0.04)
        assert best.text == "a a b"
        first, second, third = (word.confidence for word in best.words)
        assert min(first, third) > second + 0.2
        assert second == pytest.approx(math.sqrt(0.5 * 0.5), abs=0.1)
        if others:
            assert others[0].text == "a b b"
            assert others[0].words[1].confidence == pytest.approx(0.46)  # of the output alone


def test_an_empty_text(tmp_path: Path) -> None:
    """A lattice without words."""
    (tmp_path / "words.arpa").write_text(ARPA)
    rows = torch.tensor([[[0.97, 0.01, 0.01, 0.01]] * 3]).double().log()
    decoder = BeamDecoder(TOKENIZER, lm=NgramModel.load(tmp_path / "words.arpa"))
    assert decoder.decode(rows, torch.tensor([3]), 0.04)[0][0].words == ()
