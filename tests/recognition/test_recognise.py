"""A model run over many recordings: what happens while what else happens, and the order of the results."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import AudioError
from asr.frontend.audio import read_audio
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition import recognise
from asr.recognition.recognise import Segment, run_model

PATIENCE_S = 60  # for what must happen; a failure, not a measurement


@pytest.fixture
def segments(tones: Any) -> list[Segment]:
    return [Segment(Path(file)) for file in tones.files]


@pytest.fixture
def net(tones: Any) -> AcousticModel:
    return load_model(tones.model)


def steps_of(log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None) -> list[int]:
    return [int(length) for length in step_lengths]


class Event:
    """Stands in for an event of a device that takes its time."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.number = sum(entry.startswith("start") for entry in log) - 1

    def synchronize(self) -> None:
        self.log.append(f"wait {self.number}")


def test_a_batch_is_used_after_the_next_is_launched(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that idles while its output is decoded, or output that is used before it has arrived."""
    log: list[str] = []
    whole = AcousticModel.outputs

    def start(model: AcousticModel, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
        log.append(f"start {sum(entry.startswith('start') for entry in log)}")
        return whole(model, waveforms)

    def use(log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None) -> list[int]:
        log.append(f"use {sum(entry.startswith('use') for entry in log)}")
        return steps_of(log_probs, step_lengths, step_s, encoded)

    monkeypatch.setattr(AcousticModel, "outputs", start)
    monkeypatch.setattr("asr.device._record_event", lambda device: Event(log))
    monkeypatch.setattr(recognise, "_WINDOW", 2)  # the order holds from one window to the next
    found = list(run_model(net, segments, 1.0, use))
    assert [segment for segment, _, _ in found] == segments
    batches = sum(entry.startswith("start") for entry in log)
    assert batches > 4
    expected = ["start 0"]
    for number in range(1, batches):
        expected += [f"start {number}", f"wait {number - 1}", f"use {number - 1}"]
    assert log == [*expected, f"wait {batches - 1}", f"use {batches - 1}"]


def test_recordings_are_read_at_the_same_time(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread that decodes while the other cores and the GPU wait; results in the order of completion."""
    together = threading.Barrier(3)

    def read(path: Path, rate: int, **part: Any) -> Tensor:
        if path in {segment.path for segment in segments[:3]}:
            together.wait(PATIENCE_S)  # fails unless three are being read
        return read_audio(path, rate, **part)

    monkeypatch.setattr(recognise, "usable_cores", lambda: 3)
    plain = list(run_model(net, segments, 3.0, steps_of))
    monkeypatch.setattr(recognise, "read_audio", read)
    assert list(run_model(net, segments, 3.0, steps_of)) == plain


def test_reading_goes_on_while_the_model_computes(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that waits for each window of recordings to be read."""
    whole = AcousticModel.outputs
    last_is_read = threading.Event()

    def read(path: Path, rate: int, **part: Any) -> Tensor:
        if path == segments[-1].path:
            last_is_read.set()
        return read_audio(path, rate, **part)

    def compute(model: AcousticModel, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
        assert last_is_read.wait(PATIENCE_S)
        return whole(model, waveforms)

    monkeypatch.setattr(recognise, "_WINDOW", 4)  # of one second
    monkeypatch.setattr(recognise, "usable_cores", lambda: 2)
    monkeypatch.setattr(recognise, "read_audio", read)
    monkeypatch.setattr(AcousticModel, "outputs", compute)
    assert len(list(run_model(net, segments, 1.0, steps_of))) == len(segments)


def test_memory_is_bounded(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand recordings that are all read before the first result is taken; threads that go on after."""
    read: list[Path] = []

    def watch(path: Path, rate: int, **part: Any) -> Tensor:
        read.append(path)
        return read_audio(path, rate, **part)

    monkeypatch.setattr(recognise, "_WINDOW", 1)
    monkeypatch.setattr(recognise, "usable_cores", lambda: 1)
    monkeypatch.setattr(recognise, "read_audio", watch)
    threads = threading.active_count()
    outputs = run_model(net, segments * 100, 1.0, steps_of)
    assert isinstance(outputs, Iterator)
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    assert len(read) < 40
    assert threading.active_count() == threads


def test_reading_ends_with_the_results(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that fails at its first recording, and first reads all the others."""
    read: list[Path] = []
    stopped = threading.Event()

    class Stop(threading.Event):
        def set(self) -> None:
            super().set()
            stopped.set()

    def watch(path: Path, rate: int, **part: Any) -> Tensor:
        read.append(path)
        if path.name == "missing.wav":
            stopped.wait(PATIENCE_S)
        return read_audio(path, rate, **part)

    monkeypatch.setattr(recognise, "_WINDOW", 1)
    monkeypatch.setattr(recognise, "usable_cores", lambda: 1)
    monkeypatch.setattr(recognise, "Event", Stop)
    monkeypatch.setattr(recognise, "read_audio", watch)
    outputs = run_model(net, [*segments[:5], *[Segment(Path("missing.wav"))] * 100], 1.0, steps_of)
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    assert len(read) < 20


def test_threads_of_sums_are_left_as_they_were(net: AcousticModel, segments: list[Segment]) -> None:
    """Decoding with one thread each, and training after it in the same program with one thread as well."""
    counts: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(run_model(net, segments, 1.0, steps_of))
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *counts] == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_a_bad_recording_costs_no_other_its_result(
    net: AcousticModel, segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that move up in the order after a file that failed, at the ends and alone in a window."""
    monkeypatch.setattr(recognise, "_WINDOW", 1)
    missing = Segment(Path("missing.wav"))
    good = {segment: output for segment, _, output in run_model(net, segments, 1.0, steps_of)}
    mixed: Sequence[Segment] = [missing, missing, segments[0], missing, *segments[1:], missing, missing]
    found = list(run_model(net, mixed, 1.0, steps_of))
    assert [segment for segment, _, _ in found] == mixed
    for segment, seconds, output in found:
        if segment == missing:
            assert isinstance(output, AudioError)
            assert seconds == 0
        else:
            assert output == good[segment]
    assert len(list(run_model(net, [missing] * 30, 1.0, steps_of))) == 30
    assert list(run_model(net, [], 1.0, steps_of)) == []
