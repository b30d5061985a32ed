"""Trainings from manifests: what a run leaves, resuming, warm starts, statistics of the features."""

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from asr.batching.batches import Batches
from asr.batching.examples import learn_tokenizer, make_examples
from asr.errors import DataError, Interrupted, SettingsError
from asr.frontend.features import log_mel
from asr.manifests.manifest import read_manifest
from asr.training import recogniser as recogniser_module
from asr.training.distributed import Process
from asr.training.recogniser import Settings, branch_of, feature_statistics, train_recogniser
from asr.training.run import start as start_module
from tests.training.conftest import assert_same_weights, changed, weights_of

CPU = torch.device("cpu")


def test_folder_in_use(manifest: Path, settings: Settings) -> None:
    """Guards a finished run against being overwritten by a second one."""
    utterances = read_manifest(manifest)
    train_recogniser(utterances, utterances, settings)
    with pytest.raises(
        SettingsError, match=r"run already holds a run\. Add --train\.resume to continue it, or"
    ):
        train_recogniser(utterances, utterances, settings)


def test_nothing_to_resume(manifest: Path, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Guards scripts that always pass --train.resume: the first time there is nothing, which is logged."""
    caplog.set_level(logging.INFO, "asr")
    utterances = read_manifest(manifest)
    train_recogniser(utterances, utterances, changed(settings, "train", resume=True, epochs=1))
    assert any(
        "nothing to resume in" in message and "from the beginning" in message for message in caplog.messages
    )


def test_resume_with_other_settings(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards against half a run with one learning rate and half with another: what has changed is named."""
    utterances = read_manifest(manifest)
    train_recogniser(utterances, utterances, changed(settings, "train", epochs=1))
    other = changed(settings, "train", resume=True, epochs=1, learning_rate=0.5)
    other = changed(other, "model", dropout=0.1)
    with pytest.raises(SettingsError) as caught:
        train_recogniser(utterances, utterances, other)
    assert "--model.dropout was None and is now 0.1" in str(caught.value)
    assert "--train.learning-rate was 0.001 and is now 0.5" in str(caught.value)
    assert "epochs" not in str(caught.value)
    same = changed(settings, "train", resume=True, epochs=1)
    with pytest.raises(SettingsError, match="the digest of the training and dev data was"):
        train_recogniser(utterances[1:], utterances, same)
    # Nobody typed it, so the message has to say what it is and what to type.
    with pytest.raises(SettingsError, match=r"--batch.shards \(.* one for each process\) was 1 and is now 2"):
        train_recogniser(utterances, utterances, changed(same, "batch", shards=2))
    # Where and how fast may change, and what an older version did not know counts as the default.
    path = tmp_path / "run" / "checkpoint.pt"
    record = torch.load(path, weights_only=True)
    plain = json.loads(record["settings"])
    del plain["model.residual"]
    torch.save({**record, "settings": json.dumps(plain)}, path)
    train_recogniser(
        utterances,
        utterances,
        changed(changed(same, "train", save_every_s=1.0, threads=1), "batch", workers=0),
    )


def test_resume_with_other_noise(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """One recording more, and every utterance would get another than before the stop."""
    utterances = read_manifest(manifest)
    noise = tmp_path / "noise"
    noise.mkdir()
    shutil.copy(utterances[0].audio_filepath, noise / "a.wav")
    noisy = changed(settings, "augment", noise_share=0.5, noise_dir=noise)
    train_recogniser(utterances, utterances, changed(noisy, "train", epochs=1))
    again = changed(noisy, "train", resume=True, epochs=1)
    train_recogniser(utterances, utterances, again)
    shutil.copy(utterances[0].audio_filepath, noise / "b.wav")
    with pytest.raises(SettingsError, match="the digest of the recordings of noise and rooms was "):
        train_recogniser(utterances, utterances, again)


def test_resume_anyway(
    manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards --train.resume-anyway: it names what has changed and goes on with the settings of today; where
    the weights do not fit any more, one line reports it."""
    utterances = read_manifest(manifest)
    train_recogniser(utterances, utterances, changed(settings, "train", epochs=1))
    more = changed(settings, "train", resume_anyway=True, epochs=2, learning_rate=0.5, weight_decay=0.125)
    train_recogniser(utterances[1:], utterances, more)
    (message,) = [text for text in caplog.messages if "going on with other settings" in text]
    for part in ("--train.epochs was 1 and is now 2", "--train.learning-rate was 0.001 and is now 0.5",
                 "the digest of the training and dev data was"):  # fmt: skip
        assert part in message
    state_dicts = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["states"]
    assert state_dicts["optimizer"]["param_groups"][0]["weight_decay"] == 0.125
    # Other parts learn: the moments of before belong to other weights.
    train_recogniser(utterances, utterances, changed(more, "train", epochs=3, freeze=("front",)))
    assert "other parts are frozen than before: the optimiser's state is reset" in caplog.messages
    with pytest.raises(
        SettingsError, match=r"its weights do not fit these settings: .*size mismatch"
    ) as caught:
        train_recogniser(utterances, utterances, changed(changed(more, "train", epochs=4), "model", width=24))
    assert "\n" not in str(caught.value)
    assert "--train.warm-start" in str(caught.value)


def test_warm_start_and_time_limit(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards two settings through the whole command: a first session that the clock ends at once has the
    source model's weights, a second one continues without needing that model."""
    utterances = read_manifest(manifest)
    source = train_recogniser(utterances, utterances, changed(settings, "train", epochs=1))
    warm = {"run_dir": tmp_path / "warm", "warm_start": source, "epochs": 1}
    with pytest.raises(
        Interrupted, match=r"stopped by --train\.max-hours 1e-06 in epoch 1, batch 1, and saved"
    ):
        train_recogniser(
            utterances, utterances, changed(settings, "train", **warm, max_hours=1e-6, learning_rate=1e-9)
        )
    weights = torch.load(tmp_path / "warm" / "checkpoint.pt", weights_only=True)["states"]["net"]
    torch.testing.assert_close(dict(weights), weights_of(source), rtol=1e-4, atol=1e-6)
    source.unlink()
    train_recogniser(
        utterances, utterances, changed(settings, "train", **warm, resume=True, learning_rate=1e-9)
    )


def test_branch_starts_from_its_trunk(
    manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the decayed branch: it begins with the trunk's weights, and its rate falls to 0."""
    caplog.set_level(logging.INFO, "asr")
    utterances = read_manifest(manifest)
    trunk = changed(settings, "train", schedule="constant", epochs=1, warmup=0.0)
    train_recogniser(utterances, utterances, trunk)
    augment = replace(trunk.augment, telephone_share=1.0)
    branch = branch_of(trunk, tmp_path / "branch", 2, augment)
    assert (branch.augment, branch.model, branch.train.seed) == (augment, trunk.model, trunk.train.seed)
    assert (branch.train.schedule, branch.train.learning_rate) == ("linear", trunk.train.learning_rate)
    train_recogniser(utterances, utterances, branch)
    log = (tmp_path / "branch" / "train.log").read_text()
    assert re.search(
        r"warm start from .*model\.safetensors: (\d+) of \1 tensors copied; not copied: none", log
    )


def test_half_written_files_of_a_killed_session(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards the run folder: what kill -9 left half-written is removed by the next session."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt.part").write_bytes(b"half")
    utterances = read_manifest(manifest)
    train_recogniser(utterances, utterances, changed(settings, "train", epochs=1))
    assert not list((tmp_path / "run").glob("*.part"))


def test_resumed_after_ctrl_c(
    manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Guards the whole command, the training set's statistics included: stopped and resumed equals never
    stopped."""
    utterances = read_manifest(manifest)
    settings = changed(settings, "features", normalize="running")
    train_recogniser(utterances, utterances, changed(settings, "train", run_dir=tmp_path / "whole"))

    class Stop(start_module.StopRequest):
        seen = 0

        @property
        def received(self) -> bool:
            self.seen += 1
            return self.seen > 2

        @received.setter
        def received(self, value: bool) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(start_module, "StopRequest", Stop)
        with pytest.raises(Interrupted, match=r"stopped in epoch 1, batch 3, and saved\. To continue, add"):
            train_recogniser(utterances, utterances, settings)
    monkeypatch.setattr(recogniser_module, "feature_statistics", lambda *_: pytest.fail("computed again"))
    caplog.set_level(logging.INFO, "asr")
    train_recogniser(utterances, utterances, changed(settings, "train", resume=True))
    assert "resuming in epoch 1, after batch 3" in caplog.messages
    for name in ("last.safetensors", "model.safetensors"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "run" / name)
    assert weights_of(tmp_path / "run" / "last.safetensors")["normalize.deviation"].std() > 0


def test_global_statistics(manifest: Path, settings: Settings) -> None:
    """Guards mean and deviation over all frames of the plain recordings, whole or gathered from two
    processes."""
    utterances = read_manifest(manifest)
    config = replace(settings.features, normalize="global")
    tokenizer = learn_tokenizer(utterances, settings.text)
    examples = make_examples(utterances, tokenizer, settings.text, config, 4)

    def batches(rank: int, world_size: int) -> Batches:
        return Batches(
            examples, config, settings.batch, settings.augment, seed=1, rank=rank, world_size=world_size
        )

    waves = [torch.from_numpy(soundfile.read(item.audio_filepath, dtype="float32")[0]) for item in utterances]
    frames = torch.cat([log_mel(wave[None], config)[0] for wave in waves]).double()
    expected = frames.mean(0).float(), frames.std(0, correction=0).float()
    torch.testing.assert_close(feature_statistics(batches(0, 1), config, Process(0, 1, CPU)), expected)

    parts: list[Any] = []

    class Recorder(Process):
        def gather(self, value: Any) -> list[Any]:
            parts.append(value)
            return [value]

    for rank in range(2):
        feature_statistics(batches(rank, 2), config, Recorder(rank, 1, CPU))

    class Gathered(Process):
        def gather(self, value: Any) -> list[Any]:
            return parts

    torch.testing.assert_close(feature_statistics(batches(0, 2), config, Gathered(0, 1, CPU)), expected)


def test_empty_dev_set(manifest: Path, settings: Settings) -> None:
    """Guards against training for an epoch and then finding nothing to choose by."""
    with pytest.raises(DataError, match="none of 0 dev utterances"):
        train_recogniser(read_manifest(manifest), [], settings)


def test_run_folder_that_is_a_file(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards a slip in --train.run-dir."""
    (tmp_path / "run").write_text("notes")
    with pytest.raises(SettingsError, match=r"train\.run-dir .*run: cannot be used as a folder: File exists"):
        train_recogniser(read_manifest(manifest), read_manifest(manifest), settings)
