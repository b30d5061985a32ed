"""`asr corpus segment`: a long recording and its text -> training utterances and their manifest."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from asr.errors import AsrError, DataError, SettingsError, check_number, plural
from asr.files import json_line, make_writable, write_text
from asr.frontend.audio import audio_blocks, write_audio
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.recognition.aligning import AlignerSettings, TextOfRecording, align_recordings, read_text
from asr.recognition.cutting import Cuts, CuttingConfig, Loudness, cut_utterances
from asr.recognition.recognise import Segment
from asr.recognition.text_alignment import describe_mismatches

__all__ = ["CorpusSegmentSettings", "run"]

log = logging.getLogger("asr")

_BLOCK_S = 30.0


@dataclass(frozen=True)
class CorpusSegmentSettings:
    """Cut a long recording with its text into training utterances, at pauses between words.

    Writes DIR/NAME-0001.flac and so on, DIR/NAME.jsonl, their manifest, and DIR/NAME-left-out.jsonl: what is
    in no utterance, with times and reason. Stretches in which text and recording differ are left out.
    """

    # an audio file of any length
    audio: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")]
    # what is said: a text file, or the words in quotes
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    # folder for the utterances; made when missing
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR", aliases=["-o"])]
    # of the recording, for the manifest
    speaker: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: none)")] = ""
    # of the files that are written, Hz
    sample_rate: int = 16_000
    cutting: Annotated[CuttingConfig, tyro.conf.arg(name="")] = field(default_factory=CuttingConfig)
    aligner: Annotated[AlignerSettings, tyro.conf.arg(name="")] = field(default_factory=AlignerSettings)

    def __post_init__(self) -> None:
        check_number("--sample-rate", self.sample_rate, least=1000, unit="Hz")


def run(settings: CorpusSegmentSettings) -> str:
    """Write the utterances; the result is the text to print.

    Raises:
        AsrError: a setting, the recording, the text or the folder cannot be used.
    """
    path, folder = settings.audio, settings.output_dir
    if path.is_dir():
        raise SettingsError(f"{path} is a folder. One recording was expected, whose text is given with it.")
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is not a file, but is read more than once. Write it to a file.")
    text, name = read_text(settings.text)
    make_writable(folder)  # before an hour of work, not after it
    recording = TextOfRecording(Segment(path), text, name)
    (found,) = align_recordings(settings.aligner, [recording])
    if isinstance(found, AsrError):
        raise found
    if warning := describe_mismatches(str(path), found):
        log.warning("%s", warning)
    rate = settings.sample_rate
    cuts = cut_utterances(found, Loudness(audio_blocks(path, rate, whole_s=_BLOCK_S), rate), settings.cutting)
    if not cuts.utterances:
        raise DataError(
            f"{path}: not one utterance of {settings.cutting.min_s:g} to {settings.cutting.max_s:g} s was "
            f"found between pauses. Allow others (--min-s, --max-s, --pause-s), or check the text."
        )
    stem = "_".join(path.stem.split())
    utterances = list(_write(settings, stem, cuts))
    write_manifest(folder / f"{stem}.jsonl", utterances)
    _write_left_out(folder / f"{stem}-left-out.jsonl", cuts)
    return _summary(settings, folder / f"{stem}.jsonl", cuts, found.duration_s)


def _write(settings: CorpusSegmentSettings, stem: str, cuts: Cuts) -> Iterator[Utterance]:
    """Write the utterances one after the other: the recording is decoded once, in blocks."""
    rate = settings.sample_rate
    blocks = audio_blocks(settings.audio, rate, whole_s=_BLOCK_S)
    samples, begin = torch.zeros(0), 0  # what is in memory, and where it begins
    for number, cut in enumerate(cuts.utterances, start=1):
        first, last = round(cut.start_s * rate), round(cut.end_s * rate)
        while begin + len(samples) < last and (block := next(blocks, None)) is not None:
            kept = max(0, min(first - begin, len(samples)))
            samples, begin = torch.cat([samples[kept:], block]), begin + kept
        waveform = samples[max(0, first - begin) : last - begin]
        path = settings.output_dir / f"{stem}-{number:04}.flac"
        write_audio(path, waveform.clamp(-1, 1), rate, "FLAC", "PCM_16")
        yield Utterance(
            id=path.stem,
            audio_filepath=path.absolute(),
            duration=len(waveform) / rate,
            text=cut.text,
            speaker=settings.speaker,
        )


def _write_left_out(path: Path, cuts: Cuts) -> None:
    rows = [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(one).items()}
        for one in cuts.left_out
    ]
    write_text(path, map(json_line, rows))


def _summary(settings: CorpusSegmentSettings, manifest: Path, cuts: Cuts, duration_s: float) -> str:
    seconds = [one.end_s - one.start_s for one in cuts.utterances]
    lines = [
        f"{manifest}: {len(seconds)} utterances of {min(seconds):.1f} to {max(seconds):.1f} s, "
        f"{sum(seconds) / 60:.1f} of {duration_s / 60:.1f} minutes"
    ]
    words = Counter[str]()
    for one in cuts.left_out:
        words[one.reason] += len(one.text.split())
    counts = Counter(one.reason for one in cuts.left_out)
    if counts:
        parts = [
            f"{reason}: {plural(count, 'stretch', 'es')}"
            + (f", {plural(words[reason], 'word')}" * bool(words[reason]))
            for reason, count in counts.items()
        ]
        lines.append(f"left out: {'; '.join(parts)} ({manifest.stem}-left-out.jsonl)")
    return "\n".join(lines)
