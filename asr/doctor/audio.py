"""What can be measured of a recording: length, level, clipping, offset, bandwidth, channels, a digest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.doctor.findings import Finding
from asr.errors import AudioError
from asr.frontend.audio import channels_cancel, check_finite
from asr.frontend.recordings import Block, open_recording
from asr.frontend.tar_members import audio_file
from asr.manifests.utterance import Utterance

__all__ = ["AudioFacts", "audio_findings", "measure_audio"]

_TOLERANCE_S = 0.05  # of a duration, as when audio is read
_UNUSED_S = 1.0  # so much more audio than the duration says is a finding
_SILENT, _QUIET = 1e-3, 3e-3  # of full scale: the peak of silence (-60 dB), the RMS of quiet speech (-50 dB)
_OFFSET = 0.02  # of full scale
_CLIPPED_SHARE, _CLIPPED_PEAK = 2e-3, 0.1  # samples at the peak; speech has 0.01% there
_CLIPPED_LEAST = 20  # samples: fewer are at the peak of a short recording in the coarse steps of 8 bits
_NARROW = 1e-5  # power density at 4.3 to 7 kHz / that at 0.3 to 3.4 kHz: speech has 1e-4 and more
# Power density at 4.1 to 4.6 kHz / that at 3 to 3.4 kHz, below which there is an edge, as telephones make it.
_EDGE = 1e-2
_NARROW_S = 3.0  # of speech, to judge by: a "no" has nothing above 4 kHz, few sentences lack an s
_SPECTRA, _FFT = 100, 1024  # windows of a recording that are looked at


@dataclass(frozen=True)
class AudioFacts:
    """A segment of a recording.

    Attributes:
        sample_rate: Hz.
        channels: of the file.
        file_s: length of the file, seconds; None where only decoding tells, and nothing was decoded.
        peak, rms, mean: of the samples, 1 being full scale.
        clipped: share of the samples that are at the peak; 0 where they are very few.
        high_band: power density above 4.3 kHz, of that of speech below; 1 where the rate is too low, and
            where there is no edge at 4 kHz: some voices have little there.
        cancelled: whether the channels cancel each other.
        digest: of the samples; "" where nothing was decoded.
    """

    sample_rate: int
    channels: int
    file_s: float | None
    peak: float = 1.0
    rms: float = 1.0
    mean: float = 0.0
    clipped: float = 0.0
    high_band: float = 1.0
    cancelled: bool = False
    digest: str = ""


def measure_audio(
    utterances: Sequence[Utterance], *, workers: int, quick: bool, report: Callable[[int], None]
) -> list[AudioFacts | AudioError]:
    """Measure each utterance's audio, file by file, in parallel.

    Args:
        utterances: whose files exist or not.
        workers: threads; what decodes and measures leaves Python's lock to others.
        quick: read headers alone.
        report: called with the number of utterances that are done.
    """
    of_file: dict[Path, list[int]] = {}
    for number, utterance in enumerate(utterances):
        of_file.setdefault(utterance.audio_filepath, []).append(number)
    found: dict[int, AudioFacts | AudioError] = {}

    def measure(numbers: list[int]) -> list[AudioFacts | AudioError]:
        return list(_measure_file([utterances[number] for number in numbers], quick))

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for numbers, facts in zip(of_file.values(), pool.map(measure, of_file.values()), strict=True):
            found |= zip(numbers, facts, strict=True)
            report(len(found))
    return [found[number] for number in range(len(utterances))]


def _measure_file(utterances: Sequence[Utterance], quick: bool) -> Iterator[AudioFacts | AudioError]:
    """The facts of each utterance of one file."""
    path = utterances[0].audio_filepath
    whole: Block | None = None  # of what can only be decoded from its beginning: once, for all segments
    for utterance in utterances:
        try:
            with open_recording(path) as recording:
                rate, channels, length = recording.sample_rate, recording.channels, recording.samples
                if quick:
                    yield AudioFacts(rate, channels, None if length is None else length / rate)
                    continue
                start = round(utterance.offset * rate)
                count = round(utterance.duration * rate)
                if length is None:
                    if whole is None:
                        whole = np.concatenate(list(recording.blocks(0, None)))
                    length = len(whole)
                    samples = whole[start : start + count]
                else:
                    blocks = list(recording.blocks(start, count)) or [np.zeros((0, channels), np.float32)]
                    samples = np.concatenate(blocks)
            check_finite(samples, start, path)
        except AudioError as error:
            yield error
            continue
        if utterance.channel is not None:
            samples = samples[:, utterance.channel : utterance.channel + 1]
        yield _facts(samples, rate, channels, length / rate)


def _facts(samples: Block, rate: int, channels: int, file_s: float) -> AudioFacts:
    if not samples.size:
        return AudioFacts(rate, channels, file_s)
    mono: NDArray[np.float32] = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    cancelled = False
    if samples.shape[1] > 1:
        powers = [float(channel.var()) for channel in samples.T]
        if cancelled := channels_cancel(powers, float(mono.var())):
            mono = samples[:, int(np.argmax(powers))]
    size = np.abs(mono)
    peak = float(size.max())
    at_peak = int(np.count_nonzero(size >= 0.999 * peak))
    return AudioFacts(
        rate, channels, file_s, peak,
        rms=float(np.sqrt(np.mean(np.square(mono, dtype=np.float64)))),
        mean=float(mono.mean(dtype=np.float64)),
        clipped=at_peak / len(mono) if at_peak >= _CLIPPED_LEAST else 0.0,
        high_band=_high_band(mono, rate),
        cancelled=cancelled,
        digest=blake2b((np.clip(mono, -1, 1) * 32767).astype(np.int16).tobytes(), digest_size=16).hexdigest(),
    )  # fmt: skip


def _high_band(mono: NDArray[np.float32], rate: int) -> float:
    """Power density at 4.3 to 7 kHz divided by that at 0.3 to 3.4 kHz; 1 where there is no edge between."""
    if rate < 11025 or len(mono) < _FFT:
        return 1.0
    starts = np.linspace(0, len(mono) - _FFT, min(_SPECTRA, len(mono) // _FFT)).astype(int)
    windows = mono[starts[:, None] + np.arange(_FFT)] * np.hanning(_FFT)
    power = np.square(np.abs(np.fft.rfft(windows))).mean(axis=0)
    hertz = np.fft.rfftfreq(_FFT, 1 / rate)

    def density(low: float, high: float) -> float:
        return float(power[(hertz >= low) & (hertz <= high)].mean())

    if density(4100, 4600) > _EDGE * density(3000, 3400):
        return 1.0
    return density(4300, min(7000, 0.45 * rate)) / max(density(300, 3400), 1e-20)


def audio_findings(
    manifest: str,
    utterances: Sequence[Utterance],
    facts: Sequence[AudioFacts | AudioError],
    shared: Mapping[Path, int],
) -> Iterator[Finding]:
    """What is wrong with the audio of a manifest.

    Args:
        manifest: its name.
        utterances: of the manifest.
        facts: of each.
        shared: how many utterances a file has.
    """
    rates: dict[int, int] = {}
    narrow = _narrow_speakers(utterances, facts)
    for utterance, one in zip(utterances, facts, strict=True):

        def found(check: str, detail: str, value: float = 0.0, name: str = utterance.id) -> Finding:
            return Finding(check=check, manifest=manifest, id=name, detail=detail, value=value)

        path, end = utterance.audio_filepath, utterance.offset + utterance.duration
        if isinstance(one, AudioError):
            missing = not audio_file(path).exists()
            yield found("missing-audio" if missing else "unreadable-audio", str(one))
            continue
        rates[one.sample_rate] = rates.get(one.sample_rate, 0) + 1
        if one.sample_rate < 16000:
            yield found("low-rate", f"{one.sample_rate} Hz", -one.sample_rate)
        if one.channels > 1 and utterance.channel is None:
            yield found("channels", f"{one.channels} channels")
        if utterance.channel is not None and utterance.channel >= one.channels:
            yield found("unreadable-audio", f"{path}: no channel {utterance.channel}, it has {one.channels}")
            continue
        if one.file_s is not None:
            if utterance.offset >= one.file_s - 0.02:
                yield found("after-the-end", f"begins at {utterance.offset:g} s of {one.file_s:.2f} s")
                continue
            if end > one.file_s + _TOLERANCE_S:
                says = f"ends at {end:.2f} s, the recording at {one.file_s:.2f} s"
                yield found("duration", says, end - one.file_s)
            elif not utterance.offset and shared[path] == 1 and one.file_s > end + _UNUSED_S:
                yield found("unused-audio", f"{end:.2f} s of {one.file_s:.2f} s", one.file_s - end)
        if one.digest:
            yield from _level(found, one)
            if one.high_band < _NARROW and (utterance.duration >= _NARROW_S or utterance.speaker in narrow):
                density = _decibels(one.high_band**0.5)
                yield found("bandwidth", f"{one.sample_rate} Hz, above 4.3 kHz {density}")
    if len(rates) > 1:
        counts = ", ".join(f"{count:,} of {rate} Hz" for rate, count in sorted(rates.items()))
        yield Finding(check="rates", manifest=manifest, detail=counts)


def _level(found: Callable[[str, str, float], Finding], one: AudioFacts) -> Iterator[Finding]:
    if one.peak < _SILENT:
        yield found("silence", f"peak {_decibels(one.peak)}", -one.peak)
        return
    if one.rms < _QUIET:
        yield found("quiet", f"RMS {_decibels(one.rms)}", -one.rms)
    if one.cancelled:
        yield found("antiphase", f"{one.channels} channels", 0.0)
    if one.clipped > _CLIPPED_SHARE and one.peak > _CLIPPED_PEAK:
        yield found("clipping", f"{100 * one.clipped:.1f}% of the samples", one.clipped)
    if abs(one.mean) > _OFFSET:
        yield found("dc", f"mean {one.mean:+.3f}", abs(one.mean))


def _narrow_speakers(utterances: Sequence[Utterance], facts: Sequence[AudioFacts | AudioError]) -> set[str]:
    """Speakers who have no power above 4 kHz in any of their utterances."""
    seconds: dict[str, float] = {}
    wide = {""}
    for utterance, one in zip(utterances, facts, strict=True):
        if isinstance(one, AudioError):
            continue
        seconds[utterance.speaker] = seconds.get(utterance.speaker, 0.0) + utterance.duration
        if one.high_band >= _NARROW:
            wide.add(utterance.speaker)
    return {speaker for speaker, length in seconds.items() if length >= _NARROW_S} - wide


def _decibels(value: float) -> str:
    return f"{20 * np.log10(max(value, 1e-9)):.0f} dB"
