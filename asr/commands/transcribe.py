"""`asr transcribe`: recordings -> text."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import tyro

from asr import __version__
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.decoding.hypothesis import Hypothesis, Word
from asr.device import choose_device
from asr.errors import AudioError, SettingsError
from asr.frontend.audio_files import find_audio
from asr.frontend.segmentation import SegmentationConfig
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.recognise import Recognised, Segment

__all__ = ["TranscribeSettings", "run"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class TranscribeSettings:
    """Transcribe recordings: text to stdout, one line per file, in the order given.

    A file that cannot be used has an empty line; the others are transcribed, and the exit status is 1
    (2 when none could be used).
    """

    # audio files, quoted globs, or folders (searched through)
    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE...", help_behavior_hint="(required)"),
    ]
    # a model that ships with asr, english or english-fast (a smaller beam), or a .safetensors of `asr train`
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")] = DEFAULT_MODEL
    format: Literal["txt", "json"] = "txt"  # json: one object per line, with word times and confidences
    # hypotheses of each file, best first; needs --format json, and a decoder with a beam
    nbest: int = 1
    # begin each line of text with the file's name without folder and suffix, as Kaldi does
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_s: float = 120.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    segmentation: Annotated[SegmentationConfig, tyro.conf.arg(name="")] = field(
        default_factory=SegmentationConfig
    )
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: TranscribeSettings) -> Iterator[tuple[str, AudioError | None]]:
    """Transcribe the files.

    Yields:
        One line to print for each file, in order, and the error of a file that could not be used, whose line
        is then empty (or, in JSON, holds the error).

    Raises:
        AsrError: a setting, the model, a folder or a glob cannot be used.
    """
    if settings.nbest != 1 and (settings.format != "json" or settings.nbest < 1):
        raise SettingsError(
            f"--nbest {settings.nbest} --format {settings.format}: text has one line per file. Expected "
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
    results = recognise_recordings(
        model,
        [Segment(path) for path in paths],
        settings.batch_s,
        decoder,
        settings.segmentation,
        _log_words,
    )
    for result in results:
        json_line = settings.format == "json"
        line = _json(result, settings.nbest) if json_line else _text(result, settings.ids)
        yield line, result.outcome if isinstance(result.outcome, AudioError) else None


def _log_words(segment: Segment, words: Sequence[Word]) -> None:
    """Log the next words of a long recording, with their times."""
    times = (f"{timedelta(seconds=round(second))}" for second in (words[0].start_s, words[-1].end_s))
    log.info("%s [%s]: %s", segment.path, "-".join(times), " ".join(word.text for word in words))


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
        row |= _fields(result.outcome)
        if nbest > 1:
            row["nbest"] = [_fields(hypothesis) for hypothesis in result.nbest]
    return json.dumps(row, ensure_ascii=False)


def _fields(hypothesis: Hypothesis) -> dict[str, object]:
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
                "end": round(word.end_s, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in hypothesis.words
        ],
    }


def _id(path: Path) -> str:
    return "_".join(path.stem.split())  # an id ends at the first space


def _warn_about_ids(paths: Sequence[Path]) -> None:
    repeated = [name for name, count in Counter(map(_id, paths)).items() if count > 1]
    if repeated:
        log.warning(
            "--ids: %d names belong to more than one file, such as %s. The lines are still in the order of "
            "the files; --format json has their paths.",
            len(repeated),
            repeated[0],
        )
