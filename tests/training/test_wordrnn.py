"""The training of a word RNN, from text to a perplexity that means something."""

import logging
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asr.errors import DataError, Interrupted
from asr.lm.wordrnn import WordRnnModel, load_wordrnn
from asr.training import validation as validation_module
from asr.training.config import TrainConfig
from asr.training.run import start as start_module
from asr.training.run.stopping import StopRequest
from asr.training.tasks.wordrnn import SentenceConfig
from asr.training.wordrnn import WordRnnSettings, held_out, make_vocabulary, train_wordrnn
from tests.shapes import wordrnn_config

LINES = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog", "on the mat sat the dog"] * 30


def settings(run_dir: Path, **changes: object) -> WordRnnSettings:
    config = TrainConfig(
        run_dir=run_dir, precision="float32", device="cpu", log_every_s=0.0,
        **{"epochs": 3, "learning_rate": 0.02, **changes},
    )  # fmt: skip
    model = wordrnn_config(cell="gru", width=16, depth=1, embedding=8, cutoffs=(4, 7), dropout=0.1)
    return WordRnnSettings(model=model, text=SentenceConfig(words=40), train=config)


def test_text_is_learned_below_its_word_entropy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A perplexity far below what word frequencies alone give: the context is used. The figure is checked
    against the probabilities of the model file."""
    caplog.set_level(logging.INFO, "asr")
    path = train_wordrnn(LINES, LINES[:20], settings(tmp_path / "run", epochs=8))
    counts = Counter(word for line in LINES for word in [*line.split(), "</s>"])
    total = sum(counts.values())
    entropy = -sum(count / total * math.log(count / total) for count in counts.values())
    model = WordRnnModel(load_wordrnn(path))
    log_probs = [log_prob for line in LINES[:20] for log_prob in model.log_probs(line)]
    loss = -sum(log_probs) / len(log_probs)
    assert loss < 0.5 * entropy
    assert f"dev perplexity {math.exp(loss):.1f}" in (tmp_path / "run" / "train.log").read_text()


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run that read the sentences in another order would end elsewhere."""
    train_wordrnn(LINES, LINES[:20], settings(tmp_path / "whole"))
    expected = load_file(tmp_path / "whole" / "last.safetensors")

    class _Stop(StopRequest):
        left = 30

        @property
        def received(self) -> bool:
            self.left -= 1
            return self.left < 0

    with monkeypatch.context() as patch:
        patch.setattr(start_module, "StopRequest", _Stop)
        with pytest.raises(Interrupted):
            train_wordrnn(LINES, LINES[:20], settings(tmp_path / "parts"))
    train_wordrnn(LINES, LINES[:20], settings(tmp_path / "parts", resume=True))
    actual = load_file(tmp_path / "parts" / validation_module.LAST_MODEL)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_warm_start_into_another_vocabulary(tmp_path: Path) -> None:
    """What the words share is taken over; what is a word's own is not given to another word."""
    source = train_wordrnn(LINES, LINES[:4], settings(tmp_path / "source", epochs=1))
    other = [line.replace("cat", "bird").replace("mat", "nest and tree") for line in LINES]
    path = train_wordrnn(
        other, other[:4], settings(tmp_path / "other", epochs=1, learning_rate=1e-12, warm_start=source)
    )
    before, after = load_file(source), load_file(path)
    for name in before.keys() & after.keys():
        taken = before[name].shape == after[name].shape and torch.allclose(before[name], after[name])
        assert taken == name.startswith("recurrent."), name


def test_vocabulary() -> None:
    """The order is that of the adaptive softmax: frequent words first, and it must not depend on chance."""
    vocabulary = make_vocabulary(["b a c", "b a", "b d e"], 3)
    assert vocabulary.words == ("b", "a", "c")
    assert vocabulary.others == 2
    assert make_vocabulary(["a"], 5).others == 1
    with pytest.raises(DataError, match="no word"):
        make_vocabulary(["", ""], 3)
    with pytest.raises(DataError, match="<unk> as words, which the network keeps"):
        make_vocabulary(["a <unk>"], 3)


def test_held_out_lines() -> None:
    """Every 100th line is to choose by, and is not learned."""
    learned, dev = held_out([str(number) for number in range(250)])
    assert dev == ["0", "100", "200"]
    assert len(learned) == 247
    assert not set(learned) & set(dev)
    with pytest.raises(DataError, match="one line of text"):
        held_out(["a"])
