"""The gradient microscope in a training: when it measures, what it writes and what it logs.

Into RUN/diagnostics go diagnostics.jsonl, one row a measurement, the pictures, and report.html.
"""

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
from asr.files import json_line
from asr.microscope.explain import explain, find_symptoms
from asr.microscope.measure import Measurement, measure_layers
from asr.microscope.page import PAGE, ROWS, draw, read_rows
from asr.training.context import TrainingContext
from asr.training.metrics import UpdateReport, discard_later_rows
from asr.training.run.checkpoint import TrainingState
from asr.training.tasks.interface import TaskBatch

log = logging.getLogger("asr")

FOLDER = "diagnostics"  # in the run folder

# A warning is repeated once its value has grown by this factor.
_WORSE = 1.5
# Pictures are drawn again after this many times the seconds that the last ones took.
_PATIENCE = 50

B = TypeVar("B", bound=TaskBatch)


class Microscope(Generic[B]):
    """Measures the net of a task every `diagnose_every` updates.

    Training is the same with and without it: it uses no random numbers and leaves no gradients.

    Args:
        context: of the training; the main process measures and writes.
    """

    def __init__(self, context: TrainingContext[B]) -> None:
        self.task, self.config = context.task, context.config
        self.folder = self.config.run_dir / FOLDER
        self.enabled = context.process.is_main and self.config.diagnose_every > 0
        self._warned: dict[str, float] = {}
        self._measurements: list[Measurement] | None = None
        self._weights_before: dict[str, Tensor] = {}
        self._updates = self._clipped = 0  # since the last measurement
        self._count = 0
        self._spent_s = self._draw_s = self._last_draw = 0.0
        self._undrawn = False

    def begin(self, state: TrainingState) -> None:
        """A run begins, or resumes from a checkpoint; measurements after that checkpoint are removed."""
        if not self.enabled:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            discard_later_rows(self.folder / ROWS, state)
        except OSError as error:
            raise self._cannot_write(error) from error
        for row in read_rows(self.folder / ROWS):
            # JSON has no infinity.
            self._remember(
                {key: math.inf if severity is None else severity for key, severity in row["symptoms"].items()}
            )
        self._last_draw = time.monotonic()

    def before_update(self, number: int, batches: Sequence[B]) -> None:
        """Measure, if it is time, before an update.

        Args:
            number: of the update, counted from 1; the first one is measured, too.
            batches: of that update.
        """
        if not self.enabled or (number != 1 and number % self.config.diagnose_every):
            return
        began = time.monotonic()
        carried = self.task.state()
        try:
            self._measurements = measure_layers(self.task.net, lambda: self._loss(batches[0]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning(
                "update %d: not enough memory for the gradient microscope; this measurement is skipped",
                number,
            )
            return
        finally:
            self.task.restore(carried)
        # Peepholes start at 0: their first update is large, whatever its size.
        self._weights_before = {
            name: weight.detach().clone()
            for name, weight in self.task.net.named_parameters()
            if weight.requires_grad and weight.dim() > 1 and not name.endswith(".peepholes")
        }
        self._spent_s += time.monotonic() - began

    def observe(self, report: UpdateReport) -> None:
        """Count how often the gradient is clipped."""
        self._updates += report.made
        self._clipped += report.made and report.clipped

    def after_update(self, number: int, epoch: int) -> None:
        """Finish a measurement after its update: how far the weights moved, what is wrong; write the row.

        Args:
            number: of the update, counted from 1.
            epoch: counted from 1.
        """
        measurements, self._measurements = self._measurements, None
        if measurements is None:
            return
        began = time.monotonic()
        ratio = self._update_ratio()
        clip_rate = self._clipped / self._updates if self._updates else None
        found = find_symptoms(measurements, ratio, clip_rate, self._updates)
        new = [symptom for symptom in found if symptom.severity > _WORSE * self._warned.get(symptom.key, 0.0)]
        texts = explain(new, measurements, self.config)
        for text in texts:
            log.warning("update %d: %s", number, text)
        warned = {symptom.key: symptom.severity for symptom in new}
        self._remember(warned)
        self._updates = self._clipped = 0
        self._count += 1
        spent = self._spent_s + time.monotonic() - began
        self._write({
            "event": "measurement", "epoch": epoch, "update": number,
            "layers": [_layer_row(layer) for layer in measurements],
            "update_ratio": ratio, "clip_rate": clip_rate, "symptoms": warned, "warnings": texts,
            "spent_s": round(spent, 3),
        })  # fmt: skip
        self._undrawn = True
        self._spent_s += time.monotonic() - began

    def draw(self, *, at_end: bool = False) -> None:
        """Draw the pictures and the page, if there is something new and drawing them costs little.

        Args:
            at_end: draw whatever it costs, and log where, and what all measurements have cost.
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
                "gradient microscope: %d measurements, pictures included, took %.0f s; see %s",
                self._count, self._spent_s, self.folder / PAGE,
            )  # fmt: skip

    def _loss(self, batch: B) -> Tensor:
        return self.task.forward(batch, torch.float32).losses.sum() / batch.global_tokens

    def _update_ratio(self) -> dict[str, float]:
        """|change| / |weights| of every matrix, over the update that was just made."""
        weights = dict(self.task.net.named_parameters())
        before, self._weights_before = self._weights_before, {}
        ratios = {}
        for name, old in before.items():
            change, size = (weights[name].detach() - old).norm().item(), old.norm().item()
            ratios[name] = change / size if size else math.inf if change else 0.0
        return ratios

    def _remember(self, warned: Mapping[str, float]) -> None:
        for key, severity in warned.items():
            self._warned[key] = max(self._warned.get(key, 0.0), severity)

    def _write(self, row: dict[str, Any]) -> None:
        try:
            with (self.folder / ROWS).open("a", encoding="utf-8") as file:
                file.write(json_line(_rounded(row)))
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self.folder}: cannot be written: {error.strerror or error}. Free some space, or leave out "
            f"--train.diagnose-every."
        )


def _layer_row(layer: Measurement) -> dict[str, Any]:
    horizon = layer.horizon()
    return {
        **asdict(layer),
        "left": layer.remaining_fraction(),
        "horizon": horizon.steps,
        "horizon_reached": horizon.reached,
    }


def _rounded(value: Any) -> Any:
    """A tree for JSON: five digits are enough, and what is not finite becomes null."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
