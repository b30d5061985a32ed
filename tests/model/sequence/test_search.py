"""Beam search of an encoder-decoder against all possible outputs, and against the score of given ones."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from asr.model.recurrent.layers import LayerConfig
from asr.model.sequence.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from asr.model.sequence.model import score, search
from asr.model.sequence.search import SearchConfig, beam_search

SOURCE, LENGTHS = torch.tensor([[1, 2, 1], [2, 0, 0], [2, 1, 0]]), torch.tensor([3, 1, 2])


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def make(seed: int, attention: str = "additive", targets: tuple[str, ...] = ("X", "Y")) -> EncoderDecoder:
    torch.manual_seed(seed)
    config = EncoderDecoderConfig(
        width=4, embedding=3, attention=attention, layers=LayerConfig(layer_norm=False)
    )
    net = EncoderDecoder(("a", "b"), targets, config).double().eval()
    nn.init.normal_(net.output.weight, std=3)  # so that outputs differ between sources
    return net


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("attention", ["none", "additive", "dot"])
def test_wide_beam_is_exhaustive(attention: str, exponent: float) -> None:
    """Guards the search: with room for every output up to four symbols, it ranks all of them as their scores
    do, normalised by length or not; each source alone gives the same as in the batch."""
    net, longest = make(1, attention), torch.tensor([4, 2, 3])
    config = SearchConfig(beam_size=40, length_exponent=exponent)
    found = beam_search(net, net.encode(SOURCE, LENGTHS), config, longest)
    for row, outputs in enumerate(found):
        source = tuple(SOURCE[row, : LENGTHS[row]].tolist())
        every = [
            ids for size in range(int(longest[row]) + 1) for ids in itertools.product((1, 2), repeat=size)
        ]
        scores = score(net, [source] * len(every), every)
        ranked = sorted(
            zip(every, scores, strict=True), key=lambda one: -one[1] / (len(one[0]) + 1) ** exponent
        )
        assert [ids for ids, _ in outputs] == [ids for ids, _ in ranked]
        assert [value for _, value in outputs] == pytest.approx([value for _, value in ranked])
        encoded = net.encode(SOURCE[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])
        alone = beam_search(net, encoded, config, longest[row : row + 1])
        assert [ids for ids, _ in alone[0]] == [ids for ids, _ in outputs]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 4.0])
def test_does_not_stop_too_early(exponent: float) -> None:
    """Guards the bound: with one symbol nothing unfinished is ever dropped, and a narrow beam must find the
    best of all lengths, also where longer outputs win by their length."""
    for seed in range(6):
        net = make(seed, targets=("X",))
        encoded = net.encode(SOURCE, LENGTHS)
        found = beam_search(net, encoded, SearchConfig(2, exponent), torch.tensor([9, 9, 9]))
        for row, outputs in enumerate(found):
            source = tuple(SOURCE[row, : LENGTHS[row]].tolist())
            every = [(1,) * size for size in range(10)]
            ranks = [
                one / (size + 1) ** exponent for size, one in enumerate(score(net, [source] * 10, every))
            ]
            best = sorted(range(10), key=lambda size: -ranks[size])[:2]
            assert [len(ids) for ids, _ in outputs] == best


def test_narrow_beam() -> None:
    """Guards the beam that is used: scores are those of the outputs, it is never worse than greedy, and the
    best does not depend on the other sources."""
    for seed in range(4):
        net = make(seed)
        sources = [tuple(SOURCE[row, : LENGTHS[row]].tolist()) for row in range(3)]
        found = search(net, sources, SearchConfig(beam_size=3))
        greedy = search(net, sources, SearchConfig(beam_size=1))
        for row, outputs in enumerate(found):
            ids, log_probs = zip(*outputs, strict=True)
            assert list(log_probs) == pytest.approx(score(net, [sources[row]] * len(ids), ids))
            assert list(log_probs) == sorted(log_probs, reverse=True)
            assert greedy[row][0][1] == pytest.approx(score(net, [sources[row]], [greedy[row][0][0]])[0])
            assert greedy[row][0][0] == net.greedy(SOURCE[row : row + 1], LENGTHS[row : row + 1])[0]
            assert search(net, [sources[row]], SearchConfig(beam_size=3))[0][0][0] == ids[0]


def test_length_normalisation_favours_long_outputs() -> None:
    """Guards the setting: it changes the order, not the log-probabilities."""
    net, longest = make(1), torch.tensor([4, 4, 4])
    plain, normalised = (
        beam_search(net, net.encode(SOURCE, LENGTHS), SearchConfig(40, exponent), longest)
        for exponent in (0.0, 3.0)
    )
    assert any(len(one[0][0]) < len(two[0][0]) for one, two in zip(plain, normalised, strict=True))
    for one, two in zip(plain, normalised, strict=True):
        assert dict(one) == pytest.approx(dict(two))


def test_settings() -> None:
    """One line that names the key."""
    with pytest.raises(ValueError, match=r"beam_size must be at least 1. Got 0"):
        SearchConfig(beam_size=0)
    with pytest.raises(ValueError, match=r"length_exponent must be at least 0. Got -1"):
        SearchConfig(length_exponent=-1)
