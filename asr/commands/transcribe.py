"""`asr transcribe`: recordings -> text, subtitles, timed words."""

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated

import tyro

from asr import __version__
from asr.commands.common_options import BatchSeconds, Device, Formats, ModelName, OutputDir, Threads
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.decoding.hypothesis import Hypothesis, Word
from asr.device import limit_cores
from asr.errors import AsrError, SettingsError
from asr.export.loading import Engine, load_with_engine
from asr.frontend.segmentation import SegmentationConfig
from asr.manifests.fields import Channels
from asr.manifests.recording_list import NamedRecording, list_recordings
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.recognise import Recognised, Segment
from asr.text.scripts import join_words
from asr.torchrun import rank_and_world_size, wait_for_all
from asr.transcripts.formats import FORMATS, Write, check_joins, choose_formats
from asr.transcripts.json_rows import format_json
from asr.transcripts.output import TranscriptFolder
from asr.transcripts.record import RecordingTranscript

__all__ = ["TranscribeSettings", "run"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class TranscribeSettings:
    """Transcribe recordings: text to stdout, one line per file in the order given, or files in a folder.

    A file that cannot be used has an empty line; the others are transcribed, and the exit status is 1
    (2 when none could be used).
    """

    # audio files, quoted globs, folders (searched through), manifests (.jsonl), or - for standard input
    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE...", help_behavior_hint="(required)"),
    ]
    model: ModelName = DEFAULT_MODEL
    # txt, json (one object per line, with word times and confidences), srt, vtt, tsv, ctm, textgrid, trn,
    # html (to read, for browsers and word processors); several into --output-dir
    format: Annotated[Formats, tyro.conf.arg(help_behavior_hint="(default: txt)")] = ()
    output_dir: OutputDir = None
    # leave out recordings whose files are in --output-dir already, by their names; always under torchrun
    skip_existing: tyro.conf.FlagCreatePairsOff[bool] = False
    # of recordings with several: their mean, the first alone, or a transcript of each, such as the two sides
    # of a telephone call
    channels: Channels = "mix"
    # hypotheses of each file, best first; needs --format json, and a decoder with a beam
    nbest: int = 1
    # begin each line of text with the file's name without folder and suffix, as Kaldi does
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_s: BatchSeconds = 120.0
    segmentation: Annotated[SegmentationConfig, tyro.conf.arg(name="")] = field(
        default_factory=SegmentationConfig
    )
    device: Device = "auto"
    engine: Engine = None
    # of the model on a CPU, of the search and of reading, each
    threads: Threads = None
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


_Line = tuple[str | None, AsrError | None]  # what to print, None for nothing, and what went wrong


def run(settings: TranscribeSettings) -> Iterator[_Line]:
    """Transcribe the files, to stdout or into a folder.

    Yields:
        For each recording what to print (None where there is nothing) and the error of one that could not be
        used, whose line is then empty (or, in JSON, holds the error).

    Raises:
        AsrError: a setting, the model or the output folder cannot be used.
    """
    writers = _writers(settings)
    recordings = list_recordings(settings.files, settings.channels)
    if settings.ids or next(iter(writers)) in ("ctm", "trn"):
        _warn_about_ids(recordings)
    if settings.output_dir is None:
        yield from _to_stdout(settings, recordings, writers)
    else:
        folder = TranscriptFolder(settings.output_dir, writers, resumable=True)
        yield from _to_folder(settings, recordings, folder)
    wait_for_all()  # a status of 1 ends the other processes


def _to_stdout(
    settings: TranscribeSettings, recordings: Sequence[NamedRecording], writers: Mapping[str, Write]
) -> Iterator[_Line]:
    """Transcribe all recordings; each is a line, or more, in the one format of stdout."""
    [(name, write)] = writers.items()
    check_joins(name, len(recordings))
    with closing(_transcribe(settings, recordings)) as transcripts:
        for _, transcript, error in transcripts:
            line = write(transcript) if error is None or FORMATS[name].joins else ""
            yield line.removesuffix("\n") if line else None, error


def _to_folder(
    settings: TranscribeSettings, recordings: Sequence[NamedRecording], folder: TranscriptFolder
) -> Iterator[_Line]:
    """Transcribe what is this process's to do and not in the folder yet; nothing goes to stdout."""
    rank, world_size = rank_and_world_size()
    # Each process takes every nth: which ones does not depend on what the others have written meanwhile.
    numbers = {name: number for number, name in enumerate(dict.fromkeys(one.name for one in recordings))}
    mine = [one for one in recordings if numbers[one.name] % world_size == rank]
    skips = settings.skip_existing or world_size > 1
    missing = [one for one in mine if not (skips and folder.has(one.name))]
    folder.remove_unfinished(one.name for one in missing)
    yield from [(None, None)] * (len(recordings) - len(missing))
    failed = 0
    with closing(_transcribe(settings, missing)) as transcripts:
        for recording, transcript, error in transcripts:
            error = error or folder.attempt(recording.name, transcript)
            failed += error is not None
            yield None, error
    folder.log_summary(len(mine), len(mine) - len(missing), failed)


def _transcribe(
    settings: TranscribeSettings, recordings: Sequence[NamedRecording]
) -> Generator[tuple[NamedRecording, RecordingTranscript, AsrError | None], None, None]:
    """Each recording with its transcript, or with an empty one and the reason."""
    usable = [one for one in recordings if not one.error]
    # Closed also after an error: threads that read ahead would keep the process alive.
    with limit_cores(settings.threads), closing(_recognise(settings, usable)) as results:
        for recording in recordings:
            yield recording, *_transcript(recording, None if recording.error else next(results))
        next(results, None)  # its last line


def _writers(settings: TranscribeSettings) -> dict[str, Write]:
    """What writes each of the formats that are asked for, by their names, in their order.

    Raises:
        SettingsError: a format is unknown, or does not fit to another setting.
    """
    names = choose_formats(settings.format, "txt", settings.output_dir)
    if rank_and_world_size()[1] > 1 and settings.output_dir is None:
        raise SettingsError("torchrun: each process writes its own transcripts. Add --output-dir DIR.")
    if settings.skip_existing and settings.output_dir is None:
        raise SettingsError("--skip-existing: there is no folder to look into. Add --output-dir DIR.")
    if settings.nbest != 1 and ("json" not in names or settings.nbest < 1):
        raise SettingsError(
            f"--nbest {settings.nbest} --format {','.join(names)}: text has one line per file. Expected "
            f"--nbest 1, or a larger number with --format json."
        )
    writers = {name: FORMATS[name].write for name in names}
    if "json" in writers:
        writers["json"] = partial(format_json, nbest=settings.nbest)
    if settings.ids and "txt" in writers:
        writers["txt"] = lambda transcript: f"{transcript.id} {transcript.text}".rstrip() + "\n"
    return writers


def _recognise(
    settings: TranscribeSettings, recordings: Sequence[NamedRecording]
) -> Generator[Recognised, None, None]:
    """Recognise recordings; the model is loaded if there is one."""
    if not recordings:
        return
    files = find_model(settings.model)
    model = load_with_engine(files.path, settings.device, settings.engine)
    decoder = build_decoder(settings.decoding.with_defaults_of(files), model, settings.nbest)
    if files.name and rank_and_world_size()[0] == 0:
        log.info("model: %s, which ships with asr %s (another one: --model FILE)", files.name, __version__)
    if decoder.weights and (not files.name or settings.decoding != DecoderSettings()):
        log.info("decoder: %s; %s", decoder.name, decoder.weights)
    segments = [
        Segment(one.path, one.offset_s, one.duration_s, one.channel, partial=True) for one in recordings
    ]
    yield from recognise_recordings(
        model, segments, settings.batch_s, decoder, settings.segmentation, _log_words
    )


def _log_words(segment: Segment, words: Sequence[Word]) -> None:
    """Log the next words of a long recording, with their times."""
    times = (f"{timedelta(seconds=round(second))}" for second in (words[0].start_s, words[-1].end_s))
    log.info("%s [%s]: %s", segment.path, "-".join(times), join_words(word.text for word in words))


def _transcript(
    recording: NamedRecording, result: Recognised | None
) -> tuple[RecordingTranscript, AsrError | None]:
    """What was recognised in a recording, or why it has no transcript."""
    outcome = recording.error if result is None else result.outcome
    best = outcome if isinstance(outcome, Hypothesis) else None
    error = outcome if isinstance(outcome, AsrError) else None
    return RecordingTranscript(
        id=recording.id,
        text=best.text if best else "",
        words=best.words if best else (),
        duration_s=result.duration_s if result else 0.0,
        audio_filepath=str(recording.path),
        offset_s=recording.offset_s,
        channel=recording.channel,
        recording_id=recording.recording_id,
        hypotheses=result.nbest if result else (),
        error=str(error) if error else "",
    ), error


def _warn_about_ids(recordings: Sequence[NamedRecording]) -> None:
    """Warn of lines that could belong to more than one recording; of several processes, the first does."""
    if rank_and_world_size()[0] != 0:
        return
    repeated = [name for name, count in Counter(one.id for one in recordings).items() if count > 1]
    if repeated:
        log.warning(
            "--ids: %d names belong to more than one file, such as %s. The lines are still in the order of "
            "the files; --format json has their paths.",
            len(repeated),
            repeated[0],
        )
