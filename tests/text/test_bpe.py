"""BPE: lossless, the same pieces from the same transcripts, words as the pieces begin them, clear limits."""

import json
import pickle
import random
import sys
from collections import Counter

import pytest

from asr.errors import DataError, ModelError, SettingsError
from asr.text.bpe import BpeTokenizer
from asr.text.tokenizer import BLANK, Tokenizer, tokenizer_from_json

pytest.importorskip("sentencepiece")

WORDS = ["low", "lower", "lowest", "new", "newer", "newest", "wide", "wider", "widest", "don't", "été", "😀"]


def texts(seed: int = 0, count: int = 40) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=5)) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer.from_texts(texts(), 40)


def test_the_size_is_what_was_asked_for(tokenizer: Tokenizer) -> None:
    """Guards the width of the model's output: ids 0 (the blank) to size - 1, and pieces for each."""
    assert tokenizer.vocab_size == 40 == len(tokenizer.symbols) + 1
    assert tokenizer.pieces is not None
    assert len(tokenizer.pieces) == 40
    ids = [number for text in texts() for number in tokenizer.encode(text)]
    assert BLANK not in ids
    assert max(ids) < 40
    assert len(ids) < sum(map(len, texts())) / 2  # pieces, not characters


def test_round_trip_is_lossless(tokenizer: Tokenizer) -> None:
    """Guards against sentencepiece's normalisation: spaces at the ends, doubled ones, new words."""
    generator = random.Random(1)
    letters = sorted({*"".join(WORDS), " "})
    others = ["", " ", "  ", " low", "low ", "low  new", "ww"]
    others += ["".join(generator.choices(letters, k=30)) for _ in range(200)]
    for text in [*texts(1), *others]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_order_of_the_transcripts_does_not_matter() -> None:
    """Guards the same seed, same bytes: pieces and stored model depend on the transcripts alone."""
    assert BpeTokenizer.from_texts(texts(), 40) == BpeTokenizer.from_texts(reversed(texts()), 40)


def test_encoding_is_that_of_sentencepiece(tokenizer: BpeTokenizer) -> None:
    """Guards ids that are shifted by one against the library's answer."""
    import sentencepiece

    oracle = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    for text in texts(2):
        pieces = [tokenizer.symbols[number - 1] for number in tokenizer.encode(text)]
        assert pieces == oracle.encode(text, out_type=str)


def test_words_begin_where_a_piece_says_so(tokenizer: Tokenizer) -> None:
    """Guards word times: pieces without a space go on with the word before, and a lone space is no word."""
    for text in [*texts(3), "  low   new ", "owl"]:
        ids = tokenizer.encode(text)
        found = tokenizer.words(ids)
        assert found is not None
        assert [tokenizer.decode(ids[word]) for word in found] == text.split()
    number = {symbol: position for position, symbol in enumerate(tokenizer.symbols, start=1)}
    space, low, w = number["\u2581"], number["\u2581low"], number["w"]
    assert tokenizer.words([low, w, space, w, space, space, low]) == [slice(0, 2), slice(3, 4), slice(6, 7)]
    assert tokenizer.words([w, low]) == [slice(0, 1), slice(1, 2)]  # the first word needs no space before it
    assert tokenizer.words([]) == []


def test_unknown_characters(tokenizer: Tokenizer) -> None:
    """Guards against sentencepiece's <unk>, which is the blank's id here, and against silent deletion."""
    text = "low \u00e8\u00e8 new\u2581z"
    assert tokenizer.unknown_characters(text) == Counter({"\u00e8": 2, "\u2581": 1, "z": 1})
    with pytest.raises(
        DataError, match=r"utterance u7.*'z' \(U\+007A\) x 1.*'\u00e8' .* x 2.*--text.unknown drop"
    ):
        tokenizer.encode(text, utterance="u7")
    assert tokenizer.decode(tokenizer.encode(text, unknown="drop")) == "low  new"
    with pytest.raises(SettingsError, match="unknown must be"):
        tokenizer.encode("low", unknown="ignore")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="token id 0 has no symbol"):
        tokenizer.decode([0])


def test_stored_and_read_back(tokenizer: BpeTokenizer) -> None:
    """Guards a saved model: the same ids afterwards; and loader processes, which get a pickled copy."""
    stored = tokenizer.to_json()
    assert stored.isascii()
    again = tokenizer_from_json(stored)
    assert again == tokenizer
    assert again.units == "bpe"
    for text in texts(4):
        assert (
            again.encode(text) == tokenizer.encode(text) == pickle.loads(pickle.dumps(tokenizer)).encode(text)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentencepiece": "?"}, "damaged"),
        ({"sentencepiece": None}, "damaged"),
        ({"symbols": []}, "no BPE pieces"),
        ({"symbols": ["a", "a"]}, "'a' cannot be a BPE piece"),
        ({"symbols": ["a\u2581b"]}, "cannot be a BPE piece"),
        ({"symbols": 5}, "no list of symbols"),
    ],
)
def test_damaged_record(tokenizer: BpeTokenizer, change: dict[str, object], message: str) -> None:
    """Guards against a damaged model that loads, and then writes other words."""
    with pytest.raises(ModelError, match=message):
        tokenizer_from_json(json.dumps({**json.loads(tokenizer.to_json()), **change}))


def test_pieces_of_another_model(tokenizer: BpeTokenizer) -> None:
    """Guards against a stored sentencepiece model that is not the one of the stored pieces, or is none."""
    other = BpeTokenizer.from_texts(texts(), 35)
    with pytest.raises(ModelError, match="not those of the stored sentencepiece model"):
        BpeTokenizer(tokenizer.symbols, other.model).encode("low")
    with pytest.raises(ModelError, match="sentencepiece model is damaged"):
        BpeTokenizer(tokenizer.symbols, b"broken").encode("low")


def test_sizes_that_cannot_be() -> None:
    """Guards against sentencepiece's messages, which name a line of its C++ code and not the setting."""
    with pytest.raises(
        SettingsError, match=r"--text.bpe-size must be at least 15, .* have 13 characters. Got 7"
    ):
        BpeTokenizer.from_texts(texts(), 7)
    with pytest.raises(SettingsError, match=r"--text.bpe-size must be at most \d+: .* Got 5000"):
        BpeTokenizer.from_texts(texts(), 5000)
    most = 12  # y e s n o, the space, the blank, and the merges of two words
    assert BpeTokenizer.from_texts(["yes no", "no yes"], most).vocab_size == most


@pytest.mark.parametrize(
    ("transcripts", "message"),
    [([], "not one character"), (["", " "], "not one character"), (["a\u2581b", "ab"], r"U\+2581"),
     (["a\u2585b", "ab"], r"U\+2585")],
)  # fmt: skip
def test_transcripts_that_cannot_be(transcripts: list[str], message: str) -> None:
    """Guards against characters that sentencepiece keeps for itself and drops without a word."""
    with pytest.raises(DataError, match=message):
        BpeTokenizer.from_texts(transcripts, 6)


def test_long_transcripts_are_learned_from() -> None:
    """Guards against sentencepiece's default of leaving out what is longer than 4,192 bytes."""
    assert "z" in BpeTokenizer.from_texts(["ab " * 3000 + "z"], 6).symbols


def test_without_sentencepiece(tokenizer: BpeTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the message for people without the extra; a model's output can be written without it."""
    ids = tokenizer.encode("low new")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    fresh = tokenizer_from_json(tokenizer.to_json())
    assert fresh.decode(ids) == "low new"
    with pytest.raises(SettingsError, match=r"pip install '\.\[bpe\]'"):
        fresh.encode("low")
    with pytest.raises(SettingsError, match=r"pip install '\.\[bpe\]'"):
        BpeTokenizer.from_texts(texts(), 40)
