"""Networks from symbols to symbols: CTC over repeated inputs, their files, scores in batches, words."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import ModelError, SettingsError
from asr.model.recurrent.layers import LayerConfig
from asr.model.sequence.ctc import SequenceCtc, SequenceCtcConfig
from asr.model.sequence.encoder_decoder import EncoderDecoderConfig
from asr.model.sequence.model import (
    SequenceConfig,
    SequenceModel,
    load_sequence_model,
    make_sequence_model,
    save_sequence_model,
    score,
)
from asr.model.sequence.pronouncer import NetworkPronouncer
from asr.text.pronunciation.pronouncer import pronounce_words

LAYERS = LayerConfig(cell="gru", layer_norm=False)
CTC = SequenceCtcConfig(width=5, depth=1, embedding=3, layers=LAYERS)
CONFIGS: dict[str, SequenceConfig] = {
    "ctc": CTC,
    "encoder-decoder": EncoderDecoderConfig(width=5, embedding=3, layers=LAYERS, attention="dot"),
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def make(kind: str) -> SequenceModel:
    torch.manual_seed(2)
    return make_sequence_model(("a", "b"), ("X", "Y"), CONFIGS[kind]).eval()


def test_ctc_is_the_sum_over_all_paths() -> None:
    """Guards the repeated inputs, the padding and the collapsing of paths, by enumeration of every path."""
    net = make("ctc")
    assert isinstance(net, SequenceCtc)
    source, lengths = torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
    log_probs = net(source, lengths)
    assert log_probs.shape == (2, 4, 3)
    for row, repeated in enumerate(([[1, 1, 2, 2]], [[2, 2]])):  # both directions over exactly these steps
        steps, _ = net.encoder(net.embedding(torch.tensor(repeated)), torch.tensor([len(repeated[0])]))
        expected = net.output(steps).log_softmax(-1)[0]
        torch.testing.assert_close(log_probs[row, : len(expected)], expected)
    for row, steps in enumerate((4, 2)):
        sums: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(3), repeat=steps):
            output = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
            prob = math.exp(sum(float(log_probs[row, step, symbol]) for step, symbol in enumerate(path)))
            sums[output] = sums.get(output, 0.0) + prob
        ids = tuple(source[row, : lengths[row]].tolist())
        assert score(net, [ids] * len(sums), list(sums)) == pytest.approx(
            [math.log(prob) for prob in sums.values()], abs=1e-5
        )
        best = log_probs[row, :steps].argmax(1).tolist()
        assert net.greedy(source, lengths)[row] == tuple(s for s, _ in itertools.groupby(best) if s)
    assert score(net, [(1,)], [(1, 1)]) == [-math.inf]
    assert score(net, [(1,)], [(1, 2)])[0] > -math.inf


@pytest.mark.parametrize("kind", CONFIGS)
def test_scores_do_not_depend_on_the_batch(kind: str) -> None:
    """Guards the order in which scores come back, since batches are made by length."""
    net = make(kind)
    sources = [(1, 2, 1, 2) * n for n in (1, 9, 3, 200, 2)]
    targets = [(1, 2) * n for n in (2, 4, 0, 50, 1)]
    together = score(net, sources, targets)
    alone = [score(net, [one], [two])[0] for one, two in zip(sources, targets, strict=True)]
    assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    """A network that comes back with other numbers, symbols or settings would pronounce nonsense."""
    net, path = make(kind), tmp_path / "net.safetensors"
    save_sequence_model(path, net, {"dev_wrong": 12.5})
    again = load_sequence_model(path)
    assert type(again) is type(net)
    assert (again.sources, again.targets, again.config) == (net.sources, net.targets, net.config)
    assert again.provenance == {"dev_wrong": 12.5}
    assert score(again, [(1, 2)], [(2,)]) == score(net, [(1, 2)], [(2,)])


@pytest.mark.parametrize("kind", CONFIGS)
def test_rounded_to_8_bits(kind: str, tmp_path: Path) -> None:
    """Guards the scales: each weight within half a step of its row's largest, and matrices in one byte."""
    net, path = make(kind), tmp_path / "net.safetensors"
    save_sequence_model(path, net, {}, int8=True)
    again = load_sequence_model(path)
    for (name, weight), rounded in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.dim() > 1 else torch.zeros(1)
        assert ((weight - rounded).abs() <= 0.501 * step).all(), name
    stored = load_file(path)
    assert all((one.dtype == torch.int8) == (one.dim() > 1 and "scale" not in n) for n, one in stored.items())


def test_files_that_are_none(tmp_path: Path) -> None:
    """Each wrong file gets a line that names it and what was expected."""
    path = tmp_path / "net.safetensors"
    with pytest.raises(ModelError, match=r"no such sequence model.*asr lexicon train"):
        load_sequence_model(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="not a sequence model of this project"):
        load_sequence_model(path)
    save_file({"a": torch.zeros(1)}, path, {"asr-sequence-model": json.dumps({"format_version": 99})})
    with pytest.raises(ModelError, match="format 99, but this version of asr reads format 1"):
        load_sequence_model(path)
    record = {"format_version": 1, "kind": "transformer", "config": {"layers": {}}}
    save_file({"a": torch.zeros(1)}, path, {"asr-sequence-model": json.dumps(record)})
    with pytest.raises(ModelError, match="settings in this sequence model cannot be read"):
        load_sequence_model(path)


def test_ctc_settings() -> None:
    """One line that names the key."""
    with pytest.raises(SettingsError, match=r"--model\.repeats must be at least 1. Got 0"):
        SequenceCtcConfig(repeats=0)
    with pytest.raises(SettingsError, match=r"--model\.width must be at least 1"):
        SequenceCtcConfig(width=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_network_as_a_pronouncer(kind: str) -> None:
    """Words in, phones out: with the ids of its own letters and phones, and the search's scores."""
    network = NetworkPronouncer(make(kind))
    words = ["ab", "b", "ba" * 100]
    found = network.search(words, 3)
    for word, pronunciations in zip(words, found, strict=True):
        phones = [one.phones for one in pronunciations]
        assert network.score([word] * len(phones), phones) == pytest.approx(
            [one.log_prob for one in pronunciations], rel=1e-4
        )
    assert network.score(["a"], [("Q",)]) == [-math.inf]
    (made,) = pronounce_words(network, ["Bä"])
    assert made.unknown == "ä"
    net = make(kind)
    net.sources = ("a", "bb")
    with pytest.raises(ModelError, match="symbols such as 'bb', not letters"):
        NetworkPronouncer(net)
