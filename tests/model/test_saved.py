"""Models on disk: exact, atomic, and unable to run code."""

import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from asr.errors import ModelError
from asr.frontend.features import FeatureConfig
from asr.model import saved
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.decoding_weights import DecodingWeights, Tuning
from asr.model.saved import (
    FORMAT_VERSION,
    FileKind,
    load_model,
    load_network,
    quantized,
    save_model,
    save_network,
    save_release,
    store_tuning,
)
from asr.text.characters import CharTokenizer
from tests.shapes import encoder_config

KEY = "asr-acoustic-model"


def make(seed: int = 0, **encoder: Any) -> AcousticModel:
    """A tiny model whose every setting differs from its default."""
    torch.manual_seed(seed)
    shape = {
        "width": 5,
        "depth": 2,
        "channels": 3,
        "dropout": 0.25,
        "cell": "gru",
        "subsampling": 3,
        **encoder,
    }
    settings = ModelSettings(
        features=FeatureConfig(sample_rate=8000, n_mels=20, window_ms=20.0, shift_ms=8.0, normalize="global"),
        encoder=encoder_config(**shape),
        tokenizer=CharTokenizer((" ", "'", "a", "ß", "\U0001f600")),
        text_normalizer="lower",
        provenance={"data": "digits"},
    )
    model = AcousticModel(settings)
    model.normalize.set_statistics(torch.randn(20), torch.rand(20) + 0.5)
    return model


def stored(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path: Path, **changes: Any) -> None:
    """Change the record in a saved model; a value of None takes its key away."""
    record, weights = stored(path)
    record.update(changes)
    kept = {key: value for key, value in record.items() if value is not None}
    save_file(weights, path, {KEY: json.dumps(kept)})


def assert_refused(path: Path, *parts: str) -> None:
    """Loading fails with one line that names the file and says all this."""
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


# -------------------------------------------------------------------------------------------------------
# round trip


def test_round_trip_is_exact(tmp_path: Path) -> None:
    """Guards everything that a model needs later: each weight to the bit, settings, alphabet, provenance."""
    model, path = make(), tmp_path / "new folder" / "a.safetensors"
    save_model(path, model, {"seed": 3, "dev_wer": 12.5, "best": float("inf")})
    loaded = load_model(path)
    assert loaded.settings.features == model.settings.features
    assert loaded.settings.encoder == model.settings.encoder
    assert loaded.settings.tokenizer == model.settings.tokenizer
    assert loaded.settings.text_normalizer == "lower"
    assert loaded.settings.provenance == {"data": "digits", "seed": 3, "dev_wer": 12.5, "best": float("inf")}
    assert not loaded.training
    expected = model.state_dict()
    assert expected.keys() == loaded.state_dict().keys()
    assert "normalize.mean" in expected
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    waveforms = [torch.randn(8000, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(loaded.outputs(waveforms)[0], model.outputs(waveforms)[0])


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """Guards "same seed, same bytes": safetensors writes several metadata keys in random order."""
    for name in "abc":
        save_model(tmp_path / name, make(), {"x": 1, "y": 2})
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1
    assert not list(tmp_path.glob("*.part"))


def test_release_is_small_and_names_no_folder(tmp_path: Path) -> None:
    """Guards what others get: a quarter of the size, the tuned weights, and no trace of the machine; the
    model that was given stays as it was."""
    model = make()
    model.settings.provenance["command"] = "asr train /home/somebody/train.jsonl"
    tuning = Tuning(weights=DecodingWeights(lm_weight=1.5), manifest="/home/x/dev.jsonl")
    model.settings = replace(model.settings, tunings=(tuning,))
    save_model(tmp_path / "full.safetensors", model, {})
    save_release(tmp_path / "small.safetensors", model, {"hours": 20})
    small = load_model(tmp_path / "small.safetensors")
    assert small.settings.provenance == {"hours": 20}
    assert small.settings.tunings == (replace(tuning, manifest="dev.jsonl"),)
    record, weights = stored(tmp_path / "small.safetensors")
    assert "home" not in json.dumps(record)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 2:
            assert weights[name].dtype == torch.int8
            step = tensor.abs().amax(1, keepdim=True) / 127
            assert bool(((small.state_dict()[name] - tensor).abs() <= 0.51 * step).all())
        elif tensor.is_floating_point():
            assert weights[name].dtype == torch.float16
            assert torch.equal(small.state_dict()[name], tensor.half().float())
        else:
            assert torch.equal(weights[name], tensor)
    assert model.settings.provenance["command"] == "asr train /home/somebody/train.jsonl"
    assert next(model.parameters()).dtype == torch.float32
    assert model.settings.tunings[0].manifest == "/home/x/dev.jsonl"


def test_new_settings_keep_the_precision_of_the_weights(tmp_path: Path) -> None:
    """A released model that is twice as large once it is tuned or adapted."""
    save_release(tmp_path / "small.safetensors", make(), {})
    before = stored(tmp_path / "small.safetensors")[1]
    store_tuning(tmp_path / "small.safetensors", Tuning(weights=DecodingWeights(lm_weight=1.5)))
    _, after = stored(tmp_path / "small.safetensors")
    assert load_model(tmp_path / "small.safetensors").settings.tunings[0].weights.lm_weight == 1.5
    assert {name: tensor.dtype for name, tensor in after.items()} == {
        name: tensor.dtype for name, tensor in before.items()
    }
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_saving_again_replaces(tmp_path: Path) -> None:
    """Guards against the first of two models that stays, and against rewriting it in place."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(seed=1), {})
    before = path.read_bytes()
    with path.open("rb") as reader:  # keeps the old file, which is renamed over, not rewritten
        save_model(path, make(seed=2), {})
        assert reader.read() == before
    assert torch.equal(load_model(path).encoder.output.weight, make(seed=2).encoder.output.weight)


# --------------------------------------------------------------------------------------------------------
# bad files


def test_missing(tmp_path: Path) -> None:
    """Guards the message after a wrong path, and after a folder in place of a file."""
    assert_refused(tmp_path / "gone", "no such model file. Expected a .safetensors file")
    assert_refused(tmp_path, "is a folder. Expected a model file, such as", "model.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_cut_short(share: float, tmp_path: Path) -> None:
    """Guards against a half-copied model: the missing weights must not come out as zeros or noise."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert_refused(path, "not a readable model", "copy it again or train again")


class Payload:
    """What a malicious pickle holds: unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    """Guards the promise that a stranger's model cannot run code: the payload works, and is never run."""
    trap, path = tmp_path / "trap", tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Payload(trap)))
    pickle.loads(path.read_bytes())
    assert trap.is_dir()
    trap.rmdir()
    assert_refused(path, "not a readable model")
    torch.save({"weights": torch.ones(3), "payload": Payload(trap)}, path)
    assert_refused(path, "not a readable model")
    torch.save({"weights": torch.ones(3)}, path)
    assert_refused(path, "not a readable model")
    assert not trap.exists()


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_foreign_safetensors(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    """Guards against another project's model, with or without metadata."""
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata)
    assert_refused(path, "a safetensors file, but not a model of this project")


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_other_format(version: int, tmp_path: Path) -> None:
    """Guards against a model that is misread: its version is looked at before all else."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    rewrite(path, format_version=version, encoder={"mamba": True})
    assert_refused(path, f"model format {version}, but this version", "Use the version that wrote it")


@pytest.mark.parametrize(
    "key", ["format_version", "features", "encoder", "tokenizer", "normalizer", "provenance"]
)
def test_missing_key(key: str, tmp_path: Path) -> None:
    """Guards against a KeyError without the file's name."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    assert key in stored(path)[0]
    rewrite(path, **{key: None})
    assert_refused(path, "the settings in this model cannot be read", key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": "one"}, "invalid literal"),
        ({"features": {"n_mels": -1}}, "--features.n-mels must be in"),
        ({"features": {"n_mels": "80"}}, "TypeError"),
        ({"features": [1]}, "TypeError"),
        (
            {"encoder": {"subsampling": 9, "layers": {}, "loss": {}, "decoder": {}}},
            "--model.subsampling must be in",
        ),
        ({"encoder": {"unknown": 9, "layers": {}, "loss": {}, "decoder": {}}}, "unknown"),
        ({"encoder": {"layers": {"unknown": 9}}}, "unknown"),
        ({"tokenizer": "{"}, "the stored tokenizer is not JSON"),
        ({"tokenizer": 5}, "TypeError"),
    ],
)
def test_broken_settings(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Guards against settings that are out of range or of another kind: the reason is told."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    rewrite(path, **changes)
    assert_refused(path, "the settings in this model cannot be read", reason)


def test_metadata_that_is_no_json(tmp_path: Path) -> None:
    """Guards against a damaged record."""
    path = tmp_path / "a.safetensors"
    for text in ("{", "[]", '"x"'):
        save_file({"w": torch.ones(2)}, path, {KEY: text})
        assert_refused(path, "the settings in this model cannot be read")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    """Guards against weights of another shape, missing or surplus ones: nothing is loaded in part."""
    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    rewrite(path, encoder=asdict(make(width=6).settings.encoder))
    assert_refused(path, "its weights do not fit its settings", "size mismatch")
    for change in ("surplus", "missing"):
        save_model(path, make(), {})
        record, weights = stored(path)
        if change == "surplus":
            weights["extra"] = torch.ones(1)
        else:
            del weights["encoder.output.bias"]
        save_file(weights, path, {KEY: json.dumps(record)})
        assert_refused(
            path, "its weights do not fit its settings", "extra" if change == "surplus" else "output.bias"
        )


# ------------------------------------------------------------------------------------------------------
# full disks


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = (
            os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(tiny_disk: Path) -> None:
    """Guards a night's training: a model that no longer fits leaves the old one, and no debris."""
    path = tiny_disk / "a.safetensors"
    save_model(path, make(), {"epoch": 1})
    before = path.read_bytes()
    with pytest.raises(ModelError, match=r"No space left on device.*unharmed\. Free some space") as caught:
        save_model(path, make(width=200), {})
    assert str(caught.value).startswith(f"{path}: cannot be written")
    assert path.read_bytes() == before
    assert list(tiny_disk.iterdir()) == [path]
    with pytest.raises(ModelError, match="cannot be written") as caught:
        save_model(tiny_disk / "b.safetensors", make(width=200), {})
    assert "unharmed" not in str(caught.value)


def test_full_disk_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the same where nothing can be mounted, with the error in mid-file."""

    def half_written(weights: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.safetensors"
    save_model(path, make(), {})
    before = path.read_bytes()
    monkeypatch.setattr(saved, "save_file", half_written)
    with pytest.raises(
        ModelError, match=r"No space left on device\. The file that was there before is unharmed"
    ):
        save_model(path, make(), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    """Guards against a traceback when the folder is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"):
        save_model(tmp_path / "file" / "a.safetensors", make(), {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot be written"):
        save_model(tmp_path / "folder", make(), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_weights_of_8_bits(tmp_path: Path) -> None:
    """A quarter of the size; each row is rounded by its own largest value, so that one large row does not
    ruin the others, and a row of zeros is not divided by 0."""
    torch.manual_seed(0)
    net = nn.Linear(64, 32)
    with torch.no_grad():
        net.weight[0] *= 1000
        net.weight[1] = 0
    kind, path = FileKind("a-linear-layer", 1, "layer", "nothing"), tmp_path / "layer.safetensors"
    save_network(path, kind, net, {}, quantized(net.state_dict()))
    again = load_network(path, kind, lambda _: nn.Linear(64, 32))
    step = net.weight.abs().amax(1, keepdim=True) / 127
    assert bool(((again.weight - net.weight).abs() <= 0.51 * step).all())
    assert not torch.equal(again.weight, net.weight)
    assert torch.equal(again.bias, net.bias)
    assert path.stat().st_size < 32 * 64 + 2 * 32 * 4 + 500
