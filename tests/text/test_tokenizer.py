"""The character tokenizer: lossless, blank = 0, and nothing deleted in silence."""

import json
import random
from collections import Counter

import pytest

from asr.errors import DataError, ModelError, SettingsError
from asr.text.characters import CharTokenizer
from asr.text.tokenizer import BLANK, Piece, tokenizer_from_json


def test_alphabet_is_sorted_and_starts_after_the_blank() -> None:
    """Guards against ids that depend on the order of the transcripts, and against a symbol on the blank's
    id."""
    tokenizer = CharTokenizer.from_texts(["cab", "a b"])
    assert tokenizer.symbols == (" ", "a", "b", "c")
    assert tokenizer == CharTokenizer.from_texts(["a b", "cab"])
    assert BLANK == 0
    assert tokenizer.encode("a cab") == [2, 1, 4, 2, 3]
    assert tokenizer.vocab_size == 5


def test_round_trip_is_lossless() -> None:
    """Guards against any text that comes back changed.

    Spaces at the ends, accents, emoji, control characters.
    """
    generator = random.Random(1)
    texts = ["", " ", "  a  b ", "é e\u0301 'x'", "\U0001f600\n\t"]
    texts += ["".join(chr(generator.randrange(1, 0x500)) for _ in range(30)) for _ in range(50)]
    tokenizer = CharTokenizer.from_texts(texts)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text)
        assert BLANK not in ids


def test_unknown_characters_are_an_error_that_names_them_all() -> None:
    """Guards against characters that vanish from transcripts, and against a message that names only the
    first."""
    tokenizer = CharTokenizer.from_texts(["abc "])
    with pytest.raises(DataError) as caught:
        tokenizer.encode("abé zz", utterance="spk1-07")
    message = str(caught.value)
    for part in ("utterance spk1-07", "'é' (U+00E9) x 1", "'z' (U+007A) x 2", "' abc'"):
        assert part in message
    with pytest.raises(DataError, match="transcript 'abz'"):
        tokenizer.encode("abz")


def test_dropping_is_counted() -> None:
    """Guards against a dropped character that the caller cannot count: input = output + what is reported."""
    tokenizer = CharTokenizer.from_texts(["abc "])
    text = "abé zz"
    kept = tokenizer.encode(text, unknown="drop")
    assert tokenizer.decode(kept) == "ab "
    assert tokenizer.unknown_characters(text) == Counter({"z": 2, "é": 1})
    assert len(kept) + tokenizer.unknown_characters(text).total() == len(text)


def test_wrong_setting_for_unknown() -> None:
    """Guards against a misspelt setting that silently drops."""
    with pytest.raises(SettingsError, match=r'must be "error" or "drop"\. Got \'ignore\''):
        CharTokenizer(("a",)).encode("ab", unknown="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, 3, -1])
def test_decoding_a_foreign_id(number: int) -> None:
    """Guards against blanks or negative ids that index the alphabet from its end and give wrong text."""
    with pytest.raises(ModelError, match=f"token id {number} has no symbol. Ids from 1 to 2"):
        CharTokenizer(("a", "b")).decode([1, number])


@pytest.mark.parametrize(
    ("symbols", "message"),
    [((), "alphabet is empty"), (("a", "bc"), "'bc'"), (("a", "b", "a"), "'a' more than once")],
)
def test_alphabets_that_cannot_be(symbols: tuple[str, ...], message: str) -> None:
    """Guards against an alphabet where two ids mean the same, or a symbol that encoding can never reach."""
    with pytest.raises(DataError, match=message):
        CharTokenizer(symbols)


def test_transcripts_without_characters() -> None:
    """Guards against a model of nothing but the blank."""
    with pytest.raises(DataError, match="not one character"):
        CharTokenizer.from_texts(["", ""])


def test_json_round_trip_is_ascii() -> None:
    """Guards against an alphabet that changes when a model is saved; lone surrogates must not break UTF-8
    files."""
    tokenizer = CharTokenizer(("'", "\\", "é", "\ud800", "\U0001f600"))
    stored = tokenizer.to_json()
    assert stored.isascii()
    assert "\n" not in stored
    assert tokenizer_from_json(stored) == tokenizer


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{", "not JSON"),
        ("[]", "type None"),
        (json.dumps({"type": "syllables", "symbols": ["a"]}), "type 'syllables'.*newer version"),
        (json.dumps({"type": "characters"}), "no list of symbols"),
        (json.dumps({"type": "characters", "symbols": [1]}), "no list of symbols"),
        (json.dumps({"type": "characters", "symbols": ["a", "a"]}), "damaged.*more than once"),
    ],
)
def test_damaged_json(stored: str, message: str) -> None:
    """Guards against a damaged model that raises KeyError or, worse, loads with another alphabet."""
    with pytest.raises(ModelError, match=message):
        tokenizer_from_json(stored)


def test_a_model_of_the_first_format_still_loads() -> None:
    """Guards models that exist: this is the record that version 0.1.0 has written from its first day."""
    tokenizer = tokenizer_from_json('{"type": "characters", "symbols": [" ", "a"]}')
    assert tokenizer == CharTokenizer((" ", "a"))
    assert tokenizer.units == "characters"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", []), (" ", []), ("ab", ["ab"]), ("  ab  c ", ["ab", "c"]), ("a b", ["a", "b"])],
)
def test_words_are_what_stands_between_spaces(text: str, words: list[str]) -> None:
    """Guards against empty words from doubled spaces and against a last word that is lost."""
    tokenizer = CharTokenizer.from_texts(["abc "])
    ids = tokenizer.encode(text)
    assert [tokenizer.decode(ids[word]) for word in tokenizer.words(ids)] == words


def test_pieces_are_indexed_by_id() -> None:
    """Guards the table that decoders work with against a shift by the blank."""
    tokenizer = CharTokenizer((" ", "a"))
    assert tokenizer.pieces == (Piece("", False), Piece("", True), Piece("a", False))
    assert len(tokenizer.pieces) == tokenizer.vocab_size
