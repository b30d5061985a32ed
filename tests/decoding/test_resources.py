"""Decoding resources: a large lexicon is read once, and then only where a spelling is asked for."""

from pathlib import Path

import pytest

from asr.decoding import resources
from asr.text.characters import CharTokenizer
from asr.text.lexicon import read_lexicon

TOKENIZER = CharTokenizer(tuple(" abc"))


@pytest.fixture
def lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(resources, "_LARGE", 1)  # keep small ones, too
    path = tmp_path / "lexicon.txt"
    path.write_text("Red R EH D\nread R IY D\nread R EH D\n")
    return path


def test_the_same_lexicon_at_every_start(lexicon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in another order, a spelling that is lost, a digest that makes the vocabulary anew."""
    wanted = read_lexicon(lexicon)
    first = resources._read_lexicon(lexicon, TOKENIZER)
    parse = resources._parse_lexicon
    monkeypatch.setattr(
        resources, "_parse_lexicon", lambda path, tokenizer: pytest.fail("the lexicon was read again")
    )
    second = resources._read_lexicon(lexicon, TOKENIZER)
    assert list(second.entries) == list(first.entries) == ["Red", "read"]
    assert "read" in second.entries
    assert "blue" not in second.entries
    assert second.digest == first.digest
    monkeypatch.setattr(resources, "_parse_lexicon", parse)
    third = resources._read_lexicon(lexicon, TOKENIZER)
    assert dict(third.entries) == dict(wanted.entries)
    assert third.spellings("red") == (("R", "EH", "D"),)


def test_a_changed_file_is_read_again(lexicon: Path) -> None:
    """Words of yesterday's lexicon, or the vocabulary that was made of them."""
    before = resources._read_lexicon(lexicon, TOKENIZER)
    lexicon.write_text("blue B L UW\n")
    after = resources._read_lexicon(lexicon, TOKENIZER)
    assert dict(after.entries) == {"blue": (("B", "L", "UW"),)}
    assert after.digest != before.digest
