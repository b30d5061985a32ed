"""The loop on something that is not speech: a character model whose hidden state is carried along."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.errors import Interrupted
from asr.training.config import TrainConfig
from asr.training.context import TrainingContext
from asr.training.distributed import Process
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.tasks.interface import TaskOutput, Throughput
from asr.training.trainer import Trainer
from tests.training.conftest import StopAfter

TEXT = "the cat sat on the mat and the dog sat on the cat "
CPU = torch.device("cpu")
STREAMS, STEPS = 3, 8


@dataclass(frozen=True)
class Chunk:
    ids: tuple[str, ...]
    symbols: Tensor  # (streams, steps + 1) int64
    first: bool  # of the epoch
    global_tokens: int = STREAMS * STEPS
    global_size: float = STREAMS * STEPS

    padded_size: int = STREAMS * STEPS

    def split(self) -> None:
        return None


@dataclass(frozen=True)
class Bits:
    score: float
    loss: float

    def headline(self) -> str:
        return f"dev loss {self.loss:.3f}"

    def row(self) -> dict[str, Any]:
        return {"dev_loss": self.loss}


class CharacterNet(nn.Module):
    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 8)
        self.recurrent = nn.GRU(8, 16, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(16, symbols)

    def forward(self, symbols: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        y, state = self.recurrent(self.embedding(symbols), state)
        return self.output(self.dropout(y)).log_softmax(-1), state


@dataclass
class TextTask:
    """Truncated back-propagation through time over a few streams of one text."""

    net: CharacterNet
    text: Tensor
    state_: Tensor | None = None
    observed: list[int] = field(default_factory=list)
    score_name, score_format = "bits per character", "{:.3f}"
    throughput = Throughput("characters_per_s", "{:.0f} characters/s")
    replay_module = None
    memory_advice = "Read fewer streams."

    def submodules(self) -> dict[str, nn.Module]:
        return dict(self.net.named_children())

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        return load_file(path)

    def plan(self, epoch: int) -> list[int]:
        return list(range((self.text.shape[1] - 1) // STEPS))

    def load(self, plan: Sequence[int]) -> Iterator[Chunk]:
        for number in plan:
            part = self.text[:, number * STEPS : number * STEPS + STEPS + 1]
            yield Chunk(tuple(f"stream {row}" for row in range(STREAMS)), part, number == 0)

    def forward(self, batch: Chunk, precision: torch.dtype) -> TaskOutput:
        log_probs, state = self.net(batch.symbols[:, :-1], None if batch.first else self.state_)
        self.state_ = state.detach()
        losses = nn.functional.nll_loss(
            log_probs.transpose(1, 2), batch.symbols[:, 1:], reduction="none"
        ).sum(1)
        return TaskOutput(losses, {})

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        self.observed.append(number)

    def validate(self, process: Process, precision: torch.dtype) -> Bits:
        self.net.eval()
        with torch.inference_mode():
            log_probs, _ = self.net(self.text[:, :-1], None)
            loss = float(nn.functional.nll_loss(log_probs.transpose(1, 2), self.text[:, 1:]))
        self.net.train()
        return Bits(loss, loss)

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        save_file(dict(weights), path)

    def state(self) -> dict[str, Any]:
        return {"state": self.state_}

    def restore(self, state: dict[str, Any]) -> None:
        self.state_ = state["state"]


def make(run_dir: Path, **config: Any) -> Trainer[Chunk]:
    symbols = sorted(set(TEXT))
    text = torch.tensor([symbols.index(character) for character in TEXT * 3]).view(STREAMS, -1)
    torch.manual_seed(0)
    settings = TrainConfig(
        run_dir=run_dir,
        log_every_s=0.0,
        precision="float32",
        **{"epochs": 4, "learning_rate": 0.02, **config},
    )
    task = TextTask(CharacterNet(len(symbols)), text)
    return Trainer(TrainingContext(task, settings, Process(0, 1, CPU), {}, torch.float32))


def test_text_is_learned(tmp_path: Path) -> None:
    """Guards the loop against assumptions about speech: it learns a text, reports its throughput, and picks a
    best."""
    state = make(tmp_path, epochs=30).fit(StopRequest())
    assert state.best_score < 0.7
    assert (tmp_path / "model.safetensors").exists()
    assert '"characters_per_s"' in (tmp_path / "metrics.jsonl").read_text()
    assert "blank" not in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_carried_state_survives_a_stop(accumulate: int, tmp_path: Path) -> None:
    """Guards truncated back-propagation: stopped in mid-epoch and resumed equals never stopped, by every
    bit, and would not without the state that was carried."""
    make(tmp_path / "whole", accumulate=accumulate).fit(StopRequest())
    expected = load_file(tmp_path / "whole" / "last.safetensors")
    same = {}
    for name in ("parts", "forgetful"):
        with pytest.raises(Interrupted):
            make(tmp_path / name, accumulate=accumulate).fit(StopAfter(1))
        trainer = make(tmp_path / name, accumulate=accumulate)
        state, _, state_dicts = load_checkpoint(tmp_path / name / CHECKPOINT, CPU)
        assert 0 < state.batch < len(trainer.task.plan(1))
        trainer.restore(state, state_dicts)
        if name == "forgetful":
            trainer.task.restore({"state": None})
        trainer.fit(StopRequest())
        actual = load_file(tmp_path / name / "last.safetensors")
        same[name] = all(torch.equal(actual[key], expected[key]) for key in expected)
    assert same == {"parts": True, "forgetful": False}


def test_observed_updates_are_those_made(tmp_path: Path) -> None:
    """Guards `observe`: it gets every update that was made, once, in order."""
    trainer = make(tmp_path, epochs=2)
    state = trainer.fit(StopRequest())
    assert trainer.task.observed == list(range(1, state.update + 1))
