"""A lexicon split by word: parts that are apart, the same for the same seed, and no twins in training."""

import pytest

from asr.errors import DataError, SettingsError
from asr.text.lexicon import Lexicon
from asr.text.pronunciation.lexicon_split import SplitConfig, split_lexicon, stem

ROOTS = [a + b + c for a in ("bak", "lom", "tir", "sun") for b in "aou" for c in ("d", "t", "nk", "m", "p")]
ENDINGS = ("", "s", "'s", "ed", "ing", "er", "ly")
LEXICON = Lexicon(
    {root + end: ((root.upper(), end.upper()),) for root in ROOTS for end in ENDINGS}, "made up"
)


@pytest.mark.parametrize(
    "words",
    [
        ["walk", "walks", "walk's", "walked", "walking", "walker", "walkers", "Walk"],
        ["bake", "bakes", "baked", "baking", "baker"],
        ["stop", "stops", "stopped", "stopping", "stopper"],
        ["city", "cities", "city's"],
        ["happy", "happily", "happier", "happiest", "happiness"],
        ["dogs'", "dog"],
    ],
)
def test_inflected_words_have_one_stem(words: list[str]) -> None:
    """Each is a way by which a test word would be known from training."""
    assert {stem(word) for word in words} == {stem(words[0])}


def test_other_words_keep_theirs() -> None:
    """Short words must not become one: with all of them twins, nothing would remain to train on."""
    words = ["bed", "best", "sing", "king", "ring", "his", "as", "ed", "wing", "walk", "talk"]
    assert len({stem(word) for word in words}) == len(words)


def test_parts_are_apart_and_without_twins() -> None:
    """Guards the test: each word in one part, none in training with the stem of a test word, all counted."""
    split = split_lexicon(LEXICON, seed=3)
    parts = [set(part.entries) for part in (split.train, split.dev, split.test)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert len(parts[1]) == len(parts[2]) == len(LEXICON.entries) // 20
    stems = {stem(word) for word in split.test.entries}
    assert not [word for word in split.train.entries if stem(word) in stems]
    assert split.twins
    assert all(stem(word) in stems for word in split.twins)
    assert sum(map(len, parts)) + len(split.twins) == len(LEXICON.entries)
    assert f"{len(split.twins)} inflected twins of test words are left out of training" in split.summary()
    assert split.train.entries[min(parts[0])] == LEXICON.entries[min(parts[0])]


def test_twins_on_request() -> None:
    """Guards the comparison with and without: the same test words, and the twins in training."""
    without, with_twins = (split_lexicon(LEXICON, seed=3, keep_twins=keep) for keep in (False, True))
    assert without.test.entries == with_twins.test.entries
    assert set(with_twins.train.entries) == {*without.train.entries, *without.twins}
    assert "are kept in training" in with_twins.summary()


def test_same_seed_same_parts() -> None:
    """Guards against a test word that another session trains on: the order of the file changes nothing."""
    turned = Lexicon(dict(reversed(LEXICON.entries.items())), "turned")
    test = SplitConfig(seed=3).apply(LEXICON).test.entries
    assert SplitConfig(seed=3).apply(turned).test.entries == test
    assert SplitConfig(seed=4).apply(LEXICON).test.entries != test


def test_fewer_words() -> None:
    """`--split.words` uses so many words in all."""
    split = SplitConfig(words=100).apply(LEXICON)
    parts = (split.train.entries, split.dev.entries, split.test.entries, split.twins)
    assert sum(map(len, parts)) == 100


def test_bad_input() -> None:
    """One line each."""
    with pytest.raises(DataError, match=r"tiny: 1 words, of which 1 remain to train on and 0 to test on"):
        split_lexicon(Lexicon({"a": (("A",),)}, "tiny"))
    with pytest.raises(SettingsError, match=r"--split\.words must be at least 0"):
        SplitConfig(words=-1)
