"""Reading audio: every format, rate and channel count gives the same samples, and damage is an error."""

import itertools
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import AudioError
from asr.frontend.audio import audio_info, read_audio, resample
from asr.frontend.audio_files import find_audio
from asr.frontend.features import FeatureConfig, log_mel

RATE = 16_000  # Hz, of the model

# suffix, container, coding, and how far the level of a sine may be off
FORMATS = {
    "wav-8": (".wav", "WAV", "PCM_U8", 0.01),
    "wav-16": (".wav", "WAV", "PCM_16", 0.002),
    "wav-24": (".wav", "WAV", "PCM_24", 0.002),
    "wav-32": (".wav", "WAV", "PCM_32", 0.002),
    "wav-float": (".wav", "WAV", "FLOAT", 0.002),
    "wav-double": (".wav", "WAV", "DOUBLE", 0.002),
    "wav-ulaw": (".wav", "WAV", "ULAW", 0.02),
    "flac-16": (".flac", "FLAC", "PCM_16", 0.002),
    "flac-24": (".flac", "FLAC", "PCM_24", 0.002),
    "vorbis": (".ogg", "OGG", "VORBIS", 0.03),
    "opus": (".opus", "OGG", "OPUS", 0.03),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III", 0.03),
    "aiff": (".aiff", "AIFF", "PCM_16", 0.002),
    "au": (".au", "AU", "PCM_16", 0.002),
    "w64": (".w64", "W64", "PCM_16", 0.002),
}


def sine(hertz: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, samples: NDArray[np.float64], rate: int, kind: str = "wav-float") -> Path:
    suffix, container, coding, _ = FORMATS[kind]
    path = path.with_suffix(suffix)
    soundfile.write(path, samples, rate, format=container, subtype=coding)
    return path


def level(waveform: Tensor, hertz: float, rate: int = RATE) -> float:
    """Amplitude of the sine of that frequency in the middle of a waveform, by least squares."""
    middle = waveform[len(waveform) // 8 : -len(waveform) // 8].double().numpy()
    phase = 2 * np.pi * hertz * np.arange(len(middle)) / rate
    (a, b), *_ = np.linalg.lstsq(np.stack([np.sin(phase), np.cos(phase)], axis=1), middle)
    return math.hypot(a, b)


def rms_db(waveform: Tensor) -> float:
    """Level of the middle of a waveform, dB relative to a sine of amplitude 1."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4].double()
    return 10 * math.log10(2 * float(middle.square().mean()) + 1e-30)


# ----------------------------------------------------------------------------------------- formats and
# resampling


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_rate_and_channel_count(kind: str, tmp_path: Path) -> None:
    """Guards against a rate that is taken for another, channels read as time, integers that are not scaled,
    and a header that disagrees with what is read."""
    tolerance = FORMATS[kind][3]
    tried = 0
    for rate, channels in itertools.product((8000, 16_000, 44_100, 48_000, 96_000), (1, 2, 6)):
        if (kind == "opus" and rate in (44_100, 96_000)) or (
            kind == "mp3" and (rate == 96_000 or channels == 6)
        ):
            continue  # the format itself has no such thing
        # The low-frequency effects channel of 5.1 sound loses a tone of 440 Hz in lossy formats: silent here.
        samples = np.stack([sine(440, rate)] * channels, axis=1)
        if channels == 6 and kind in ("vorbis", "opus"):
            samples[:, 5] = 0
        path = write(tmp_path / f"{rate}-{channels}", samples, rate, kind)
        info = audio_info(path)
        assert (info.sample_rate, info.channels, info.samples, info.duration_s) == (rate, channels, rate, 1.0)
        waveform = read_audio(path, RATE)
        assert waveform.shape == (RATE,)
        assert waveform.dtype == torch.float32
        expected = 0.5 * float(np.mean(np.abs(samples).max(axis=0) > 0))
        assert level(waveform, 440) == pytest.approx(expected, rel=tolerance), (rate, channels)
        # what is left when the sine is taken out is small, so the frequency is right too
        assert level(waveform, 450) < 0.03
        tried += 1
    assert tried >= 8


def test_one_channel_alone(tmp_path: Path) -> None:
    """Guards recordings with a speaker or a microphone a channel, whose mean is of no use."""
    sines = [sine(440, RATE), sine(1000, RATE)]
    path = write(tmp_path / "stereo", np.stack(sines, axis=1), RATE)
    for channel, samples in enumerate(sines):
        alone = read_audio(write(tmp_path / str(channel), samples, RATE), RATE)
        assert torch.equal(read_audio(path, RATE, channel=channel), alone)
    for channel in (2, -1):
        with pytest.raises(
            AudioError, match=rf"there is no channel {channel}: the recording has 2. Expected 0 to 1. Correct"
        ):
            read_audio(path, RATE, channel=channel)


def noise(seed: int, samples: int = RATE) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.1, samples)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("level", [0.95, 0.7])
def test_channels_that_cancel(
    level: float, offset: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against silence, or the noise that is left, where one channel is the other inverted; a constant
    offset of both does not hide it. The louder channel is read, and one warning names the file."""
    left, right = noise(0) + 1e-3 * noise(1) + offset, -level * noise(0) + 1e-3 * noise(2) + offset
    path = write(tmp_path / "inverted", np.stack([right, left], axis=1), RATE)
    read = [read_audio(path, RATE), read_audio(path, RATE, offset_s=0.5)]
    np.testing.assert_allclose(read[0].numpy(), left, atol=1e-6)
    assert torch.equal(read[1], read[0][RATE // 2 :])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: the channels cancel each other when mixed (one is inverted). Channel 1 alone is used. "
        "Correct the recording's polarity, or name a channel in the manifest."
    ]


@pytest.mark.parametrize(
    "channels",
    [
        [noise(0), noise(1)],  # two speakers
        [noise(0), -noise(0) + noise(1)],  # partly inverted
        [noise(0), np.zeros(RATE)],  # one microphone of two
        [noise(0)] + [np.zeros(RATE)] * 7,  # one of eight
        [noise(0), -0.4 * noise(0)],  # inverted, but much quieter
        [0.2 + noise(0), -0.2 + noise(0)],  # offsets that cancel, not the speech
        [np.zeros(RATE), np.zeros(RATE)],
    ],
)
def test_channels_that_do_not_cancel(
    channels: list[NDArray[np.float64]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards ordinary recordings against losing a channel."""
    path = write(tmp_path / "mixed", np.stack(channels, axis=1), RATE)
    np.testing.assert_allclose(read_audio(path, RATE).numpy(), np.mean(channels, axis=0), atol=1e-6)
    assert not caplog.records


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Guards against taking the first channel only, and against a sum that clips."""
    left, right = sine(500, RATE), sine(1500, RATE)
    waveform = read_audio(write(tmp_path / "stereo", np.stack([left, right], axis=1), RATE), RATE)
    np.testing.assert_allclose(waveform.numpy(), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [
        (48_000, 16_000),
        (44_100, 16_000),
        (96_000, 16_000),
        (22_050, 16_000),
        (16_000, 8000),
        (8000, 16_000),
        (110, 100),
        (90, 100),
        (11_127, 16_000),
    ],
)
def test_resampling_filter(from_rate: int, to_rate: int) -> None:
    """Guards the numbers in `resample`'s docstring: a filter that folds high tones into the speech band, or
    dulls the consonants. soxr's low quality has lost 0.5 dB at 0.8 of the limit."""
    limit = min(from_rate, to_rate) / 2
    seconds = max(1, 16_000 / from_rate)

    def gain_db(share: float) -> float:
        return rms_db(
            resample(
                torch.from_numpy(sine(share * limit, from_rate, seconds, 1.0)).float(), from_rate, to_rate
            )
        )

    for share in (0.01, 0.3, 0.6, 0.92):
        assert gain_db(share) == pytest.approx(0, abs=0.015), share
    for share in (1.002, 1.006, 1.014, 1.03, 1.06, 1.1, 1.25, 1.5, 1.9):
        if share * limit < from_rate / 2:
            assert gain_db(share) < -120, share


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(48_000, 16_000), (44_100, 16_000), (8000, 16_000), (110, 100)]
)
def test_resampled_length(from_rate: int, to_rate: int) -> None:
    """Guards the length formula at every remainder."""
    for samples in (*range(1, 40), 4799, 4800, 4801):
        assert len(resample(torch.zeros(samples), from_rate, to_rate)) == -(-samples * to_rate // from_rate)


def test_resampled_length_of_a_long_recording() -> None:
    """Guards against a count in float32, which is off by one here."""
    assert len(resample(torch.zeros(20_000_000), 90, 100)) == 22_222_223


@pytest.mark.parametrize("rate", [11_127, 22_255, 44_099, 15_999, 767_999])
def test_odd_rates(rate: int, tmp_path: Path) -> None:
    """Guards rates without a simple ratio, whose filter banks could take gigabytes: length and pitch are
    exact."""
    waveform = read_audio(write(tmp_path / "odd", sine(440, rate, 0.5), rate), RATE)
    assert len(waveform) == -(-round(rate / 2) * RATE // rate)
    assert level(waveform, 440) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(48_000, 16_000), (44_100, 16_000), (8000, 16_000), (110, 100), (90, 100)]
)
def test_resampling_agrees_with_torchaudio(from_rate: int, to_rate: int) -> None:
    """Guards the delay and the scale: below 0.92 of the Nyquist frequency both filters give the same."""
    seconds, limit = 32_000 / from_rate, min(from_rate, to_rate) / 2
    rng = np.random.default_rng(0)
    tones = [sine(share * limit, from_rate, seconds, 0.1) for share in rng.uniform(0, 0.92, 20)]
    waveform = torch.from_numpy(np.sum(tones, axis=0)).float()
    oracle = torchaudio.transforms.Resample(
        from_rate,
        to_rate,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=64,
        rolloff=0.96,
        beta=7.86,
    )(waveform)
    ours = resample(waveform, from_rate, to_rate)
    assert ours.shape == oracle.shape
    inside = slice(len(ours) // 8, -len(ours) // 8)  # a tone that begins or stops has all frequencies
    difference = (ours - oracle)[inside].abs().max()
    assert difference < 1e-3 * waveform.abs().max()


def test_same_rate_changes_nothing() -> None:
    """Guards against a filter where none is needed."""
    waveform = torch.randn(100)
    assert torch.equal(resample(waveform, RATE, RATE), waveform)


def test_real_speech_reads_as_its_header_says(speech: Path) -> None:
    """Guards real files, whose headers come from other programs: samples, rate and level are plausible."""
    for folder, suffix in (
        ("LibriSpeech", "opus"),
        ("LJSpeech", "opus"),
        ("fsdd", "*"),
        ("waves_yesno", "*"),
    ):
        path = next(
            path
            for path in sorted((speech / folder).rglob(f"*.{suffix}"))
            if path.suffix in (".wav", ".opus", ".flac")
        )
        info = audio_info(path)
        waveform = read_audio(path, RATE)
        assert len(waveform) == -(-info.samples * RATE // info.sample_rate)
        assert 0.01 < float(waveform.abs().max()) < 2


# -------------------------------------------------------------------------------------------------------
# segments


def chirp(rate: int, seconds: float) -> NDArray[np.float64]:
    """Every moment sounds different; quiet and loud by turns, so that mp3 uses a variable bit rate."""
    t = np.arange(round(rate * seconds)) / rate
    return 0.4 * np.sin(2 * np.pi * (200 * t + 600 * t**2)) * (np.sin(3 * t) ** 2 + 0.05)


@pytest.mark.parametrize("kind", ["wav-16", "flac-16", "vorbis", "opus", "mp3"])
def test_segment_equals_slice_of_the_whole(kind: str, tmp_path: Path) -> None:
    """Guards against seeking that misses. libsndfile's own seeking in mp3 does."""
    path = write(tmp_path / "long", chirp(RATE, 5), RATE, kind)
    whole = read_audio(path, RATE)
    for offset_s, duration_s in ((0.0, 1.0), (0.7317, 1.1), (3.3, 0.5), (2.0, None), (4.9, 0.1)):
        part = read_audio(path, RATE, offset_s=offset_s, duration_s=duration_s)
        start = round(offset_s * RATE)
        expected = whole[start:] if duration_s is None else whole[start : start + round(duration_s * RATE)]
        assert part.shape == expected.shape
        if kind == "opus":  # decodes with a state that a seek resets
            assert float((part - expected).norm() / expected.norm()) < 0.03
        else:
            torch.testing.assert_close(part, expected, rtol=0, atol=0)


def test_opus_of_another_program_begins_where_the_recording_does(tmp_path: Path) -> None:
    """Opus files of ffmpeg, read 6.5 ms late: libsndfile leaves out the encoder's lead only after a seek."""
    import av

    rate = 16_000
    noise = np.random.default_rng(0).standard_normal(2 * rate)
    smooth = np.convolve(noise, np.hanning(60), "same")
    samples = (8000 * smooth / np.abs(smooth).max()).astype(np.int16)
    path = tmp_path / "a.opus"
    with av.open(str(path), "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=rate, layout="mono")
        stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for part in (frame, None):
            file.mux(stream.encode(part))
    waveform = read_audio(path, rate).numpy()
    assert len(waveform) == len(samples)
    assert np.corrcoef(waveform, samples)[0, 1] > 0.9


def test_segment_of_another_rate(tmp_path: Path) -> None:
    """Guards against offsets that are counted at the model's rate instead of the file's."""
    path = write(tmp_path / "long", chirp(44_100, 3), 44_100)
    whole = read_audio(path, RATE)
    part = read_audio(path, RATE, offset_s=1.0, duration_s=1.0)
    assert len(part) == RATE
    torch.testing.assert_close(part[200:-200], whole[RATE + 200 : 2 * RATE - 200], rtol=0, atol=1e-4)


def test_rounded_duration_may_end_a_hair_late(tmp_path: Path) -> None:
    """Guards manifests whose durations are rounded to hundredths: the end is cut, not refused."""
    path = write(tmp_path / "a", sine(440, RATE), RATE)
    assert len(read_audio(path, RATE, offset_s=0.5, duration_s=0.54)) == RATE // 2


@pytest.mark.parametrize(
    ("offset_s", "duration_s", "message"),
    [
        (1.0, None, "no samples between 1 s and the end: the recording is 1 s long. Correct the offset"),
        (7.0, 1.0, "no samples between 7 s and 8 s: the recording is 1 s long"),
        (-0.5, 0.2, "no samples between -0.5 s and -0.3 s"),
        (0.2, 0.0, "no samples between 0.2 s and 0.2 s"),
        (0.2, -1.0, "no samples between 0.2 s and -0.8 s"),
        (0.5, 0.6, "the segment ends at 1.1 s but the recording at 1 s. Correct the manifest"),
    ],
)
def test_segment_outside_the_recording(
    offset_s: float, duration_s: float | None, message: str, tmp_path: Path
) -> None:
    """Guards against a wrong manifest that silently gives shorter audio for a full transcript."""
    path = write(tmp_path / "a", sine(440, RATE), RATE)
    with pytest.raises(AudioError, match=message):
        read_audio(path, RATE, offset_s=offset_s, duration_s=duration_s)


# ----------------------------------------------------------------------------------------------------- bad
# input


def assert_refused(path: Path, message: str) -> None:
    """Reading fails with one line that names the file and contains this."""
    with pytest.raises(AudioError) as caught:
        read_audio(path, RATE)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_recording(tmp_path: Path) -> None:
    """Guards the first line a user sees after a wrong path: no traceback, and the reason in plain words."""
    assert_refused(tmp_path / "gone.wav", "no such file")
    assert_refused(tmp_path, "is a folder. Expected an audio file")
    (tmp_path / "empty.wav").touch()
    assert_refused(tmp_path / "empty.wav", "the file is empty (0 bytes)")
    for name in ("text.wav", "text.flac", "text.mp3", "text.raw", "text"):
        (tmp_path / name).write_text("this is not audio\n" * 50)
        assert_refused(tmp_path / name, "not a readable audio file")
    with pytest.raises(AudioError, match="no such file"):
        audio_info(tmp_path / "gone.wav")


@pytest.mark.parametrize(
    "kind", ["wav-16", "wav-24", "wav-float", "flac-16", "vorbis", "opus", "mp3", "aiff", "au", "w64"]
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_short(kind: str, share: float, tmp_path: Path) -> None:
    """Guards against half a recording with a full transcript: libsndfile shortens a wav without a word."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE)
    path = write(tmp_path / "whole", noise, RATE, kind)
    assert len(read_audio(path, RATE)) == 2 * RATE
    cut = path.with_stem("cut")
    cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert_refused(cut, "was cut short: copy or download it again")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000])
def test_wav_of_unknown_length(size: int, tmp_path: Path) -> None:
    """Guards wavs that a pipe wrote: ffmpeg and sox put the largest number where the length should be."""
    path = write(tmp_path / "pipe", sine(440, RATE), RATE, "wav-16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(read_audio(path, RATE)) == RATE


def test_trailing_chunk_is_no_damage(tmp_path: Path) -> None:
    """Guards against refusing wavs with tags after the samples."""
    path = write(tmp_path / "tagged", sine(440, RATE), RATE, "wav-16")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(read_audio(path, RATE)) == RATE


def test_header_without_samples(tmp_path: Path) -> None:
    """Guards against an utterance of length 0, which breaks a batch."""
    for kind in ("wav-16", "aiff"):
        assert_refused(write(tmp_path / "none", np.zeros(0), RATE, kind), "the recording has no samples")


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 0x7FFFFFFF])
def test_impossible_rate(rate: int, tmp_path: Path) -> None:
    """Guards against a damaged header that makes a second of audio into gigabytes."""
    path = write(tmp_path / "rate", sine(440, RATE), RATE, "wav-16")
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert_refused(
        path, "not a readable audio file" if rate == 0 else f"the sample rate is {rate} Hz. Expected 1000"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_samples_that_are_not_numbers(value: float, tmp_path: Path) -> None:
    """Guards against one NaN that makes a whole training run NaN; the message gives its position."""
    samples = np.stack([sine(440, RATE)] * 2, axis=1)
    samples[1234, 1] = value
    path = write(tmp_path / "nan", samples, RATE)
    assert_refused(path, "sample 1234 is not a finite number")
    with pytest.raises(AudioError, match="sample 1234 is"):
        read_audio(path, RATE, offset_s=0.05)
    assert len(read_audio(path, RATE, offset_s=0.1)) == RATE - 1600


def test_a_hundredth_of_a_second(tmp_path: Path) -> None:
    """Guards against a tiny file that fails somewhere deep: it is readable, but has no features."""
    waveform = read_audio(write(tmp_path / "tiny", sine(440, RATE, 0.01), RATE), RATE)
    assert len(waveform) == 160
    with pytest.raises(
        AudioError,
        match=r"a recording of 0\.010 s is shorter than one window of 25 ms. Expected at least 400",
    ):
        log_mel(waveform.unsqueeze(0), FeatureConfig())


def test_six_channels_at_96_khz(tmp_path: Path) -> None:
    """Guards the largest studio format end to end: 24-bit 5.1 sound becomes mono speech."""
    path = write(tmp_path / "studio", np.stack([sine(440, 96_000)] * 6, axis=1), 96_000, "wav-24")
    assert level(read_audio(path, RATE), 440) == pytest.approx(0.5, rel=1e-3)


def test_names_do_not_decide(tmp_path: Path) -> None:
    """Guards against trusting suffixes: a flac named .wav is read as what it is."""
    path = write(tmp_path / "a", sine(440, RATE), RATE, "flac-16")
    shutil.move(path, tmp_path / "b.wav")
    assert len(read_audio(tmp_path / "b.wav", RATE)) == RATE


def test_globs_and_folders(tones: Any, tmp_path: Path) -> None:
    """A quoted pattern taken for a name, a folder in the system's order, or a manifest read as sound."""
    assert find_audio([f"{tones.folder}/t[35].wav", str(tones.folder)]) == [
        *map(Path, (tones.files[3], tones.files[5])),
        *map(Path, tones.files),
    ]
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    for name in ("B.WAV", "a.flac", "notes.txt"):
        (deep / name).touch()
    (tmp_path / "x" / "folder.wav").mkdir()
    assert find_audio([str(tmp_path)]) == [deep / "B.WAV", deep / "a.flac"]
    assert find_audio([f"{tmp_path}/**/*.flac"]) == [deep / "a.flac"]
    bracket = tmp_path / "take[1].wav"  # a name that looks like a pattern
    bracket.touch()
    assert find_audio([str(bracket)]) == [bracket]
    with pytest.raises(AudioError, match=r"nothing\*: no file matches this pattern"):
        find_audio(["nothing*"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        AudioError, match=r"empty: no audio files in this folder. Expected some that end in \.wav"
    ):
        find_audio([str(empty)])
