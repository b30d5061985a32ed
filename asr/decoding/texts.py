"""From tokens to words, with times and confidences."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hypothesis import Named, Word, name_tokens, place_words
from asr.decoding.kernel.arena import NONE
from asr.decoding.vocabulary import Vocabulary
from asr.text.tokenizer import Tokenizer

__all__ = ["name_words", "time_words"]

_UNNAMED = "<unk>"  # where phones are no word


def name_words(
    tokens: Sequence[int], words: Sequence[int], tokenizer: Tokenizer, vocabulary: Vocabulary | None
) -> Named:
    """The words of a prefix.

    Without a vocabulary that names words, a word is what its tokens write; where these write nothing
    (phones), each token is a word.

    Args:
        tokens: ids.
        words: the word that each token completed (a number, UNKNOWN or NONE); then the one that the end did.
        tokenizer: the model's.
        vocabulary: of the search.
    """
    if vocabulary is None or not vocabulary.named:
        return name_tokens(tokens, tokenizer)
    found = tokenizer.words(tokens)
    if found is not None:
        numbers = [word for word in words if word != NONE]
        numbers += [NONE] * (len(found) - len(numbers))  # the last word is not complete yet
        return [
            (vocabulary.words[number] if number >= 0 else tokenizer.decode(tokens[where]), where)
            for number, where in zip(numbers, found, strict=True)
        ]
    named = []
    begin = 0
    for place, number in enumerate(words):
        if number != NONE:
            end = min(place + 1, len(tokens))
            named.append((vocabulary.words[number] if number >= 0 else _UNNAMED, slice(begin, end)))
            begin = end
    return named


def time_words(
    named: Named,
    tokens: Sequence[int],
    spans: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    step_s: float,
) -> tuple[Word, ...]:
    """Words with the times of their tokens' runs and the mean posteriors in these.

    Args:
        named: the words.
        tokens: ids.
        spans: (tokens, 2) int64: first step of each run, and the first after it.
        log_probs: (steps, vocab) float64.
        step_s: seconds an encoder step.
    """
    if not named:
        return ()
    lengths = spans[:, 1] - spans[:, 0]
    begins = np.cumsum(lengths) - lengths  # of each run, when the runs stand one after another
    steps = np.repeat(spans[:, 0] - begins, lengths) + np.arange(lengths.sum())
    probs = np.exp(log_probs[steps, np.repeat(tokens, lengths)])
    confidences: list[float] = (np.add.reduceat(probs, begins) / lengths).tolist()
    return place_words(named, spans[:, 0].tolist(), spans[:, 1].tolist(), confidences, step_s)
