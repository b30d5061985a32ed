"""The training of a character RNN, from text to bits per character that mean something."""

import logging
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from asr.errors import DataError, Interrupted, TrainingError
from asr.lm.charrnn import load_charrnn
from asr.training import validation as validation_module
from asr.training.charrnn import CharRnnSettings, encode, held_out, train_charrnn
from asr.training.config import TrainConfig
from asr.training.run import start as start_module
from asr.training.run.stopping import StopRequest
from asr.training.tasks.charrnn import CharRnnTask, TextStreamConfig
from tests.shapes import charrnn_config

LINES = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog", "on the mat sat the dog"] * 30


def settings(run_dir: Path, **changes: object) -> CharRnnSettings:
    config = TrainConfig(
        run_dir=run_dir, precision="float32", device="cpu", log_every_s=0.0,
        **{"epochs": 3, "learning_rate": 0.01, **changes},
    )  # fmt: skip
    model = charrnn_config(cell="gru", width=24, depth=1, embedding=8, dropout=0.1)
    return CharRnnSettings(model=model, text=TextStreamConfig(streams=4, block=16), train=config)


def test_encoding_is_the_alphabet_with_line_ends() -> None:
    """Ids off by one would still train, on another text."""
    assert encode(["ba", "é"], ("a", "b", "é")).tolist() == [2, 1, 0, 3, 0]


def test_text_is_learned_below_its_letter_entropy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bits per character far below what letter frequencies alone give: the context is used. The figure is
    checked against the probabilities of the model file."""
    caplog.set_level(logging.INFO, "asr")
    path = train_charrnn(LINES, LINES[:20], settings(tmp_path / "run", epochs=8))
    counts = Counter("".join(f"{line}\n" for line in LINES))
    total = sum(counts.values())
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    network = load_charrnn(path)
    ids = torch.from_numpy(encode(LINES[:20], network.symbols).astype(np.int64))[None]
    with torch.no_grad():
        log_probs, _ = network(ids[:, :-1])
    bits = -float(log_probs[0].gather(1, ids[0, 1:, None]).mean()) / math.log(2)
    assert bits < 0.4 * entropy
    log_text = (tmp_path / "run" / "train.log").read_text()
    assert f"{bits:.3f} bits per character" in log_text
    assert "it writes: " in log_text


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated back-propagation carries a hidden state from block to block; a resumed run that forgot it
    would end elsewhere."""
    train_charrnn(LINES, LINES[:20], settings(tmp_path / "whole"))
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
            train_charrnn(LINES, LINES[:20], settings(tmp_path / "parts"))
    train_charrnn(LINES, LINES[:20], settings(tmp_path / "parts", resume=True))
    actual = load_file(tmp_path / "parts" / validation_module.LAST_MODEL)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_out_of_memory_names_this_commands_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text has no manifest to leave anything out of."""

    def forward(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(CharRnnTask, "forward", forward)
    with pytest.raises(TrainingError, match=r"stream 0, characters 0 to 16.*Lower --text\.block"):
        train_charrnn(LINES, LINES[:20], settings(tmp_path / "run"))


def test_deterministic_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting was once read and forgotten."""
    called = []
    monkeypatch.setattr(start_module, "make_deterministic", lambda: called.append(True))
    train_charrnn(LINES, LINES[:20], settings(tmp_path / "run", deterministic=True, epochs=1))
    assert called


def test_held_out_lines() -> None:
    """Every 100th line is chosen by, but a rare character must not end the run: its line is learned."""
    lines = ["a b"] * 250
    lines[100] = "a é b"
    learned, dev = held_out(lines)
    assert dev == ["a b"] * 2
    assert Counter(learned) == {"a b": 247, "a é b": 1}
    with pytest.raises(DataError, match="one line of text"):
        held_out(["a"])
    with pytest.raises(DataError, match="a character that no other line has"):
        held_out(["a", "b"])


def test_foreign_characters(tmp_path: Path) -> None:
    """One clear line, before anything is trained: such a character would have no id."""
    with pytest.raises(DataError, match=r"'é', which the training text never has"):
        train_charrnn(LINES, ["café"], settings(tmp_path / "run"))
