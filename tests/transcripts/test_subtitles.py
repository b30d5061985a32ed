"""Subtitles: short lines, broken at pauses, never over each other, and no word lost."""

import itertools

import numpy as np
import pytest

from asr.decoding.hypothesis import Word
from asr.transcripts.record import ordered_words
from asr.transcripts.subtitles import LINE_LENGTH, LONGEST_S, SHORTEST_S, Subtitle, make_subtitles


def spoken(text: str, word_s: float = 0.3, gap_s: float = 0.05, start_s: float = 0.0) -> list[Word]:
    """Words one after the other; each `|` is a pause of a second."""
    words = []
    for token in text.split():
        if token == "|":
            start_s += 1.0
            continue
        words.append(Word(token, start_s, start_s + word_s, 0.9))
        start_s += word_s + gap_s
    return words


def random_words(seed: int) -> list[Word]:
    rng = np.random.default_rng(seed)
    words, position = [], float(rng.uniform(0, 2))
    for _ in range(400):
        length = int(rng.integers(1, 12)) if rng.random() < 0.99 else int(rng.integers(43, 120))
        start = position + float(rng.exponential(0.2) if rng.random() < 0.9 else rng.exponential(2.0))
        position = start + float(rng.exponential(0.3)) + 0.01
        words.append(Word("x" * length, start, position, 0.5))
    return words


@pytest.mark.parametrize("seed", range(8))
def test_limits(seed: int) -> None:
    """Lines of any length, subtitles over each other or over in a flash, words that are lost."""
    words = random_words(seed)
    end = words[-1].end_s + 0.2
    subtitles = make_subtitles(words, end)
    written = "".join(subtitle.text for subtitle in subtitles).replace(" ", "")
    assert written == "".join(word.text for word in words)
    for subtitle in subtitles:
        assert 1 <= len(subtitle.lines) <= 2
        assert all(0 < len(line) <= LINE_LENGTH for line in subtitle.lines)
        assert 0 <= subtitle.start_s < subtitle.end_s <= end + 1e-9
        assert subtitle.end_s - subtitle.start_s <= LONGEST_S + SHORTEST_S
    for one, following in itertools.pairwise(subtitles):
        assert one.end_s <= following.start_s


@pytest.mark.parametrize("seed", range(8))
def test_a_second_where_there_is_room(seed: int) -> None:
    """A word that flashes up although nothing is said before or after it."""
    words = random_words(seed)
    end = words[-1].end_s + 5
    subtitles = make_subtitles(words, end)
    ends = [0.0, *(subtitle.end_s for subtitle in subtitles)]
    starts = [*(subtitle.start_s for subtitle in subtitles[1:]), end]
    for subtitle, before, after in zip(subtitles, ends, starts, strict=False):
        if subtitle.end_s - subtitle.start_s < SHORTEST_S - 1e-6:
            assert subtitle.end_s == pytest.approx(after, abs=1e-6)
            assert subtitle.start_s == pytest.approx(before, abs=1e-6)


def test_breaks_at_pauses() -> None:
    """A subtitle over two sentences with silence between them, or a word that waits for the next sentence."""
    texts = [s.text for s in make_subtitles(spoken("go home now | it is late | the last train has left"))]
    assert texts == ["go home now", "it is late", "the last train has left"]
    words = spoken(
        "we walked along the river for an hour and then the rain began to fall so we ran to a mill"
    )
    later = [Word(word.text, word.start_s + 0.4, word.end_s + 0.4, 1.0) for word in words[8:]]
    assert make_subtitles([*words[:8], *later])[0].text == "we walked along the river for an hour"


def test_breaks_between_phrases() -> None:
    """Lines that end with an article or a preposition where one word earlier was as good."""
    words = spoken("the captain of the ship came down to the harbour and looked at the sea", gap_s=0.0)
    (subtitle,) = make_subtitles(words)
    assert subtitle.lines == ("the captain of the ship came down", "to the harbour and looked at the sea")
    for subtitle in make_subtitles(spoken("a b c d e f the end, of it all. " * 20, gap_s=0.0)):
        assert subtitle.text[-1] in ".,"


def test_times() -> None:
    """A subtitle that ends with the last word's evidence, unread, or after the recording."""
    assert make_subtitles([Word("yes", 3.0, 3.1, 1.0)], 20.0) == [Subtitle(3.0, 4.0, ("yes",))]
    assert make_subtitles([Word("yes", 3.0, 3.1, 1.0)], 3.4) == [Subtitle(2.4, 3.4, ("yes",))]
    # no room after it: it begins earlier, in the pause
    full = 42 * "a" + " " + 42 * "b"
    words = [*spoken(full, 2.0, 0.0), Word("yes", 4.5, 4.6, 1.0), *spoken(full, 2.0, 0.0, start_s=5.4)]
    first, second, third = make_subtitles(words, 20.0)
    assert second.text == "yes"
    assert [first.end_s, second.start_s, second.end_s, third.start_s] == pytest.approx([4.4, 4.4, 5.4, 5.4])
    # shown as long as it takes to read, up to the next
    quick = spoken("an incomprehensible characterisation of a thing", word_s=0.1, gap_s=0.0)
    assert make_subtitles(quick)[0].end_s == pytest.approx(46 / 17, abs=0.1)


def test_no_words_and_long_words() -> None:
    """A subtitle without text; an address that leaves the picture."""
    assert make_subtitles([], 3.0) == []
    (subtitle,) = make_subtitles([Word("w" * 50, 1.0, 3.0, 1.0)])
    assert subtitle.lines == ("w" * 42, "w" * 8)


def test_words_out_of_order() -> None:
    """Times that run backwards, from words that overlap."""
    words = [Word("b", 1.0, 1.4, 1.0), Word("a", 0.9, 1.2, 1.0), Word("c", 1.1, 1.1, 1.0)]
    (subtitle,) = make_subtitles(words)
    assert subtitle.text == "a b c"
    found = ordered_words(words)
    assert [word.start_s for word in found] == [0.9, 1.2, 1.4]
    assert all(one.end_s <= following.start_s for one, following in itertools.pairwise(found))
    assert all(word.start_s < word.end_s for word in found)


def test_slow_speech() -> None:
    """A subtitle that ends before its last word is spoken, or stays for half a minute."""
    words = spoken("we shall see what comes of it all in the end " * 4, word_s=1.0, gap_s=0.2)
    waiting = iter(words)
    for subtitle in make_subtitles(words):
        own = [next(waiting) for _ in subtitle.text.split()]
        assert subtitle.start_s <= own[0].start_s
        assert own[-1].end_s <= subtitle.end_s <= subtitle.start_s + LONGEST_S
    assert next(waiting, None) is None
