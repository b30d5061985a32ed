"""What a decoder keeps for its next start: used when it fits, and never needed."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from asr import user_cache
from asr.decoding.fusion import vocabulary
from asr.decoding.fusion.vocabulary import SearchVocabulary, build_vocabulary, spelling_alphabet
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.user_cache import cache_folder, cached_arrays, content_digest

TOKENIZER = PhoneTokenizer(("A", "B"), Lexicon({"ab": (("A", "B"),)}, "one"), fallback="nothing")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabulary, "_MANY", 1)  # keep small vocabularies, too
    return tmp_path / "cache"


def build(words: tuple[str, ...], lexicon: Lexicon | None = None) -> SearchVocabulary:
    return build_vocabulary(words, TOKENIZER, spelling_alphabet(TOKENIZER), lexicon)


def refuse(*_: object) -> None:
    raise AssertionError("words were spelled again")


def test_a_vocabulary_is_spelled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventeen seconds of letter-to-sound at every start."""
    first = build(("ab", "zz"))
    monkeypatch.setattr(vocabulary, "spell", refuse)
    again = build(("ab", "zz"))
    assert again.words == first.words == ("ab",)
    for name, array in vars(first.tree).items():
        other = getattr(again.tree, name)
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)


def test_missing_words_are_logged_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """A word that cannot be written is no secret of the first start."""
    caplog.set_level(logging.INFO, "asr")
    for _ in range(2):
        caplog.clear()
        build(("ab", "zz"))
        assert "1 of 2 words of the vocabulary cannot be spelled" in caplog.text


def test_a_change_of_any_part_makes_it_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Spellings of another list of words, another lexicon or an older version of the code."""
    build(("ab",))
    build(("ab", "zz"))
    lexicon = Lexicon({"ab": (("B", "A"),)}, "two")
    assert build(("ab",), lexicon).tree.symbol.tolist() != build(("ab",)).tree.symbol.tolist()
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(vocabulary, "source_digest", lambda file: "other code")
    build(("ab",))
    assert len(list(cache.iterdir())) == 4
    assert content_digest(("ab", "c")) != content_digest(("a", "bc"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_damaged_files_are_made_again(cache: Path, damage: bytes | None) -> None:
    """A disk that was full, a copy that was broken off, a bit that flipped."""
    wanted = build(("ab",)).tree.symbol
    [file] = cache.iterdir()
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(bytes(whole) if damage is None else damage)
    assert np.array_equal(build(("ab",)).tree.symbol, wanted)


def test_a_folder_that_cannot_be_written_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only home, none at all, or a file where the folder should be."""
    cache.write_text("a file")
    assert build(("ab",)).words == ("ab",)
    monkeypatch.delenv("ASR_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    assert cache_folder() is None
    assert build(("ab",)).words == ("ab",)


def homeless(cls: type[Path]) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_folder_does_not_grow_forever(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file for each language model that was ever tried."""
    monkeypatch.setattr(user_cache, "_MAX_FILES", 2)
    for number, key in enumerate("abc"):
        cached_arrays(key, lambda: {"x": np.zeros(1)})
        for file in cache.iterdir():
            os.utime(file, (number + ord(file.stem), number + ord(file.stem)))
    cached_arrays("d", lambda: {"x": np.zeros(1)})
    assert sorted(file.stem for file in cache.iterdir()) == ["c", "d"]
