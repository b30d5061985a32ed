"""A recording of any container and codec, opened and decoded: by libsndfile, else by FFmpeg (PyAV)."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.files import packed_format
from asr.frontend.containers import (
    ends_early,
    has_frame_count,
    is_chained,
    is_finished,
    read_bytes,
    second_wav,
    size_and_mtime,
    with_size,
)
from asr.frontend.tar_members import is_member, read_member

log = logging.getLogger("asr")

Block = NDArray[np.float32]  # (samples, channels)

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # Hz; outside of them a header is damaged
STANDARD_INPUT = Path("-")

_BLOCK_S = 30.0  # decoded at a time
_UNREADABLE = (
    "not a readable audio file ({}). Expected wav, flac, ogg, opus, mp3, m4a or another format that "
    "libsndfile or FFmpeg reads."
)

# libsndfile shortens a wav, aiff or au recording to what the file holds and reports it only in its log. Sizes
# of 2 GiB and more are written by programs that do not know the length in advance.
_CLAIMED_SIZE = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_UNKNOWN_SIZE = 0x7FFFF000 - 64

# Formats of FFmpeg that are refused, since they name other files and addresses to read.
_PLAYLISTS = ("concat", "dash", "hls")

_LARGEST_FRAME = 1152  # samples of a frame of mp3; encoders count their padding differently


class Recording(Protocol):
    """An open recording, to be used in a `with` statement."""

    sample_rate: int  # Hz
    channels: int
    samples: int | None  # per channel; None where only decoding tells

    def blocks(self, start: int, samples: int | None) -> Iterator[Block]:
        """Decode a part, once.

        Args:
            start: its first sample.
            samples: its length; None reads to the end.

        Yields:
            Consecutive blocks of (samples, channels) float32; together they are shorter than was asked for
            where the recording ends earlier.

        Raises:
            AudioError: it cannot be decoded, or was cut short.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def open_recording(path: Path, *, partial: bool = False) -> Iterator[Recording]:
    """Open a recording, and warn if the file was written to meanwhile.

    libsndfile opens what it can read to the end. FFmpeg opens the rest: other containers and codecs, and
    files whose length libsndfile does not know: MP3, recordings that were written to a pipe or by a recorder
    that was killed, and several Ogg streams in one file.

    Args:
        path: a file, a part of a tar file (FILE.tar:OFFSET:SIZE) or a pipe; `-` is the standard input.
        partial: warn of a recording that was cut short, and decode what is there, instead of raising.

    Yields:
        The recording.

    Raises:
        AudioError: it does not exist, is empty or no audio, or was cut short according to its header.
    """
    try:
        source = _source(path)
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be read: {error.strerror or error}. Expected an audio file."
        ) from None
    before = size_and_mtime(source)
    try:
        with _open(path, source, partial) as recording:
            yield recording
    finally:
        if size_and_mtime(source) != before:
            _warn_once(
                f"{path}: the file changed while it was read: the result may be of a part of it. Read it "
                f"again when it is complete."
            )


def _open(path: Path, source: Path | bytes, partial: bool) -> Recording:
    try:
        # Each reader of a pipe's bytes has a position of its own.
        opened = os.fsencode(source) if isinstance(source, Path) else io.BytesIO(source)
        file = soundfile.SoundFile(opened)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a headerless .raw
        if packed := packed_format(read_bytes(source, 32), path, "an audio file"):
            raise AudioError(packed) from None
        if end := second_wav(source):
            what = f"another recording begins at byte {end}, after the first"
            _report_part(path, what, "make it a file of its own", partial)
        return _FFmpegRecording(path, source, partial)
    try:
        _check_rate(path, file.samplerate)
        if _knows_length(file, source):
            return _SndfileRecording(path, source, file, partial)
    except AudioError:
        file.close()
        raise
    file.close()
    if file.frames == 0 and file.format in ("AU", "AIFF"):  # FFmpeg reads none without a length
        source = with_size(read_bytes(source))
    return _FFmpegRecording(path, source, partial, no_length=file.frames == 0)


def _knows_length(file: soundfile.SoundFile, source: Path | bytes) -> bool:
    """Whether libsndfile reads the recording to its end."""
    if file.format == "MP3" or not 0 < file.frames < 2**62:
        return False
    return not (file.format in ("OGG", "FLAC") and is_chained(source))


def _source(path: Path) -> Path | bytes:
    """What to open: the file, or the bytes of a part of a tar file or of a pipe, which is read only once."""
    if path == STANDARD_INPUT:
        return _all_bytes(path, sys.stdin.buffer)
    if is_member(path):
        return read_member(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file.")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder. Expected an audio file.")
    if not path.is_file():
        with path.open("rb") as pipe:
            return _all_bytes(path, pipe)
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Expected an audio file.")
    return path


def _all_bytes(path: Path, stream: BinaryIO) -> bytes:
    data = stream.read()
    if not data:
        raise AudioError(f"{path}: the stream is empty (0 bytes). Expected an audio file.")
    return data


def _check_rate(path: Path, sample_rate: int) -> None:
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path}: the sample rate is {sample_rate} Hz. Expected {LOWEST_RATE} to {HIGHEST_RATE} Hz. The "
            f"header is damaged: copy or download the file again."
        )


def _report_cut(path: Path, what: str, partial: bool) -> None:
    """Refuse a recording that was cut short, or warn of it, once: both decoders may notice it."""
    _report_part(path, f"{what}. The file is damaged or was cut short", "copy or download it again", partial)


def _report_part(path: Path, what: str, remedy: str, partial: bool) -> None:
    """Refuse a recording of which only a part can be decoded, or warn of it, once."""
    if not partial:
        raise AudioError(f"{path}: {what}: {remedy}.")
    if path not in _cut_short:
        _cut_short.add(path)
        log.warning("%s: %s: what could be decoded is used.", path, what)


_cut_short: set[Path] = set()  # recordings that a warning has named


@lru_cache(maxsize=4096)  # once for each file, however many utterances it holds
def _warn_once(message: str) -> None:
    log.warning(message)


class _SndfileRecording:
    """What libsndfile reads, with fast access to any part."""

    def __init__(self, path: Path, source: Path | bytes, file: soundfile.SoundFile, partial: bool) -> None:
        self._path, self._source, self._file, self._partial = path, source, file, partial
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.samples: int | None = file.frames
        sizes = _CLAIMED_SIZE.search(file.extra_info)
        if sizes and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
            _report_cut(path, f"the header promises {sizes[1]} bytes, the file has {sizes[2]}", partial)
        if file.format == "OGG" and "Junk after the last page" in file.extra_info:
            _report_cut(path, "the last part is incomplete", partial)

    def blocks(self, start: int, samples: int | None) -> Iterator[Block]:
        file = self._file
        stop = file.frames if samples is None else min(start + samples, file.frames)
        # In opus files of other programs than libsndfile, only a seek leaves out what the encoder put in
        # front of the recording (6.5 ms); where nothing was put, it changes nothing.
        block_size = round(_BLOCK_S * file.samplerate)
        if start < stop and (start or file.subtype == "OPUS"):
            if file.seekable():
                file.seek(start)
            else:  # GSM and some ADPCM: each block needs the one before
                for position in range(0, start, block_size):
                    file.read(min(block_size, start - position))
        while start < stop:
            size = min(stop - start, block_size)
            try:
                block: Block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = str(error.error_string).removeprefix("Error : ").strip().rstrip(".")
                _report_cut(self._path, f"cannot be decoded ({reason})", self._partial)
                # libsndfile loses the whole block; FFmpeg decodes it up to the damage.
                with _FFmpegRecording(self._path, self._source, self._partial) as recording:
                    yield from recording.blocks(start, stop - start)
                return
            yield block
            start += len(block)
            if len(block) < size:
                what = f"{start} of {file.frames} samples could be read"
                return _report_cut(self._path, what, self._partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _FFmpegRecording:
    """What FFmpeg reads: the first sound track, decoded from its beginning."""

    samples: int | None = None

    def __init__(self, path: Path, source: Path | bytes, partial: bool, *, no_length: bool = False) -> None:
        import av  # only here: most recordings do not need it, and it takes a while to load

        self._path, self._source, self._partial, self._no_length = path, source, partial, no_length
        with _ffmpeg_errors(path):
            # "file:", because a name with a colon would be an address. ignore_length is read by wav alone.
            opened = f"file:{source}" if isinstance(source, Path) else io.BytesIO(source)
            options = {"protocol_whitelist": "file"} | ({"ignore_length": "1"} if no_length else {})
            self._container: Any = av.open(opened, metadata_errors="ignore", options=options)
        try:
            if self._container.format.name in _PLAYLISTS:
                raise AudioError(f"{path}: {_UNREADABLE.format('a list of other files')}")
            streams = self._container.streams.audio
            if not streams:
                raise AudioError(f"{path}: {_UNREADABLE.format('no sound in it')}")
            self._stream: Any = streams[0]
            self.sample_rate: int = self._stream.codec_context.sample_rate
            self.channels: int = self._stream.codec_context.channels
            if not self.sample_rate:
                raise AudioError(f"{path}: {_UNREADABLE.format('no decodable sound')}")
            _check_rate(path, self.sample_rate)
            self._length = self._claimed_length(source)
        except AudioError:
            self._container.close()
            raise

    def _claimed_length(self, source: Path | bytes) -> int | None:
        """Samples that the header claims, padding included, where it knows; None where it only guesses."""
        kind = self._container.format.name
        if kind == "ogg" and not is_finished(source):
            _report_cut(self._path, "the last part is missing", self._partial)
        if "matroska" in kind and (cut := ends_early(source)):
            _report_cut(self._path, cut, self._partial)
        knows = "mp4" in kind or (kind == "mp3" and has_frame_count(source))
        duration = self._stream.duration
        return round(duration * self._stream.time_base * self.sample_rate) if knows and duration else None

    def blocks(self, start: int, samples: int | None) -> Iterator[Block]:
        position = 0  # samples decoded
        stop = None if samples is None else start + samples
        if "mp4" in self._container.format.name and self._length:
            stop = min(stop or self._length, self._length)  # the rest is the encoder's padding
        parts: list[Block] = []
        for frame in self._frames():
            if self._no_length and not position:
                _warn_once(
                    f"{self._path}: its header has no length, as after a crash of the recorder: read to "
                    f"the end."
                )
            parts.append(frame[max(0, start - position) : None if stop is None else max(0, stop - position)])
            position += len(frame)
            if stop is not None and position >= stop:
                break
            if sum(map(len, parts)) >= _BLOCK_S * self.sample_rate:
                yield np.concatenate(parts)
                parts = []
        else:
            if not position:
                raise AudioError(
                    f"{self._path}: the recording has no samples. Record it again, or leave it out."
                )
            if self._length and position < self._length - _LARGEST_FRAME:
                what = f"{position} of {self._length} samples could be read"
                _report_cut(self._path, what, self._partial)
        yield from (np.concatenate(parts),) if parts else ()

    def _frames(self) -> Iterator[Block]:
        """The samples of each packet, at the recording's rate and channels."""
        import av

        resampler = av.AudioResampler("fltp", self._stream.codec_context.layout, self.sample_rate)
        seconds = 0.0
        try:
            for frame in self._container.decode(self._stream):
                seconds = float(frame.time or seconds)
                for converted in resampler.resample(frame):
                    yield np.asarray(converted.to_ndarray().T, np.float32)
            for converted in resampler.resample(None):
                yield np.asarray(converted.to_ndarray().T, np.float32)
        except (av.error.FFmpegError, ValueError) as error:
            what = f"cannot be decoded after {seconds:.1f} s ({_reason(error)})"
            if is_chained(self._source):
                what = f"another recording begins after {seconds:.1f} s, with another rate or other channels"
                return _report_part(self._path, what, "make it a file of its own", self._partial)
            _report_cut(self._path, what, self._partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


@contextmanager
def _ffmpeg_errors(path: Path) -> Iterator[None]:
    """FFmpeg's failure to open a file as an AudioError."""
    import av

    try:
        yield
    except av.error.EOFError as error:
        raise AudioError(
            f"{path}: it ends before its first sound. It was cut short: copy or download it again."
        ) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"{path}: {_UNREADABLE.format(_reason(error))}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
