"""A text and emissions: the times of words as they are written, and what does not match."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from asr.errors import DataError
from asr.recognition.text_alignment import AlignedText, TextAligner, describe_mismatches
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.text.tokenizer import Tokenizer

STEP_S = 0.04
LETTERS = CharTokenizer(tuple(" abcdefghijklmnopqrstuvwxyz"))
PHONES = PhoneTokenizer(
    ("A", "B", "C", "D"),
    Lexicon({"ab": (("A", "B"),), "read": (("C", "D"), ("D", "C")), "dab": (("D", "A", "B"),)}, "test"),
    guessed={"cad": ("C", "A", "D")},
    fallback="nothing",
)


def aligner(tokenizer: Tokenizer, **settings: Any) -> TextAligner:
    model = SimpleNamespace(
        settings=SimpleNamespace(tokenizer=tokenizer, text_normalizer="english"), step_s=STEP_S
    )
    return TextAligner(cast(Any, model), **settings)


def say(tokenizer: Tokenizer, text: str) -> Tensor:
    """(steps, vocab): each token at one step in three, without doubt; a dot is a second of silence."""
    path: list[int] = []
    symbols = text if tokenizer.units == "characters" else text.split()
    for symbol in symbols:
        path += [0] * 25 if symbol == "." else [0, tokenizer.symbols.index(symbol) + 1, 0]
    return 12 * torch.nn.functional.one_hot(torch.tensor(path), tokenizer.vocab_size).float() - 12.001


def align(tokenizer: Tokenizer, spoken: str, text: str, **settings: Any) -> AlignedText:
    rows = say(tokenizer, spoken)
    return aligner(tokenizer, **settings).align(rows, text, len(rows) * STEP_S, "the text")


def test_words_as_they_are_written() -> None:
    """Times of the normalised words, instead of those of the text with its marks and compounds."""
    found = align(LETTERS, ".well known facts.", "Well-known — Facts!")
    assert [word.text for word in found.words] == ["Well-known", "Facts!"]
    assert found.aligned == (True, True)
    first, second = found.words
    assert first.start_s == pytest.approx(26 * STEP_S)
    assert first.end_s == pytest.approx((25 + 3 * 9 + 2 + 3) * STEP_S + 0.08 - 3 * STEP_S)
    assert second.start_s == pytest.approx((25 + 3 * 11 + 1) * STEP_S)
    assert first.confidence > 0.99
    assert [token.text for token in found.tokens] == list("wellknownfacts")
    assert found.owners == (0,) * 9 + (1,) * 5
    assert found.mismatches == ()
    assert describe_mismatches("talk", found) == ""


def test_tokens_last_until_the_next_one() -> None:
    """Phones with holes between them, or that overlap the next word."""
    found = align(PHONES, "A B . D A B", "ab dab")
    starts = [token.start_s for token in found.tokens]
    ends = [token.end_s for token in found.tokens]
    assert starts == pytest.approx([STEP_S * n for n in (1, 4, 32, 35, 38)])
    assert ends == pytest.approx([STEP_S * n for n in (4, 7, 35, 38, 40)])  # of the last, 40 are all steps
    assert [token.text for token in found.tokens] == ["A", "B", "D", "A", "B"]


def test_pronunciations_compete_and_guesses_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """The first pronunciation for all, or letter-to-sound in silence."""
    one = aligner(PHONES)
    rows = say(PHONES, "D C . C D . C A D")
    with caplog.at_level(logging.INFO):
        found = one.align(rows, "read read cad", len(rows) * STEP_S, "x")
        one.report()
    assert [token.text for token in found.tokens] == ["D", "C", "C", "D", "C", "A", "D"]
    assert "1 of 3 words are not in the lexicon and are pronounced by letter-to-sound: cad" in caplog.text
    caplog.clear()
    given = aligner(PHONES, lexicon=Lexicon({"cad": (("A",),)}, "mine"))
    with caplog.at_level(logging.INFO):
        found = given.align(rows[-9:], "cad", 9 * STEP_S, "x")
        given.report()
    assert [token.text for token in found.tokens] == ["A"]
    assert not caplog.text


def test_missing_words_and_other_speech_are_flagged() -> None:
    """A wrong sentence that gets times as if it were said, or that moves the words around it."""
    before, after = "the first line is here", "and then the last line"
    said, written = "nobody expects this one", "some quite different words"
    found = align(LETTERS, f"{before}. {said}. {after}", f"{before} {written} {after}")
    assert found.aligned == (True,) * 5 + (False,) * 4 + (True,) * 5
    (mismatch,) = found.mismatches
    assert (mismatch.first, mismatch.words) == (5, 4)
    assert 66 * STEP_S <= mismatch.start_s < mismatch.end_s <= (len(f"{before} {said} ") * 3 + 51) * STEP_S
    assert all(word.confidence == 0.0 for word in found.words[5:9])
    line = describe_mismatches("talk.wav", found)
    assert line.startswith("talk.wav: 4 of 14 words do not match the audio, mean confidence 0.7")
    assert "0:00:03-0:00:08 (4 words: some quite different words)" in line
    assert "\n" not in line
    found = align(LETTERS, f"{before}. {said}. {after}", f"{before} {after}")
    assert found.aligned == (True,) * 10
    (mismatch,) = found.mismatches
    assert (mismatch.first, mismatch.words) == (5, 0)
    assert "(speech that is not in the text)" in describe_mismatches("talk.wav", found)
    found = align(LETTERS, f"{before}. {after}", f"{before} {written} {after}")
    assert found.aligned == (True,) * 5 + (False,) * 4 + (True,) * 5


def test_doubtful_words_are_flagged_under_min_score() -> None:
    """A threshold that is not used."""
    rows = say(LETTERS, "abc def ghi")
    rows[12:21] = (rows[12:21].exp() * 0.4).log()  # the middle word
    text, seconds = "abc def ghi", len(rows) * STEP_S
    assert aligner(LETTERS, min_score=0.1).align(rows, text, seconds, "x").mismatches == ()
    (mismatch,) = aligner(LETTERS, min_score=0.5).align(rows, text, seconds, "x").mismatches
    assert (mismatch.first, mismatch.words) == (1, 1)


def test_unknown_characters_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Characters that are dropped in silence, or a number that ends the whole alignment."""
    one = aligner(LETTERS)
    rows = say(LETTERS, "in caf. .we met")
    with caplog.at_level(logging.WARNING):
        found = one.align(rows, "In café 1984 we met", len(rows) * STEP_S, "x")
        one.report()
    assert found.aligned == (True, True, False, True, True)
    assert (
        "2 of 5 words have characters that the model does not know (café, 1984): they are aligned without "
        "them, 1 not at all. Write numbers and signs as words." in caplog.text
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text: the text is empty. Expected the words of the recording."),
        (" — … ", "the text: the text is empty."),
        ("привет мир", "the text: none of its words can be written in the model's characters: привет, мир."),
        ("zzz yyy xxx", "the text: none of its 3 words was found in 3 s of audio."),
        ("supercalifragilistic " * 50, "the text: none of its 50 words was found in 3 s of audio."),
    ],
)
def test_texts_that_cannot_be_aligned(text: str, message: str) -> None:
    """A traceback, or times that mean nothing, for a text of another recording, language or length."""
    with pytest.raises(DataError) as error:
        align(LETTERS, "a few words of english", text)
    assert str(error.value).startswith(message)
