"""A transcript as a document: paragraphs, times, doubtful words."""

import re

from asr.decoding.hypothesis import Word
from asr.transcripts.document import format_html, paragraphs
from asr.transcripts.record import RecordingTranscript


def words(*gaps_s: float) -> list[Word]:
    """Words of 0.2 s, each with the pause before it."""
    found, time = [], 0.0
    for number, gap_s in enumerate(gaps_s):
        time += gap_s
        found.append(Word(f"w{number}", time, time + 0.2, 0.9))
        time += 0.2
    return found


def test_paragraphs_end_at_pauses() -> None:
    """An hour in one paragraph, or one a word; a word that is lost between two."""
    spoken = words(3.0, 0.1, 2.1, *[0.1] * 90, 0.6, 0.4)
    found = paragraphs(spoken)
    assert [len(part) for part in found] == [2, 91, 2]
    assert [word.text for part in found for word in part] == [word.text for word in spoken]
    assert paragraphs([]) == []


def test_html() -> None:
    """Marks in a text that are taken for HTML, a doubtful word that looks like others, a file that loads."""
    spoken = (Word("stand", 3661.5, 3662.0, 0.97), Word("<b>&", 3662.0, 3662.5, 0.31))
    one = RecordingTranscript(
        id="talk", text="stand <b>&", words=spoken, audio_filepath="my talks/Käthe 1.m4a"
    )
    page = format_html(one)
    assert "<h1>Käthe 1.m4a</h1>" in page
    assert '[1:01:01]</span> stand <u title="0.31">&lt;b&gt;&amp;</u></p>' in page
    assert "2 words, recognised by a computer. 1 of which it is unsure" in page
    assert not re.search(r"https?:|src=|<script", page)
    empty = format_html(RecordingTranscript(id="quiet"))
    assert "<h1>quiet</h1>" in empty
    assert "0 words" in empty


def test_scripts_without_spaces() -> None:
    """Chinese with spaces between its characters."""
    spoken = (Word("你", 0.0, 0.2, 0.9), Word("好", 0.2, 0.4, 0.9), Word("ok", 0.4, 0.6, 0.9))
    assert "你好 ok" in format_html(RecordingTranscript(id="a", words=spoken))
