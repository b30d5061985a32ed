"""`asr transcribe`: recordings -> text."""

import glob
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from torch import Tensor

from asr.decoding.greedy import greedy_decode
from asr.decoding.hypothesis import Hypothesis
from asr.errors import AsrError, AudioError, SettingsError
from asr.frontend.audio import AUDIO_SUFFIXES, read_audio
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.training.distributed import choose_device

log = logging.getLogger("asr")


@dataclass(frozen=True)
class TranscribeSettings:
    """Transcribe recordings: text to stdout, one line a file, in the order given."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional]  # audio files, quoted globs, or folders (searched through)
    model: Path  # a .safetensors file that `asr train` has written
    format: Literal["txt", "json"] = "txt"  # json: one object a line, with word times and confidences
    ids: bool = False  # begin each line of text with the file's name without suffix, as Kaldi does
    batch_s: float = 120.0  # seconds of audio in a batch, padding included
    device: str = "auto"  # auto, cpu, cuda or cuda:N


@dataclass(frozen=True)
class Segment:
    """A recording, or a part of one."""

    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None  # None: to the end


@dataclass(frozen=True)
class Recognised:
    """What became of a segment: a hypothesis, or the reason why there is none."""

    segment: Segment
    duration_s: float
    hypothesis: Hypothesis | None
    error: AsrError | None = None


def run(settings: TranscribeSettings) -> Iterator[tuple[str, AsrError | None]]:
    """Transcribe as the command line says.

    Yields:
        One line to print for each file, in order, and the error of a file that could not be used, whose line is
        then empty (or, in JSON, holds the error).
    """
    if settings.batch_s <= 0:
        raise SettingsError(f"batch-s must be above 0. Got {settings.batch_s:g}.")
    paths = find_audio(settings.files)
    model = load_model(settings.model, choose_device(settings.device))
    began = time.monotonic()
    seconds, done = 0.0, 0
    for result in recognise(model, [Segment(path) for path in paths], settings.batch_s):
        seconds += result.duration_s
        done += 1
        yield _line(result, settings), result.error
        elapsed = time.monotonic() - began
        left = elapsed / done * (len(paths) - done)
        log.info("%d of %d files, %.0f s left", done, len(paths), left, extra={"transient": True})
    elapsed = time.monotonic() - began
    log.info("%d files, %.1f s of audio in %.1f s (%.0f times real time)", done, seconds, elapsed, seconds / elapsed)


def find_audio(names: Sequence[str]) -> list[Path]:
    """Files, globs and folders -> files, in order, each once.

    Raises:
        AudioError: a folder or glob holds no audio files.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
            if not inside:
                raise AudioError(f"{name}: no audio files in this folder ({', '.join(AUDIO_SUFFIXES)}).")
            found |= dict.fromkeys(inside)
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise AudioError(f"{name}: no file matches this pattern.")
            found |= dict.fromkeys(map(Path, matches))
        else:
            found[path] = None  # a missing file gets its message when it is read
    return list(found)


def recognise(model: AcousticModel, segments: Sequence[Segment], batch_s: float) -> Iterator[Recognised]:
    """Recognise segments with greedy decoding, in batches of about the same length.

    Args:
        model: in evaluation mode, on its device.
        segments: what to recognise.
        batch_s: seconds of audio in a batch, padding included.

    Yields:
        One result a segment, in order.
    """
    rate = model.settings.features.sample_rate
    for window in _windows(segments, 10 * batch_s, rate):
        results: dict[int, Recognised] = {}
        usable: list[int] = []
        for number, (segment, waveform, error) in enumerate(window):
            if waveform is None:
                results[number] = Recognised(segment, 0.0, None, error)
            else:
                usable.append(number)
        usable.sort(key=lambda number: -_length(window[number][1]))
        while usable:
            longest = _length(window[usable[0]][1])
            size = max(1, int(batch_s * rate / longest))
            batch, usable = usable[:size], usable[size:]
            log_probs, steps = model.log_probs([waveform for number in batch if (waveform := window[number][1]) is not None])
            for number, hypothesis in zip(
                batch, greedy_decode(log_probs, steps, model.settings.tokenizer, model.step_s), strict=True
            ):
                segment, waveform, _ = window[number]
                results[number] = Recognised(segment, _length(waveform) / rate, hypothesis)
        for number in range(len(window)):
            yield results[number]


_Read = tuple[Segment, Tensor | None, AsrError | None]


def _windows(segments: Sequence[Segment], window_s: float, rate: int) -> Iterable[list[_Read]]:
    """Read segments, some at a time, so that a thousand files need no more memory than ten batches."""
    window: list[_Read] = []
    seconds = 0.0
    for segment in segments:
        waveform, error = _read(segment, rate)
        window.append((segment, waveform, error))
        seconds += _length(waveform) / rate
        if seconds >= window_s:
            yield window
            window, seconds = [], 0.0
    if window:
        yield window


def _read(segment: Segment, rate: int) -> tuple[Tensor | None, AsrError | None]:
    try:
        waveform = read_audio(segment.path, rate, offset_s=segment.offset_s, duration_s=segment.duration_s)
    except AudioError as error:
        return None, error
    if len(waveform) < rate // 40:
        return None, AudioError(
            f"{segment.path}: {1000 * len(waveform) / rate:.0f} ms of audio are too short to recognise. Expected at "
            f"least 25 ms."
        )
    if float(waveform.abs().max()) < 1e-4:
        log.warning("%s: silence (no sample above -80 dBFS)", segment.path)
    return waveform, None


def _length(waveform: Tensor | None) -> int:
    return 0 if waveform is None else len(waveform)


def _line(result: Recognised, settings: TranscribeSettings) -> str:
    path, hypothesis = result.segment.path, result.hypothesis
    if settings.format == "json":
        row: dict[str, object] = {"audio_filepath": str(path), "duration": round(result.duration_s, 3)}
        if hypothesis is None:
            row["error"] = str(result.error)
        else:
            row["text"] = hypothesis.text
            row["score"] = round(hypothesis.score, 3)
            row["words"] = [
                {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3), "confidence": round(word.confidence, 4)}
                for word in hypothesis.words
            ]  # fmt: skip
        return json.dumps(row, ensure_ascii=False)
    text = hypothesis.text if hypothesis else ""
    return f"{path.stem} {text}".rstrip() if settings.ids else text
