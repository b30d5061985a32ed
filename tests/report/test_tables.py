"""Tables of the page: rates as they are written, and tables only of what divides the utterances."""

from pathlib import Path

from asr.manifests.utterance import Utterance
from asr.report.tables import histogram, percent, rate_row, tables
from asr.scoring.wer import score

TEXTS = {"u1": ("a b", "a b"), "u2": ("a b", "a x"), "u3": ("a", "b c"), "u4": ("", "a")}


def test_rows() -> None:
    """Shares of the wrong counts, a bar that is longer than its cell, a rate that is infinite."""
    references, hypotheses = zip(*TEXTS.values(), strict=True)
    result = score(references, hypotheses, list(TEXTS))
    row = rate_row("all", result, highest=1.6)
    assert (row.utterances, row.units, row.rate, row.bar) == (4, 5, "80.00", 50.0)
    assert (row.substitutions, row.deletions, row.insertions) == ("40.0", "0.0", "40.0")
    assert row.interval == "16.7–500.0"
    assert rate_row("one", result.part(["u2"])).interval == ""  # 50.0–50.0 looked certain
    empty = rate_row("empty", result.part(["u4"]), highest=1.0)
    assert (empty.rate, empty.bar, empty.substitutions) == ("∞", 0.0, "")
    assert percent(0.12345) == "12.35"
    counts = dict(histogram(result))
    assert counts == {"0": 1, "≤10": 0, "≤20": 0, "≤30": 0, "≤50": 1, "≤75": 0, "≤100": 0, ">100": 2}


def test_tables() -> None:
    """A table with one row, a field whose values are given to other utterances, speakers beyond the limit."""
    utterances = [
        Utterance(id=f"u{n}", audio_filepath=Path("/a"), duration=3.0, text="a", speaker=f"s{n}")
        for n in range(250)
    ]
    hypotheses = ["b" if n % 2 else "a" for n in range(250)]
    result = score(
        ["a"] * 250, hypotheses, [one.id for one in utterances], speakers=[one.speaker for one in utterances]
    )
    fields = [{"room": "hall" if n % 2 else "car", "same": 1} for n in range(250)]
    speaker, room = tables(result, utterances, fields)
    assert (speaker.title, len(speaker.rows)) == ("Speaker", 200)
    assert speaker.note == "and 50 more, with lower error rates"
    assert [(row.name, row.rate) for row in room.rows] == [("hall", "100.00"), ("car", "0.00")]
