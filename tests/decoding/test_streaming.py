"""Decoding in blocks against decoding at once."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.interface import Partial
from asr.decoding.streaming import GreedyStream
from asr.errors import ModelError
from asr.lm.ngram.model import NgramModel
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer

TOKENIZER = CharTokenizer((" ", "a", "b"))
ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-1.3 <unk>
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.8 ab -0.2

\\2-grams:
-0.2 <s> ab

\\end\\
"""

Rows = Callable[..., Tensor]


def blocks(log_probs: Tensor, seed: int) -> list[Tensor]:
    """Cut at random, empty blocks included."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, len(log_probs) + 1, (6,), generator=generator).sort().values.tolist()
    return [log_probs[a:b] for a, b in zip([0, *cuts], [*cuts, len(log_probs)], strict=True)]


def check_partials(partials: list[Partial], final: str) -> None:
    """Stable words only grow, begin every later text, and end up in the result."""
    before: list[str] = []
    for partial in partials:
        stable = partial.stable.split()
        assert stable[: len(before)] == before
        assert partial.text.split()[: len(stable)] == stable
        before = stable
    assert final.split()[: len(before)] == before


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("nbest", [1, 5])
def test_beam_in_blocks_equals_at_once(
    seed: int, fused: bool, nbest: int, random_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the state between blocks: the same hypotheses to the last bit, and stable words that stay."""
    monkeypatch.setattr("asr.decoding.beam_search._CAPACITY", 64)
    (tmp_path / "lm.arpa").write_text(ARPA)
    resources = {"lm": NgramModel.load(tmp_path / "lm.arpa"), "hotwords": {"ba": 1.0}} if fused else {}
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=10, nbest=nbest, threads=1), **resources)
    log_probs = random_rows(seed, steps=60, vocab=4, sharpness=3.0).float()
    [expected] = decoder.decode(log_probs[None], torch.tensor([60]), 0.04)
    stream = decoder.stream(0.04)
    partials = [stream.accept(block) for block in blocks(log_probs, seed)]
    assert stream.finish() == expected
    check_partials(partials, expected[0].text)


def test_something_becomes_stable(peaky_rows: Rows) -> None:
    """Guards against stable words that stay because there are none."""
    alphabet = CharTokenizer(tuple(" abcdefghijklmnopqrstuvwxyz"))
    text = "the quick brown fox jumps over the lazy dog"
    log_probs = peaky_rows(alphabet.encode(text), vocab=28, seed=1)
    stream = BeamDecoder(alphabet, BeamConfig()).stream(0.04)
    greedy = GreedyStream(alphabet, 0.04)
    for partial in (stream.accept(log_probs), greedy.accept(log_probs)):
        assert partial.text == text
        assert partial.stable.startswith("the quick brown fox")
        assert not partial.stable.endswith("dog")  # it may go on


def test_phones_become_words(random_rows: Rows) -> None:
    """Guards stable words where no token shows that a word has ended."""
    lexicon = Lexicon({"a": (("X",),), "ab": (("X", "Y"),), "b": (("Y",),)}, "the test's lexicon")
    tokenizer = PhoneTokenizer(("X", "Y"), lexicon, fallback="nothing")
    decoder = BeamDecoder(tokenizer, BeamConfig(beam_size=5, threads=1), lexicon=lexicon)
    log_probs = random_rows(3, steps=60, vocab=3, sharpness=4.0)
    [[expected]] = decoder.decode(log_probs[None], torch.tensor([60]), 0.04)
    stream = decoder.stream(0.04)
    partials = [stream.accept(block) for block in blocks(log_probs, 3)]
    assert stream.finish() == [expected]
    check_partials(partials, expected.text)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_in_blocks_equals_at_once(seed: int, random_rows: Rows) -> None:
    """Guards runs of one token across blocks: not written twice, and confidences over the whole run."""
    log_probs = random_rows(seed, steps=50, vocab=4)
    log_probs = log_probs.repeat_interleave(2, dim=0)
    [[expected]] = GreedyDecoder(TOKENIZER).decode(log_probs[None], torch.tensor([100]), 0.04)
    stream = GreedyStream(TOKENIZER, 0.04)
    partials = [stream.accept(block) for block in blocks(log_probs, seed)]
    assert stream.finish() == [expected]
    assert partials[-1].text == expected.text
    check_partials(partials, expected.text)


def test_nothing_was_said() -> None:
    """Guards a stream that ends before it begins."""
    assert GreedyStream(TOKENIZER, 0.04).finish()[0].text == ""
    [nothing] = BeamDecoder(TOKENIZER).stream(0.04).finish()
    assert (nothing.text, nothing.words) == ("", ())


def test_a_bad_block_changes_nothing(random_rows: Rows) -> None:
    """Guards the stream against a block that is refused: it goes on as if there had been none."""
    log_probs = random_rows(1, steps=20, vocab=4)
    decoder = BeamDecoder(TOKENIZER)
    stream, greedy = decoder.stream(0.04), GreedyStream(TOKENIZER, 0.04)
    for one in (stream, greedy):
        one.accept(log_probs[:10])
        with pytest.raises(ModelError, match="of the block hold NaN at step 1"):
            one.accept(torch.tensor([[-math.log(4)] * 4, [math.nan] * 4]))
        with pytest.raises(ModelError, match="5 classes but the tokenizer 4 ids"):
            one.accept(torch.zeros(3, 5))
        one.accept(log_probs[10:])
    [expected] = decoder.decode(log_probs[None], torch.tensor([20]), 0.04)
    assert stream.finish() == expected
    [expected] = GreedyDecoder(TOKENIZER).decode(log_probs[None], torch.tensor([20]), 0.04)
    assert greedy.finish() == expected


def test_a_block_costs_the_same_after_hours(peaky_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a stream that spells the whole text again with each block."""
    monkeypatch.setattr("asr.decoding.beam_search._CAPACITY", 64)
    alphabet = CharTokenizer(tuple(" abcdefghijklmnopqrstuvwxyz"))
    text = "the quick brown fox jumps over the lazy dog "
    log_probs = peaky_rows(alphabet.encode(text), vocab=28, seed=1)
    stream = BeamDecoder(alphabet, BeamConfig(beam_size=20)).stream(0.04)
    lengths: list[int] = []
    read = stream._read

    def watched(node: int) -> tuple:
        found = read(node)
        lengths.append(len(found[0]))
        return found

    monkeypatch.setattr(stream, "_read", watched)
    for _ in range(30):
        partial = stream.accept(log_probs)
    assert max(lengths) < 2 * len(text)
    assert partial.text.split() == (30 * text).split()
    assert partial.stable.split() == (30 * text).split()[: len(partial.stable.split())]
    assert len(partial.stable) > 28 * len(text)
    assert stream.finish()[0].text == partial.text
