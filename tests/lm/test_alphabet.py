"""A language model in upper case beside transcripts in lower case: it would forbid every word, in silence."""

import logging
import string
from dataclasses import dataclass

import pytest

from asr.errors import SettingsError
from asr.lm.alphabet import check_lm_fits_tokenizer
from asr.lm.interface import Unit
from asr.text.characters import CharTokenizer


@dataclass(frozen=True)
class Words:
    unit: Unit
    words: tuple[str, ...]


LETTERS = CharTokenizer(tuple(" abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("word", ("<unk>", "<s>", "</s>", "THE", "CAT")),
        ("character", ("<unk>", " ", *string.ascii_uppercase)),
    ],
)
def test_case_is_named(unit: Unit, words: tuple[str, ...]) -> None:
    """The commonest mismatch, in both kinds of model; the other way round too."""
    with pytest.raises(
        SettingsError, match=r"case, .* case: .* Train the language model on .* same case"
    ) as caught:
        check_lm_fits_tokenizer(Words(unit, words), LETTERS)
    assert "language model is in upper case" in str(caught.value)
    assert "acoustic model's text is in lower case" in str(caught.value)
    upper = CharTokenizer(tuple(" ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    check_lm_fits_tokenizer(Words(unit, (*words, *upper.symbols)), upper)
    with pytest.raises(SettingsError, match="the language model is in lower case") as caught:
        check_lm_fits_tokenizer(Words(unit, tuple(word.lower() for word in words)), upper)
    assert "acoustic model's text is in upper case" in str(caught.value)


def test_other_alphabets_are_named() -> None:
    """Another language's words."""
    with pytest.raises(
        SettingsError, match=r"2 of 3 words of the language model cannot be written .* '\u043d\u043e'"
    ):
        check_lm_fits_tokenizer(Words("word", ("\u043d\u043e", "\u0442\u0430\u043c", "a")), LETTERS)


def test_a_few_lost_words_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Digits in a text of letters are usual: an error would be wrong, and so would silence."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        check_lm_fits_tokenizer(Words("word", ("the", "<unk>", "cat", "3")), LETTERS)
    assert "1 of 3 words of the language model cannot be written" in caplog.text
    assert "'3'" in caplog.text
    caplog.clear()
    check_lm_fits_tokenizer(Words("character", ("<unk>", "<s>", "</s>", *LETTERS.symbols)), LETTERS)
    assert not caplog.records
