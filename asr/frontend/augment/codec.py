"""Codec: speech as a telephone call over the internet leaves it, coded as Opus at a low bit rate."""

import io
from fractions import Fraction

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.frontend.audio import resample

_RATES = (8000, 12_000, 16_000, 24_000, 48_000)  # Hz, that Opus takes
# Of the encoder, 0 to 10: at 10 it takes half as long again, for a difference that no measure here shows.
_EFFORT = 5


def code(waveform: Tensor, sample_rate: int, kbits: float) -> Tensor:
    """Encode a waveform as Opus and decode it.

    Args:
        waveform: (samples,) float32 at sample_rate Hz.
        sample_rate: Hz.
        kbits: bit rate, kbit/s.

    Returns:
        (samples,) float32 at sample_rate Hz, not delayed.
    """
    rate = next((rate for rate in _RATES if rate >= sample_rate), _RATES[-1])
    samples = resample(waveform, sample_rate, rate).numpy()
    coded = encode_opus(np.round(32767 * samples.clip(-1, 1)).astype(np.int16), rate, kbits)
    with soundfile.SoundFile(io.BytesIO(coded)) as file:
        file.seek(0)  # leaves out what the encoder put in front, as in `frontend.audio`
        decoded = file.read(len(samples), dtype="float32")
    decoded = np.pad(decoded, (0, len(samples) - len(decoded)))
    return resample(torch.from_numpy(decoded), rate, sample_rate)[: len(waveform)]


def encode_opus(samples: NDArray[np.int16], rate: int, kbits: float) -> bytes:
    """An Ogg Opus file of mono (samples,) at a rate that Opus takes."""
    # libsndfile has Opus too, but takes four times as long: it always encodes with the most effort.
    import av  # only here: it takes a while to load

    target = io.BytesIO()
    with av.open(target, "w", format="ogg") as file:
        stream = file.add_stream(
            "libopus", rate=rate, layout="mono", options={"compression_level": str(_EFFORT)}
        )
        stream.bit_rate = round(1000 * kbits)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in (frame, None):  # None: what the encoder still holds
            file.mux(stream.encode(part))
    return target.getvalue()
