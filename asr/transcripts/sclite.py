"""The formats of NIST's scoring tool sclite: trn, texts with utterance ids, and ctm, words with times.

    stand in the ice box (talk)          trn: an utterance a line

    talk 1 0.320 0.280 stand 0.9731      ctm: recording, channel, start and duration in s, word, confidence

Source: the SCTK toolkit's documentation of trn and ctm (infmts.htm).
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.decoding.hypothesis import Word
from asr.errors import DataError
from asr.files import read_lines
from asr.manifests.utterance import channel_name, channel_of
from asr.transcripts.record import RecordingTranscript

__all__ = [
    "content_lines", "format_ctm", "format_trn", "read_ctm", "read_trn", "trn_id",
    "warn_about_optional_words",
]  # fmt: skip

log = logging.getLogger("asr")

_MIXED = "1"  # the channel of a recording whose channels were mixed, as Kaldi writes it
_TRN_ID = re.compile(r"\(([^()\s]+)\)\s*$")
_ALTERNATIVES = "alternatives, which sclite chooses from, cannot be scored. Write one text."


def trn_id(line: str) -> str:
    """The id in brackets at the end of a line of trn; "" where there is none."""
    found = _TRN_ID.search(line)
    return found[1] if found else ""


def format_trn(transcript: RecordingTranscript) -> str:
    """The text and, in brackets, the id; a line."""
    return f"{transcript.text} ({_bracketed(transcript.id)})\n".lstrip()


def _bracketed(name: str) -> str:
    """An id that cannot end the brackets around it."""
    return name.replace("(", "[").replace(")", "]")


def read_trn(path: Path) -> list[RecordingTranscript]:
    """Read a trn file.

    Raises:
        DataError: the file cannot be read, a line has no id at its end or the id of another, or holds
            alternatives in braces.
    """
    found: dict[str, RecordingTranscript] = {}
    for number, line in content_lines(path):
        name = trn_id(line)
        if not name:
            raise DataError(
                f"{path} line {number}: {line[-40:]!r} ends without an id. Expected the utterance's id in "
                f"brackets at the end of each line, such as (spk1-utt1)."
            )
        text = line[: _start_of_id(line)]
        if re.search(r"\{.*/.*\}", text) or {"{", "}"} & set(text.split()):
            raise DataError(f"{path} line {number}: {_ALTERNATIVES}")
        if name in found:
            raise DataError(
                f"{path} line {number}: the id {name!r} has a line already. Each id was expected once. "
                f"Remove one of the lines."
            )
        found[name] = RecordingTranscript(id=name, text=" ".join(text.split()))
    warn_about_optional_words(path, [one.text for one in found.values()])
    return list(found.values())


def _start_of_id(line: str) -> int:
    found = _TRN_ID.search(line)
    return found.start() if found else len(line)


def format_ctm(transcript: RecordingTranscript) -> str:
    """A line for each word; "" where there is none."""
    lines = []
    for word in transcript.words:
        start, end = round(word.start_s, 3), round(word.end_s, 3)
        times = f"{start:.3f} {end - start:.3f}"
        channel = _MIXED if transcript.channel is None else channel_name(transcript.channel)
        name = f"{transcript.recording_id or transcript.id} {channel}"
        lines.append(f"{name} {times} {word.text} {word.confidence:.4f}\n")
    return "".join(lines)


def read_ctm(path: Path) -> list[RecordingTranscript]:
    """Read a ctm file; comments (;;) are left out, and a word without confidence has 1.

    Returns:
        The transcript of each channel of each recording, in the order in which the file names them first.
        Words are in the order of their times.

    Raises:
        DataError: the file cannot be read, or a line is not recording, channel, start, duration, word and
            possibly a confidence, or holds alternatives.
    """
    words: dict[tuple[str, int | str], list[Word]] = {}
    for number, line in content_lines(path):
        fields = line.split()
        if "<ALT" in line:
            raise DataError(f"{path} line {number}: {_ALTERNATIVES}")
        try:
            name, channel, start, duration, text, *confidence = fields
            start_s, duration_s = float(start), float(duration)
            # what follows a confidence (such as the type and the speaker) is not read
            certainty = float(confidence[0]) if confidence and confidence[0] != "NA" else 1.0
        except ValueError:
            raise DataError(
                f"{path} line {number}: {line!r:.60}. Expected recording, channel, start and duration in "
                f"seconds, and a word, such as: talk 1 0.32 0.28 stand."
            ) from None
        if not (start_s >= 0 and 0 <= duration_s < float("inf")):
            raise DataError(
                f"{path} line {number}: start {start}, duration {duration}. Expected seconds of at least 0."
            )
        word = Word(text, start_s, round(start_s + duration_s, 6), certainty)
        words.setdefault((name, channel_of(channel)), []).append(word)
    return [
        _from_words(name, channel, sorted(found, key=lambda word: word.start_s))
        for (name, channel), found in words.items()
    ]


def _from_words(name: str, channel: int | str, words: list[Word]) -> RecordingTranscript:
    text = " ".join(word.text for word in words)
    return RecordingTranscript(id=name, text=text, words=tuple(words), channel=channel)


def content_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Lines of any of NIST's formats that are neither empty nor comments (;;), with their numbers."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip() and not line.startswith(";;"):
            yield number, line


def warn_about_optional_words(path: Path, texts: Sequence[str]) -> None:
    """Warn of words in brackets, which sclite lets be missing.

    Args:
        path: the file, for the message.
        texts: what it holds.
    """
    optional = [word for text in texts for word in text.split() if word[0] == "(" and word[-1] == ")"]
    if optional:
        log.warning(
            "%s: words in brackets, %d such as %s: sclite lets them be missing, here they are words like "
            "others. Remove them, or their brackets.",
            path, len(optional), optional[0],
        )  # fmt: skip
