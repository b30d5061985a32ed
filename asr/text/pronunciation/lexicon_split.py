"""A lexicon split by word into a training, a dev and a test part, without inflected twins across them.

"walked" is no test for whoever has learned "walks": a model that has only memorised would pass. Two words
are inflected twins here if they have the same `stem`. The split itself is by word; a training word that is
a twin of a test word is then left out of training, unless it is asked for. Dev words may have twins in it.
"""

from dataclasses import dataclass

import numpy as np

from asr.errors import DataError, check_number
from asr.text.lexicon import Lexicon

__all__ = ["LexiconSplit", "SplitConfig", "split_lexicon", "stem"]

# Longest first: the first that fits is removed.
_ENDINGS = ("iness", "ness", "ings", "iest", "ing", "ers", "ier", "est", "ily", "ies", "ied", "'s", "s'",
            "es", "ed", "er", "ly", "s", "'")  # fmt: skip
_SHORTEST = 3  # letters of a stem
_SHARE = 20  # one word in 20 is a test word, and another one a dev word


@dataclass(frozen=True)
class LexiconSplit:
    """Parts of a lexicon.

    Attributes:
        train: about 90% of the words, without twins unless they were asked for.
        dev: 5%, to choose and tune by.
        test: 5%, to score.
        twins: words of the drawn 90% that have the stem of a test word.
        kept: whether these are in `train` all the same.
    """

    train: Lexicon
    dev: Lexicon
    test: Lexicon
    twins: tuple[str, ...]
    kept: bool

    def summary(self) -> str:
        """The number of words of each part, and what was done with the twins."""
        done = "kept in training" if self.kept else "left out of training"
        return (
            f"{len(self.train.entries)} words to train on, {len(self.dev.entries)} dev, "
            f"{len(self.test.entries)} test; {len(self.twins)} inflected twins of test words are {done}"
        )


def stem(word: str) -> str:
    """A word, in lower case, without one inflectional ending.

    A final e, a doubled last letter and a final y (or the i that replaces it) are removed as well, so that
    "bake", "baked" and "baking", "stop" and "stopped", "city" and "cities" have the same stem. It errs on the
    side of too many twins: "wing" and "winged" are two, "princes" and "princess" as well.
    """
    low = word.lower()
    for ending in _ENDINGS:
        if low.endswith(ending) and len(low) - len(ending) >= _SHORTEST:
            low = low.removesuffix(ending)
            break
    if len(low) > _SHORTEST and low[-1] in "eyi":
        low = low[:-1]
    if len(low) > _SHORTEST and low[-1] == low[-2]:
        low = low[:-1]
    return low


def split_lexicon(lexicon: Lexicon, seed: int = 1, *, keep_twins: bool = False) -> LexiconSplit:
    """Split a lexicon by word: 5% test, 5% dev, the rest to train on.

    Args:
        lexicon: any; words that differ in case only should have been made one.
        seed: of the order in which words are drawn; the same words always give the same parts.
        keep_twins: leave inflected twins of test words in the training part.

    Raises:
        DataError: a part would be empty.
    """
    words = sorted(lexicon.entries)
    held_out = len(words) // _SHARE
    order = np.random.default_rng(seed).permutation(len(words))
    chosen = [words[number] for number in order]
    test, dev, train = chosen[:held_out], chosen[held_out : 2 * held_out], chosen[2 * held_out :]
    test_stems = {stem(word) for word in test}
    twins = tuple(sorted(word for word in train if stem(word) in test_stems))
    if not keep_twins:
        train = sorted(set(train) - set(twins))
    if not (test and train):
        raise DataError(
            f"{lexicon.name}: {len(words)} words, of which {len(train)} remain to train on and {len(test)} to"
            f" test on. Expected at least one each. Give a larger lexicon."
        )
    parts = [
        Lexicon({word: lexicon.entries[word] for word in sorted(part)}, lexicon.name)
        for part in (train, dev, test)
    ]
    return LexiconSplit(parts[0], parts[1], parts[2], twins, keep_twins)


@dataclass(frozen=True)
class SplitConfig:
    """Which words of a lexicon are for training, to choose by (dev), and to score (test)."""

    seed: int = 1  # of the words that are drawn: 5% dev, 5% test
    keep_twins: bool = False  # train on inflected twins of test words, too, such as walks of walked
    words: int = 0  # of the lexicon that are used at all, drawn at random, for a quick trial; 0 for all

    def __post_init__(self) -> None:
        check_number("--split.words", self.words, least=0)

    def apply(self, lexicon: Lexicon) -> LexiconSplit:
        """The parts of a lexicon.

        Raises:
            DataError: a part would be empty.
        """
        if self.words:
            words = sorted(lexicon.entries)
            drawn = np.random.default_rng(self.seed).permutation(len(words))[: self.words]
            entries = {words[number]: lexicon.entries[words[number]] for number in sorted(drawn)}
            lexicon = Lexicon(entries, lexicon.name)
        return split_lexicon(lexicon, self.seed, keep_twins=self.keep_twins)
