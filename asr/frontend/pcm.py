"""Sound that comes through a pipe while it is recorded: raw PCM, or WAV whose length nobody knows yet."""

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from asr.errors import AudioError, check_choice, check_number
from asr.frontend.recordings import HIGHEST_RATE, LOWEST_RATE

__all__ = ["PcmFormat", "PcmStream", "SampleType", "decode_pcm"]

log = logging.getLogger("asr")

SampleType = Literal["u8", "s16le", "s24le", "s32le", "f32le", "f64le"]

_BYTES = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8}
_READ = 1 << 14  # bytes at a time, at most: half a second at 16 kHz

# A WAV file that is written to a pipe has a data size of 0, or from this on.
_LARGEST_SIZE = 0x7FFFF000 - 64
_WAV_PCM, _WAV_FLOAT, _WAV_EXTENSIBLE = 1, 3, 0xFFFE

# First bytes of files that are neither PCM nor WAV; read as samples they would be noise.
_OTHERS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"FORM": "AIFF",
}


@dataclass(frozen=True)
class PcmFormat:
    """The form of the samples; a WAV stream has its own."""

    samples: SampleType = "s16le"  # of raw PCM: u8, s16le, s24le, s32le, f32le or f64le
    rate: int = 16_000  # of raw PCM, Hz
    channels: int = 1  # of raw PCM; their mean is recognised

    def __post_init__(self) -> None:
        check_choice("--pcm.samples", self.samples, get_args(SampleType))
        check_number("--pcm.rate", self.rate, least=LOWEST_RATE, most=HIGHEST_RATE, unit="Hz")
        check_number("--pcm.channels", self.channels, least=1, most=64)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample of all channels."""
        return _BYTES[self.samples] * self.channels


def decode_pcm(data: bytes, form: PcmFormat) -> NDArray[np.float32]:
    """(samples,) float32 in [-1, 1], the mean of the channels.

    Args:
        data: whole samples of all channels.
        form: what they are.
    """
    kind = form.samples
    if kind == "u8":
        values = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif kind == "s24le":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0].astype(np.float32) / 2**31
    elif kind in ("s16le", "s32le"):
        width = _BYTES[kind]
        values = np.frombuffer(data, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    else:
        values = np.frombuffer(data, f"<f{_BYTES[kind]}").astype(np.float32)
    mean: NDArray[np.float32] = values.reshape(-1, form.channels).mean(axis=1)
    return mean


class PcmStream:
    """The samples of a pipe, as they arrive.

    Args:
        stream: a binary file that is open for reading, such as the standard input.
        form: of raw PCM.

    Attributes:
        form: of the samples; that of its header where it is a WAV stream.

    Raises:
        AudioError: it is empty, another kind of file, or WAV of another codec.
    """

    def __init__(self, stream: BinaryIO, form: PcmFormat) -> None:
        self._stream = stream
        self.form = form
        self._left: int | None = None  # bytes of samples that are still to come; None: until the end
        head = stream.read(12)
        if not head:
            raise AudioError("the standard input is empty (0 bytes). Expected PCM samples or WAV.")
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            self._read_header()
            head = b""
        other = next((name for start, name in _OTHERS.items() if head.startswith(start)), "")
        if other or head[4:8] == b"ftyp":
            raise AudioError(
                f"the standard input is a file of {other or 'MP4'}. Expected PCM samples or WAV: `asr "
                f"transcribe -` reads other files, `ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -` converts them."
            )
        self._rest = head

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.form.rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """(samples,) float32, mono, of what has arrived, until the stream ends."""
        size = self.form.frame_bytes
        rest = self._rest
        while True:
            wanted = _READ if self._left is None else min(_READ, self._left)
            data = _read_available(self._stream, wanted)
            if self._left is not None:
                self._left -= len(data)
            if not data and not (rest and len(rest) >= size):
                break
            rest += data
            end = len(rest) - len(rest) % size
            if end:
                yield decode_pcm(rest[:end], self.form)
            rest = rest[end:]
        if rest:
            log.warning(
                "the standard input ends in the middle of a sample. Check --pcm.samples and --pcm.channels."
            )

    def _read_header(self) -> None:
        """Read a WAV header up to its samples."""
        form = None
        while True:
            chunk = self._stream.read(8)
            if len(chunk) < 8:
                raise AudioError("the standard input: WAV without samples. Expected a chunk named data.")
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                break
            content = self._stream.read(size + size % 2)
            if name == b"fmt ":
                form = _wav_format(content)
        if form is None:
            raise AudioError("the standard input: WAV without a description of its samples (chunk fmt).")
        self.form = form
        if 0 < size < _LARGEST_SIZE:
            self._left = size


def _wav_format(content: bytes) -> PcmFormat:
    if len(content) < 16:
        raise AudioError("the standard input: a damaged WAV header (chunk fmt).")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _WAV_EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack("<H", content[24:26])
    names: dict[tuple[int, int], SampleType] = {
        (_WAV_PCM, 8): "u8", (_WAV_PCM, 16): "s16le", (_WAV_PCM, 24): "s24le", (_WAV_PCM, 32): "s32le",
        (_WAV_FLOAT, 32): "f32le", (_WAV_FLOAT, 64): "f64le",
    }  # fmt: skip
    if (tag, bits) not in names or not LOWEST_RATE <= rate <= HIGHEST_RATE or not 1 <= channels <= 64:
        raise AudioError(
            f"the standard input: WAV of codec {tag} with {bits} bits, {channels} channels at {rate} Hz. "
            f"Expected PCM: `ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -` converts it."
        )
    return PcmFormat(names[tag, bits], rate, channels)


def _read_available(stream: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; returns as soon as there are some, and nothing at the end."""
    read1 = getattr(stream, "read1", stream.read)
    data: bytes = read1(size) if size else b""
    return data
