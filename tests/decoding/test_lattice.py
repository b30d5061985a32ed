"""Lists of hypotheses from the lattice: the best text is that of one, and every score is a text's own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.kernel.arena import NODE, NONE, new_merges
from asr.decoding.lattice import Ends, paths
from asr.lm.ngram.model import NgramModel
from asr.scoring.wer import count_errors
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon

TOKENIZER = CharTokenizer((" ", "a", "b"))
CONFIG = BeamConfig(beam_size=30, threads=1).with_weights(word_bonus=0.4, unknown_penalty=-1.0)
ARPA = """\\data\\
ngram 1=6
ngram 2=2

\\1-grams:
-1.3 <unk>
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.8 ab -0.2
-1.1 ba -0.2

\\2-grams:
-0.2 <s> ab
-0.3 ab a

\\end\\
"""
LEXICON = Lexicon({"a": (("a",),), "ab": (("a", "b"),), "ba": (("b", "a"),)}, "the test's lexicon")
TEXTS = ("ab a ba ab", "a a ab", "ba ab a a ab ba")

Rows = Callable[..., Tensor]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> NgramModel:
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    path.write_text(ARPA)
    return NgramModel.load(path)


def fused(kind: str, lm: NgramModel) -> dict[str, Any]:
    parts = {"lm": lm, "lexicon": LEXICON, "hotwords": {"ba": 1.5}}
    return {
        "nothing": {}, "words": {"lm": lm}, "lexicon": {"lexicon": LEXICON},
        "hot words": {"hotwords": {"ba": 1.5}}, "all": parts,
    }[kind]  # fmt: skip


def listed(log_probs: Tensor, nbest: int, kind: str, lm: NgramModel, **config: Any) -> list[Hypothesis]:
    decoder = BeamDecoder(TOKENIZER, replace(CONFIG, nbest=nbest, **config), **fused(kind, lm))
    [found] = decoder.decode(log_probs[None], torch.tensor([len(log_probs)]), 0.04)
    return found


def fused_score(one: Hypothesis, kind: str, lm: NgramModel) -> float:
    """What a text scores beside its acoustics, from the text alone."""
    parts, weights = fused(kind, lm), CONFIG.weights
    vocabulary = {*LEXICON.entries, *(lm.words if "lm" in parts else ()), *parts.get("hotwords", {})}
    words = one.text.split()
    nats = weights.word_bonus * len(words)
    if "lm" in parts:
        nats += weights.lm_weight * float(lm.log_probs(one.text).sum())
    if "lm" in parts or "lexicon" in parts:
        nats += sum(
            weights.unknown_penalty + weights.unknown_letter_penalty * len(word)
            for word in words
            if word not in vocabulary
        )
    return nats + sum(parts.get("hotwords", {}).get(word, 0.0) for word in words)


@pytest.mark.parametrize("kind", ["nothing", "words", "lexicon", "hot words", "all"])
@pytest.mark.parametrize("peaky", [False, True])
def test_the_best_text_does_not_depend_on_how_many(
    kind: str, peaky: bool, lm: NgramModel, random_rows: Rows, peaky_rows: Rows
) -> None:
    """The fault: without recombination a list came from a weaker search, and its best text was another."""
    for seed in range(6):
        log_probs = (
            peaky_rows(TOKENIZER.encode(TEXTS[seed % 3]), vocab=4, seed=seed, noise=3.0)
            if peaky
            else random_rows(seed, steps=40, vocab=4)
        )
        [alone] = listed(log_probs, 1, kind, lm)
        oracle = [math.inf]
        for nbest in (5, 100):
            found = listed(log_probs, nbest, kind, lm)
            assert found[0] == alone
            assert len({one.text for one in found}) == len(found) > 1
            scores = [one.score for one in found]
            assert scores == sorted(scores, reverse=True)
            oracle.append(min(count_errors([TEXTS[seed % 3]] * len(found), [one.text for one in found])))
            assert oracle[-1] <= oracle[-2]
            for one in found:
                exact = -float(
                    torch.nn.functional.ctc_loss(
                        log_probs[:, None], torch.tensor([one.tokens]), torch.tensor([len(log_probs)]),
                        torch.tensor([len(one.tokens)]), reduction="sum",
                    )
                )  # fmt: skip
                own = exact + fused_score(one, kind, lm)
                # what scores above the search's choice is a search error, and keeps the choice's score
                assert one.score == pytest.approx(min(own, scores[0]), abs=1e-6)
                assert one.score == pytest.approx(one.acoustic_score + fused_score(one, kind, lm), abs=1e-6)
                text_log_prob = float(lm.log_probs(one.text).sum()) if kind in ("words", "all") else 0.0
                assert one.lm_score == pytest.approx(text_log_prob, abs=1e-6)
            assert scores[0] == pytest.approx(
                found[0].acoustic_score + fused_score(found[0], kind, lm), abs=1e-6
            )


def test_the_list_is_that_of_a_wide_search(lm: NgramModel, peaky_rows: Rows) -> None:
    """Alternatives that recombination has dropped and nobody kept: those of a wide search without it.

    A path's estimate is approximate, so not every one of them is found: 8 of 60 are missing; without the
    merges 32.
    """
    missed = 0
    for seed in range(12):
        log_probs = peaky_rows(TOKENIZER.encode(TEXTS[seed % 3]), vocab=4, seed=seed, noise=2.0)
        wide = listed(log_probs, 5, "words", lm, recombine=False, beam_size=2000, beam_threshold=math.inf)
        found = listed(log_probs, 10, "words", lm)
        assert found[0].text == wide[0].text
        missed += len({one.text for one in wide} - {one.text for one in found})
    assert missed <= 10


@pytest.mark.parametrize("seed", range(3))
def test_room_for_merges_changes_nothing(
    seed: int, lm: NgramModel, random_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merges that are lost, or point elsewhere, when the arena is compacted or their room grows."""
    log_probs = random_rows(seed, steps=150, vocab=4, sharpness=1.5)
    expected = listed(log_probs, 20, "words", lm)
    monkeypatch.setattr("asr.decoding.beam_search._CAPACITY", 64)
    monkeypatch.setattr("asr.decoding.beam_search._MERGES", 1)
    assert listed(log_probs, 20, "words", lm) == expected


def nodes(parents: Sequence[int], tokens: Sequence[int]) -> Any:
    arena = np.zeros(len(parents), NODE)
    arena["parent"], arena["token"], arena["word"] = parents, tokens, NONE
    return arena


def test_paths_by_hand() -> None:
    """Estimates that are not sums of the merges, and paths that are missing or come twice.

    Node 2 ("b") merged into 1 ("a"), then 5 ("bd") into 4 ("ad"): for "ad" both give "bd", and the later one
    counts. Node 3 is "ac".
    """
    arena = nodes([NONE, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 4])
    merges = new_merges(4)
    merges.kept[:2], merges.dropped[:2] = (1, 4), (2, 5)
    merges.log_ratio[:2], merges.size[0] = (-1.0, -0.5), 2
    ends = Ends(
        np.array([3, 4], np.int32), np.array([NONE, NONE], np.int32), np.array([-3.0, -2.0]), np.zeros(2),
        np.zeros(2),
    )  # fmt: skip
    found = [(path.tokens, path.estimate) for path in paths(arena, merges, ends)]
    assert found == [([1, 4], -2.0), ([2, 4], -2.5), ([1, 3], -3.0), ([2, 3], -4.0)]


def test_a_prefix_that_returns_ends_no_path_in_a_circle() -> None:
    """A dropped prefix that came back, for which the other was dropped then: each beginning comes once.

    Node 2 ("b") merged into 1 ("a"), returned, and 1 merged into it.
    """
    arena = nodes([NONE, 0, 0], [0, 1, 2])
    merges = new_merges(2)
    merges.kept[:], merges.dropped[:], merges.log_ratio[:] = (1, 2), (2, 1), (-1.0, -0.5)
    merges.size[0] = 2
    none = np.full(1, NONE, np.int32)
    ends = Ends(np.array([1], np.int32), none, np.array([-2.0]), np.zeros(1), np.zeros(1))
    found = [(path.tokens, path.estimate) for path in islice(paths(arena, merges, ends), 10)]
    assert found == [([1], -2.0), ([2], -3.0)]


def test_texts_that_do_not_fit_into_the_steps_are_left_out() -> None:
    """The fault: exchanging a beginning gave five tokens for four steps, which have no alignment."""
    torch.manual_seed(33)
    rows = (4 * torch.randn(1, 4, 7, dtype=torch.float64)).log_softmax(2)
    decoder = BeamDecoder(CharTokenizer(tuple("abcdef")), BeamConfig(nbest=16, threads=1))
    [found] = decoder.decode(rows, torch.tensor([4]), 0.04)
    assert len(found) == 16
    assert all(math.isfinite(one.score) and len(one.tokens) <= 4 for one in found)
