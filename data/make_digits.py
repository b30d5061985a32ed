"""Make the embedded digits corpus: strings of 1 to 7 English digits, spoken by speech synthesisers.

    python data/make_digits.py [--out data/digits] [--seed 2024]

It takes about two minutes, and needs the project itself (`asr`), scipy, and the Debian packages below.
Seeded: with the same package versions the decoded audio and the manifests come out the same (an .ogg file
also holds a random stream number, so its bytes differ). data/README.md lists what was made, and licences.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance

log = logging.getLogger("asr")

# Debian 12 (bookworm): package -> the version that made the committed corpus.
PACKAGES = {
    "flite": "2.2-5",
    "espeak-ng": "1.51+dfsg-10+deb12u2",
    "festival": "1:2.5.0-9",
    "festvox-kallpc16k": "2.4-1",
    "festvox-kdlpc16k": "1.4.0-6.1",
    "festvox-us-slt-hts": "0.2010.10.25-4",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE = 16000
MAX_LENGTH = 7  # digits in a string
GAP_S = 0.1  # noise floor between two utterances of a file, so that no word leaks into its neighbour
VORBIS_LEVEL = 0.9  # soundfile's compression level (0 best .. 1 smallest): about 27 kbit/s


@dataclass(frozen=True)
class Voice:
    """One speaker of the corpus: a synthesiser's voice with its own pitch and vocal tract.

    `warp` > 1 shortens the vocal tract (formants and pitch go up by that factor); the speaking rate stays.
    `pitch` is in Hz for flite and festival (0: the voice's own), 0..99 for espeak-ng.
    """

    split: str
    name: str
    synthesiser: str
    voice: str
    utterances: int
    pitch: float = 0.0
    warp: float = 1.0


def _espeak(split: str, voice: str, utterances: int, pitch: float) -> Voice:
    return Voice(split, f"espeak-{voice.lower().replace('+', '-')}", "espeak-ng", voice, utterances, pitch)


# The same person stays on one side of the split: flite kal, festival kal and what is warped from them are
# one speaker, and so are flite slt and festival slt-hts. No long string is drawn twice.
VOICES = (
    Voice("test", "flite-slt", "flite", "slt", 80),
    Voice("test", "festival-slt-hts", "festival", "cmu_us_slt_arctic_hts", 40),
    Voice("test", "festival-ked", "festival", "ked_diphone", 80),
    Voice("dev", "flite-awb", "flite", "awb", 70),
    _espeak("dev", "en-gb+f5", 30, 55),
    Voice("train", "flite-rms", "flite", "rms", 150),
    Voice("train", "flite-rms-low", "flite", "rms", 80, warp=0.9),
    Voice("train", "flite-rms-high", "flite", "rms", 120, warp=1.18),
    Voice("train", "flite-kal", "flite", "kal16", 90),
    Voice("train", "flite-kal-mid", "flite", "kal16", 90, pitch=120, warp=1.08),
    Voice("train", "festival-kal", "festival", "kal_diphone", 100),
    Voice("train", "festival-kal-high", "festival", "kal_diphone", 110, pitch=150, warp=1.16),
    _espeak("train", "en-us", 32, 45),
    _espeak("train", "en-us+f1", 32, 60),
    _espeak("train", "en-us+f4", 32, 45),
    _espeak("train", "en-us+m7", 32, 40),
    _espeak("train", "en-us+Annie", 32, 50),
    _espeak("train", "en-us+Mike", 32, 50),
    _espeak("train", "en-us+steph", 32, 50),
    _espeak("train", "en-us-nyc+m1", 32, 35),
    _espeak("train", "en-029+f3", 32, 50),
    _espeak("train", "en-gb+m3", 32, 50),
    _espeak("train", "en-gb+f2", 32, 50),
    _espeak("train", "en-gb-scotland+m2", 32, 55),
    _espeak("train", "en-gb-x-rp+m4", 32, 60),
    _espeak("train", "en-gb-x-gbclan+linda", 32, 50),
)
# An utterance of each test voice is stored once more as a wav, for `asr transcribe`: voice -> digits in it.
DEMO = {"flite-slt": 5, "festival-ked": 7, "festival-slt-hts": 4}


@dataclass(frozen=True)
class Spoken:
    """What to say and how: the digits, the text with commas for pauses, the speaking rate (1 = normal)."""

    words: tuple[str, ...]
    text: str
    rate: float
    gap_ms: int  # extra silence between words (espeak-ng only)


def main() -> None:
    """Check the synthesisers, speak, compress, and write the three manifests."""
    parser = argparse.ArgumentParser(description="Make the embedded digits corpus.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits")
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if problem := missing_packages():
        sys.exit(problem)

    out: Path = options.out
    (out / "wav").mkdir(parents=True, exist_ok=True)
    long_strings: set[tuple[str, ...]] = set()
    manifests: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for voice in VOICES:
        rng = np.random.default_rng([options.seed, zlib.crc32(voice.name.encode())])
        script = draw_script(voice, rng, long_strings)
        clips = [finish(clip, rng) for clip in synthesise(voice, script)]
        utterances = write_voice(out, voice, script, clips, rng)
        manifests[voice.split] += utterances
        write_demo(out, voice, script, clips)
        minutes = sum(u.duration for u in utterances) / 60
        size = (out / f"{voice.name}.ogg").stat().st_size / 1e6
        line = "%-5s %-28s %4d utterances %5.2f min %5.2f MB"
        log.info(line, voice.split, voice.name, len(script), minutes, size)
    for split, utterances in manifests.items():
        write_manifest(out / f"{split}.jsonl", utterances)


def missing_packages() -> str:
    """One line that says which synthesisers are missing and how to get them; "" when all are there."""
    missing = [program for program in ("flite", "espeak-ng", "festival") if shutil.which(program) is None]
    if "festival" not in missing:
        listed = _output(["festival", "--batch", "(print (voice.list))"])
        wanted = [voice.voice for voice in VOICES if voice.synthesiser == "festival"]
        missing += [f"festival voice {voice}" for voice in wanted if voice not in listed]
    if missing:
        return (
            f"Cannot make the digits corpus without: {', '.join(dict.fromkeys(missing))}. "
            f"Install the Debian packages: apt-get install {' '.join(PACKAGES)}"
        )
    for package, expected in PACKAGES.items():
        version = (
            _output(["dpkg-query", "-W", "-f=${Version}", package]) if shutil.which("dpkg-query") else ""
        )
        if version != expected:
            log.warning("%s is %s, not %s: the corpus will differ.", package, version or "unknown", expected)
    return ""


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def draw_script(voice: Voice, rng: np.random.Generator, long_strings: set[tuple[str, ...]]) -> list[Spoken]:
    """The strings of one voice: lengths 1..7 and the ten digits equally often, no long string twice."""
    script: list[Spoken] = []
    lengths = _deck(MAX_LENGTH, rng)
    digits = _deck(3 * len(DIGITS), rng)  # three of each in a deck, so that "nine nine" does occur
    for _ in range(voice.utterances):
        length = 1 + next(lengths)
        words = tuple(DIGITS[next(digits) % len(DIGITS)] for _ in range(length))
        while length >= 4 and words in long_strings:
            words = tuple(rng.permutation(words).tolist())
        if length >= 4:
            long_strings.add(words)
        pause = rng.choice([0.0, 0.1, 0.3, 0.8])  # how this utterance is read: in one go ... digit by digit
        commas = rng.random(length - 1) < pause
        text = words[0]
        for comma, word in zip(commas, words[1:], strict=True):
            text += f", {word}" if comma else f" {word}"
        script.append(Spoken(words, f"{text}.", rng.uniform(0.8, 1.25), 10 * int(rng.integers(0, 9))))
    return script


def _deck(cards: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(cards).tolist()


def synthesise(voice: Voice, script: list[Spoken]) -> list[NDArray[np.float32]]:
    """Raw clips of one voice at 16 kHz, in the script's order."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.wav" for index in range(len(script))]
        # A warped voice is spoken slower by as much as the warping will speed it up.
        rates = [spoken.rate / voice.warp for spoken in script]
        if voice.synthesiser == "festival":
            _run(["festival", "--batch", _festival_program(voice, script, rates, paths)])
        for spoken, rate, path in zip(script, rates, paths, strict=True):
            if voice.synthesiser == "flite":
                how = f"-voice {voice.voice} --setf duration_stretch={1 / rate:.3f}"
                if voice.pitch:
                    how += f" --setf int_f0_target_mean={voice.pitch}"
                _run(["flite", *how.split(), "-t", spoken.text, "-o", str(path)])
            elif voice.synthesiser == "espeak-ng":
                how = f"-s {150 * rate:.0f} -p {voice.pitch:.0f} -g {spoken.gap_ms // 10}"
                _run(["espeak-ng", "-v", voice.voice, *how.split(), "-w", str(path), spoken.text])
        return [_read(path, voice.warp) for path in paths]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Festival reports an error of its program on stderr and still exits 0.
    if done.returncode != 0 or "ERROR" in done.stderr:
        sys.exit(f"{command[0]} failed: {done.stderr.strip()[-300:]} (command: {' '.join(command)[:300]})")


def _festival_program(voice: Voice, script: list[Spoken], rates: list[float], paths: list[Path]) -> str:
    lines = [f"(voice_{voice.voice})"]
    if voice.pitch:
        model = "(model_f0_mean 170) (model_f0_std 34)"
        lines.append(f"(set! int_lr_params '((target_f0_mean {voice.pitch}) (target_f0_std 18) {model}))")
    lines.append("(defvar hts_engine_params nil) (set! hts_own hts_engine_params)")
    for spoken, rate, path in zip(script, rates, paths, strict=True):
        # Diphone voices obey Duration_Stretch, HTS voices the engine's own rate; each ignores the other.
        lines += [
            f"(Parameter.set 'Duration_Stretch {1 / rate:.3f})",
            f'(if hts_own (set! hts_engine_params (append hts_own \'(("-r" {rate:.3f})))))',
            f'(set! u (Utterance Text "{spoken.text}")) (utt.synth u) (utt.save.wave u "{path}" \'riff)',
        ]
    program = paths[0].with_suffix(".scm")
    program.write_text("\n".join(lines))
    return str(program)


def _read(path: Path, warp: float) -> NDArray[np.float32]:
    waveform, rate = soundfile.read(path, dtype="float32")
    return np.asarray(resample_poly(waveform, SAMPLE_RATE * 100, rate * round(warp * 100)), dtype=np.float32)


def finish(clip: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Trim to 60 ms of silence, set a level of -27 to -17 dBFS, pad 0.05 to 0.3 s each side, add noise."""
    hop = SAMPLE_RATE // 100
    frames = np.sqrt(np.mean(clip[: len(clip) // hop * hop].reshape(-1, hop) ** 2, axis=1))
    active = np.flatnonzero(frames > frames.max() * 10 ** (-55 / 20))
    clip = clip[max(0, (active[0] - 6) * hop) : (active[-1] + 7) * hop]
    level = 10 ** (rng.uniform(-27, -17) / 20) / np.sqrt(np.mean(clip**2))
    clip = clip * min(level, 0.7 / np.abs(clip).max())  # the codec overshoots peaks by a tenth
    before, after = rng.integers(SAMPLE_RATE // 20, SAMPLE_RATE * 3 // 10, size=2)
    clip = np.pad(clip, (before, after)).astype(np.float32)
    return clip + noise_floor(len(clip), rng)


def noise_floor(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise between white and pink at -65 to -55 dBFS: synthesisers are silent, microphones never are."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    slope = rng.uniform(0.0, 0.5)  # amplitude ~ f**-slope: 0 is white, 0.5 pink
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequency**-slope, samples)
    noise *= 10 ** (rng.uniform(-65, -55) / 20) / np.sqrt(np.mean(noise**2))
    return np.asarray(noise, dtype=np.float32)


def write_voice(
    out: Path, voice: Voice, script: list[Spoken], clips: list[NDArray[np.float32]], rng: np.random.Generator
) -> list[Utterance]:
    """All clips of one voice into one Ogg Vorbis file; returns a segment of it for each."""
    path = out / f"{voice.name}.ogg"
    gap = round(GAP_S * SAMPLE_RATE)
    utterances = []
    position = gap
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "VORBIS", compression_level=VORBIS_LEVEL) as stream:
        stream.write(noise_floor(gap, rng))
        for index, (spoken, clip) in enumerate(zip(script, clips, strict=True)):
            stream.write(clip)
            stream.write(noise_floor(gap, rng))
            utterances.append(
                Utterance(
                    id=f"{voice.name}-{index:03d}",
                    audio_filepath=path,
                    offset=position / SAMPLE_RATE,
                    duration=len(clip) / SAMPLE_RATE,
                    text=" ".join(spoken.words),
                    speaker=voice.name,
                )
            )
            position += len(clip) + gap
    return utterances


def write_demo(out: Path, voice: Voice, script: list[Spoken], clips: list[NDArray[np.float32]]) -> None:
    """Store the voice's first string of that many different digits as a wav whose name says what is said."""
    if voice.name not in DEMO:
        return
    for stale in (out / "wav").glob(f"{voice.name}_*.wav"):
        stale.unlink()
    strings = [spoken.words for spoken in script]
    index = next(i for i, words in enumerate(strings) if len(words) == len(set(words)) == DEMO[voice.name])
    said = "-".join(str(DIGITS.index(word)) for word in strings[index])
    soundfile.write(out / "wav" / f"{voice.name}_{said}.wav", clips[index], SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
