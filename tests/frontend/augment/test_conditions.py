"""Conditions: pure draws within their ranges, in the shares that were asked for, and one order of effects."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.errors import AudioError, DataError
from asr.frontend.augment import AS_RECORDED, AugmentConfig, Augmenter, Conditions, apply_conditions
from asr.frontend.augment.codec import code
from asr.frontend.augment.noise import RecordedNoise, SyntheticNoise
from asr.frontend.augment.reverb import RecordedRoom, SyntheticRoom
from asr.frontend.augment.silence import Silence
from asr.frontend.augment.speed import change_speed

RATE = 16_000
ALL = AugmentConfig(room_share=0.5, noise_share=0.5, gain_share=0.5, mel_warp=(0.88, 1.12))
CALLS = replace(ALL, silence_share=0.5, telephone_share=0.5, codec_share=0.5)


def drawn(config: AugmentConfig, count: int = 100, seed: int = 1) -> list[Conditions]:
    augmenter = Augmenter(config, seed)
    return [augmenter.conditions(2, f"u{number}", top_speed=2.0) for number in range(count)]


def waveform(samples: int = RATE) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def test_draws_are_pinned() -> None:
    """Guards against other draws for the same settings: an old run could not be repeated."""
    how = Augmenter(ALL, 1).conditions(2, "spk-0004", top_speed=2.0)
    room = SyntheticRoom(0.3257992252620263, 10.015884971909003, seed=2305767328806706587)
    assert how.room == room
    assert how.noise == SyntheticNoise("pink", seed=2147040387577740423)
    assert (how.snr_db, how.gain_db) == (14.464638658929328, -14.037730856866819)
    assert how.mel_warp == 1.0767217498818837
    assert str(how) == (
        f"speed {how.speed:g}; room of RT60 0.33 s, direct sound +10.0 dB; pink noise at 14.5 dB SNR; "
        f"gain -14.0 dB; mel bands warped by 1.077"
    )


def test_draws_of_calls_are_pinned() -> None:
    """Likewise for silence, telephone and codec; they leave what is drawn besides as it is."""
    how = Augmenter(CALLS, 1).conditions(2, "spk-0008", top_speed=2.0)
    assert how.silence == Silence(
        0.12736792909838957, -0.030767072415235963, -90.40703572662419, seed=5732440362529179359
    )
    assert (how.telephone, how.codec_kbits) == (True, 14.595763853535047)
    assert replace(how, silence=None, telephone=False, codec_kbits=0.0) == Augmenter(ALL, 1).conditions(
        2, "spk-0008", top_speed=2.0
    )
    assert str(how) == (
        "speed 1; silence +0.13 s before and -0.03 s after of noise at -90 dB; brown noise at 8.1 dB SNR"
        "; gain -8.4 dB; telephone; Opus at 14.6 kbit/s; mel bands warped by 1.029"
    )


def test_draws_are_pure() -> None:
    """Guards against global random state and the order of calls; another seed, epoch or id changes them."""
    first = drawn(CALLS)
    np.random.seed(3)
    torch.manual_seed(3)
    assert drawn(CALLS)[::-1] == first[::-1]
    augmenter = Augmenter(ALL, 1)
    others = [augmenter.conditions(3, "u1", 2.0), augmenter.conditions(2, "u2", 2.0)]
    assert len({first[1], *others, drawn(ALL, 2, seed=2)[1]}) == 4


def test_a_batch_is_drawn_as_each_alone() -> None:
    """Guards draws that are made together against the neighbours and their limits of speed."""
    augmenter = Augmenter(CALLS, 1)
    names = [f"u{number}" for number in range(50)]
    top_speeds = [(0.9, 1.0, 1.1)[number % 3] for number in range(50)]
    alone = [augmenter.conditions(2, name, top) for name, top in zip(names, top_speeds, strict=True)]
    assert augmenter.batch_conditions(2, names, top_speeds) == alone
    assert all(how.speed <= top for how, top in zip(alone, top_speeds, strict=True))
    assert len({how.speed for how in alone}) == 3


def test_shares_of_calls() -> None:
    """Guards against a probability that is inverted, or utterances that get all or nothing."""
    conditions = drawn(CALLS, 1000)
    spread = 4 * math.sqrt(1000 * 0.25)  # four standard deviations
    silences = [how.silence for how in conditions if how.silence is not None]
    coded = [how.codec_kbits for how in conditions if how.codec_kbits]
    for count in (len(silences), sum(how.telephone for how in conditions), len(coded)):
        assert abs(count - 500) < spread
    assert abs(sum(how.telephone and how.silence is not None for how in conditions) - 250) < 55
    assert abs(sum(silence.level_db is None for silence in silences) - len(silences) / 2) < spread
    levels = [silence.level_db for silence in silences if silence.level_db is not None]
    assert -100 <= min(levels) < max(levels) <= -60
    assert 8 <= min(coded) < 9
    assert 23 < max(coded) <= 24


def test_calls_are_not_cached() -> None:
    """Guards the cache: it has no features of utterances that are changed in any of these ways."""
    for how in (
        Conditions(silence=Silence(0.1, 0.0)),
        Conditions(telephone=True),
        Conditions(codec_kbits=12),
    ):
        assert not how.only_speed
    assert Conditions(speed=1.1, mel_warp=0.9).only_speed
    for name in ("silence_share", "telephone_share", "codec_share"):
        assert AugmentConfig(**{name: 0.1}).changes_waveform


def test_silence_is_before_the_line() -> None:
    """Guards the order: what is added to the ends goes through noise, telephone and codec as speech does."""
    how = Conditions(1.0, noise=SyntheticNoise("white", 2), snr_db=10.0, silence=Silence(0.5, 0.5, -60.0))
    noisy = apply_conditions(waveform(), RATE, how)
    assert len(noisy) == 2 * RATE
    powers = [noisy[end].square().mean().item() for end in (slice(RATE // 2), slice(-RATE // 2, None))]
    assert powers[0] == pytest.approx(powers[1], rel=0.1)
    assert powers[0] > 1e-4  # noise, not -60 dB
    line = apply_conditions(waveform(), RATE, replace(how, telephone=True))
    spectrum = np.square(np.abs(np.fft.rfft(line[: RATE // 2].numpy() * np.hanning(RATE // 2))))
    assert spectrum[len(spectrum) // 2 + 100 :].max() < 1e-6 * spectrum.max()
    pytest.importorskip("av", reason="the codec needs PyAV")
    coded = apply_conditions(waveform(), RATE, replace(how, telephone=True, codec_kbits=12.0))
    assert torch.equal(coded, code(line, RATE, 12.0))


def test_shares_and_ranges() -> None:
    """Guards against a probability that is inverted or applied twice, and values outside their ranges."""
    conditions = drawn(ALL, 1000)
    spread = 4 * math.sqrt(1000 * 0.25)  # four standard deviations
    rooms = [how.room for how in conditions if how.room is not None]
    assert abs(len(rooms) - 500) < spread
    assert all(isinstance(room, SyntheticRoom) for room in rooms)
    noisy = [how for how in conditions if how.noise is not None]
    assert abs(len(noisy) - 500) < spread
    kinds = [how.noise.kind for how in noisy if isinstance(how.noise, SyntheticNoise)]
    assert len(kinds) == len(noisy)
    assert all(abs(kinds.count(kind) - 125) < 45 for kind in ALL.noise_kinds)
    loud = [how.gain_db for how in conditions if how.gain_db]
    assert abs(len(loud) - 500) < spread
    both = sum(how.room is not None and how.noise is not None for how in conditions)
    assert abs(both - 250) < 55  # one does not depend on the other
    for values, (low, high) in [
        ([room.rt60_s for room in rooms if isinstance(room, SyntheticRoom)], ALL.room_rt60_s),
        ([room.direct_db for room in rooms if isinstance(room, SyntheticRoom)], ALL.room_direct_db),
        ([how.snr_db for how in noisy], ALL.noise_snr_db),
        (loud, ALL.gain_db),
        ([how.mel_warp for how in conditions], ALL.mel_warp),
    ]:
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_one_setting_leaves_the_other_draws() -> None:
    """Guards comparisons of two runs that differ in one setting: the rest is as before."""
    plain = drawn(AugmentConfig())
    assert all(how.only_speed and how.mel_warp == 1 for how in plain)
    noisy = drawn(AugmentConfig(noise_share=1.0))
    everything = drawn(replace(ALL, noise_share=1.0))
    assert [how.speed for how in plain] == [how.speed for how in noisy] == [how.speed for how in everything]
    assert [(how.noise, how.snr_db) for how in noisy] == [(how.noise, how.snr_db) for how in everything]


def write(path: Path, samples: int = 400) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(samples), RATE)
    return path


def test_folders(tmp_path: Path) -> None:
    """Guards against files that are never drawn, and other files taken for recordings."""
    noises = {write(tmp_path / "noise" / name) for name in ("a.wav", "deep/b.FLAC", "deep/c.wav")}
    rooms = {write(tmp_path / "rooms" / name) for name in ("r.wav", "s.wav")}
    (tmp_path / "noise" / "README.txt").write_text("x")
    config = AugmentConfig(
        noise_share=1, noise_dir=tmp_path / "noise", room_share=1, room_dir=tmp_path / "rooms"
    )
    conditions = drawn(config, 100)
    assert {how.noise.path for how in conditions if isinstance(how.noise, RecordedNoise)} == noises
    assert {how.room.path for how in conditions if isinstance(how.room, RecordedRoom)} == rooms
    positions = [how.noise.position for how in conditions if isinstance(how.noise, RecordedNoise)]
    assert min(positions) < 0.1
    assert max(positions) > 0.9


@pytest.mark.parametrize("topic", ["noise", "room"])
def test_folder_without_audio(topic: str, tmp_path: Path) -> None:
    """Guards against training on clean speech because of a slip in a path; the line names key and folder."""
    settings: dict[str, Any] = {f"{topic}_share": 0.5, f"{topic}_dir": tmp_path}
    (tmp_path / "notes.txt").write_text("x")
    what = {"noise": "recordings of noise", "room": "impulse responses of rooms"}[topic]
    message = (
        rf"augment\.{topic}-dir {tmp_path}: no audio files in this folder\. Expected {what} that end in "
    )
    with pytest.raises(DataError, match=message + r"\.wav, .*Correct it, or leave it out"):
        Augmenter(AugmentConfig(**settings), 1)
    settings[f"{topic}_dir"] = tmp_path / "notes.txt"
    with pytest.raises(
        DataError, match=rf"augment\.{topic}-dir .*notes\.txt: no such folder\. Expected {what}"
    ):
        Augmenter(AugmentConfig(**settings), 1)


def test_unreadable_noise_is_found_at_the_start(tmp_path: Path) -> None:
    """Guards against a damaged file that ends a training in its fifth hour."""
    (tmp_path / "broken.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(AudioError, match=r"broken\.wav: not a readable audio file"):
        Augmenter(AugmentConfig(noise_share=1, noise_dir=tmp_path), 1)


def test_large_folder_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the memory of loader processes against hours of noise."""
    write(tmp_path / "a.wav", RATE)
    config = AugmentConfig(noise_share=1, noise_dir=tmp_path)
    (small,) = drawn(config, 1)
    monkeypatch.setattr("asr.frontend.augment.conditions._IN_MEMORY_S", 0.9)
    (large,) = drawn(config, 1)
    assert isinstance(small.noise, RecordedNoise)
    assert small.noise.in_memory
    assert large == replace(small, noise=replace(small.noise, in_memory=False))


# ----------------------------------------------------------------------------------------------------------
# hearing


def test_hearing_is_a_function_of_its_arguments() -> None:
    """Guards against random state in what the conditions describe in full, and another length than batches
    expect."""
    how = Conditions(0.9, SyntheticRoom(0.3, 3.0, 1), SyntheticNoise("pink", 2), 10.0, -3.0)
    first = apply_conditions(waveform(), RATE, how)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(apply_conditions(waveform(), RATE, how), first)
    assert (first.dtype, len(first)) == (torch.float32, math.ceil(RATE / 0.9))
    assert torch.equal(apply_conditions(waveform(), RATE, AS_RECORDED), waveform())


def test_noise_is_not_in_the_room() -> None:
    """Guards the order: the SNR holds for the speech as it arrives, after speed and room, before the gain."""
    how = Conditions(1.1, SyntheticRoom(0.3, 3.0, 1), SyntheticNoise("white", 2), 6.0, -12.0)
    clean = apply_conditions(waveform(), RATE, replace(how, noise=None, gain_db=0.0))
    quiet = apply_conditions(waveform(), RATE, how)
    noise = quiet * 10 ** (12 / 20) - clean
    assert 10 * math.log10(clean.square().mean() / noise.square().mean()) == pytest.approx(6.0, abs=0.01)


def test_the_recording_itself_stays(tmp_path: Path) -> None:
    """Guards the caller's waveform, and noise that is held in memory, against changes in place."""
    path = write(tmp_path / "n.wav", 100)
    how = Conditions(1.0, None, RecordedNoise(path, 100 / RATE, 0.0, in_memory=True), 0.0, -6.0)
    original = waveform()
    first = apply_conditions(original, RATE, how)
    assert torch.equal(original, waveform())
    assert torch.equal(apply_conditions(original, RATE, how), first)


@pytest.mark.parametrize("gain_db", [-20.0, 6.0])
def test_gain(gain_db: float) -> None:
    """Guards the sign and the factor: 20 dB is ten times the amplitude."""
    louder = apply_conditions(waveform(), RATE, Conditions(gain_db=gain_db))
    assert torch.allclose(louder, waveform() * 10 ** (gain_db / 20))


def test_speed_is_that_of_the_cache() -> None:
    """Guards features at a speed, which a cache holds, against those computed on the fly."""
    assert torch.equal(
        apply_conditions(waveform(), RATE, Conditions(speed=1.1)), change_speed(waveform(), 1.1)
    )
