"""Noise: spectra as named, SNR exact, recordings cut where they should be."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.frontend.augment.noise import NOISE_KINDS, NoiseKind, RecordedNoise, SyntheticNoise, add_noise

RATE = 16_000


def speech_like(samples: int = 3 * RATE, seed: int = 0) -> NDArray[np.float32]:
    """Noise around 1 kHz that comes and goes."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / RATE
    tone = np.sin(2 * np.pi * 1000 * t + np.cumsum(rng.standard_normal(samples)) / 3)
    return (0.2 * tone * np.square(np.sin(2 * np.pi * 0.7 * t))).astype(np.float32)


def level_db(samples: NDArray[np.float32]) -> float:
    return 10 * float(np.log10(np.mean(np.square(samples, dtype=np.float64))))


def band_db(samples: NDArray[np.float32], low_hz: float, high_hz: float) -> float:
    """Power density between two frequencies."""
    power = np.square(np.abs(np.fft.rfft(samples.astype(np.float64))))
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return 10 * float(np.log10(power[(hertz >= low_hz) & (hertz < high_hz)].mean()))


@pytest.mark.parametrize("snr_db", [-7.5, 0.0, 12.0, 40.0])
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_snr_is_exact(kind: NoiseKind, snr_db: float) -> None:
    """Guards against an SNR of amplitudes, of peaks or of only a part, and against a change of the speech."""
    speech = speech_like()
    noise = SyntheticNoise(kind, seed=3).samples(speech, RATE)
    assert (noise.shape, noise.dtype) == (speech.shape, np.float32)
    noisy = add_noise(speech, noise, snr_db)
    assert noisy.dtype == np.float32
    assert level_db(speech) - level_db(noisy - speech) == pytest.approx(snr_db, abs=0.01)


@pytest.mark.parametrize(("kind", "octave_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_slope(kind: NoiseKind, octave_db: float) -> None:
    """Guards against a slope of amplitudes where one of powers is meant, and against power below 50 Hz, which
    would use up the SNR where no speech is."""
    noise = SyntheticNoise(kind, seed=1).samples(np.zeros(20 * RATE, np.float32), RATE)
    octaves = [band_db(noise, low, 1.1 * low) for low in (200, 400, 800, 1600, 3200)]
    assert np.diff(octaves) == pytest.approx(np.full(4, octave_db), abs=0.6)
    assert band_db(noise, 1, 25) == pytest.approx(band_db(noise, 40, 50), abs=1.2)


def test_speech_shaped_noise() -> None:
    """Guards against noise of a flat spectrum, or with the words still in it: the spectrum is the
    utterance's, and the level no longer comes and goes with it."""
    speech = speech_like(samples=1 << 16)
    noise = SyntheticNoise("speech", seed=1).samples(speech, RATE)
    for low in (500, 900, 1000, 1100, 2000, 4000):
        assert band_db(noise, low, low + 100) == pytest.approx(band_db(speech, low, low + 100), abs=1.5)

    def variation(samples: NDArray[np.float32]) -> float:
        powers = np.square(samples[: 40 * 1600].reshape(40, 1600)).mean(axis=1)
        return float(powers.std() / powers.mean())

    assert variation(noise) < 0.8 * variation(speech)
    assert abs(np.corrcoef(speech, noise)[0, 1]) < 0.1


def test_synthetic_noise_is_a_function_of_its_seed() -> None:
    """Guards against global random state, and against one noise for all."""
    speech = speech_like()
    for kind in NOISE_KINDS:
        first = SyntheticNoise(kind, 1).samples(speech, RATE)
        np.random.seed(5)
        assert np.array_equal(SyntheticNoise(kind, 1).samples(speech, RATE), first)
        assert abs(np.corrcoef(SyntheticNoise(kind, 2).samples(speech, RATE), first)[0, 1]) < 0.1


def test_silence_stays_silent() -> None:
    """Guards against NaN from a division by no power."""
    silence = np.zeros(1000, np.float32)
    for kind in NOISE_KINDS:
        assert np.array_equal(
            add_noise(silence, SyntheticNoise(kind, 1).samples(silence, RATE), 10.0), silence
        )


# ----------------------------------------------------------------------------------------------------------
# recordings


def ramp(folder: Path, seconds: float) -> Path:
    """A wav whose samples say where they stand."""
    path = folder / f"ramp{seconds:g}.wav"
    soundfile.write(path, np.arange(1, round(seconds * RATE) + 1) / (1 << 20), RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(("position", "first"), [(0.0, 0), (0.5, RATE), (1.0, 2 * RATE)])
def test_part_of_a_long_recording(position: float, first: int, in_memory: bool, tmp_path: Path) -> None:
    """Guards against parts that wrap around within a long recording, or never reach its end."""
    noise = RecordedNoise(ramp(tmp_path, 3.0), 3.0, position, in_memory)
    cut = noise.samples(np.zeros(RATE, np.float32), RATE)
    assert np.array_equal(cut * (1 << 20), np.arange(first + 1, first + RATE + 1))


@pytest.mark.parametrize("in_memory", [False, True])
def test_short_recording_is_repeated(in_memory: bool, tmp_path: Path) -> None:
    """Guards against an error, or silence, where the recording ends before the utterance."""
    noise = RecordedNoise(ramp(tmp_path, 0.1), 0.1, 0.25, in_memory)
    cut = noise.samples(np.zeros(RATE, np.float32), RATE)
    assert np.array_equal(cut * (1 << 20), (np.arange(400, 400 + RATE) % 1600) + 1)


@pytest.mark.parametrize("in_memory", [False, True])
def test_recording_at_another_rate(in_memory: bool, tmp_path: Path) -> None:
    """Guards the pitch and the length of noise whose rate is not the model's."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 1000 * np.arange(2 * 44_100) / 44_100), 44_100)
    cut = RecordedNoise(path, 2.0, 0.3, in_memory).samples(np.zeros(12_345, np.float32), RATE)
    assert cut.shape == (12_345,)
    assert np.abs(np.fft.rfft(cut)).argmax() * RATE / 12_345 == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("in_memory", [False, True])
def test_pause_in_a_recording(in_memory: bool, tmp_path: Path) -> None:
    """Guards against noise that is not there, or NaN, where the part that was drawn is a pause."""
    path = tmp_path / "pause.wav"
    samples = np.zeros(4 * RATE, np.float32)
    samples[-1000:] = 0.5
    soundfile.write(path, samples, RATE)
    cut = RecordedNoise(path, 4.0, 0.1, in_memory).samples(np.zeros(RATE, np.float32), RATE)
    assert (cut[:1000] > 0.49).all()


@pytest.mark.parametrize("in_memory", [False, True])
def test_silent_recording(in_memory: bool, tmp_path: Path) -> None:
    """Guards against training on clean speech, or NaN, where noise was promised."""
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(AudioError, match=r"silent\.wav: silent throughout\. Expected .* Take it out"):
        RecordedNoise(path, 1.0, 0.5, in_memory).samples(speech_like(), RATE)


def test_snr_of_real_noise(speech: Path) -> None:
    """Guards the same exactness on real recordings, in opus."""
    files = sorted((speech / "noise").glob("*.opus"))
    assert len(files) == 6
    words = speech_like(RATE)
    for path in files:
        noise = RecordedNoise(path, soundfile.info(path).duration, 0.4).samples(words, RATE)
        assert level_db(words) - level_db(add_noise(words, noise, 5.0) - words) == pytest.approx(5, abs=0.01)
