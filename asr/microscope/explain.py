"""Explains what the microscope measured in plain words, with the setting to change."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from asr.errors import first_few
from asr.microscope.measure import Measurement

# What is left of a gradient is judged after this many steps, or pro rata after fewer. An LSTM as it is
# initialised keeps about 1e-2 to 1e-6 over that distance, an Elman network 1e-7 to 1e-10.
_STEPS = 40
_VANISHED = 1e-8
_EXPLODED = 1e3  # more than that many times as much, at any lag
_FEWEST_STEPS = 10  # below these nothing is judged
_SATURATED = 0.9  # share of a gate's values
_LARGE_UPDATE = 0.1  # of the weights' own norm; about 1e-3 is usual
_OFTEN_CLIPPED = 0.9  # share of updates
_FEWEST_UPDATES = 20  # before the clip rate is judged


class UpdateSettings(Protocol):
    """The settings of a training that advice depends on."""

    @property
    def clip_norm(self) -> float:
        """Largest norm of an update's gradient; 0 for no limit."""

    @property
    def learning_rate(self) -> float:
        """At its highest."""


@dataclass(frozen=True)
class Symptom:
    """One problem in one part of the network."""

    kind: str  # vanishing, exploding, saturated, large-update or clipped
    where: str  # such as "layer 3 forwards"; empty for the whole net
    size: str  # how bad, such as "1e-09 after 40 steps"
    severity: float  # 1 at the threshold; the larger the worse

    @property
    def key(self) -> str:
        """The same problem in the same part has the same key at every measurement."""
        return f"{self.kind} {self.where}".strip()


def find_symptoms(
    measurements: Sequence[Measurement],
    update_ratio: Mapping[str, float],
    clip_rate: float | None,
    updates: int,
) -> list[Symptom]:
    """The problems that one measurement shows.

    Args:
        measurements: measurements of all layers and directions.
        update_ratio: |change| / |weights| of one update, by matrix.
        clip_rate: fraction of the updates since the last measurement whose gradient was clipped.
        updates: how many these were.
    """
    found = [symptom for layer in measurements for symptom in _of_layer(layer)]
    for name, ratio in update_ratio.items():
        if ratio > _LARGE_UPDATE:
            severity = 1 + math.log10(ratio / _LARGE_UPDATE) if ratio < math.inf else math.inf
            found.append(Symptom("large-update", name, f"{ratio:.0%}", severity))
    if clip_rate is not None and clip_rate > _OFTEN_CLIPPED and updates >= _FEWEST_UPDATES:
        found.append(Symptom("clipped", "", f"{clip_rate:.0%}", clip_rate / _OFTEN_CLIPPED))
    return found


def explain(
    symptoms: Sequence[Symptom], measurements: Sequence[Measurement], config: UpdateSettings
) -> list[str]:
    """One message a kind: where it is worst, where else, what it means, and the setting to change."""
    texts = []
    for kind in dict.fromkeys(symptom.kind for symptom in symptoms):
        same = sorted((s for s in symptoms if s.kind == kind), key=lambda s: -s.severity)
        worst, others = same[0], same[1:]
        also = ""
        if others:
            also = f" (also {first_few([f'{other.where} {other.size}' for other in others], most=8)})"
        gated = any(layer.memory is not None and layer.name == worst.where for layer in measurements)
        texts.append(_TEXTS[kind](worst, also, gated, config))
    return texts


def _of_layer(layer: Measurement) -> Iterator[Symptom]:
    left = layer.remaining_fraction()
    steps = min(_STEPS, len(left) - 1)
    if steps >= _FEWEST_STEPS:
        # A float that has become 0 has fallen below 1e-45.
        decades = math.log10(max(left[steps], 1e-45))
        limit = math.log10(_VANISHED) * steps / _STEPS
        if decades < limit:
            yield Symptom(
                "vanishing", layer.name, f"{max(left[steps], 1e-45):.0e} after {steps} steps", decades / limit
            )
        most = max(left)
        if not most < _EXPLODED:
            after = left.index(most)
            severity = math.log10(most) / math.log10(_EXPLODED) if most < math.inf else math.inf
            yield Symptom("exploding", layer.name, f"{most:.0e} times after {after} steps", severity)
    for name, gate in layer.saturation.items():
        share = gate.low + gate.high
        # The gate that keeps the memory belongs near its upper limit.
        if share > _SATURATED and name != layer.memory_gate:
            yield Symptom("saturated", f"{layer.name} {name}", f"{share:.0%}", share / _SATURATED)


def _vanishing(worst: Symptom, also: str, gated: bool, _: UpdateSettings) -> str:
    remedy = (
        "A higher --model.subsampling makes fewer steps of the same audio, and a lower --train.learning-rate "
        "keeps gates from closing"
        if gated
        else "Use --model.cell lstm, whose memory carries it, or gru; or a higher --model.subsampling, which "
        "makes fewer steps of the same audio"
    )
    return (
        f"{worst.where}: the gradient through time has fallen to "
        f"{worst.size.replace(' after', ' of itself after')}{also}: a vanishing gradient. What is further "
        f"back cannot be learned. {remedy}."
    )


def _exploding(worst: Symptom, also: str, gated: bool, config: UpdateSettings) -> str:
    if config.clip_norm == 0:
        remedy = "Nothing limits the updates: set --train.clip-norm 5 (it is 0, for never)"
    else:
        remedy = (
            f"--train.clip-norm {config.clip_norm:g} limits the updates, but what is far back drowns out "
            f"what is near: try a third of --train.learning-rate {config.learning_rate:g}"
            + ("" if gated else ", or --model.cell lstm")
        )
    return (
        f"{worst.where}: the gradient through time has grown to "
        f"{worst.size.replace(' times after', ' times itself after')}{also}: an exploding gradient. {remedy}."
    )


def _saturated(worst: Symptom, also: str, _: bool, config: UpdateSettings) -> str:
    return (
        f"{worst.where}: {worst.size} of its values are at their limits{also}, where almost no gradient "
        f"passes. Try a third of --train.learning-rate {config.learning_rate:g}, or keep --model.layer-norm."
    )


def _large_update(worst: Symptom, also: str, _: bool, config: UpdateSettings) -> str:
    return (
        f"{worst.where}: one update changed it by {worst.size} of its size{also}; about 0.1% is usual. Try a "
        f"third of --train.learning-rate {config.learning_rate:g}, or a longer --train.warmup."
    )


def _clipped(worst: Symptom, _: str, __: bool, config: UpdateSettings) -> str:
    return (
        f"the gradient of {worst.size} of the updates was clipped: its direction is kept, its size is not, "
        f"so that the learning rate means little. Raise --train.clip-norm {config.clip_norm:g}, or look for "
        f"an exploding gradient in the pictures."
    )


_TEXTS = {
    "vanishing": _vanishing,
    "exploding": _exploding,
    "saturated": _saturated,
    "large-update": _large_update,
    "clipped": _clipped,
}
