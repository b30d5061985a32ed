"""Character models through the training loop: streams, carried states, and bits that mean something."""

import logging
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from asr.commands.character_lm import CharacterLmSettings, encode, held_out, train
from asr.errors import DataError, Interrupted, SettingsError, TrainingError
from asr.lm.charrnn import CharRnn, load_charrnn
from asr.training import validation as validation_module
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.stopping import StopRequest
from asr.training.tasks.character_lm import CharacterLmTask, StreamConfig
from tests.shapes import charrnn_config

CPU = torch.device("cpu")
LINES = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog", "on the mat sat the dog"] * 30


def settings(run_dir: Path, **changes: object) -> CharacterLmSettings:
    config = TrainConfig(
        run_dir=run_dir, precision="float32", device="cpu", log_every_s=0.0,
        **{"epochs": 3, "learning_rate": 0.01, **changes},
    )  # fmt: skip
    model = charrnn_config(cell="gru", width=24, depth=1, embedding=8, dropout=0.1)
    return CharacterLmSettings(model=model, text=StreamConfig(streams=4, block=16), train=config)


def task(
    streams: int = 3, block: int = 5, rank: int = 0, world_size: int = 1, length: int = 50
) -> CharacterLmTask:
    net = CharRnn(("a", "b"), charrnn_config(width=4, depth=1, embedding=2))
    ids = np.arange(length, dtype=np.uint16) % 3
    config = StreamConfig(streams=streams, block=block)
    return CharacterLmTask(net, ids, ids, config, Process(rank, world_size, CPU), seed=1)


def test_encoding_is_the_alphabet_with_line_ends() -> None:
    """Ids off by one would still train, on another text."""
    assert encode(["ba", "é"], ("a", "b", "é")).tolist() == [2, 1, 0, 3, 0]


def test_blocks_of_a_stream_follow_each_other_without_gap() -> None:
    """The last target of a block is the first input of the next; a gap or an overlap would teach a text that
    nobody wrote. Every position is learned once."""
    made = task()
    blocks = list(made.load(made.plan(2)))
    assert [block.first for block in blocks] == [True] + [False] * (len(blocks) - 1)
    rows = torch.cat([block.symbols[:, :-1] for block in blocks], dim=1)
    for earlier, later in pairwise(blocks):
        assert torch.equal(earlier.symbols[:, -1], later.symbols[:, 0])
    assert rows.shape == (3, 50 // 3 - 1)
    # the text is 0 1 2 0 1 2 …, also where it wraps around (50 = 2 mod 3: once "1 0" in place of "1 2 0")
    assert ((rows[:, 1:] - rows[:, :-1]) % 3 == 1).sum() >= rows[:, 1:].numel() - 1


def test_epochs_begin_elsewhere_but_always_the_same() -> None:
    """Resuming asks for a part of the same plan: it must be the same data."""
    made = task()
    first = next(made.load(made.plan(1)[1:2])).symbols
    assert torch.equal(first, list(made.load(made.plan(1)))[1].symbols)
    begins = {tuple(next(made.load(made.plan(epoch)[:1])).symbols[0].tolist()) for epoch in range(1, 20)}
    assert len(begins) > 1


def test_processes_share_the_streams() -> None:
    """Two processes together read what one reads, also by their token counts."""
    whole = next(task(streams=4).load([(1, 0)]))
    parts = [next(task(streams=4, rank=rank, world_size=2).load([(1, 0)])) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.symbols for part in parts]), whole.symbols[[0, 2, 1, 3]])
    assert {part.global_tokens for part in parts} == {whole.global_tokens}


def test_text_is_learned_below_its_letter_entropy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bits per character far below what letter frequencies alone give: the context is used. The figure is
    checked against the probabilities of the model file."""
    caplog.set_level(logging.INFO, "asr")
    path = train(LINES, LINES[:20], settings(tmp_path / "run", epochs=8))
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
    train(LINES, LINES[:20], settings(tmp_path / "whole"))
    expected = load_file(tmp_path / "whole" / "last.safetensors")

    class _Stop(StopRequest):
        left = 30

        @property
        def received(self) -> bool:
            self.left -= 1
            return self.left < 0

    import asr.commands.character_lm as job

    with monkeypatch.context() as patch:
        patch.setattr(job, "StopRequest", _Stop)
        with pytest.raises(Interrupted):
            train(LINES, LINES[:20], settings(tmp_path / "parts"))
    train(LINES, LINES[:20], settings(tmp_path / "parts", resume=True))
    actual = load_file(tmp_path / "parts" / validation_module.LAST_MODEL)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_too_little_text_and_foreign_characters(tmp_path: Path) -> None:
    """One clear line each, before anything is trained."""
    with pytest.raises(DataError, match=r"characters to learn from .* lower --text\.streams"):
        task(streams=30)
    with pytest.raises(DataError, match=r"'é', which the training text never has"):
        train(LINES, ["café"], settings(tmp_path / "run"))


def test_hidden_states_stay_with_their_processes() -> None:
    """With another number of processes or streams, states would meet other streams, or crash midway."""
    made = task(streams=4, world_size=2)
    made.losses(next(made.load([(1, 0)])), torch.float32)
    state = made.state()
    task(streams=4, rank=1, world_size=2).restore(state)
    for other in (task(streams=4), task(streams=3, world_size=2)):
        with pytest.raises(SettingsError, match=r"by 2 process\(es\) with 4 streams.*as many processes"):
            other.restore(state)


def test_out_of_memory_names_this_commands_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text has no manifest to leave anything out of."""

    def losses(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(CharacterLmTask, "losses", losses)
    with pytest.raises(TrainingError, match=r"stream 0, characters 0 to 16.*Lower --text\.block"):
        train(LINES, LINES[:20], settings(tmp_path / "run"))


def test_deterministic_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting was once read and forgotten."""
    import asr.commands.character_lm as job

    called = []
    monkeypatch.setattr(job, "make_deterministic", lambda: called.append(True))
    train(LINES, LINES[:20], settings(tmp_path / "run", deterministic=True, epochs=1))
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
