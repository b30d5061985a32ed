"""`asr transcribe`: recordings -> text."""

import glob
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from asr import __version__
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import Decode, build_decoder, greedy_decoder
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.inference import Segment, each_output
from asr.device import choose_device
from asr.errors import AudioError, SettingsError
from asr.frontend.audio import AUDIO_SUFFIXES, audio_files
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model

__all__ = ["Recognised", "Segment", "TranscribeSettings", "find_audio", "recognise", "run"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class TranscribeSettings:
    """Transcribe recordings: text to stdout, one line a file, in the order given.

    A file that cannot be used has an empty line; the others go on, and the exit status is 1 (2 when none
    could be used).
    """

    # audio files, quoted globs, or folders (searched through)
    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE...", help_behavior_hint="(required)"),
    ]
    # a model that ships with asr, english or english-fast (a smaller beam), or a .safetensors of `asr train`
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")] = DEFAULT_MODEL
    format: Literal["txt", "json"] = "txt"  # json: one object a line, with word times and confidences
    # hypotheses of each file, best first; needs --format json, and a beam search finds them
    nbest: int = 1
    # begin each line of text with the file's name without folder and suffix, as Kaldi does
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_s: float = 120.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


@dataclass(frozen=True)
class Recognised:
    """What became of a segment."""

    segment: Segment
    duration_s: float  # of the audio that was heard
    outcome: Hypothesis | AudioError  # what was recognised, or why nothing could be
    nbest: tuple[Hypothesis, ...] = ()  # all that the decoder returned, the outcome first


def run(settings: TranscribeSettings) -> Iterator[tuple[str, AudioError | None]]:
    """Transcribe as the command line says.

    Yields:
        One line to print for each file, in order, and the error of a file that could not be used, whose line
        is then empty (or, in JSON, holds the error).

    Raises:
        AsrError: a setting, the model, a folder or a glob cannot be used.
    """
    if settings.nbest != 1 and (settings.format != "json" or settings.nbest < 1):
        raise SettingsError(
            f"--nbest {settings.nbest} --format {settings.format}: text has one line a file. Expected "
            f"--nbest 1, or a larger number with --format json."
        )
    paths = find_audio(settings.files)
    if settings.ids:
        _warn_about_ids(paths)
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    decoder = build_decoder(settings.decoding.with_defaults_of(files), model, settings.nbest)
    if files.name:
        log.info("model: %s, which ships with asr %s (another one: --model FILE)", files.name, __version__)
    if decoder.weights and (not files.name or settings.decoding != DecoderSettings()):
        log.info("decoder: %s; %s", decoder.name, decoder.weights)
    segments = [Segment(path) for path in paths]
    for result in recognise(model, segments, settings.batch_s, decoder.decode):
        json_line = settings.format == "json"
        line = _json(result, settings.nbest) if json_line else _text(result, settings.ids)
        yield line, result.outcome if isinstance(result.outcome, AudioError) else None


def find_audio(names: Sequence[str]) -> list[Path]:
    """Files, globs and folders -> files, in the order of the names, and sorted within a glob or folder.

    Raises:
        AudioError: a folder or glob holds no audio files.
        SettingsError: there is no name.
    """
    if not names:
        raise SettingsError("no file to transcribe. Expected audio files, folders, or globs in quotes.")
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = audio_files(path)
            if not matches:
                raise AudioError(
                    f"{name}: no audio files in this folder. Expected some that end in "
                    f"{', '.join(AUDIO_SUFFIXES)}; a file of another name has to be given itself."
                )
        elif not path.exists() and glob.has_magic(name):
            matches = [Path(file) for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]
            if not matches:
                raise AudioError(f"{name}: no file matches this pattern. Correct it.")
        else:
            matches = [path]  # a missing file gets its message when it is read
        found += matches
    return found


def recognise(
    model: AcousticModel, segments: Sequence[Segment], batch_s: float, decode: Decode | None = None
) -> Iterator[Recognised]:
    """Recognise segments, in batches of about the same length; see `each_output`.

    Args:
        model: on its device.
        segments: what to recognise.
        batch_s: seconds of audio in a batch, padding included; a longer segment is a batch of its own.
        decode: the decoder; None decodes greedily.

    Yields:
        One result a segment, in order.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory.
    """
    decode = decode or greedy_decoder(model.settings.tokenizer)
    for segment, duration_s, found in each_output(model, segments, batch_s, decode):
        if isinstance(found, AudioError):
            yield Recognised(segment, duration_s, found)
        else:
            yield Recognised(segment, duration_s, found[0], tuple(found))


def _text(result: Recognised, ids: bool) -> str:
    text = result.outcome.text if isinstance(result.outcome, Hypothesis) else ""
    return f"{_id(result.segment.path)} {text}".rstrip() if ids else text


def _json(result: Recognised, nbest: int) -> str:
    row: dict[str, object] = {
        "audio_filepath": str(result.segment.path),
        "duration": round(result.duration_s, 3),
    }
    if isinstance(result.outcome, AudioError):
        row["error"] = str(result.outcome)
    else:
        row |= _fields(result.outcome, result.duration_s)
        if nbest > 1:
            row["nbest"] = [_fields(hypothesis, result.duration_s) for hypothesis in result.nbest]
    return json.dumps(row, ensure_ascii=False)


def _fields(hypothesis: Hypothesis, duration_s: float) -> dict[str, object]:
    return {
        "text": hypothesis.text,
        "score": round(hypothesis.score, 3),
        "acoustic_score": round(hypothesis.acoustic_score, 3),
        "lm_score": round(hypothesis.lm_score, 3),
        "rescore_lm_score": round(hypothesis.rescore_lm_score, 3),
        "words": [
            {
                "word": word.text,
                "start": round(word.start_s, 3),
                "end": round(min(word.end_s, duration_s), 3),  # the last step may reach over the end
                "confidence": round(word.confidence, 4),
            }
            for word in hypothesis.words
        ],
    }


def _id(path: Path) -> str:
    return "_".join(path.stem.split())  # an id ends at the first space


def _warn_about_ids(paths: Sequence[Path]) -> None:
    twice = [name for name, count in Counter(map(_id, paths)).items() if count > 1]
    if twice:
        log.warning(
            "--ids: %d names stand for more than one file, such as %s. The lines are still in the order of "
            "the files; --format json tells them apart.",
            len(twice),
            twice[0],
        )
