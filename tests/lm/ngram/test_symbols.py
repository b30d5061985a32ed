"""Ids of words and characters: what a word is, what a line is, and a table that grows."""

import numpy as np

from asr.lm.ngram.symbols import SymbolTable


def encode(text: str, unit: str = "word", block: int | None = None) -> tuple[list[str], SymbolTable]:
    symbols = SymbolTable(unit)  # type: ignore[arg-type]
    lines = text.encode().splitlines(keepends=True)
    blocks = lines if block else [b"".join(lines)]
    ids = np.concatenate([symbols.encode(part) for part in blocks])
    names = symbols.names()
    return [names[number] for number in ids], symbols


def test_words_are_what_white_space_parts() -> None:
    """Tabs, runs of spaces, carriage returns and form feeds that become part of words."""
    found, symbols = encode(" the\tcat \r\n\n  \nthe\x0c\u00e9t\u00e9 d'\u00e9t\u00e9\n")
    assert found == ["<s>", "the", "cat", "</s>", "<s>", "the", "\u00e9t\u00e9", "d'\u00e9t\u00e9", "</s>"]
    assert (symbols.sentences, symbols.empty_lines) == (2, 2)


def test_characters_keep_one_space() -> None:
    """Spaces at a line's ends, or two in a row, that a decoder never writes."""
    found, symbols = encode("  ab  \u00e9\t\n\n", "character")
    assert found == ["<s>", "a", "b", " ", "\u00e9", "</s>"]
    assert (symbols.sentences, symbols.empty_lines) == (1, 1)
    assert " " in encode("ab\n", "character")[1].names()


def test_many_words_keep_their_ids() -> None:
    """The hash table grows while ids are given: 30,000 words, twice, in blocks of a line."""
    words = [f"w{i * 7919 % 30000}" for i in range(60000)]
    found, symbols = encode("".join(f"{word}\n" for word in words), block=1)
    assert found[1::3] == words
    assert len(symbols) == 3 + 30000
