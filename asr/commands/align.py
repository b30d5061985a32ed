"""`asr align`: a recording and its text -> when each word is said, and where text and recording differ."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from asr.commands.common_options import Formats, OutputDir
from asr.decoding.hypothesis import Word
from asr.errors import AsrError, SettingsError
from asr.manifests.manifest import read_manifest
from asr.manifests.recording_list import NamedRecording, list_recordings
from asr.manifests.utterance import Utterance
from asr.recognition.aligning import AlignerSettings, TextOfRecording, align_recordings, read_text
from asr.recognition.recognise import Segment
from asr.recognition.text_alignment import AlignedText, Mismatch, describe_mismatches
from asr.text.scripts import join_words
from asr.transcripts.formats import FORMATS, Write, check_joins, choose_formats
from asr.transcripts.output import TranscriptFolder
from asr.transcripts.record import RecordingTranscript
from asr.transcripts.sclite import format_ctm

__all__ = ["AlignSettings", "run"]

log = logging.getLogger("asr")

_TOKENS = "tokens"
_MISMATCHES = "mismatches"
_NO_TEXT = "<no text>"  # of speech that is not in the text


@dataclass(frozen=True)
class AlignSettings:
    """Find when each word of a text is said in its recording: forced alignment, for recordings of any length.

    Text or recording may have more than the other, at the ends and in between: such stretches are listed as
    mismatches, with one warning, and the rest is aligned.
    """

    # an audio file, or - for standard input; or a manifest (.jsonl) of recordings with their texts
    audio: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO")]
    # what is said: a text file, or the words in quotes; a manifest has its own
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = ""
    # words; or tokens besides: the model's phones or characters
    units: Literal["words", "tokens"] = "words"
    # json (one object per line), ctm, textgrid (for Praat), srt, vtt, tsv; several into --output-dir
    format: Annotated[Formats, tyro.conf.arg(help_behavior_hint="(default: json)")] = ()
    output_dir: OutputDir = None
    aligner: Annotated[AlignerSettings, tyro.conf.arg(name="")] = field(default_factory=AlignerSettings)


def run(settings: AlignSettings) -> Iterator[tuple[str | None, AsrError | None]]:
    """Align the recordings.

    Yields:
        For each recording, in order, what to print (None where there is nothing) and the error of one that
        could not be aligned.

    Raises:
        AsrError: a setting, the text, the manifest, the model or the output folder cannot be used.
    """
    names = choose_formats(settings.format, "json", settings.output_dir)
    formats = {name: _write_of(name, settings.units) for name in names}
    recordings, texts = _inputs(settings)
    if settings.output_dir is None:
        check_joins(names[0], len(recordings))
    folder = TranscriptFolder(settings.output_dir, formats) if settings.output_dir else None
    failed = 0
    with closing(align_recordings(settings.aligner, texts)) as results:
        for recording, found in zip(recordings, results, strict=True):
            error = found if isinstance(found, AsrError) else None
            transcript = _transcript(recording, found, settings.units)
            if isinstance(found, AlignedText) and (warning := describe_mismatches(recording.name, found)):
                log.warning("%s", warning)
            if folder is None:
                line = formats[names[0]](transcript) if error is None or names[0] == "json" else ""
                yield line.removesuffix("\n") or None, error
            else:
                error = error or folder.attempt(recording.name, transcript)
                yield None, error
            failed += error is not None
    if folder is not None:
        folder.log_summary(len(recordings), 0, failed)


def _inputs(settings: AlignSettings) -> tuple[list[NamedRecording], list[TextOfRecording]]:
    """The recordings and what is said in them."""
    if settings.audio.endswith(".jsonl"):
        if settings.text:
            raise SettingsError(
                f"{settings.audio} is a manifest, whose recordings have texts of their own. Leave TEXT out."
            )
        utterances = read_manifest(Path(settings.audio), allow_empty_text=True)
        recordings = [_named(utterance) for utterance in utterances]
        texts = [(utterance.text, f"the text of {utterance.id}") for utterance in utterances]
    else:
        recordings = list_recordings([settings.audio], "mix")
        if len(recordings) != 1:
            raise SettingsError(
                f"{settings.audio} names {len(recordings)} recordings, but a text is that of one. Write a "
                f"manifest with the text of each."
            )
        if recordings[0].error is not None:
            raise recordings[0].error
        if not settings.text:
            raise SettingsError(
                "TEXT is missing, what is said in the recording. Expected a text file, or words in quotes."
            )
        texts = [read_text(settings.text)]
    return recordings, [
        TextOfRecording(
            Segment(one.path, one.offset_s, one.duration_s, one.channel, partial=True), text, name
        )
        for one, (text, name) in zip(recordings, texts, strict=True)
    ]  # fmt: skip


def _named(utterance: Utterance) -> NamedRecording:
    return NamedRecording(
        name=utterance.id.translate(str.maketrans("/\\\0", "___")),
        path=utterance.audio_filepath,
        offset_s=utterance.offset,
        duration_s=utterance.duration,
        channel=utterance.channel,
    )


def _write_of(name: str, units: str) -> Write:
    """What writes a format; ctm has one kind of units, which may be tokens."""
    if name == "ctm" and units == _TOKENS:
        return lambda transcript: format_ctm(replace(transcript, words=transcript.tiers.get(_TOKENS, ())))
    return FORMATS[name].write


def _transcript(recording: NamedRecording, found: AlignedText | AsrError, units: str) -> RecordingTranscript:
    """An alignment as the formats write it."""
    transcript = RecordingTranscript(
        id=recording.id,
        audio_filepath=str(recording.path),
        offset_s=recording.offset_s,
        channel=recording.channel,
    )
    if isinstance(found, AsrError):
        return replace(transcript, error=str(found))
    tiers = {_TOKENS: found.tokens} if units == _TOKENS else {}
    if mismatches := tuple(_interval(one, found) for one in found.mismatches):
        tiers[_MISMATCHES] = mismatches
    return replace(
        transcript,
        text=join_words(word.text for word in found.words),
        words=found.words,
        duration_s=found.duration_s,
        tiers=tiers,
        confidence=found.score,
    )


def _interval(mismatch: Mismatch, found: AlignedText) -> Word:
    words = found.words[mismatch.first : mismatch.first + mismatch.words]
    text = join_words(word.text for word in words) or _NO_TEXT
    return Word(text, mismatch.start_s, mismatch.end_s, sum(w.confidence for w in words) / max(1, len(words)))
