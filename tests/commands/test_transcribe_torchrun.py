"""`torchrun … -m asr transcribe`: each recording is transcribed once, whatever happens to a process."""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asr.cli import main
from asr.torchrun import wait_for_all
from asr.transcripts.output import TranscriptFolder
from asr.transcripts.record import RecordingTranscript

TWO = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def work(rank: int, arguments: list[str], journal: Path, killed_after: int | None) -> None:
    """One of two processes: writes a line for each transcript, and is killed after some of them."""
    os.environ |= {**TWO, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    written = 0
    write = TranscriptFolder.write

    def watch(folder: TranscriptFolder, name: str, transcript: RecordingTranscript) -> None:
        nonlocal written
        if written == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        write(folder, name, transcript)
        written += 1
        with journal.open("a") as file:
            file.write(f"{rank} {name}\n")

    TranscriptFolder.write = watch  # type: ignore[method-assign]
    os._exit(main(arguments))


def start(arguments: list[str], journal: Path, killed_after: tuple[int | None, int | None]) -> list[int]:
    """Run both processes to their end; their exit statuses."""
    context = multiprocessing.get_context("fork")
    running = [
        context.Process(target=work, args=(rank, arguments, journal, killed_after[rank])) for rank in (0, 1)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return [process.exitcode or 0 for process in running]


def test_killed_and_started_again(tones: Any, tmp_path: Path) -> None:
    """Work that is done twice, or never, after a machine was taken away."""
    out, journal = tmp_path / "out", tmp_path / "journal"
    arguments = ["transcribe", str(tones.manifest), "--model", str(tones.model), "--output-dir", str(out)]
    arguments += ["--threads", "1", "--device", "cpu"]
    assert start(arguments, journal, (None, 1)) == [0, -signal.SIGKILL]
    assert Counter(line.split()[0] for line in journal.read_text().splitlines()) == {"0": 4, "1": 1}
    for name in ("%s.txt.999999.part", "%s.srt.999999.part"):  # a process that was killed while it wrote
        (out / (name % Path(tones.files[-1]).stem)).touch()
    (out / f"{Path(tones.files[-1]).stem}.txt").unlink(missing_ok=True)
    assert start(arguments, journal, (None, None)) == [0, 0]
    assert [path.name.split(".")[1] for path in out.glob("*.part")] == ["srt"]  # no file of this command
    lines = journal.read_text().splitlines()
    assert Counter(line.split()[1] for line in lines) == Counter(Path(file).stem for file in tones.files)
    texts = {f"{path.stem}.wav": path.read_text().strip() for path in out.glob("*.txt")}
    assert texts == tones.texts


def test_a_file_that_fails_is_reported_once(
    tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without work that fails (torchrun would end the others); an error line from each process."""
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    statuses, errors = [], ""
    for rank in ("0", "1"):
        for name, value in {**TWO, "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, value)
        arguments = [str(bad), str(bad), "--model", str(tones.model), "--output-dir", str(tmp_path / "out")]
        statuses.append(main(["transcribe", *arguments]))
        errors += capsys.readouterr().err
    assert statuses == [2, 0]  # the same recording twice has one name, and one owner
    assert errors.count("bad.wav: ") == 2  # a line for each time that it is named


def test_needs_a_folder(
    tones: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the texts on stdout, where only one process prints."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["transcribe", *tones.files, "--model", str(tones.model)]) == 2
    assert "Add --output-dir" in capsys.readouterr().err


def test_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends with status 1 while others work: torchrun would kill them."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "RANK": "0", **TWO,
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    waiting = threading.Thread(target=wait_for_all)
    waiting.start()
    store.wait(["asr/finished/0/0"])
    assert waiting.is_alive()
    store.set("asr/finished/0/1", "")
    waiting.join()


def test_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without torchrun that looks for a store."""
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    wait_for_all()
