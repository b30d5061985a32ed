import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from asr.errors import Interrupted, SettingsError, TrainingError
from asr.manifests.utterance import Utterance
from asr.microscope.measure import Measurement, measure_layers
from asr.model.recurrent.gates import Saturation
from asr.training import diagnostics as microscope_module
from asr.training.config import TrainConfig
from asr.training.run.stopping import StopRequest
from asr.training.tasks.speech import speech_losses
from asr.training.trainer import Trainer
from tests.shapes import encoder_config
from tests.training.conftest import ENCODER, StopAfter, examples_of, write_tones

Make = Callable[..., Trainer]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "diagnostics" / "diagnostics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_is_the_same(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the run under the microscope: every bit of the weights, although dropout draws in between; and
    what is written when, and where."""
    make_trainer("without", epochs=2).fit(StopRequest())
    make_trainer("with", epochs=2, diagnose_every=3).fit(StopRequest())
    without, seen = (load_file(tmp_path / name / "last.safetensors") for name in ("without", "with"))
    assert all(torch.equal(weight, seen[name]) for name, weight in without.items())
    assert not (tmp_path / "without" / "diagnostics").exists()
    updates = [row["update"] for row in rows(tmp_path / "with")]
    assert updates[:3] == [1, 3, 6]
    layers = rows(tmp_path / "with")[0]["layers"]
    assert [(layer["layer"], layer["direction"]) for layer in layers] == [(1, "forwards"), (1, "backwards")]
    assert set(layers[0]["spectral_radius"]) == {"input", "forget", "cell", "output"}
    assert layers[0]["h"][0] > 0
    folder = tmp_path / "with" / "diagnostics"
    for name in ("gradient_lines", "gradient_heat", "gates", "weights"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "No warnings." in page
    assert "1 backwards" in page


def long_tones(folder: Path) -> list[Utterance]:
    return write_tones(folder, ["abcd", "dcba", "bdac", "cadb"], letter_s=0.4)


@pytest.mark.parametrize(("cell", "warns"), [("rnn", True), ("lstm", False)])
def test_elman_network_vanishes_and_lstm_does_not(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    cell: Any, warns: bool,
) -> None:  # fmt: skip
    """Guards the whole: a tanh RNN without clipping on long input is reported to vanish or explode, in plain
    words with the setting to change; an LSTM on the same data is not."""
    if not warns:  # there is nothing to be read on the page
        monkeypatch.setattr(microscope_module, "draw", lambda *_: [])
    encoder = encoder_config(ENCODER, cell=cell, subsampling=1, depth=2, width=24)
    examples = examples_of(long_tones(tmp_path / "wav"))
    trainer = make_trainer(encoder=encoder, examples=examples, clip_norm=0.0, epochs=1, diagnose_every=1)
    with caplog.at_level(logging.WARNING, "asr"):
        trainer.fit(StopRequest())
    warnings = [text for text in caplog.messages if "a vanishing gradient" in text or "an exploding" in text]
    assert bool(warnings) == warns
    if warns:
        assert "update 1: layer" in warnings[0]
        assert "--model.cell lstm" in warnings[0]
        written = [text for row in rows(tmp_path / "run") for text in row["warnings"]]
        assert [f"update 1: {written[0]}"] == warnings[:1]
        assert len(rows(tmp_path / "run")) > len(warnings)
        page = (tmp_path / "run" / "diagnostics" / "report.html").read_text()
        assert "a vanishing gradient" in page


def fixed_measurement(factor: float) -> Measurement:
    curve = tuple(factor**lag for lag in range(42))
    return Measurement(1, "forwards", curve, curve, {"hidden": 1.0}, {"hidden": Saturation(0, 0)}, None, None)


@pytest.mark.usefixtures("no_pictures")
def test_told_once_unless_it_gets_worse(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the log against the same warning again and again, also after a resume; worse is repeated."""
    factors = iter([0.5, 0.49, 0.51, 0.3, 0.29] + [0.29] * 100)
    monkeypatch.setattr(microscope_module, "measure_layers", lambda *_: [fixed_measurement(next(factors))])
    trainer = make_trainer(diagnose_every=1)
    with pytest.raises(Interrupted):
        trainer.fit(StopAfter(6))
    warnings = [text for text in caplog.messages if "vanishing" in text]
    assert [text.split(":")[0] for text in warnings] == ["update 1", "update 4"]
    caplog.clear()
    other = make_trainer(diagnose_every=1)
    other.restore(trainer.state, trainer.state_dicts())
    other.fit(StopRequest())
    assert not [text for text in caplog.messages if "vanishing" in text]
    updates = [row["update"] for row in rows(tmp_path / "run")]
    assert updates == list(range(1, len(updates) + 1))


@pytest.mark.usefixtures("no_pictures")
def test_rows_behind_a_checkpoint_are_taken_back(make_trainer: Make, tmp_path: Path) -> None:
    """Guards a run that was killed after its checkpoint: measurements are not written twice."""
    folder = tmp_path / "run" / "diagnostics"
    folder.mkdir(parents=True)
    stale = {"event": "measurement", "epoch": 9, "update": 99, "layers": [], "symptoms": {"clipped": None}}
    (folder / "diagnostics.jsonl").write_text(json.dumps(stale) + '\n{"cut o')
    with pytest.raises(Interrupted):
        make_trainer(diagnose_every=1).fit(StopAfter(1))
    assert [row["update"] for row in rows(tmp_path / "run")] == [1, 2]


@pytest.mark.usefixtures("no_pictures")
def test_update_ratio_and_clip_rate(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the two numbers of the net as a whole: by hand, over exactly the update that was looked at."""
    trainer = make_trainer(diagnose_every=2, clip_norm=1e-6, warmup=0.0)
    state_dicts: list[dict[str, Any]] = []
    original = trainer._update

    def update(*arguments: Any) -> Any:
        state_dicts.append({name: weight.clone() for name, weight in trainer.task.net.state_dict().items()})
        return original(*arguments)

    trainer._update = update  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.fit(StopAfter(4))
    first, second, *_ = rows(tmp_path / "run")
    assert second["update"] == 2
    name = "encoder.recurrent.layers.0.forwards.weight_hh_l0"
    before, after = state_dicts[1][name], state_dicts[2][name]
    expected = ((after - before).norm() / before.norm()).item()
    assert second["update_ratio"][name] == pytest.approx(expected, rel=1e-3)
    assert not any("bias" in name for name in second["update_ratio"])
    assert first["clip_rate"] is None or first["clip_rate"] == 1
    assert second["clip_rate"] == 1


def test_memory_that_does_not_suffice(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the run: a measurement that does not fit into memory is skipped; other errors are raised."""

    def fail(*_: Any) -> list[Measurement]:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(microscope_module, "measure_layers", fail)
    make_trainer("small", epochs=1, diagnose_every=4).fit(StopRequest())
    assert (
        "update 1: not enough memory for the gradient microscope; this measurement is skipped"
        in caplog.messages
    )

    def break_down(*_: Any) -> list[Measurement]:
        raise RuntimeError("something else")

    monkeypatch.setattr(microscope_module, "measure_layers", break_down)
    with pytest.raises(RuntimeError, match="something else"):
        make_trainer("other", diagnose_every=4).fit(StopRequest())


def test_loss_that_is_not_finite(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a row without layers: it is written, and nothing is drawn from it."""
    monkeypatch.setattr(microscope_module, "measure_layers", lambda *_: [])
    make_trainer(epochs=1, diagnose_every=100).fit(StopRequest())
    assert [row["layers"] for row in rows(tmp_path / "run")] == [[]]
    assert not (tmp_path / "run" / "diagnostics" / "report.html").exists()


def test_numbers_that_are_not_finite(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards JSON, which has no infinity, and drawing from what stands there instead."""
    wild = replace(
        fixed_measurement(1.0), state=(1.0, 1.0, math.inf, math.nan), spectral_radius={"hidden": math.nan}
    )
    monkeypatch.setattr(microscope_module, "measure_layers", lambda *_: [wild])
    make_trainer(epochs=1, diagnose_every=100).fit(StopRequest())
    (row,) = rows(tmp_path / "run")
    assert row["layers"][0]["left"] == [1.0, None, None]
    assert row["layers"][0]["horizon"] == 0
    assert "not finite" in (tmp_path / "run" / "diagnostics" / "report.html").read_text()


def test_folder_that_cannot_be_written(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the message: the folder, the reason, and what to do."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diagnostics").write_text("a file")
    with pytest.raises(TrainingError, match=r"diagnostics: cannot be written: File exists\. Free some space"):
        make_trainer(diagnose_every=1).fit(StopRequest())


def test_setting_is_checked() -> None:
    """Guards a negative distance between measurements."""
    with pytest.raises(SettingsError, match=r"--train\.diagnose-every must be at least 0\. Got -1\."):
        TrainConfig(diagnose_every=-1)


@pytest.mark.parametrize("cell", ["rnn", "ligru"])
def test_horizons_of_a_recogniser(make_trainer: Make, cell: Any) -> None:
    """Guards what comparisons of cells do: a horizon for each layer and direction, without a run."""
    trainer = make_trainer(encoder=encoder_config(ENCODER, cell=cell, depth=2))
    task: Any = trainer.task
    batch = next(iter(task.load(task.plan(1))))

    def loss() -> Tensor:
        return speech_losses(task.net, batch, torch.float32).losses.sum() / batch.global_tokens

    horizons = [layer.horizon() for layer in measure_layers(task.net, loss)]
    assert [(h.layer, h.direction) for h in horizons] == [
        (layer, direction) for layer in (1, 2) for direction in ("forwards", "backwards")
    ]
    assert all(horizon.steps > 0 for horizon in horizons)
    assert horizons == [layer.horizon() for layer in measure_layers(task.net, loss)]
    assert all(weight.grad is None for weight in task.net.parameters())


@pytest.mark.usefixtures("no_pictures")
def test_peepholes_begin_at_zero(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a false alarm: of weights that begin at 0, the first update is infinitely many times
    their size."""
    encoder = encoder_config(ENCODER, cell="lstm-peephole")
    make_trainer(encoder=encoder, epochs=1, diagnose_every=1).fit(StopRequest())
    ratios = rows(tmp_path / "run")[1]["update_ratio"]
    assert any(name.endswith("weight_hh_l0") for name in ratios)
    assert not any("peepholes" in text for text in (*ratios, *caplog.messages))
