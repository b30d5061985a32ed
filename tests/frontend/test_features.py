"""Log-mel frames against librosa, the frame count, and normalisation that padding cannot touch."""

import math
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from asr.errors import AudioError, SettingsError
from asr.frontend import features as module
from asr.frontend.audio import read_audio
from asr.frontend.augment.mel_warp import warp_mel
from asr.frontend.features import (
    FeatureConfig,
    FeatureNormalizer,
    frame_count,
    frame_mask,
    log_mel,
    normalize_utterance,
)

CONFIGS = {
    "default": FeatureConfig(),
    "8 kHz": FeatureConfig(sample_rate=8000, n_mels=40),
    "8 kHz, 80 mels": FeatureConfig(sample_rate=8000),
    "512-sample window": FeatureConfig(window_ms=32.0, shift_ms=16.0),
    "22.05 kHz, odd window": FeatureConfig(sample_rate=22_050, n_mels=64, window_ms=23.0, shift_ms=11.5),
    "44.1 kHz, 1 mel": FeatureConfig(sample_rate=44_100, n_mels=1, window_ms=20.0, shift_ms=20.0),
    "48 kHz, 128 mels": FeatureConfig(sample_rate=48_000, n_mels=128, window_ms=40.0, shift_ms=12.5),
    "high floor": FeatureConfig(log_floor=1e-3),
}


def librosa_log_mel(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    energies = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        n_mels=config.n_mels,
        pad_mode="constant",
    )
    return np.log(np.maximum(energies, config.log_floor)).T


def signals(rate: int) -> dict[str, Tensor]:
    """One second each of what breaks a spectrum: noise, a click, tones at the edges, silence, a loud
    square."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(rate) / rate
    click = torch.zeros(rate)
    click[rate // 3] = 1
    return {
        "noise": 0.1 * torch.randn(rate, generator=generator),
        "faint noise": 1e-5 * torch.randn(rate, generator=generator),
        "click": click,
        "low tone": 0.5 * torch.sin(2 * math.pi * 50 * t),
        "high tone": 0.5 * torch.sin(2 * math.pi * 0.49 * rate * t),
        "constant": torch.ones(rate),
        "silence": torch.zeros(rate),
        "square": torch.sign(torch.sin(2 * math.pi * 200 * t)),
    }


def assert_same_energies(ours: Tensor, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    # a difference of logarithms is a relative difference of energies
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_librosa_on_signals(name: str) -> None:
    """Guards window, padding, mel scale, area norm and floor, also where sizes are no powers of two."""
    config = CONFIGS[name]
    for waveform in signals(config.sample_rate).values():
        features = log_mel(waveform.unsqueeze(0), config)
        assert features.dtype == torch.float32
        assert_same_energies(features[0], librosa_log_mel(waveform.numpy(), config))


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_librosa_on_real_speech(name: str, speech: Path) -> None:
    """Guards the same on what the model hears: quiet rooms, plosives, band-limited recordings."""
    config = CONFIGS[name]
    for path in (
        sorted((speech / "LibriSpeech").rglob("*.opus"))[:2] + sorted((speech / "fsdd").rglob("*.wav"))[:2]
    ):
        waveform = read_audio(path, config.sample_rate)
        assert_same_energies(
            log_mel(waveform.unsqueeze(0), config)[0], librosa_log_mel(waveform.numpy(), config)
        )


def test_white_noise_at_the_floor() -> None:
    """Guards the comment at log_floor: noise 87 dB below full scale is what the floor stands for."""
    noise = 10 ** (-87 / 20) * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0))
    energies = log_mel(noise, FeatureConfig(log_floor=1e-20)).exp()
    assert 10 * math.log10(float(energies.mean()) / 1e-8) == pytest.approx(0, abs=0.5)


# ---------------------------------------------------------------------------------------------------------
# lengths


@pytest.mark.parametrize("name", CONFIGS)
def test_frame_count_is_what_log_mel_gives(name: str) -> None:
    """Guards the one length formula, around every multiple of the hop: off by one shifts all batch
    padding."""
    config = CONFIGS[name]
    hop = config.hop_length
    lengths = {config.win_length, config.win_length + 1}
    lengths |= {
        k * hop + d
        for k in (3, 4, 5, 10, 11)
        for d in (-1, 0, 1, hop // 2)
        if k * hop + d >= config.win_length
    }
    for samples in lengths:
        assert log_mel(torch.zeros(1, samples), config).shape[1] == frame_count(samples, config)
    ordered = sorted(lengths)
    counts = frame_count(torch.tensor(ordered), config)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [frame_count(samples, config) for samples in ordered]


def test_sizes_by_hand() -> None:
    """Guards 25 ms and 10 ms at 16 kHz against being taken for other numbers of samples."""
    config = FeatureConfig()
    assert (config.win_length, config.hop_length, config.n_fft, config.frame_s) == (400, 160, 512, 0.01)
    assert frame_count(16_000, config) == 101
    assert CONFIGS["512-sample window"].n_fft == 512


def test_too_short() -> None:
    """Guards against features of less than one window, which are mostly padding."""
    config = FeatureConfig()
    with pytest.raises(
        AudioError, match=r"a recording of 0\.025 s is shorter than one window of 25 ms. Expected at"
    ):
        log_mel(torch.zeros(1, 399), config)
    assert log_mel(torch.zeros(1, 400), config).shape == (1, 3, 80)


# -------------------------------------------------------------------------------------------------------
# batches


def padded(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), torch.tensor(
        [len(part) for part in parts]
    )


def waveforms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(n, generator=generator) for n in (400, 16_000, 8123, 12_799, 12_800, 561)]


def test_alone_equals_in_a_batch() -> None:
    """Guards against maxima over the batch, and padding that is not the silence beyond a lone recording."""
    config = FeatureConfig()
    batch, samples = padded(waveforms())
    together = log_mel(batch, config)
    for row, waveform in enumerate(waveforms()):
        alone = log_mel(waveform.unsqueeze(0), config)[0]
        frames = frame_count(int(samples[row]), config)
        assert len(alone) == frames
        torch.testing.assert_close(together[row, :frames], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_blocks_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the seams between blocks of frames: a frame lost, doubled, shifted or padded in the middle."""
    config = CONFIGS[name]
    noise = 0.1 * torch.randn(1, 2 * config.sample_rate + 7, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(module, "_CPU_BLOCK", 10**9)
    whole = log_mel(noise, config)
    for block in (17, 64):
        monkeypatch.setattr(module, "_CPU_BLOCK", block)
        # A product with a single column is summed in another order.
        tolerance = 1e-6 if config.n_mels == 1 else 0
        torch.testing.assert_close(log_mel(noise, config), whole, rtol=0, atol=tolerance)


def test_blocks_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way of a GPU, which transforms all rows at once: the same energies as row by row."""
    config = FeatureConfig(sample_rate=8000, n_mels=40)
    noise = 0.1 * torch.randn(3, 8007, generator=torch.Generator().manual_seed(4))
    filters = module._mel_filters(config.n_fft, config.n_mels, config.sample_rate, noise.device)
    energies = module._energies(noise, frame_count(8007, config), 17, filters, config)
    torch.testing.assert_close(energies.clamp_min(config.log_floor).log(), log_mel(noise, config))


def test_blocks_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a recording of many minutes, whose spectrum at once takes gigabytes."""
    sizes: list[int] = []
    whole = torch.stft

    def watch(samples: Tensor, **settings: Any) -> Tensor:
        sizes.append(samples.shape[-1])
        return whole(samples, **settings)

    monkeypatch.setattr(torch, "stft", watch)
    config = FeatureConfig()
    log_mel(torch.zeros(1, 60 * config.sample_rate), config)
    assert len(sizes) > 1
    assert max(sizes) <= (module._CPU_BLOCK - 1) * config.hop_length + config.n_fft


def test_gradient_after_inference_mode() -> None:
    """Guards windows and filters that were made in inference mode and kept: a later gradient through them is
    an error."""
    config = FeatureConfig(n_mels=23, window_ms=21.0, shift_ms=7.0)  # of no other test
    factors = torch.tensor([1.1], dtype=torch.float64)

    def compute(waveform: Tensor) -> Tensor:
        return warp_mel(log_mel(waveform, config), factors, config).sum()

    with torch.inference_mode():
        compute(torch.ones(1, 9000))
    waveform = torch.ones(1, 9000, requires_grad=True)
    compute(waveform).backward()
    assert waveform.grad is not None


@pytest.mark.parametrize("kind", ["utterance", "running", "global", "none"])
def test_normalizer_alone_equals_in_a_batch(kind: Any) -> None:
    """Guards every kind of normalisation: padding is exactly 0 whatever it held, and changes no frame."""
    config = FeatureConfig(normalize=kind, n_mels=20)
    normalizer = FeatureNormalizer(config)
    normalizer.set_statistics(torch.linspace(-9, -2, 20), torch.linspace(0.5, 4, 20))
    generator = torch.Generator().manual_seed(2)
    parts = [-5 + 3 * torch.randn(n, 20, generator=generator) for n in (7, 1, 120, 45)]
    batch, lengths = padded(parts)
    batch[~frame_mask(lengths, 120)] = 1e6
    together = normalizer(batch, lengths)
    for row, part in enumerate(parts):
        alone = normalizer(part.unsqueeze(0), torch.tensor([len(part)]))[0]
        torch.testing.assert_close(together[row, : len(part)], alone, rtol=0, atol=1e-6)
        assert (together[row, len(part) :] == 0).all()


def test_normalize_utterance_statistics() -> None:
    """Guards mean 0 and variance 1 per band over an utterance's own frames, not the padded ones."""
    generator = torch.Generator().manual_seed(3)
    parts = [
        torch.linspace(-12, 3, 40)
        + (1 + 3 * torch.rand(40, generator=generator)) * torch.randn(n, 40, generator=generator)
        for n in (50, 400, 237)
    ]
    batch, lengths = padded(parts)
    normalized = normalize_utterance(batch, lengths)
    for row, part in enumerate(parts):
        own = normalized[row, : len(part)].double()
        torch.testing.assert_close(own.mean(0), torch.zeros(40, dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            own.var(0, correction=0), torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-4
        )


def test_silence_is_zeros() -> None:
    """Guards against NaN from a band without variance: silence, and an utterance of one frame."""
    silence = log_mel(torch.zeros(1, 16_000), FeatureConfig())
    for features, lengths in (
        (silence, [101]),
        (torch.full((1, 1, 3), 4.0), [1]),
        (torch.ones(1, 2, 3), [0]),
    ):
        normalized = normalize_utterance(features, torch.tensor(lengths))
        assert float(normalized.abs().max()) < 0.01


def test_global_statistics_are_kept_with_the_model() -> None:
    """Guards the global kind: the training set's numbers, per band, saved as part of the model."""
    config = FeatureConfig(normalize="global", n_mels=3)
    normalizer = FeatureNormalizer(config)
    normalizer.set_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]))
    restored = FeatureNormalizer(config)
    restored.load_state_dict(normalizer.state_dict())
    features = torch.tensor([[[2.0, 4.0, -5.0], [1.0, 0.0, 3.0]]])
    expected = torch.tensor([[[1.0, 1.0, -2.0], [0.0, 0.0, 0.0]]])
    assert torch.equal(restored(features, torch.tensor([1])), expected)
    none = FeatureNormalizer(FeatureConfig(normalize="none", n_mels=3))
    none.load_state_dict(normalizer.state_dict())
    assert torch.equal(none(features, torch.tensor([2])), features)


# ------------------------------------------------------------------------------------------------------
# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 999}, "--features.sample-rate must be at least 1000 Hz. Got 999"),
        ({"n_mels": 0}, r"--features.n-mels must be in 1\.\.192 for a window of 25 ms at 16000 Hz. Got 0"),
        ({"n_mels": 193}, "--features.n-mels must be in .* Got 193"),
        ({"window_ms": 0.5}, r"--features.window-ms must be in 1\.\.1000. Got 0.5"),
        ({"window_ms": math.nan}, "--features.window-ms must be .* Got nan"),
        ({"window_ms": math.inf}, "--features.window-ms must be .* Got inf"),
        ({"shift_ms": 0.0}, "--features.shift-ms must be at least one sample and .* Got 0"),
        ({"shift_ms": 0.02}, "--features.shift-ms must be at least one sample and .* Got 0.02"),
        ({"shift_ms": 30.0}, r"not above --features.window-ms \(25\). Got 30"),
        ({"shift_ms": math.nan}, "--features.shift-ms must be .* Got nan"),
        ({"log_floor": 0.0}, "--features.log-floor must be above 0. Got 0"),
        ({"log_floor": math.nan}, "--features.log-floor must be above 0. Got nan"),
        (
            {"normalize": "batch"},
            "--features.normalize must be one of utterance, running, global, none. Got 'batch'",
        ),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards against settings that divide by zero or give empty bands later; the message names the key."""
    with pytest.raises(SettingsError, match=message):
        FeatureConfig(**settings)


@pytest.mark.parametrize(
    ("rate", "window_ms"),
    [(1000, 25.0), (8000, 5.0), (16_000, 25.0), (22_050, 30.0), (48_000, 25.0), (192_000, 5.0)],
)
def test_most_bands_allowed_are_never_empty(rate: int, window_ms: float) -> None:
    """Guards the upper bound of n_mels: an empty band is a constant, and torchaudio's warning is an error
    here."""
    with pytest.raises(SettingsError, match=r"n-mels must be in 1\.\.(\d+)") as caught:
        FeatureConfig(sample_rate=rate, window_ms=window_ms, shift_ms=window_ms, n_mels=10**6)
    most = int(str(caught.value).split("1..")[1].split()[0])
    config = FeatureConfig(sample_rate=rate, window_ms=window_ms, shift_ms=window_ms, n_mels=most)
    noise = torch.randn(1, 4 * config.win_length, generator=torch.Generator().manual_seed(0))
    assert float(log_mel(noise, config).min()) > math.log(config.log_floor)


def test_frame_mask_by_hand() -> None:
    """Guards the one mask that all padding goes through: lengths 0 and full, and no frame too many."""
    expected = [[False, False, False], [True, True, False], [True, True, True]]
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == expected
