"""The gradient microscope at work in a run: when it looks, what it writes, and what it says.

Into RUN/diagnostics go diagnostics.jsonl, one row a look, the pictures, and report.html.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from asr.device import is_out_of_memory
from asr.errors import TrainingError
from asr.microscope.explain import explain, find_symptoms
from asr.microscope.measure import Look, look_at
from asr.microscope.page import PAGE, ROWS, draw, read_rows
from asr.training.checkpoint import Position
from asr.training.config import TrainConfig
from asr.training.metrics import UpdateReport, discard_later_rows
from asr.training.tasks.interface import Task, TaskBatch

log = logging.getLogger("asr")

FOLDER = "diagnostics"  # in the run folder

# Something that was told is told again when it has become so many times as bad.
_WORSE = 1.5
# Pictures are drawn anew when the time since the last ones is so many times what those took.
_PATIENCE = 50

B = TypeVar("B", bound=TaskBatch)


class Microscope(Generic[B]):
    """Looks at the net of a task every so many updates.

    Training is the same with and without it: it draws nothing at random and leaves no gradients.

    Args:
        task: what is trained.
        config: says how often, and where the run is; its advice depends on the rest.
        enabled: False for processes that do not write.
    """

    def __init__(self, task: Task[B], config: TrainConfig, *, enabled: bool) -> None:
        self.task, self.config = task, config
        self.folder = config.run_dir / FOLDER
        self.enabled = enabled and config.diagnose_every > 0
        self._told: dict[str, float] = {}
        self._looks: list[Look] | None = None
        self._before: dict[str, Tensor] = {}
        self._updates = self._clipped = 0  # since the last look
        self._count = 0
        self._spent_s = self._draw_s = self._last_draw = 0.0
        self._undrawn = False

    def begin(self, position: Position) -> None:
        """A run begins, or goes on from a checkpoint; looks after that checkpoint are taken back."""
        if not self.enabled:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            discard_later_rows(self.folder / ROWS, position)
        except OSError as error:
            raise self._cannot_write(error) from error
        for row in read_rows(self.folder / ROWS):
            # JSON has no infinity.
            self._remember({key: math.inf if s is None else s for key, s in row["symptoms"].items()})
        self._last_draw = time.monotonic()

    def before(self, update: int, batches: Sequence[B]) -> None:
        """Look, if it is time, at what an update will be made of.

        Args:
            update: its number, counted from 1; the first one is looked at, too.
            batches: of that update.
        """
        if not self.enabled or (update != 1 and update % self.config.diagnose_every):
            return
        began = time.monotonic()
        carried = self.task.state()
        try:
            self._looks = look_at(self.task.net, lambda: self._loss(batches[0]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning(
                "update %d: not enough memory for the gradient microscope; this look is left out", update
            )
            return
        finally:
            self.task.restore(carried)
        # Peepholes begin at 0: any first update of theirs is large.
        self._before = {
            name: weight.detach().clone()
            for name, weight in self.task.net.named_parameters()
            if weight.requires_grad and weight.dim() > 1 and not name.endswith(".peepholes")
        }
        self._spent_s += time.monotonic() - began

    def observe(self, report: UpdateReport) -> None:
        """Count how often the gradient is clipped."""
        self._updates += report.made
        self._clipped += report.made and report.clipped

    def after(self, update: int, epoch: int) -> None:
        """Finish a look after its update: how far the weights went, what is wrong; write the row.

        Args:
            update: its number, counted from 1.
            epoch: counted from 1.
        """
        looks, self._looks = self._looks, None
        if looks is None:
            return
        began = time.monotonic()
        ratio = self._update_ratio()
        clip_rate = self._clipped / self._updates if self._updates else None
        found = find_symptoms(looks, ratio, clip_rate, self._updates)
        new = [s for s in found if s.severity > _WORSE * self._told.get(s.key, 0.0)]
        texts = explain(new, looks, self.config)
        for text in texts:
            log.warning("update %d: %s", update, text)
        told = {symptom.key: symptom.severity for symptom in new}
        self._remember(told)
        self._updates = self._clipped = 0
        self._count += 1
        spent = self._spent_s + time.monotonic() - began
        self._write(_row(update, epoch, looks, ratio, clip_rate, told, texts) | {"spent_s": round(spent, 3)})
        self._undrawn = True
        self._spent_s += time.monotonic() - began

    def draw(self, *, at_end: bool = False) -> None:
        """Draw the pictures and the page, if there is something new and drawing them costs little.

        Args:
            at_end: draw whatever it costs, and say where and what all looks have cost.
        """
        began = time.monotonic()
        if self._undrawn and (at_end or began - self._last_draw > _PATIENCE * self._draw_s):
            try:
                draw(self.folder, self.folder.parent.name)
            except OSError as error:
                raise self._cannot_write(error) from error
            self._last_draw = time.monotonic()
            self._draw_s = self._last_draw - began
            self._spent_s += self._draw_s
            self._undrawn = False
        if at_end and self._count:
            log.info(
                "gradient microscope: %d looks, pictures included, took %.0f s; see %s",
                self._count, self._spent_s, self.folder / PAGE,
            )  # fmt: skip

    def _loss(self, batch: B) -> Tensor:
        return self.task.losses(batch, torch.float32).losses.sum() / batch.global_tokens

    def _update_ratio(self) -> dict[str, float]:
        """|change| / |weights| of every matrix, over the update that was just made."""
        weights = dict(self.task.net.named_parameters())
        before, self._before = self._before, {}
        ratios = {}
        for name, old in before.items():
            change, size = (weights[name].detach() - old).norm().item(), old.norm().item()
            ratios[name] = change / size if size else math.inf if change else 0.0
        return ratios

    def _remember(self, told: Mapping[str, float]) -> None:
        for key, severity in told.items():
            self._told[key] = max(self._told.get(key, 0.0), severity)

    def _write(self, row: dict[str, Any]) -> None:
        try:
            with (self.folder / ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self.folder}: cannot be written: {error.strerror or error}. Free some space, or leave out "
            f"--train.diagnose-every."
        )


def _row(
    update: int,
    epoch: int,
    looks: Sequence[Look],
    ratio: Mapping[str, float],
    clip_rate: float | None,
    told: Mapping[str, float],
    texts: Sequence[str],
) -> dict[str, Any]:
    layers = [
        {
            **asdict(look),
            "left": look.left(),
            "horizon": look.horizon().steps,
            "horizon_reached": look.horizon().reached,
        }
        for look in looks
    ]
    return {
        "event": "look", "epoch": epoch, "update": update, "layers": layers, "update_ratio": dict(ratio),
        "clip_rate": clip_rate, "symptoms": dict(told), "warnings": list(texts),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """A tree for JSON: five digits are enough, and what is not finite becomes null."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
