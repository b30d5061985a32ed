"""Phones: transcripts through a lexicon, words outside it, and what a stored model keeps."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from asr.errors import DataError, ModelError
from asr.text import phones as phones_module
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon, cmudict, parse_lexicon
from asr.text.phones import PhoneTokenizer, report_guesses
from asr.text.pronunciation.pronouncer import Pronunciation
from asr.text.tokenizer import tokenizer_from_json

GERMAN = parse_lexicon(["ja j a:", "nein n aI n", "NEUN n OY n"], "de.txt")


@pytest.fixture(autouse=True, scope="module")
def small_letter_to_sound() -> Iterator[None]:
    """Letter-to-sound is learned from 2,000 words, in a fraction of a second; look-ups see all of them."""
    whole = cmudict()
    small = Lexicon({word: whole.entries[word] for word in sorted(whole.entries)[::63]}, "small")
    before = whole.__dict__.pop("letter_to_sound", None)
    whole.__dict__["letter_to_sound"] = small.letter_to_sound
    yield
    del whole.__dict__["letter_to_sound"]
    if before is not None:
        whole.__dict__["letter_to_sound"] = before


def test_transcripts_go_through_the_dictionary() -> None:
    """Guards the first pronunciation of each word, ids after the blank, and names on the way back."""
    tokenizer = PhoneTokenizer.from_texts(["read the cat"])
    assert (tokenizer.units, tokenizer.vocab_size, len(tokenizer.symbols)) == ("phones", 40, 39)
    ids = tokenizer.encode("the cat read")
    assert tokenizer.decode(ids) == "DH AH K AE T R EH D"
    assert min(ids) > 0
    assert tokenizer.encode("") == tokenizer.encode("  ") == []
    with pytest.raises(ModelError, match="token id 0 has no symbol"):
        tokenizer.decode([0])


class Spells:
    """A pronouncer that says each letter's name, of few letters."""

    letters = tuple("abflr")

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        return [[Pronunciation(tuple(self.names[letter] for letter in word), 0.0)] for word in words]

    def score(self, words: Sequence[str], phones: Sequence[tuple[str, ...]]) -> list[float]:
        raise NotImplementedError


def test_another_pronouncer() -> None:
    """Guards --text.pronouncer: it pronounces only what no lexicon has, a letter that it has not learned is
    not left out of a transcript, the model keeps what it wrote, and other phones are refused."""
    names = dict(zip("abflr", ("EY", "B", "F", "L", "R"), strict=True))
    tokenizer = PhoneTokenizer.from_texts(
        ["fablar flab blorft"], parse_lexicon(["flab F L"], "l"), Spells(names)
    )
    assert tokenizer.guessed["fablar"] == ("F", "EY", "B", "L", "EY", "R")
    assert tokenizer.pronunciations("flab") == (("F", "L"),)
    assert "T" in tokenizer.guessed["blorft"]  # by letter-to-sound
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.decode(again.encode("fablar")) == "F EY B L EY R"
    with pytest.raises(DataError, match="writes 'fablar' with 'f', which is none of the phones"):
        PhoneTokenizer.from_texts(["fablar"], pronouncer=Spells({**names, "f": "f"}))


def test_probabilities_stay_with_a_model() -> None:
    """Guards a lexicon with probabilities: the most probable one is trained on, also when stored."""
    lexicon = parse_lexicon(["cat 0.2 K AE T", "cat 1.0 K AH T"], "weighted")
    tokenizer = PhoneTokenizer.from_texts(["the cat"], lexicon)
    for one in (tokenizer, tokenizer_from_json(tokenizer.to_json())):
        assert one.decode(one.encode("cat")) == "K AH T"
        assert isinstance(one, PhoneTokenizer)
        assert one.lexicon.relative_log_probs("cat") == pytest.approx((0.0, math.log(0.2)))


def test_units_alone_give_no_words() -> None:
    """Guards decoders, which must not take phones for text."""
    tokenizer = PhoneTokenizer.from_texts(["cat"])
    assert tokenizer.words(tokenizer.encode("cat")) is None
    assert tokenizer.pieces is None


def test_words_outside_are_pronounced_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against utterances that are dropped, or pronounced by a model without a message."""
    texts = ["blorft the cat", "blorft snerk"]
    tokenizer = PhoneTokenizer.from_texts(texts)
    assert len(tokenizer.encode("blorft")) >= 4
    assert tokenizer.is_guess("blorft")
    assert not tokenizer.is_guess("cat")
    report_guesses(tokenizer, texts, "training")
    assert "training transcripts: 2 of 4 different words (3 of all 5) are not in the lexicon" in caplog.text
    assert "blorft = B L " in caplog.text
    caplog.clear()
    report_guesses(tokenizer, ["the cat"], "dev")
    report_guesses(CharTokenizer.from_texts(texts), texts, "dev")
    assert not caplog.text


def test_many_words_outside_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a message of a thousand words."""
    report_guesses(PhoneTokenizer.from_texts(["a"]), [f"blorf{letter}" for letter in "abcdefg"], "dev")
    assert "7 of 7" in caplog.text
    assert "; and 2 more. Add" in caplog.text
    assert caplog.text.count(" = ") == 5


def test_unknown_characters() -> None:
    """Guards digits and foreign letters, which have no sound in the dictionary: an error, or counted."""
    tokenizer = PhoneTokenizer.from_texts(["cat"])
    assert tokenizer.unknown_characters("cat 42 blorft cat\u00e9") == Counter({"4": 1, "2": 1, "\u00e9": 1})
    with pytest.raises(DataError, match=r"utterance u3: no pronunciation for '42': .*'4' \(U\+0034\)"):
        tokenizer.encode("cat 42", utterance="u3")
    assert tokenizer.decode(tokenizer.encode("42 cat\u00e9", unknown="drop")) == "K AE T"


def test_a_lexicon_with_other_phones() -> None:
    """Guards other languages: their phones, no English word, and an error where a small lexicon ends."""
    tokenizer = PhoneTokenizer.from_texts(["ja nein"], GERMAN)
    assert tokenizer.symbols == ("OY", "a:", "aI", "j", "n")
    assert tokenizer.decode(tokenizer.encode("neun")) == "n OY n"
    assert tokenizer.unknown_characters("ja doch") == Counter("doch")
    with pytest.raises(
        DataError, match=r"no pronunciation for 'doch': de.txt does not have it, and is too small"
    ):
        tokenizer.encode("doch")
    assert tokenizer.encode("doch", unknown="drop") == []


def test_a_large_lexicon_with_other_phones_teaches_letter_to_sound() -> None:
    """Guards words outside a lexicon of another language: pronounced by its rules, not by English ones."""
    letters = "abcdefghijklmnop"
    lines = [
        f"{x}{y}{z} {x}: {y}: {z}:" for x in letters for y in letters for z in letters if x <= y or y <= z
    ]
    lexicon = parse_lexicon(lines, "big.txt")
    tokenizer = PhoneTokenizer.from_texts(["abc"], lexicon)
    assert tokenizer.fallback == "lexicon"
    assert tokenizer.decode(tokenizer.encode("abcda")) == "a: b: c: d: a:"


def test_a_lexicon_with_the_phones_of_cmudict_goes_before_it() -> None:
    """Guards a user's list of names: its words first, all others as without it."""
    tokenizer = PhoneTokenizer.from_texts(
        ["cat dog"], parse_lexicon(["cat K AA T", "Tchaikovsky CH AY"], "my")
    )
    assert tokenizer.decode(tokenizer.encode("cat dog tchaikovsky")) == "K AA T D AO G CH AY"
    assert len(tokenizer.symbols) == 39


@pytest.mark.parametrize("lexicon", [None, GERMAN, parse_lexicon(["cat K AA T"], "my")])
def test_stored_and_read_back(lexicon: Lexicon | None) -> None:
    """Guards a saved model: the same ids afterwards, for words of training, of the lexicon, and others."""
    texts = ["ja nein"] if lexicon is GERMAN else ["the cat blorft"]
    tokenizer = PhoneTokenizer.from_texts(texts, lexicon)
    stored = tokenizer.to_json()
    assert stored.isascii()
    again = tokenizer_from_json(stored)
    assert again == tokenizer
    assert again.to_json() == stored
    for text in [*texts, "neun" if lexicon is GERMAN else "snerk dog"]:
        assert again.encode(text) == tokenizer.encode(text)


def test_a_stored_model_keeps_what_it_has_learned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a model against a newer dictionary: its training words sound as they did, guesses as well."""
    tokenizer = PhoneTokenizer.from_texts(["cat blorft"])
    stored, expected = tokenizer.to_json(), tokenizer.encode("cat blorft")
    newer = Lexicon({"cat": (("T",),), "blorft": (("T",),), "dog": (("T",),)}, "newer")
    monkeypatch.setattr(phones_module, "cmudict", lambda: newer)
    again = tokenizer_from_json(stored)
    assert again.encode("cat blorft") == expected
    assert again.decode(again.encode("dog")) == "T"


def test_reading_a_model_needs_no_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards transcribing: seconds of reading CMUdict and of learning, only to write the phones' names."""
    tokenizer = PhoneTokenizer.from_texts(["cat"])
    stored = tokenizer.to_json()
    monkeypatch.setattr(phones_module, "cmudict", None)
    assert tokenizer_from_json(stored).decode(tokenizer.encode("cat")) == "K AE T"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lexicon": "?"}, "damaged"),
        ({"lexicon": None}, "damaged"),
        ({"beyond": "espeak"}, "beyond is 'espeak'"),
        ({"symbols": ["K", "AE"]}, "'T' is none of the phones"),
        ({"symbols": ["K", "AE", "T", "T"]}, "once"),
        ({"symbols": []}, "at least one"),
    ],
)
def test_damaged_record(change: dict[str, object], message: str) -> None:
    """Guards against a damaged model that loads, and then names other phones."""
    record = json.loads(PhoneTokenizer.from_texts(["cat"]).to_json())
    with pytest.raises(ModelError, match=message):
        tokenizer_from_json(json.dumps({**record, **change}))


def test_transcripts_without_words() -> None:
    """Guards against a model of nothing."""
    with pytest.raises(DataError, match="not one word"):
        PhoneTokenizer.from_texts(["", " "])
