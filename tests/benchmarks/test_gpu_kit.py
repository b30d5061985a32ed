"""The GPU kit, as far as it can be shown without a GPU."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.commands.options import parse
from asr.commands.train import TrainSettings
from asr.frontend.audio import read_audio
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from benchmarks.gpu import runner, training
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.pack import encode, take
from benchmarks.gpu.part import KitSettings, Part
from benchmarks.gpu.recurrent import BATCHES, CELLS, WIDTHS, combinations
from benchmarks.gpu.report import SECTIONS, markdown
from benchmarks.gpu.runner import PARTS, run_kit
from benchmarks.gpu.throughput import _Repeated
from benchmarks.gpu.timing import FORMATS, number_format
from tests.conftest import Tones


def run_quickly(tones: Tones, out: Path, parts: str) -> dict[str, Any]:
    """results.json of some parts on the CPU."""
    arguments = ["--device", "cpu", "--quick", "--out", out, "--parts", parts]
    main([*map(str, arguments), "--train", str(tones.manifest), "--dev", str(tones.manifest)])
    combined = json.loads((out / "results.json").read_text())
    assert isinstance(combined, dict)
    return combined


def test_facts_and_throughput(tones: Tones, tmp_path: Path) -> None:
    """Guards the way from the command line to results.json, and the watching of a real training."""
    parts = run_quickly(tones, tmp_path, "facts,throughput")["parts"]
    assert [entry["status"] for entry in parts.values()] == ["done", "done"], parts
    assert parts["facts"]["results"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    (row,) = parts["throughput"]["results"]["training"]
    assert row["audio_s_per_s"] > 0
    assert 0 <= row["waiting_share"] <= 1
    assert parts["throughput"]["results"]["profile_rows"]
    assert "| facts | done |" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_every_part(tones: Tones, tmp_path: Path) -> None:
    """A part that is found broken on the day when there is a GPU for ten minutes: here all of them run."""
    parts = run_quickly(tones, tmp_path, ",".join(PARTS))["parts"]
    assert {name: entry["status"] for name, entry in parts.items()} == dict.fromkeys(PARTS, "done"), parts
    results = {name: entry["results"] for name, entry in parts.items()}
    assert results["tests"]["passed"] > 10
    assert not results["tests"]["failed"]
    assert {row["cell"] for row in results["recurrent"]["layers"]} == set(CELLS)
    times = [time for row in results["recurrent"]["layers"] for time in row["ms"].values()]
    assert all(isinstance(time, float) for time in times), times
    assert "%WER" in results["training"]["wer_line"]
    assert (tmp_path / "model.safetensors").is_file()
    assert {row["name"] for row in results["peers"]["stacks"]} >= {"asr", "packed nn.LSTM"}
    same = results["faults"]["same_bits"]
    assert same["stopped_in_time"], same
    assert same["resumed"], same
    assert same["repeated_differs_by"] == same["resumed_differs_by"] == 0.0
    assert all(row["audio_s_per_s"] > 0 for row in results["loader"]["loading"])


def test_a_part_that_hangs_or_fails_does_not_stop_the_next(tmp_path: Path, monkeypatch: Any) -> None:
    """A hang or a crash on a GPU that is there for minutes only: its log is kept, and the next part runs."""
    settings = KitSettings(
        out=str(tmp_path), device="cpu", quick=True, train="absent.jsonl", dev="absent.jsonl"
    )
    limits = {"peers": 0.2, "loader": 60.0, "facts": 60.0}
    run_part = runner.run_part
    monkeypatch.setattr(runner, "run_part", lambda name, s, limit, env: run_part(name, s, limits[name], env))
    parts = run_kit(settings, list(limits), budget_s=100.0)["parts"]
    assert parts["peers"]["status"].startswith("stopped at its limit")
    assert parts["loader"]["status"] == "failed with status 1"
    assert "absent.jsonl" in parts["loader"]["log"][-1]
    assert parts["facts"]["status"] == "done"
    assert "absent.jsonl" in (tmp_path / "report.md").read_text()


def test_time_that_a_part_leaves_goes_to_the_later_ones(tmp_path: Path, monkeypatch: Any) -> None:
    """A budget that a long part overruns, or that is given back unused."""
    now, limits = [0.0], {}

    def run_part(name: str, settings: KitSettings, limit_s: float, environment: Any) -> dict[str, Any]:
        limits[name] = limit_s
        now[0] += limit_s if name == "training" else 1.0
        return {"status": "done", "seconds": 1.0, "limit_s": limit_s, "results": {}}

    monkeypatch.setattr(runner, "run_part", run_part)
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    run_kit(KitSettings(out=str(tmp_path), minutes=2.0), list(PARTS), budget_s=300.0)
    assert limits["throughput"] > limits["tests"]  # heavier, and the time that the tests left
    assert now[0] <= 300
    assert limits["loader"] > 60  # all that is left, where 17 s would be its share of the whole
    assert limits["training"] / limits["peers"] > 4


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Ten minutes of failing parts where the driver is missing."""
    facts = {
        "status": "failed with status 1",
        "seconds": 1.0,
        "limit_s": 9.0,
        "results": {"cuda_available": False},
    }
    monkeypatch.setattr(runner, "run_part", lambda *_: facts)
    parts = run_kit(KitSettings(out=str(tmp_path), device="cuda"), list(PARTS), budget_s=60.0)["parts"]
    assert list(parts) == ["facts"]
    assert "torch sees no GPU" in capsys.readouterr().out


def test_the_most_informative_combination_comes_first() -> None:
    """A microbenchmark that is cut off before it reaches what it was made for, or leaves something out."""
    cases = list(combinations())
    assert cases[0] == ("lstm", "bf16", 128, 320)
    assert len(set(cases)) == len(cases) == len(CELLS) * len(FORMATS) * len(BATCHES) * len(WIDTHS)
    assert {cell for cell, *_ in cases[:40]} >= {"lstm", "gru", "ligru", "lstm-peephole"}


def test_an_epoch_without_end() -> None:
    """The plan of an epoch again and again, from any place on, as the trainer slices it."""
    plan: Any = ["a", "b", "c"]
    repeated = _Repeated(plan)
    assert [repeated[index] for index in range(4)] == ["a", "b", "c", "a"]
    assert [repeated[2:][index] for index in range(2)] == ["c", "a"]
    assert len(repeated[2:]) == len(repeated) - 2


def test_number_formats_are_put_back() -> None:
    """TF32 that stays on after it was measured, in the name of exact float32."""
    before = torch.backends.cudnn.rnn.fp32_precision
    with number_format("tf32") as dtype:
        assert dtype is torch.float32
        assert torch.backends.cudnn.rnn.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
    with number_format("float32"):
        assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    assert torch.backends.cudnn.rnn.fp32_precision == before


def test_the_recipe_is_one_that_train_takes(tmp_path: Path) -> None:
    """An option of the ten-minute training that was renamed, found when the GPU is there."""
    part = Part("training", KitSettings(out=str(tmp_path), quick=False), deadline=0.0)
    hour = [Utterance(id="a", audio_filepath=tmp_path, duration=3600.0, text="a")]
    arguments = [
        "a.jsonl",
        "--dev",
        "b.jsonl",
        *shlex.split(training.RECIPE),
        *training._schedule(part, hour, 60.0),
    ]
    settings = parse(TrainSettings, "asr train", arguments).settings
    assert settings.model.width == 320
    assert settings.batch.seconds == training.BATCH_S


def test_packed_speech_is_the_speech(tones: Tones, tmp_path: Path) -> None:
    """Encoded audio that is longer or later than its manifest says, or a manifest that cannot be moved."""
    utterances = read_manifest(tones.manifest)
    encode(utterances, tmp_path / "speech", "train", kbits=12.0)
    (tmp_path / "speech").rename(tmp_path / "elsewhere")
    packed = read_manifest(tmp_path / "elsewhere" / "train.jsonl")
    assert [utterance.text for utterance in packed] == [utterance.text for utterance in utterances]
    for before, after in zip(utterances, packed, strict=True):
        waveform, coded = (
            read_audio(u.audio_filepath, 16000, duration_s=u.duration) for u in (before, after)
        )
        assert len(waveform) == len(coded)
        assert np.corrcoef(waveform, coded)[0, 1] > 0.9  # of a tone of 900 Hz, 0.2 ms later: 0.4
    assert take(utterances, None) == utterances
    assert take(utterances, 3 / 60)
    assert sum(utterance.duration for utterance in take(utterances, 3 / 60)) <= 3


def test_report_of_what_is_there(tmp_path: Path, capsys: Any) -> None:
    """A report that fails on the results of a kit that was cut short."""
    entry = {
        "status": "stopped at its limit of 9 s",
        "seconds": 9.0,
        "limit_s": 9.0,
        "results": {"speech": "x"},
    }
    combined = {"parts": {name: {**entry, "log": ["last line"]} for name in SECTIONS}}
    assert "last line" in markdown(combined)
    (tmp_path / "results.json").write_text(json.dumps(combined))
    assert main(["report", str(tmp_path / "results.json")]) == 0
    assert "| peers | stopped at its limit of 9 s | 9.0 | 9.0 |" in capsys.readouterr().out
