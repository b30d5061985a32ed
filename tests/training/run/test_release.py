"""Models for others: what their provenance names, and what it does not."""

import json
from pathlib import Path

from asr.manifests.manifest import read_manifest
from asr.model.saved import load_model
from asr.training.recogniser import Settings, train_recogniser
from asr.training.run.release import portable_settings, write_release
from tests.training.conftest import changed


def test_portable_settings_name_no_folder(settings: Settings, tmp_path: Path) -> None:
    """Guards the provenance of models that ship: what is learned is named, where it lay is not."""
    settings = changed(settings, "augment", noise_share=0.5, noise_dir=tmp_path / "noise")
    settings = changed(settings, "train", warm_start=tmp_path / "trunk.safetensors", learning_rate=0.5)
    portable = portable_settings(settings)
    assert portable["train.learning_rate"] == 0.5
    assert portable["augment.noise_dir"] == "noise"
    assert portable["train.warm_start"] == "trunk.safetensors"
    assert str(tmp_path) not in json.dumps(portable)


def test_release_says_what_it_is_made_of(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards the file that ships: data, settings, commit and dev score are in it, folders are not."""
    utterances = read_manifest(manifest)
    model = train_recogniser(utterances, utterances, changed(settings, "train", epochs=1))
    out = tmp_path / "small.safetensors"
    write_release(out, model, "recipes/x.py", {"train": utterances}, {"only": settings})
    record = load_model(out).settings.provenance
    assert record["recipe"] == "recipes/x.py"
    assert record["data"]["train"].startswith(f"{len(utterances)} utterances, 0.0")
    assert record["settings"]["only"]["train.seed"] == settings.train.seed
    assert {"asr", "date", "epoch", "dev_loss"} <= record.keys()
    assert not {"command", "machine"} & record.keys()
    assert str(tmp_path) not in json.dumps(record)
