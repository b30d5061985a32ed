"""What a page shows of an utterance: its sound, its log-mel picture, and the model's posteriors."""

import io
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import AudioError
from asr.frontend.audio import resample
from asr.frontend.augment.codec import encode_opus
from asr.frontend.features import log_mel
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.recognise import Segment, run_model
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["Media", "TokenRun", "read_media"]

_LONGEST_S = 60.0  # of the sound and the picture
_KBITS, _OPUS_HZ = 16.0, 16_000  # speech is easy to understand at it; 2 kB a second
_SHADES = 16  # of the picture: 4 bits a pixel
_FRAMES_PER_S, _BANDS = 50, 40  # of the picture, at most
_SHOWN, _FAINT = 0.1, 0.02  # probabilities: a token is shown that reaches the first, where it has the second


@dataclass(frozen=True)
class TokenRun:
    """A token where the model thinks of it.

    Attributes:
        token: its name.
        start: encoder step.
        levels: its probability at each step from there on, as a digit: 9 is above 0.9.
    """

    token: str
    start: int
    levels: str


@dataclass(frozen=True)
class Media:
    """An utterance to see and hear; its first minute, if it is longer.

    Attributes:
        sound: an Ogg Opus file.
        picture: a PNG of log-mel energies, low frequencies at the bottom.
        duration_s: of both.
        runs: the model's tokens without the blank.
        step_s: seconds of an encoder step.
    """

    sound: bytes
    picture: bytes
    duration_s: float
    runs: tuple[TokenRun, ...]
    step_s: float


def read_media(
    model: AcousticModel, utterances: Sequence[Utterance], batch_s: float
) -> Generator[Media | None, None, None]:
    """Run the model again over the utterances that are shown.

    Args:
        model: on its device.
        utterances: what is shown.
        batch_s: seconds of audio in a batch, padding included.

    Yields:
        For each utterance what is shown of it; None where its audio cannot be read any more.
    """
    segments = [
        Segment(one.audio_filepath, one.offset, min(one.duration, _LONGEST_S), one.channel)
        for one in utterances
    ]

    def runs(
        log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None
    ) -> list[tuple[TokenRun, ...]]:
        rows = zip(log_probs.float(), step_lengths.tolist(), strict=True)
        return [token_runs(row[:length].exp().numpy(), model.settings.tokenizer) for row, length in rows]

    config = model.settings.features
    for segment, duration_s, found in run_model(model, segments, batch_s, runs):
        if isinstance(found, AudioError):
            yield None
            continue
        waveform = segment.read(config.sample_rate)  # in memory still
        frames = log_mel(waveform[None], config)[0].numpy()
        yield Media(
            _opus(waveform, config.sample_rate),
            _picture(frames, config.frame_s), duration_s, found, model.step_s,
        )  # fmt: skip


def token_runs(probs: NDArray[np.float32], tokenizer: Tokenizer) -> tuple[TokenRun, ...]:
    """The tokens that reach a probability worth showing, by the step at which they do.

    Args:
        probs: (steps, vocab).
        tokenizer: of the model.
    """
    found = []
    for token in np.flatnonzero(probs.max(axis=0, initial=0.0) >= _SHOWN):
        if token == BLANK:
            continue
        steps = np.flatnonzero(probs[:, token] >= _FAINT)
        for run in np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1):
            values = probs[run, token]
            if values.max() >= _SHOWN:
                levels = "".join(str(min(int(10 * value), 9)) for value in values)
                found.append(TokenRun(tokenizer.symbols[token - 1], int(run[0]), levels))
    return tuple(sorted(found, key=lambda run: run.start))


def _opus(waveform: Tensor, sample_rate: int) -> bytes:
    samples = resample(waveform, sample_rate, _OPUS_HZ).clamp(-1, 1).numpy()
    return encode_opus(np.round(32767 * samples).astype(np.int16), _OPUS_HZ, _KBITS)


def _picture(frames: NDArray[np.float32], frame_s: float) -> bytes:
    """A PNG with few colours: a fifth of the size of one with all.

    Args:
        frames: (frames, n_mels) log-mel energies.
        frame_s: seconds of a frame.
    """
    # Only here: they take a while to load. matplotlib brings pillow.
    from matplotlib import colormaps
    from PIL import Image

    small = _average(
        _average(frames, max(1, round(1 / (frame_s * _FRAMES_PER_S)))).T, math.ceil(frames.shape[1] / _BANDS)
    )
    low, high = np.percentile(small, [5, 99.5])
    shades = np.clip((small - low) / max(high - low, 1e-6), 0, 1) * (_SHADES - 1)
    image = Image.fromarray(np.round(shades[::-1]).astype(np.uint8), mode="P")
    colours = colormaps["magma"](np.linspace(0, 1, _SHADES), bytes=True)
    image.putpalette(np.asarray(colours)[:, :3].tobytes())
    target = io.BytesIO()
    image.save(target, "PNG", optimize=True, bits=4)
    return target.getvalue()


def _average(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(rows, columns) means of `count` consecutive rows; the last ones may be fewer."""
    starts = np.arange(0, len(rows), count)
    sizes = np.diff(np.append(starts, len(rows)))[:, None]
    sums: NDArray[np.float32] = np.add.reduceat(rows, starts)
    return (sums / sizes).astype(np.float32)
