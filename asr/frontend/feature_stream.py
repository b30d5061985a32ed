"""Log-mel frames of a waveform that comes in blocks, and their normalisation by what came so far."""

import torch
from torch import Tensor, nn

from asr.frontend.features import (
    RUNNING_FRAMES,
    FeatureConfig,
    FeatureNormalizer,
    frame_count,
    log_mel_frames,
    normalize_running,
)

__all__ = ["LogMelStream", "StreamNormalizer"]

_SPEAKER_FRAMES = 3000.0  # that the statistics of a stream cover, about; older frames fade


class LogMelStream:
    """`log_mel` of one waveform that comes in blocks.

    Args:
        config: the settings.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self._samples = torch.zeros(config.n_fft // 2)  # from the start of the next frame's window on
        self._taken = self._frames = 0

    def accept(self, waveform: Tensor) -> Tensor:
        """Take the next samples, (samples,), and return the frames that are complete, (frames, n_mels)."""
        self._samples = torch.cat([self._samples, waveform])
        self._taken += len(waveform)
        config = self._config
        return self._take(max(0, (len(self._samples) - config.n_fft) // config.hop_length + 1))

    def finish(self) -> Tensor:
        """The last frames, (frames, n_mels); together as many as `log_mel` returns."""
        self._samples = nn.functional.pad(self._samples, (0, self._config.n_fft // 2))
        return self._take(frame_count(self._taken, self._config) - self._frames if self._taken else 0)

    def _take(self, frames: int) -> Tensor:
        config = self._config
        if frames == 0:
            return torch.zeros(0, config.n_mels)
        size = (frames - 1) * config.hop_length + config.n_fft
        found = log_mel_frames(self._samples[:size], config)
        self._samples = self._samples[frames * config.hop_length :].clone()
        self._frames += frames
        return found


class StreamNormalizer:
    """Normalisation of frames that come in blocks, as their model does it.

    A model that was trained on the statistics of whole utterances gets those of all frames so far, the chunk
    that is computed included. They are carried from one utterance to the next, since speaker and room mostly
    stay the same, and fade after half a minute of speech.

    Args:
        normalizer: the model's.
    """

    def __init__(self, normalizer: FeatureNormalizer) -> None:
        self._normalizer = normalizer
        n_mels = len(normalizer.mean)
        self._history = normalizer.mean.new_zeros(0, n_mels)
        self._frames = 0  # of the utterance that the statistics include already
        self._count = normalizer.prior  # frames in the mean and in the sum of squares
        self._mean = normalizer.mean.double().cpu()
        self._squares = normalizer.prior * normalizer.deviation.double().cpu().square()

    def accept(self, frames: Tensor) -> Tensor:
        """Take the next frames, (frames, n_mels), and return them as `normalize` needs them."""
        kind, normalizer = self._normalizer.kind, self._normalizer
        if kind == "global":
            normalized: Tensor = (frames - normalizer.mean) / normalizer.deviation
            return normalized
        if kind == "running":
            past = self._history
            self._history = torch.cat([past, frames])[1 - RUNNING_FRAMES :]
            return normalize_running(
                frames[None], normalizer.mean, normalizer.deviation, normalizer.prior, past[None]
            )[0]
        return frames

    def normalize(self, frames: Tensor, first: int) -> Tensor:
        """Normalise frames that `accept` returned; those of a right context come again with the next chunk.

        Args:
            frames: (frames, n_mels).
            first: the first one's number in the utterance.
        """
        if self._normalizer.kind != "utterance":
            return frames
        new = frames[max(0, self._frames - first) :]
        if len(new):
            self._frames = first + len(frames)
            self._add(new.double().cpu())
        std = (self._squares / max(self._count, 1.0) + 1e-5).sqrt()
        return (frames - self._mean.to(frames)) / std.to(frames)

    def end_utterance(self) -> None:
        """Begin with the next utterance."""
        self._history, self._frames = self._history[:0], 0

    def _add(self, frames: Tensor) -> None:
        """Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing variances"."""
        self._fade(_SPEAKER_FRAMES / max(self._count, 1.0))
        size = len(frames)
        mean = frames.mean(0)
        delta, total = mean - self._mean, self._count + size
        self._squares += (frames - mean).square().sum(0) + delta.square() * (self._count * size / total)
        self._mean += delta * (size / total)
        self._count = total

    def _fade(self, factor: float) -> None:
        if factor < 1:
            self._count *= factor
            self._squares *= factor
