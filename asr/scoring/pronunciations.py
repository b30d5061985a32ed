"""Scores of pronunciations: words wrong with their interval, phone error rate, and words a second."""

from collections.abc import Sequence
from dataclasses import dataclass

from asr.scoring.significance import Interval, bootstrap_interval
from asr.scoring.wer import count_errors
from asr.text.lexicon import Spelling

__all__ = ["PronunciationScore", "score_pronunciations"]


@dataclass(frozen=True)
class PronunciationScore:
    """How many words of a test set are pronounced wrong.

    Attributes:
        wrong: (words,) whether none of the right pronunciations was given.
        phone_errors: substitutions, deletions and insertions, against the closest right pronunciation.
        phones: of the closest right pronunciations.
    """

    wrong: tuple[bool, ...]
    phone_errors: int
    phones: int

    @property
    def words_wrong(self) -> float:
        """Percent."""
        return 100 * sum(self.wrong) / len(self.wrong)

    @property
    def phone_error_rate(self) -> float:
        """Percent."""
        return 100 * self.phone_errors / self.phones

    def interval(self) -> Interval:
        """The 95% interval of `words_wrong`, by a bootstrap over words."""
        return bootstrap_interval([int(wrong) for wrong in self.wrong], [1] * len(self.wrong))


def score_pronunciations(
    given: Sequence[Spelling], references: Sequence[Sequence[Spelling]]
) -> PronunciationScore:
    """Score one pronunciation of each word.

    Args:
        given: (words,) phones; may be empty.
        references: (words,) the right pronunciations of each, at least one.
    """
    # Each word's pronunciation against each of the right ones.
    right_texts = [" ".join(phones) for right in references for phones in right]
    given_texts = [" ".join(phones) for phones, right in zip(given, references, strict=True) for _ in right]
    errors = iter(count_errors(right_texts, given_texts))
    closest = [
        min(((next(errors), len(phones)) for phones in right), key=lambda pair: pair[0] / pair[1])
        for right in references
    ]
    return PronunciationScore(
        wrong=tuple(phones not in right for phones, right in zip(given, references, strict=True)),
        phone_errors=sum(count for count, _ in closest),
        phones=sum(length for _, length in closest),
    )
