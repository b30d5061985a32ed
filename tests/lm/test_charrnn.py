"""The character RNN as a language model: what it promises to those who ask it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asr.errors import ModelError, SettingsError
from asr.lm.charrnn import (
    END_OF_LINE,
    CharRnn,
    CharRnnConfig,
    CharRnnModel,
    load_charrnn,
    save_charrnn,
)
from tests.shapes import charrnn_config

SYMBOLS = (" ", "a", "b", "c")


def make(cell: str = "lstm") -> CharRnn:
    torch.manual_seed(3)
    return CharRnn(SYMBOLS, charrnn_config(cell=cell, width=12, depth=2, embedding=5, dropout=0.5))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_three_calls_equal_the_whole_text(cell: str) -> None:
    """Character by character with carried states must give the numbers of one pass over the line."""
    network = make(cell).eval()
    model = CharRnnModel(network)
    text = "ab ca"
    ids = [END_OF_LINE, *(network.ids[character] for character in text)]
    with torch.no_grad():
        whole, _ = network(torch.tensor([ids]))
    expected = [float(whole[0, step, symbol]) for step, symbol in enumerate([*ids[1:], END_OF_LINE])]
    state, actual = model.start(), []
    for character in text:
        log_probs, (state,) = model.score([state], [character])
        actual.append(float(log_probs[0]))
    actual.append(float(model.finish([state])[0]))
    assert actual == pytest.approx(expected, abs=1e-5)
    assert model.log_probs(text) == pytest.approx(np.array(expected), abs=1e-5)


def test_states_in_one_call_do_not_touch_each_other() -> None:
    """Hypotheses of a beam are asked together; each must get what it would get alone, and a state that was
    asked before must still be good."""
    model = CharRnnModel(make())
    _, (after_a, after_b) = model.score([model.start()] * 2, ["a", "b"])
    together, states = model.score([after_a, after_b, after_a], ["c", " ", "b"])
    for index, (state, symbol) in enumerate([(after_a, "c"), (after_b, " "), (after_a, "b")]):
        alone, (following,) = model.score([state], [symbol])
        assert together[index] == pytest.approx(alone[0], abs=1e-6)
        assert model.finish([following]) == pytest.approx(model.finish([states[index]]), abs=1e-6)


def test_a_state_keeps_nothing_of_the_others() -> None:
    """A search keeps a few of the states that it asked for together; the memory of all would add up."""
    model = CharRnnModel(make())
    _, states = model.score([model.start()] * 4, SYMBOLS)
    model.score(states, SYMBOLS)
    for part in (part for layer in states[0].hidden or () for part in layer):
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
    output = states[0].output
    assert output is not None
    assert output.untyped_storage().nbytes() == output.numel() * output.element_size()
    assert states[0].previous is None


def test_probabilities_add_up_to_one() -> None:
    """What may follow, the end of the line included, is a distribution."""
    model = CharRnnModel(make())
    _, (state,) = model.score([model.start()], ["b"])
    log_probs, _ = model.score([state] * len(SYMBOLS), SYMBOLS)
    assert np.exp(log_probs).sum() + math.exp(model.finish([state])[0]) == pytest.approx(1, abs=1e-6)


def test_unknown_character_costs_and_is_passed_over() -> None:
    """A foreign character must neither fail nor be free."""
    model = CharRnnModel(make())
    log_probs, (state,) = model.score([model.start()], ["ß"])
    assert log_probs[0] == pytest.approx(math.log(1e-7))
    assert state is model.start()
    with_it, without = model.log_probs("aßb"), model.log_probs("ab")
    assert with_it == pytest.approx(np.insert(without, 1, math.log(1e-7)), abs=1e-6)
    assert model.encode("aßb").tolist() == [2, 0, 3]


def test_saved_and_loaded(tmp_path: Path) -> None:
    """A model that comes back with other numbers, or another alphabet, would decode nonsense."""
    network, path = make("gru"), tmp_path / "lm.safetensors"
    save_charrnn(path, network, {"dev_loss": 1.5})
    again = load_charrnn(path)
    assert again.symbols == SYMBOLS
    assert again.config == network.config
    x = torch.tensor([[0, 1, 2, 3, 4]])
    assert torch.equal(again(x)[0], network.eval()(x)[0])


def test_files_that_are_none(tmp_path: Path) -> None:
    """Each wrong file gets a line that names it and what was expected."""
    with pytest.raises(ModelError, match=r"no such language model.*--kind charrnn"):
        load_charrnn(tmp_path / "lm.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match="not a character RNN"):
        load_charrnn(other)
    cut = tmp_path / "cut.safetensors"
    save_charrnn(cut, make(), {})
    cut.write_bytes(cut.read_bytes()[:-50])
    with pytest.raises(ModelError, match="not a readable character RNN"):
        load_charrnn(cut)
    newer = tmp_path / "newer.safetensors"
    save_file({"a": torch.zeros(1)}, newer, {"asr-character-rnn": json.dumps({"format_version": 99})})
    with pytest.raises(ModelError, match="format 99, but this version of asr reads format 2"):
        load_charrnn(newer)


def test_sampling_is_seeded_and_touches_no_other_draw() -> None:
    """Samples are shown between epochs; were they drawn from torch's own generator, showing them would change
    the training."""
    network = make().eval()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    text = network.sample(40, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(text) == 40
    assert text == network.sample(40, seed=5) != network.sample(40, seed=6)


def test_bad_settings() -> None:
    """Sizes that make no network are named as the user types them."""
    with pytest.raises(SettingsError, match=r"model\.embedding must be at least 1"):
        charrnn_config(embedding=0)
    with pytest.raises(SettingsError, match=r"--model\.no-bidirectional is needed for a language model"):
        charrnn_config(bidirectional=True)
    with pytest.raises(SettingsError, match=r"model\.width must be at least 1"):
        charrnn_config(width=0)
    with pytest.raises(ModelError, match="Expected single characters"):
        CharRnn(("a", "a"), CharRnnConfig())
