"""Recordings and their texts in, alignments out: with the model and the lexicon that this takes."""

import logging
import os
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from asr.device import choose_device, limit_cores
from asr.errors import AsrError, AudioError, DataError, check_number
from asr.files import read_lines
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.recognition.long_emissions import recording_emissions
from asr.recognition.recognise import Segment
from asr.recognition.text_alignment import AlignedText, TextAligner
from asr.text.lexicon import read_lexicon

__all__ = ["AlignerSettings", "TextOfRecording", "align_recordings", "read_text"]

log = logging.getLogger("asr")

_LIKE_A_FILE = re.compile(r"\S*\.[A-Za-z][A-Za-z0-9]{1,4}")  # talk.txt, notes.docx


@dataclass(frozen=True)
class AlignerSettings:
    """What aligns a text with its recording."""

    # a model that ships with asr, english or english-fast (the same here), or a .safetensors of `asr train`
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")] = DEFAULT_MODEL
    # pronunciations that come before the model's own; other words are pronounced by letter-to-sound
    lexicon: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: that of a model that ships)"),
    ] = None
    # confidence under which a word does not match the audio, 0 to 1
    min_score: float = 0.1
    batch_s: float = 60.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    # of the model on a CPU and of reading, each
    threads: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all cores)")] = (
        None
    )

    def __post_init__(self) -> None:
        check_number("--min-score", self.min_score, least=0, most=1)
        check_number("--threads", self.threads, least=1)


@dataclass(frozen=True)
class TextOfRecording:
    """A recording and what is said in it.

    Attributes:
        segment: the recording.
        text: as it is written.
        name: of the text, in messages.
    """

    segment: Segment
    text: str
    name: str


def align_recordings(
    settings: AlignerSettings, recordings: Sequence[TextOfRecording]
) -> Generator[AlignedText | AsrError, None, None]:
    """Align texts with recordings of any length.

    Yields:
        For each recording, in order, its alignment, or why there is none.

    Raises:
        AsrError: a setting, the model or the lexicon cannot be used.
    """
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    lexicon_file = settings.lexicon or files.lexicon
    aligner = TextAligner(model, read_lexicon(lexicon_file) if lexicon_file else None, settings.min_score)
    if files.name:
        log.info("model: %s, which ships with asr (another one: --model FILE)", files.name)
    segments = [one.segment for one in recordings]
    with limit_cores(settings.threads):
        emissions = recording_emissions(model, segments, settings.batch_s)
        for recording, found in zip(recordings, emissions, strict=True):
            if isinstance(found.outcome, AudioError):
                yield found.outcome
                continue
            try:
                yield aligner.align(found.outcome, recording.text, found.duration_s, recording.name)
            except DataError as error:
                yield error
    aligner.report()


def read_text(text: str) -> tuple[str, str]:
    """A text that the user has named by its file, or has typed.

    Args:
        text: the path of a text file in UTF-8, or the words themselves.

    Returns:
        The text and its name in messages.

    Raises:
        DataError: the file cannot be read, or there is no such file.
    """
    if os.path.isfile(text):
        return "\n".join(read_lines(Path(text))), text
    if len(text.split()) == 1 and (os.sep in text or _LIKE_A_FILE.fullmatch(text)):
        raise DataError(f"{text} does not exist. Expected a text file, or the words themselves in quotes.")
    return text, "the text"
