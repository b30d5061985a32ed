"""Trainings from Arrow and tar files, the forms of manifests with millions of utterances."""

import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from asr.commands.train import TrainSettings, run
from asr.errors import DataError, Interrupted, SettingsError
from asr.manifests.arrow import ArrowManifest, write_arrow
from asr.manifests.manifest import read_manifest
from asr.manifests.tar_files import write_tar_files
from asr.training.recogniser import Settings, train_recogniser
from asr.training.run import start as start_module
from tests.commands.test_train import command, start_ranks
from tests.training.conftest import StopAfter, assert_same_weights, changed

pytest.importorskip("pyarrow")


@pytest.fixture
def packed(manifest: Path, tmp_path: Path) -> Path:
    """The recordings of the tests in five tar files, and their manifest."""
    return write_tar_files(read_manifest(manifest), tmp_path / "tars", tar_s=3.0)


@pytest.mark.parametrize("cached", [True, False])
def test_same_weights_as_from_json_lines(
    cached: bool, packed: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards order, draws and audio of a training from Arrow, and its resuming, bit for bit."""
    settings = changed(settings, "batch", open_tars=2, cache_dir=tmp_path / "features" if cached else None)
    utterances = read_manifest(packed)
    train_recogniser(utterances, utterances, changed(settings, "train", run_dir=tmp_path / "lines"))
    write_arrow(packed, packed.with_suffix(".arrow"))
    in_arrow = ArrowManifest([packed.with_suffix(".arrow")])
    with monkeypatch.context() as patch:
        patch.setattr(start_module, "StopRequest", lambda *_: StopAfter(2))
        with pytest.raises(Interrupted):
            train_recogniser(in_arrow, utterances, settings)
    train_recogniser(in_arrow, utterances, changed(settings, "train", resume=True))
    assert_same_weights(tmp_path / "lines" / "last.safetensors", tmp_path / "run" / "last.safetensors")
    write_arrow(packed, packed.with_suffix(".arrow"), "lower")  # the same texts
    same = ArrowManifest([packed.with_suffix(".arrow")])
    train_recogniser(same, utterances, changed(settings, "train", resume=True))
    packed.write_text(packed.read_text().replace('"duration": 0.6', '"duration": 0.59'))
    write_arrow(packed, packed.with_suffix(".arrow"))
    other = ArrowManifest([packed.with_suffix(".arrow")])
    with pytest.raises(SettingsError, match="the digest of the training and dev data was"):
        train_recogniser(other, utterances, changed(settings, "train", resume=True))


def test_command(
    packed: Path, manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards several Arrow files in one training, recordings that cannot be used, and mixed forms."""
    arrow, other = tmp_path / "a.arrow", tmp_path / "b.arrow"
    write_arrow(packed, arrow)
    once = changed(settings, "train", epochs=1)
    with pytest.raises(SettingsError, match=r"a\.arrow is Arrow, and .*train\.jsonl is not\. .* --to arrow"):
        run(TrainSettings((arrow, manifest), manifest, once))
    write_arrow(packed, other)
    with pytest.raises(DataError, match=r"16 ids name more than one training utterance"):
        run(TrainSettings((arrow, other), manifest, once))
    caplog.set_level(logging.INFO, "asr")
    first = tmp_path / "tars" / "000000.tar"
    first.write_bytes(first.read_bytes()[:600])
    assert "model.safetensors" in run(TrainSettings((arrow,), arrow, once, on_error="skip"))
    assert "16 training utterances cannot be used and are left out" in caplog.text


RECORDED = """
import json, sys
from pathlib import Path
from asr.cli import main
from asr.training import trainer
from asr.training.run import start
from asr.training.tasks import speech
from tests.training.conftest import StopAfter
seen, stop_after, *arguments = sys.argv[1:]
plain = speech.speech_losses
def losses(model, batch, *rest):
    if model.training:
        with Path(seen).open("a") as file:
            file.write(json.dumps(list(batch.ids)) + chr(10))
    return plain(model, batch, *rest)
speech.speech_losses = losses
trainer.dry_run = lambda *_: None  # it tries a batch before the first update
if int(stop_after):
    start.StopRequest = lambda *_: StopAfter(int(stop_after))
sys.exit(main(arguments))
"""


@pytest.mark.slow
def test_two_processes_stop_and_resume(packed: Path, tmp_path: Path) -> None:
    """Guards several processes on tar files and Arrow: every utterance once an epoch, also over a stop in the
    middle of one, and the weights of a run that was not stopped."""
    write_arrow(packed, packed.with_suffix(".arrow"))
    arguments = ("--train.epochs", "3", "--batch.open-tars", "2", "--batch.workers", "0")

    def trained(name: str, stop_after: int, *more: str) -> Counter[str]:
        seen = tmp_path / f"{name}-{len(more)}.txt"
        typed = command(packed.with_suffix(".arrow"), tmp_path / name, *arguments, *more)[2:]
        ranks = start_ranks(["-c", RECORDED, str(seen), str(stop_after), *typed])
        outputs = [rank.communicate(timeout=300) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [130 if stop_after else 0] * 2, outputs
        return Counter(name for line in seen.read_text().splitlines() for name in json.loads(line))

    every = Counter({utterance.id: 3 for utterance in read_manifest(packed)})
    assert trained("whole", 0) == every
    stopped = trained("run", 3)
    assert 0 < stopped.total() < every.total()
    assert stopped + trained("run", 0, "--train.resume") == every
    assert_same_weights(tmp_path / "whole" / "last.safetensors", tmp_path / "run" / "last.safetensors")
