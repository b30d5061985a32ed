import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.cli import main, recipe
from asr.commands.train import TrainSettings, run
from asr.errors import AudioError, DataError, SettingsError
from asr.files import weights_digest
from asr.manifests.manifest import read_manifest
from asr.model.saved import load_model
from asr.training.recogniser import Settings, train_recogniser
from asr.training.run.checkpoint import load_checkpoint
from tests.training.conftest import RATE, assert_same_weights, changed, weights_of

PROJECT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def command(manifest: Path, run_dir: Path, *more: str) -> list[str]:
    """`asr train` as a user types it, on a model that takes no time."""
    return [
        "-m", "asr", "train", str(manifest), "--dev", str(manifest), "--train.run-dir", str(run_dir),
        "--features.sample-rate", str(RATE), "--features.n-mels", "20", "--model.width", "16",
        "--model.depth", "1", "--model.channels", "4", "--model.dropout", "0.0", "--augment.speeds", "1.0",
        "--batch.seconds", "3", "--batch.cache-dir", str(run_dir.parent / "features"),
        "--train.precision", "float32",
        "--train.device", "cpu", *more,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def start(arguments: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    for _ in range(3000):
        if condition():
            return
        if process.poll() is not None:
            pytest.fail(f"ended too early: {process.communicate()}")
        time.sleep(0.02)
    pytest.fail("nothing happened for a minute")


def test_run(manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards what a run leaves: a model with its provenance, a log that reads well, and what to do next."""
    caplog.set_level(logging.INFO, "asr")
    text = run(TrainSettings(manifests=(manifest,), dev=manifest, settings=settings))
    model_file = tmp_path / "run" / "model.safetensors"
    assert text == f"model: {model_file}\nnext:  asr transcribe FILE... --model {model_file}"
    provenance = load_model(model_file).settings.provenance
    assert provenance["settings"]["augment.speeds"] == [0.9, 1.0]
    assert provenance["settings"]["train.run_dir"] == str(tmp_path / "run")
    assert provenance["torch"] == torch.__version__
    assert provenance["precision"] == "float32"
    written = (tmp_path / "run" / "train.log").read_text()
    assert (
        "training on 16 utterances (0.00 h), dev set of 16: 0.0 M weights, precision float32, CPU, "
        f"threads: {torch.get_num_threads()}" in written
    )
    assert "model.width=16" in written
    assert "run_dir" not in written
    assert "best dev WER" in written
    assert "batch 1/" not in written  # progress lines are for a terminal
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt", "last.safetensors", "metrics.jsonl", "model.safetensors", "tensorboard", "train.log",
    }  # fmt: skip


def test_shape_of_the_model_to_start_from(
    manifest: Path,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards `--train.warm-start MODEL` without further settings: features and encoder are that model's, an
    option still wins, and another alphabet than the model's is no obstacle. So it is in a recipe."""
    source = train_recogniser(
        read_manifest(manifest), read_manifest(manifest), changed(settings, "train", epochs=1)
    )
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row["text"] = row["text"].replace("c", "d")
        row["audio_filepath"] = str(manifest.parent / row["audio_filepath"])
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "train", str(other), "--dev", str(other), "--train.epochs", "1", "--train.precision", "float32",
        "--train.device", "cpu", "--batch.cache-dir", str(tmp_path / "features"), "--model.dropout", "0.5",
        "--train.warm-start-rate", "0.5", "--augment.speeds", "1.0",
        "--train.run-dir", str(tmp_path / "new"), f"--train.warm-start={source}",
    ]  # fmt: skip
    assert main(arguments) == 0
    new, old = load_model(tmp_path / "new" / "model.safetensors"), load_model(source)
    assert new.settings.features == old.settings.features
    assert new.settings.encoder == replace(old.settings.encoder, dropout=0.5)
    assert set(new.settings.tokenizer.symbols) == {"a", "b", "d"}
    monkeypatch.setattr(sys, "argv", ["recipe", "--train.warm-start", str(source)])
    with pytest.raises(SystemExit):
        recipe(lambda found: f"{found.model.width} wide, {found.train.epochs} epochs", Settings())
    assert "16 wide, 50 epochs" in capsys.readouterr().out


def test_same_id_in_two_manifests(manifest: Path, settings: Settings) -> None:
    """Guards two manifests on one command line that name utterances alike."""
    with pytest.raises(DataError, match="16 ids name more than one training utterance: u00"):
        run(TrainSettings(manifests=(manifest, manifest), dev=manifest, settings=settings))


def test_what_cannot_be_used_can_be_left_out(
    manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad recording that ends a training, or a dev set's; one that is left out and not named; a NUL that
    becomes a letter of the alphabet."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    cut = manifest.parent / "cut.wav"
    cut.write_bytes((manifest.parent / rows[0]["audio_filepath"]).read_bytes()[:1000])
    more = [{**rows[0], "id": "cut", "audio_filepath": "cut.wav"}, {**rows[1], "id": "nul", "text": "ab\x00"}]
    bad = manifest.with_name("bad.jsonl")
    bad.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    with pytest.raises(DataError, match=r"bad\.jsonl line \d+: .* control character U\+0000 at position 3"):
        run(TrainSettings((bad,), manifest, settings))
    bad.write_text(bad.read_text().replace('"ab\\u0000"', '"ab"'))
    with pytest.raises(AudioError, match=r"cut\.wav"):
        run(TrainSettings((bad,), manifest, settings))
    shutil.rmtree(settings.train.run_dir)
    bad.write_text(bad.read_text().replace('"ab"', '"ab\\u0000"'))
    with caplog.at_level(logging.INFO, logger="asr"):
        run(TrainSettings((bad,), bad, settings, "skip"))
    assert any("lines of" in text and "U+0000" in text for text in caplog.messages)
    assert any(f"1 of {len(rows) + 1} training utterances cannot" in text for text in caplog.messages)
    assert any("dev utterances cannot be used and are left out: cut: " in text for text in caplog.messages)
    assert any(text.startswith(f"training on {len(rows)} utterances") for text in caplog.messages)
    assert "\x00" not in load_model(settings.train.run_dir / "model.safetensors").settings.tokenizer.symbols


def test_no_training_manifest(manifest: Path, settings: Settings) -> None:
    """`asr train --dev a.jsonl` without a manifest to learn from says how the command goes."""
    with pytest.raises(SettingsError, match=r"no manifest to learn from\. Expected: asr train MANIFEST"):
        run(TrainSettings(manifests=(), dev=manifest, settings=settings))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_process(number: signal.Signals, manifest: Path, tmp_path: Path) -> None:
    """Guards the real command against Ctrl-C and SIGTERM: it saves, says how to go on, and exits with 130."""
    run_dir = tmp_path / "run"
    process = start(command(manifest, run_dir, "--train.epochs", "100000", "--train.log-every-s", "0"))
    wait_for(lambda: (run_dir / "metrics.jsonl").exists(), process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert "and saved. To continue, add --train.resume to the same command." in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert load_checkpoint(run_dir / "checkpoint.pt", CPU)[0].update > 0


def children(process: "subprocess.Popen[str]") -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not listed.exists():
        process.kill()
        pytest.skip("needs /proc to find the processes that another has started")
    return [int(child) for child in listed.read_text().split()]


def test_killed_loader_process(manifest: Path, tmp_path: Path) -> None:
    """Guards kill -9 of a loader process, as the system does for want of memory: one line, and the checkpoint
    stays good."""
    run_dir = tmp_path / "run"
    more = ("--train.epochs", "100000", "--train.save-every-s", "0", "--batch.workers", "1")
    process = start(command(manifest, run_dir, *more))
    wait_for(lambda: (run_dir / "checkpoint.pt").exists(), process)
    victims: list[int] = []
    while not victims:  # there is none between epochs
        victims = children(process)
    os.kill(victims[-1], signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, ""), errors
    # Above it may stand an exception that Python ignored: torch's signal handler may meet a destructor.
    assert errors.splitlines()[-1].startswith("error: a loader process was killed")
    assert load_checkpoint(run_dir / "checkpoint.pt", CPU)[0].update > 0


def saved_at(run_dir: Path) -> int:
    path = run_dir / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


# The first run is not forked: what it loads and compiles, the others have from their start.
ZYGOTE = """
import contextlib, os, sys
from asr.cli import main
with contextlib.redirect_stdout(sys.stderr):
    status = main(sys.stdin.readline().split())
print(status, flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_killed_twenty_times(manifest: Path, tmp_path: Path) -> None:
    """Guards every moment of a run against kill -9: start, reading the checkpoint, updates, writing files,
    validation. What is left after 20 kills ends with the weights of a run that lived."""
    rng = np.random.default_rng(20)
    more = ("--train.epochs", "10", "--train.save-every-s", "0", "--train.ema", "0.9", "--train.average", "3",
            "--train.accumulate", "2", "--model.dropout", "0.2", "--train.resume")  # fmt: skip
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as zygote:  # fmt: skip
        print(*command(manifest, tmp_path / "first", *more)[2:], file=zygote.stdin, flush=True)
        assert zygote.stdout.readline() == "0\n"

        def session(run_dir: Path, kill_after_s: float | None = None, *, update_first: bool = False) -> int:
            print(*command(manifest, run_dir, *more)[2:], file=zygote.stdin, flush=True)
            child = int(zygote.stdout.readline())
            if kill_after_s is not None:
                before = saved_at(run_dir)
                while update_first and saved_at(run_dir) == before and Path(f"/proc/{child}").exists():
                    time.sleep(0.001)
                time.sleep(kill_after_s)
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(child, signal.SIGKILL)
            return int(zygote.stdout.readline())

        began = time.monotonic()
        assert session(whole) == 0
        whole_s = time.monotonic() - began
        kills = furthest = 0
        while kills < 20:
            # Every other session dies young; the others make an update first, so that all get somewhere.
            share = rng.uniform(0.0, 0.2 if kills % 2 else 0.03)
            status = session(run_dir, kill_after_s=share * whole_s, update_first=kills % 2 == 0)
            assert status in (0, -signal.SIGKILL)
            kills += status == -signal.SIGKILL
            if (run_dir / "checkpoint.pt").exists():
                furthest = max(furthest, load_checkpoint(run_dir / "checkpoint.pt", CPU)[0].update)
            if status == 0:  # where the first run was slower, this one ends before it is killed: once more
                assert_same_run(whole, run_dir)
                shutil.rmtree(run_dir)
        assert furthest > 5
        assert session(run_dir) == 0
        zygote.stdin.close()
    assert_same_run(whole, run_dir)


def assert_same_run(left: Path, right: Path) -> None:
    """Two runs of 10 epochs: the same models, the same state of the training, nothing left over."""
    for name in ("last.safetensors", "model.safetensors"):
        assert weights_digest(weights_of(left / name)) == weights_digest(weights_of(right / name))
    states = [load_checkpoint(folder / "checkpoint.pt", CPU)[0] for folder in (left, right)]
    assert replace(states[0], training_s=0.0) == replace(states[1], training_s=0.0)
    rows = [json.loads(line) for line in (right / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == list(range(1, 11))
    assert not list(right.rglob("*.part"))


def torchrun(arguments: list[str], processes: int = 2) -> list[str]:
    return [
        "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(processes), *arguments,
    ]  # fmt: skip


def start_ranks(arguments: list[str]) -> "list[subprocess.Popen[str]]":
    """Two processes with the environment that torchrun gives them, without the time that it takes itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = []
    for rank in range(2):
        numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        ranks.append(start(arguments, **address, **numbers))
    return ranks


def finish_ranks(arguments: list[str]) -> list[tuple[str, str]]:
    """Output and errors of each of two processes that end well."""
    ranks = start_ranks(arguments)
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    return outputs


def test_two_processes_equal_one(manifest: Path, tmp_path: Path) -> None:
    """Guards several processes: the same batches, so the same weights up to the order of sums; one writes."""
    more = ("--train.epochs", "3", "--features.normalize", "global", "--train.learning-rate", "0.003")
    ranks = start_ranks(command(manifest, tmp_path / "both", *more))
    assert main(command(manifest, tmp_path / "alone", *more, "--batch.shards", "2")[2:]) == 0
    (output, errors), other = (rank.communicate(timeout=300) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    assert_same_weights(tmp_path / "alone" / "last.safetensors", tmp_path / "both" / "last.safetensors", 2e-4)
    assert output.startswith("model: ")
    assert errors.count("epoch 3/3") == 1
    assert other == ("", "")
    epochs = []
    for name in ("alone", "both"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        epochs.append([row for row in map(json.loads, lines) if row["event"] == "epoch"])
    assert [row["update"] for row in epochs[0]] == [row["update"] for row in epochs[1]]
    for key in ("train_loss", "dev_loss", "dev_wer", "blank_share"):
        left, right = ([row[key] for row in epoch_rows] for epoch_rows in epochs)
        assert left == pytest.approx(right, rel=1e-3), key


SHORT_OF_MEMORY = """
import os, sys
import torch
from asr.cli import main
from asr.training.tasks import speech
plain = speech.speech_losses
def losses(model, batch, *rest):
    if os.environ["RANK"] == "1" and len(batch.ids) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return plain(model, batch, *rest)
speech.speech_losses = losses
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_one_of_two_processes_is_short_of_memory(manifest: Path, tmp_path: Path) -> None:
    """Guards against processes that wait for each other for ever when one halves its batches: the result is
    that of a process with enough memory. With all tools that the processes have to agree on."""
    more = ("--train.epochs", "3", "--train.accumulate", "2", "--train.ema", "0.9", "--train.average", "2",
            "--batch.shards", "2")  # fmt: skip
    finish_ranks(["-c", SHORT_OF_MEMORY, *command(manifest, tmp_path / "both", *more)[2:]])
    assert main(command(manifest, tmp_path / "alone", *more)[2:]) == 0
    for name in ("last.safetensors", "model.safetensors"):
        assert_same_weights(tmp_path / "alone" / name, tmp_path / "both" / name, 2e-4)


@pytest.mark.slow
def test_stop_of_several_processes(manifest: Path, tmp_path: Path) -> None:
    """Guards Ctrl-C under torchrun: all agree on where to stop, and a resumed run ends like one that did
    not."""
    more = ("--train.epochs", "30", "--train.log-every-s", "0")
    finish_ranks(command(manifest, tmp_path / "whole", *more))
    process = start(torchrun(command(manifest, tmp_path / "run", *more)))
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "and saved. To continue" in errors
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt", CPU)[0].epoch < 30
    finish_ranks(command(manifest, tmp_path / "run", *more, "--train.resume"))
    assert_same_weights(tmp_path / "whole" / "last.safetensors", tmp_path / "run" / "last.safetensors")


@pytest.mark.slow
def test_two_nodes_equal_one_process(manifest: Path, tmp_path: Path) -> None:
    """Guards several machines, simulated by two torchrun agents with a process each: they find each other,
    and train what one process trains; only the first node writes."""
    more = ("--train.epochs", "2", "--batch.shards", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = [
        start([
            "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank),
            "--master-addr", "127.0.0.1", "--master-port", port, "--local-addr", "127.0.0.1",
            *command(manifest, tmp_path / "both", *more),
        ])
        for rank in range(2)
    ]  # fmt: skip
    (output, errors), (other, _) = (node.communicate(timeout=300) for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert (output.startswith("model: "), other) == (True, "")
    assert main(command(manifest, tmp_path / "alone", *more)[2:]) == 0
    assert_same_weights(tmp_path / "alone" / "last.safetensors", tmp_path / "both" / "last.safetensors", 2e-4)


@pytest.mark.slow
def test_dead_process_ends_the_run(manifest: Path, tmp_path: Path) -> None:
    """Guards against a run that waits for ever for a process that has died."""
    audio = tmp_path / "audio"
    shutil.copytree(manifest.parent, audio)
    more = ("--train.epochs", "100000", "--train.log-every-s", "0")
    process = start(torchrun(command(audio / "train.jsonl", tmp_path / "run", *more)))
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    os.kill(children(process)[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    # torchrun tells which process died, and of what. It may end the other one before that has noticed.
    assert "Signal 9 (SIGKILL)" in errors
    assert errors.count("2 processes trained together, and one has ended too early") <= 1


@pytest.mark.slow
def test_an_error_of_all_is_said_once(manifest: Path, tmp_path: Path) -> None:
    """Guards the screen against one error a process where all have the same."""
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    done = finish(torchrun(command(manifest, tmp_path / "run", "--dev", str(empty)), processes=3))
    assert done.returncode != 0
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1, done.stderr
