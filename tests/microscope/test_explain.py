import math
from dataclasses import replace

import pytest

from asr.microscope.explain import Symptom, explain, find_symptoms
from asr.microscope.measure import Measurement
from asr.model.recurrent.gates import Saturation
from asr.training.config import TrainConfig

CONFIG = TrainConfig(clip_norm=0, learning_rate=3e-3)


def measurement(
    factor: float, lags: int = 100, layer: int = 1, gated: bool = False, **more: object
) -> Measurement:
    """A layer whose gradient changes by a factor at every step."""
    curve = tuple(factor**lag for lag in range(lags + 1))
    known = Measurement(
        layer=layer, direction="forwards", h=curve, state=curve, spectral_radius={"hidden": factor},
        saturation={"hidden": Saturation(0.0, 0.0)}, memory_gate="forget" if gated else None,
        memory=(1.0, 2.0, 3.0) if gated else None,
    )  # fmt: skip
    return replace(known, **more)  # type: ignore[arg-type]


def judge(*measurements: Measurement, config: TrainConfig = CONFIG) -> list[str]:
    return explain(find_symptoms(measurements, {}, None, 0), measurements, config)


def test_vanishing_in_plain_words() -> None:
    """Guards the message: where, how much after how many steps, its name, and the settings to change."""
    assert judge(measurement(0.5, layer=3)) == [
        "layer 3 forwards: the gradient through time has fallen to 9e-13 of itself after 40 steps: a "
        "vanishing gradient. What is further back cannot be learned. Use --model.cell lstm, whose memory "
        "carries it, or gru; or a higher --model.subsampling, which makes fewer steps of the same audio."
    ]


def test_vanishing_with_gates_has_other_advice() -> None:
    """Guards against telling a user of an LSTM to use an LSTM."""
    (text,) = judge(measurement(0.5, gated=True))
    assert "a vanishing gradient" in text
    assert "--model.cell" not in text
    assert "A higher --model.subsampling makes fewer steps" in text


@pytest.mark.parametrize(
    ("clip_norm", "advice"), [(0, "set --train.clip-norm 5"), (5, "learning-rate 0.003")]
)
def test_exploding_in_plain_words(clip_norm: float, advice: str) -> None:
    """Guards the message and that its advice depends on whether gradients are clipped already."""
    (text,) = judge(measurement(1.5, lags=41), config=replace(CONFIG, clip_norm=clip_norm))
    assert (
        "layer 1 forwards: the gradient through time has grown to 1e+07 times itself after 40 steps" in text
    )
    assert "an exploding gradient" in text
    assert advice in text


def test_healthy_and_slowly_fading_say_nothing() -> None:
    """Guards against alarms on what every LSTM does at first: 0.73 a step is 3e-6 after 40 steps."""
    assert judge(measurement(1.0), measurement(0.73), measurement(1.05)) == []


def test_short_input_is_judged_pro_rata() -> None:
    """Guards a short utterance: 12 steps at 0.5 are judged, with the same loss a step; 5 steps are not."""
    assert "2e-04 of itself after 12 steps" in judge(measurement(0.5, lags=13))[0]
    assert judge(measurement(0.73, lags=13)) == []
    assert judge(measurement(0.5, lags=6)) == []


def test_gradients_that_are_zero_or_infinite() -> None:
    """Guards the logarithms: a gradient below the smallest float, and one above the largest."""
    assert "fallen to 1e-45 of itself" in judge(measurement(1.0, state=(1.0, 1.0, *[0.0] * 40)))[0]
    assert "grown to inf times itself" in judge(measurement(1.0, state=(1.0, 1.0, *[math.inf] * 40)))[0]


def test_several_layers_in_one_message() -> None:
    """Guards eight warnings at once: one message a kind, the worst layer first."""
    (text,) = judge(measurement(0.5, layer=1), measurement(0.3, layer=2), measurement(0.55, layer=3))
    assert text.startswith("layer 2 forwards:")
    assert "(also layer 1 forwards 9e-13 after 40 steps, layer 3 forwards 4e-11 after 40 steps)" in text


def test_saturation() -> None:
    """Guards both ends together, the gate's name, and that an open forget gate is no fault."""
    ends = {"forget": Saturation(0.0, 1.0), "output": Saturation(0.5, 0.45)}
    (text,) = judge(measurement(1.0, gated=True, saturation=ends))
    assert text.startswith("layer 1 forwards output: 95% of its values are at their limits")
    assert "a third of --train.learning-rate 0.003" in text


def test_large_updates_and_clipping() -> None:
    """Guards the symptoms of the net as a whole, their thresholds, and that few updates prove nothing."""
    found = find_symptoms([], {"w": 0.5, "v": 0.001, "new": math.inf}, 0.95, 20)
    assert [symptom.key for symptom in found] == ["large-update w", "large-update new", "clipped"]
    texts = explain(found, [], replace(CONFIG, clip_norm=2))
    assert "new: one update changed it by inf% of its size (also w 50%)" in texts[0]
    assert "--train.warmup" in texts[0]
    assert "the gradient of 95% of the updates was clipped" in texts[1]
    assert "Raise --train.clip-norm 2" in texts[1]
    assert find_symptoms([], {}, 0.95, 19) == find_symptoms([], {}, 0.9, 20) == []


def test_worse_is_more_severe() -> None:
    """Guards the order that decides which warnings are repeated."""
    kinds = [
        [find_symptoms([measurement(f)], {}, None, 0)[0] for f in pair] for pair in [(0.6, 0.5), (1.3, 1.5)]
    ]
    for mild, bad in kinds:
        assert 1 < mild.severity < bad.severity
        assert mild.key == bad.key
    assert Symptom("clipped", "", "95%", 1.05).key == "clipped"
