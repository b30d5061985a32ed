"""A transcript to read, correct and quote: HTML that browsers and word processors open.

Paragraphs begin with their time and end at pauses; words of which the recogniser is unsure are underlined.
"""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from asr.decoding.hypothesis import Word
from asr.pages.render import render
from asr.text.scripts import join_words
from asr.transcripts.record import RecordingTranscript, ordered_words

__all__ = ["UNSURE", "format_html", "paragraphs"]

UNSURE = 0.5  # words with a lower confidence are underlined, as on the page of `asr serve`

_BREAK_S = 2.0  # a pause that always ends a paragraph
_SHORT_BREAK_S = 0.5  # one that ends a long one
_LONG = 80  # words


def paragraphs(words: Sequence[Word]) -> list[list[Word]]:
    """Words cut at pauses of two seconds, and after 80 words at the next one of half a second.

    Their texts, one after the other, are the words in the order of their times.
    """
    found: list[list[Word]] = []
    ordered = ordered_words(words)
    if ordered:
        found.append(ordered[:1])
    for before, word in pairwise(ordered):
        pause_s = word.start_s - before.end_s
        if pause_s >= (_SHORT_BREAK_S if len(found[-1]) >= _LONG else _BREAK_S):
            found.append([])
        found[-1].append(word)
    return found


def format_html(transcript: RecordingTranscript) -> str:
    """A document of one recording."""
    words = transcript.words
    unsure = sum(word.confidence < UNSURE for word in words)
    summary = f"{len(words):,} words, recognised by a computer."
    if unsure:
        summary += f" {unsure:,} of which it is unsure (confidence below {UNSURE:g}) are underlined."
    parts = [
        {
            "clock": str(timedelta(seconds=int(part[0].start_s))),
            "pieces": [
                {
                    "gap": _gap(before, word), "text": word.text, "unsure": word.confidence < UNSURE,
                    "confidence": f"{word.confidence:.2f}",
                }
                for before, word in zip([None, *part], part, strict=False)
            ],
        }
        for part in paragraphs(words)
    ]  # fmt: skip
    title = Path(transcript.audio_filepath).name or transcript.id
    return render("transcript.html", title=title, summary=summary, paragraphs=parts)


def _gap(before: Word | None, word: Word) -> str:
    """What stands between two words: nothing in scripts without spaces."""
    if before is None:
        return ""
    return " " if join_words([before.text, word.text]) == f"{before.text} {word.text}" else ""
