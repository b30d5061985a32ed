"""Waveform to log-mel frames: the spectrum, the mel filters, the number of frames, normalisation.

Everything here runs on the device of its input and treats each row of a batch on its own, so that an
utterance has the same features alone and in a batch.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args, overload

import torch
from torch import Tensor, nn

from asr.errors import AudioError, SettingsError, check_choice, check_number

# Counts changes to the numbers that resampling and log_mel give for the same settings; caches of another
# version are not used.
FEATURES_VERSION = 2

# Frames that are transformed at a time, over all rows. On a CPU the float64 spectrum of a block stays in the
# processor's cache, which is two to three times as fast as a spectrum of many minutes. On a GPU it bounds
# memory: a block takes about 0.5 GB.
_CPU_BLOCK = 512
_GPU_BLOCK = 65_536

Normalization = Literal["utterance", "running", "global", "none"]

RUNNING_FRAMES = 512  # window of running statistics; a power of two
_RUNNING_PRIOR_FRAMES = 200.0  # by default


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How a waveform becomes log-mel frames."""

    sample_rate: int = 16_000  # Hz; every recording is resampled to it
    n_mels: int = 80  # mel bands from 0 Hz to half the sample rate
    window_ms: float = 25.0  # length of the Hann window
    shift_ms: float = 10.0  # from one frame to the next
    log_floor: float = 1e-8  # mel energies are raised to this first: white noise 87 dB below full scale
    # whose mean and variance: running ones, for streams, are of the last 5 seconds and of the training set,
    # global ones of the training set
    normalize: Normalization = "utterance"
    # As how many frames the training set's statistics count beside those of the utterance, or the running
    # ones. They keep a short word from being normalised away: 50 for single words, 0 for none.
    # None: 0 for utterance, 200 for running.
    prior_frames: float | None = None

    def __post_init__(self) -> None:
        check_number("--features.sample-rate", self.sample_rate, least=1000, unit="Hz")
        check_number("--features.window-ms", self.window_ms, least=1, most=1000)
        if not 0 < self.shift_ms <= self.window_ms or self.hop_length < 1:
            raise SettingsError(
                f"--features.shift-ms must be at least one sample and not above --features.window-ms "
                f"({self.window_ms:g}). Got {self.shift_ms:g}."
            )
        if not 1 <= self.n_mels <= self._max_bands():
            raise SettingsError(
                f"--features.n-mels must be in 1..{self._max_bands()} for a window of {self.window_ms:g} ms "
                f"at {self.sample_rate} Hz. Got {self.n_mels}."
            )
        check_number("--features.log-floor", self.log_floor, above=0, below=math.inf)
        check_choice("--features.normalize", self.normalize, get_args(Normalization))
        if self.prior_frames is not None:
            least = 1 if self.normalize == "running" else 0
            if not least <= self.prior_frames < math.inf:
                raise SettingsError(
                    f"--features.prior-frames must be at least {least} with --features.normalize "
                    f"{self.normalize}. Got {self.prior_frames:g}."
                )
            if self.prior_frames and self.normalize not in ("utterance", "running"):
                raise SettingsError(
                    f"--features.prior-frames {self.prior_frames:g} has no effect with --features.normalize "
                    f"{self.normalize}. Leave it out."
                )

    @property
    def prior(self) -> float:
        """`prior_frames`, or the default of the kind of normalisation where none is given."""
        if self.prior_frames is None:
            return _RUNNING_PRIOR_FRAMES if self.normalize == "running" else 0.0
        return self.prior_frames

    @property
    def needs_statistics(self) -> bool:
        """Whether features are normalised with statistics of the training set."""
        return self.normalize in ("running", "global") or self.prior > 0

    def _max_bands(self) -> int:
        """Bands with which the narrowest, those below 1 kHz, still cover a bin of the transform each."""
        bin_hz = self.sample_rate / self.n_fft
        return math.ceil(2 * _mel(self.sample_rate / 2) * 200 / 3 / bin_hz) - 2

    @property
    def win_length(self) -> int:
        """Window length in samples."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop_length(self) -> int:
        """Shift in samples."""
        return round(self.shift_ms * self.sample_rate / 1000)

    @property
    def n_fft(self) -> int:
        """Transform size in samples: the power of two that holds a window."""
        return 1 << (self.win_length - 1).bit_length()

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_length / self.sample_rate


@overload
def frame_count(samples: int, config: FeatureConfig) -> int: ...
@overload
def frame_count(samples: Tensor, config: FeatureConfig) -> Tensor: ...
def frame_count(samples: int | Tensor, config: FeatureConfig) -> int | Tensor:
    """Frames that `log_mel` makes of a number of samples: 1 + samples // hop_length."""
    return 1 + samples // config.hop_length


def log_mel(waveform: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel energies of a batch of waveforms.

    Frame t is centred on sample t * hop_length; outside of its ends a waveform counts as zeros, as
    padding in a batch does.

    Args:
        waveform: (batch, samples) float32 in [-1, 1], at config.sample_rate Hz, padded with zeros.
        config: the settings.

    Returns:
        (batch, frames, n_mels) float32, natural logarithms; frames = 1 + samples // hop_length.

    Raises:
        AudioError: the waveforms are shorter than one window.

    Source: librosa.feature.melspectrogram (Slaney's mel scale and area normalisation, power spectrum,
        zero padding), whose energies it matches to 1e-5 relative.
    """
    require_one_window(waveform.shape[-1], config)
    filters = _mel_filters(config.n_fft, config.n_mels, config.sample_rate, waveform.device)
    frames = frame_count(waveform.shape[-1], config)
    # On a CPU, one row at a time. Rows of a batch are independent, so the values are the same either way.
    rows = torch.split(waveform, 1) if waveform.device.type == "cpu" else (waveform,)
    block = _CPU_BLOCK if waveform.device.type == "cpu" else max(1, _GPU_BLOCK // len(waveform))
    energies = torch.cat([_energies(row, frames, block, filters, config) for row in rows])
    return energies.clamp_min(config.log_floor).log()


def log_mel_frames(samples: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel frames of a part of a waveform, without zeros around it.

    Args:
        samples: ((frames - 1) * hop_length + n_fft,) float32: frame t begins at t * hop_length.
        config: the settings.

    Returns:
        (frames, n_mels) float32, natural logarithms.
    """
    filters = _mel_filters(config.n_fft, config.n_mels, config.sample_rate, samples.device)
    return (_power_spectrum(samples[None], config)[0] @ filters).clamp_min(config.log_floor).log()


def _energies(waveform: Tensor, frames: int, block: int, filters: Tensor, config: FeatureConfig) -> Tensor:
    """(rows, samples) -> (rows, frames, n_mels) mel energies, in blocks of at most `block` frames."""
    padded = nn.functional.pad(waveform, (config.n_fft // 2, config.n_fft // 2))
    count = -(-frames // block)
    # Of equal size, so that none has a frame or two.
    edges = [number * frames // count for number in range(count + 1)]
    blocks = [
        _power_spectrum(
            padded[:, start * config.hop_length : (end - 1) * config.hop_length + config.n_fft], config
        )
        @ filters
        for start, end in pairwise(edges)
    ]
    return blocks[0] if count == 1 else torch.cat(blocks, dim=1)


def _power_spectrum(padded: Tensor, config: FeatureConfig) -> Tensor:
    """(rows, (frames - 1) * hop_length + n_fft) samples -> (rows, frames, n_fft // 2 + 1) float32."""
    # In float64: float32 is off by 5e-4 in bands 80 dB below the frame's loudest, which clean speech has.
    spectrum = torch.stft(
        padded.double(),
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        window=_hann_window(config.win_length, padded.device),
        center=False,
        return_complex=True,
    )
    # Twice as fast on a CPU as abs(), which takes a square root, and eight times as a sum over view_as_real.
    return (spectrum.real.square() + spectrum.imag.square()).float().transpose(1, 2)


def require_one_window(samples: int, config: FeatureConfig, name: str = "") -> None:
    """Refuse a recording that is too short for a frame.

    Args:
        samples: of the recording, at config.sample_rate Hz.
        config: the settings.
        name: of the recording, for the message.

    Raises:
        AudioError: it is shorter than one window.
    """
    if samples < config.win_length:
        raise AudioError(
            f"{name}{': ' if name else ''}a recording of {samples / config.sample_rate:.3f} s is shorter "
            f"than one window of {config.window_ms:g} ms. Expected at least {config.win_length} samples at "
            f"{config.sample_rate} Hz. Leave it out."
        )


def normalize_utterance(features: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance per band over each utterance's valid frames; padding becomes 0.

    Args:
        features: (batch, frames, n_mels).
        lengths: (batch,) int64 valid frames.

    Returns:
        (batch, frames, n_mels), 0 from each length on.
    """
    valid = frame_mask(lengths, features.shape[1]).unsqueeze(-1)
    count = lengths.clamp_min(1).to(features.dtype)[:, None, None]
    mean = (features * valid).sum(dim=1, keepdim=True) / count
    centred = (features - mean) * valid
    # A constant band (silence) has no variance: the small term keeps it at 0 instead of NaN.
    std = (centred.square().sum(dim=1, keepdim=True) / count + 1e-5).sqrt()
    return centred / std


def normalize_with_prior(
    features: Tensor, lengths: Tensor, mean: Tensor, std: Tensor, prior: float
) -> Tensor:
    """As `normalize_utterance`, with the training set's statistics added like `prior` further frames.

    Without a prior, a recording of one vowel would be normalised to nothing: its mean is that vowel.

    Args:
        features: (batch, frames, n_mels).
        lengths: (batch,) int64 valid frames.
        mean: (n_mels,) of the training set.
        std: (n_mels,) of the training set.
        prior: frames.

    Returns:
        (batch, frames, n_mels), 0 from each length on.

    Source: the maximum a posteriori estimate of a mean and variance (Gauvain & Lee 1994); Kaldi's online CMVN
        has it as `--global-frames`.
    """
    valid = frame_mask(lengths, features.shape[1]).unsqueeze(-1)
    total = (lengths + prior).to(features.dtype)[:, None, None]
    centred = (features - mean) * valid
    shift = centred.sum(dim=1, keepdim=True) / total
    squares = centred.square().sum(dim=1, keepdim=True) + prior * std.square()
    variance = squares / total - shift.square()
    return (centred - shift) * valid / (variance.clamp_min(0) + 1e-5).sqrt()


def normalize_running(
    features: Tensor, mean: Tensor, std: Tensor, prior: float, history: Tensor | None = None
) -> Tensor:
    """Mean and variance normalisation over the last `RUNNING_FRAMES` frames, as a stream can do it.

    The training set's statistics are added like `prior` further frames: at the beginning of an utterance they
    are most of the window, and after a long silence there is still a variance to divide by. Normalising block
    by block, each with its history, gives the same bits as the whole at once.

    Args:
        features: (batch, frames, n_mels).
        mean: (n_mels,) of the training set.
        std: (n_mels,) of the training set.
        prior: frames.
        history: (batch, up to RUNNING_FRAMES - 1 frames, n_mels) before these; None at the beginning.

    Returns:
        (batch, frames, n_mels).

    Source: Kaldi's online CMVN (online2, `OnlineCmvn`), with its global frames; there they fill up a window
        that is not full, and the window has 600 frames.
    """
    frames = features.shape[1]
    past = 0 if history is None else history.shape[1]
    sums = (features if history is None else torch.cat([history, features], dim=1)) - mean
    centred = sums[:, past:]
    squares = sums.square()
    width = 1
    while width < RUNNING_FRAMES:  # sums of twice as many frames each time; there are zeros before the first
        sums = sums + nn.functional.pad(sums, (0, 0, width, 0))[:, : past + frames]
        squares = squares + nn.functional.pad(squares, (0, 0, width, 0))[:, : past + frames]
        width *= 2
    count = torch.arange(past + 1, past + frames + 1, device=features.device).clamp_max(RUNNING_FRAMES)
    total = (count + prior).unsqueeze(1)
    shift = sums[:, past:] / total
    variance = (squares[:, past:] + prior * std.square()) / total - shift.square()
    return (centred - shift) / (variance + 1e-5).sqrt()


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """(batch, size) bool, True where an index is below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


class FeatureNormalizer(nn.Module):
    """Mean and variance normalisation by config.normalize; the training set's are saved with the model.

    Args:
        config: the feature settings.
    """

    mean: Tensor  # (n_mels,) of the training set, where `needs_statistics`
    deviation: Tensor  # (n_mels,) standard deviation; saved models have this name

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.kind = config.normalize
        self.prior = config.prior
        self.needs_statistics = config.needs_statistics
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("deviation", torch.ones(config.n_mels))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store the training set's mean and standard deviation per band, each (n_mels,)."""
        self.mean.copy_(mean)
        self.deviation.copy_(std)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, n_mels) log-mel frames -> the same shape, normalised, 0 in the padding."""
        if self.kind == "utterance":
            if not self.prior:
                return normalize_utterance(features, lengths)
            return normalize_with_prior(features, lengths, self.mean, self.deviation, self.prior)
        if self.kind == "running":
            features = normalize_running(features, self.mean, self.deviation, self.prior)
        elif self.kind == "global":
            features = (features - self.mean) / self.deviation
        return features * frame_mask(lengths, features.shape[1]).unsqueeze(-1)


# Later calls may need a gradient, so cached tensors must not be made in inference mode.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _hann_window(win_length: int, device: torch.device) -> Tensor:
    """(win_length,) float64, periodic."""
    return torch.hann_window(win_length, dtype=torch.float64, device=device)


def band_edges_hz(n_mels: int, sample_rate: int) -> Tensor:
    """The edges of the mel bands, on Slaney's scale.

    Args:
        n_mels: bands.
        sample_rate: of the waveform, Hz.

    Returns:
        (n_mels + 2,) float64, Hz: band m rises from edge m to its centre, edge m + 1, and falls to m + 2.
    """
    mels = torch.linspace(0, _mel(sample_rate / 2), n_mels + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _mel_filters(n_fft: int, n_mels: int, sample_rate: int, device: torch.device) -> Tensor:
    """(n_fft // 2 + 1, n_mels) triangular filters of area 1 Hz on Slaney's mel scale."""
    # In float64: float32 (torchaudio) is off by more than 1e-4 where a bin is close to a filter's edge.
    edges = band_edges_hz(n_mels, sample_rate)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64).unsqueeze(1)
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    filters = torch.minimum(rising, falling).clamp_min(0) * 2 / (high - low)
    return filters.to(device, torch.float32)


def _mel(hertz: float) -> float:
    """Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)
