"""The word RNN as a language model: what it promises to those who ask it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import ModelError, SettingsError
from asr.lm.wordrnn import (
    END_OF_SENTENCE,
    Vocabulary,
    WordRnn,
    WordRnnConfig,
    WordRnnModel,
    load_wordrnn,
    save_wordrnn,
)
from tests.shapes import wordrnn_config

WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "and", "ran", "off")
VOCABULARY = Vocabulary(WORDS, others=5)


def make(cell: str = "lstm", cutoffs: tuple[int, ...] = (4, 8)) -> WordRnn:
    torch.manual_seed(3)
    config = wordrnn_config(cell=cell, width=16, depth=2, embedding=5, cutoffs=cutoffs, dropout=0.5)
    return WordRnn(VOCABULARY, config)


@pytest.mark.parametrize("cell", ["ligru", "lstm"])
@pytest.mark.parametrize("cutoffs", [(4, 8), (2000,)])
def test_word_by_word_equals_the_whole_text(cell: str, cutoffs: tuple[int, ...]) -> None:
    """With carried states, words of every group of outputs must get the numbers of one pass over the line."""
    model = WordRnnModel(make(cell, cutoffs))
    text = "the cat off zebra sat and mat the"
    whole = model.log_probs(text)
    state, actual = model.start(), []
    for word in text.split():
        log_probs, (state,) = model.score([state], [word])
        actual.append(float(log_probs[0]))
    actual.append(float(model.finish([state])[0]))
    assert actual == pytest.approx(whole, abs=1e-5)


def test_states_in_one_call_do_not_touch_each_other() -> None:
    """Texts are scored together; each must get what it would get alone, and a state that was asked before
    must still be good."""
    model = WordRnnModel(make())
    _, (after_the, after_off) = model.score([model.start()] * 2, ["the", "off"])
    together, states = model.score([after_the, after_off, after_the], ["cat", "mat", "zebra"])
    for index, (state, word) in enumerate([(after_the, "cat"), (after_off, "mat"), (after_the, "zebra")]):
        alone, (following,) = model.score([state], [word])
        assert together[index] == pytest.approx(alone[0], abs=1e-6)
        assert model.finish([following]) == pytest.approx(model.finish([states[index]]), abs=1e-6)


@pytest.mark.parametrize("cutoffs", [(4, 8), (2000,)])
def test_probabilities_add_up_to_one(cutoffs: tuple[int, ...]) -> None:
    """All words, the five unknown ones with an equal share each, and the end are a distribution."""
    model = WordRnnModel(make(cutoffs=cutoffs))
    _, (state,) = model.score([model.start()], ["cat"])
    words = [*WORDS, *(f"unknown{number}" for number in range(5))]
    log_probs, _ = model.score([state] * len(words), words)
    assert np.exp(log_probs).sum() + math.exp(model.finish([state])[0]) == pytest.approx(1, abs=1e-5)


def test_both_ways_to_the_probabilities_agree() -> None:
    """On a GPU all words are computed, since to look up which are needed would wait for it."""
    network = make().eval()
    outputs, _ = network(torch.tensor([[END_OF_SENTENCE, 2, 5, 11, 0]]))
    words = torch.tensor([2, 5, 11, 0, 1])
    everything = network.output.log_prob(outputs[0]).gather(1, words[:, None])[:, 0]
    assert torch.allclose(network.log_probs(outputs[0], words), everything, atol=1e-5)


def test_the_vocabulary_is_as_an_ngram_model_has_it() -> None:
    """Perplexity counts words with the id 0 as unknown, and decoding looks for the words."""
    model = WordRnnModel(make())
    assert model.encode("the zebra cat").tolist() == [2, 0, 3]
    assert model.words == ("<unk>", "</s>", *WORDS)
    assert model.log_probs("").shape == (1,)


def test_saved_and_loaded(tmp_path: Path) -> None:
    """A model that comes back with other numbers or words would rank nonsense; so would one whose weights
    were stored in float16 and not read as such."""
    network, path = make("gru").eval(), tmp_path / "lm.safetensors"
    save_wordrnn(path, network, {"dev_loss": 1.5})
    again = load_wordrnn(path)
    assert (again.vocabulary, again.config) == (VOCABULARY, network.config)
    text = "the dog ran off"
    expected = WordRnnModel(network).log_probs(text)
    assert WordRnnModel(again).log_probs(text) == pytest.approx(expected, abs=0)
    half = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_wordrnn(path, network, {}, half)
    assert load_file(path)["embedding.weight"].dtype == torch.float16
    assert WordRnnModel(load_wordrnn(path)).log_probs(text) == pytest.approx(expected, abs=1e-2)


def test_files_that_are_none(tmp_path: Path) -> None:
    """Each wrong file gets a line that names it and what was expected."""
    with pytest.raises(ModelError, match=r"no such language model.*--kind wordrnn"):
        load_wordrnn(tmp_path / "lm.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match="not a word RNN"):
        load_wordrnn(other)


def test_bad_settings() -> None:
    """Sizes that make no network are named as the user types them."""
    for changes, message in (
        ({"embedding": 0}, r"model\.embedding must be at least 1"),
        ({"vocabulary": 0}, r"model\.vocabulary must be at least 1"),
        ({"cutoffs": (8, 4)}, r"--model\.cutoffs are 8 4\. Expected growing ranks"),
        ({"cutoffs": (0, 4)}, "Expected growing ranks"),
        ({"bidirectional": True}, r"--model\.no-bidirectional is needed"),
        ({"width": 12}, r"--model\.width 12 is too small for 2 --model\.cutoffs: expected at least 16"),
    ):
        with pytest.raises(SettingsError, match=message):
            wordrnn_config(**changes)
    for words in ((), ("a", "a"), ("a", "")):
        with pytest.raises(ModelError, match="Expected one or more, each once"):
            Vocabulary(words, others=1)
    assert replace(WordRnnConfig(), cutoffs=()).cutoffs == ()
