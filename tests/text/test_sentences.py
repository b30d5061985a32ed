"""Running text as sentences of words: borders, numbers, accents, what is left out."""

import re
import sys

import pytest

from asr.errors import SettingsError
from asr.text.sentences import runs, sentences, split_sentences


def test_full_stops_after_titles_and_initials_end_no_sentence() -> None:
    text = 'Dr. J. R. Lee of St. Ives left. He said "No." Then Mr. Fox came! It was 3.5 km. On'
    assert [*split_sentences(text)] == [
        "Dr. J. R. Lee of St. Ives left.", 'He said "No.', "Then Mr. Fox came!", "It was 3.5 km.", "On",
    ]  # fmt: skip


def test_numbers_are_written_as_they_are_spoken() -> None:
    pytest.importorskip("num2words")
    text = [
        "Born in 1968, he had 1,250 books.",
        "In the 1990s the 21st came 3rd.",
        "From 1905–1907 Mr. Fox sold 40 of 2000.",
    ]
    assert [*sentences(text)] == [
        "born in nineteen sixty eight he had one thousand two hundred and fifty books",
        "in the nineteen nineties the twenty first came third",
        "from nineteen oh five to nineteen oh seven mister fox sold forty of two thousand",
    ]


def test_what_is_no_plain_sentence_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, times, parts of numbers, other alphabets, sentences that are short, long or there already."""
    monkeypatch.setitem(sys.modules, "num2words", type(sys)("num2words"))
    monkeypatch.setattr(sys.modules["num2words"], "num2words", lambda value, to: "n", raising=False)
    out = [
        "It costs $5 a day.",
        "At 10:30 he went home.",
        "About 3.5 of these were.",
        "The Greek α is a letter.",
    ]
    text = [*out, "Too short.", "a " * 61, "The café is open.", "The cafe is open!"]
    assert [*sentences(text)] == ["the cafe is open"]


def test_without_num2words_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(SettingsError, match=re.escape("pip install num2words")):
        next(sentences(["One two three."]))


def test_runs_are_the_whole_and_all_of_a_length() -> None:
    assert runs("a b c", 2) == {("a", "b", "c"), ("a", "b"), ("b", "c")}
    assert runs("a b c") == {("a", "b", "c")}
    assert runs("x the quick fox") & runs("the quick fox") == set()
