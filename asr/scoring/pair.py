"""Two systems on the same utterances: which makes fewer errors, where, and whether that may be chance."""

from collections.abc import Sequence
from dataclasses import dataclass

from asr.errors import DataError
from asr.scoring.significance import (
    MatchedPairs,
    PairedInterval,
    error_segments,
    matched_pairs,
    paired_bootstrap,
)
from asr.scoring.wer import Score, UtteranceScore

__all__ = ["Pair"]

_SIGNIFICANT = 0.05  # a difference that is less probable by chance
_FEW_SEGMENTS = 50  # with fewer the test, which takes means for normally distributed, is rough
_NAMED = 3  # ids that a message names


@dataclass(frozen=True)
class Pair:
    """The scores of two systems, A and B, of the same utterances with the same references.

    Attributes:
        first: of A.
        second: of B.

    Raises:
        DataError: the utterances or their references differ.
    """

    first: Score
    second: Score

    def __post_init__(self) -> None:
        if self.first.unit != self.second.unit:
            raise DataError(
                f"A counts {self.first.unit}, B {self.second.unit}. Expected the same. Score them alike."
            )
        ids = [{one.id: one.reference for one in score.utterances} for score in (self.first, self.second)]
        only = [sorted(ids[0].keys() - ids[1].keys()), sorted(ids[1].keys() - ids[0].keys())]
        if any(only):
            found = [
                f"{len(names)} only in {name} ({_few(names)})"
                for name, names in zip("AB", only, strict=True)
                if names
            ]
            raise DataError(
                f"A has {len(ids[0])} utterances, B {len(ids[1])}: {', '.join(found)}. Expected the same "
                f"ones. Score the same manifest, or add --common to compare those that both have."
            )
        other = [name for name, reference in ids[0].items() if ids[1][name] != reference]
        if other:
            raise DataError(
                f"{len(other)} references differ, such as {other[0]}: {ids[0][other[0]]!r:.60} and "
                f"{ids[1][other[0]]!r:.60}. Expected the same words. Score both with the same references and "
                f"--normalizer."
            )

    @classmethod
    def common(cls, first: Score, second: Score) -> "Pair":
        """The pair on the utterances that both have.

        Raises:
            DataError: they have none in common, or references differ.
        """
        ids = {one.id for one in first.utterances} & {one.id for one in second.utterances}
        return cls(first.part(ids), second.part(ids))

    def bootstrap(self) -> PairedInterval:
        """The interval of B's error rate minus A's."""
        pairs = self.utterances()
        return paired_bootstrap(
            [one.words.errors for one, _ in pairs],
            [other.words.errors for _, other in pairs],
            [one.words.reference_length for one, _ in pairs],
            [one.speaker or other.speaker for one, other in pairs],
        )

    def matched_pairs(self) -> MatchedPairs:
        """The matched pairs test over segments of sentences."""
        return matched_pairs([
            other - one
            for first, second in self.utterances()
            for one, other in error_segments(first.operations, second.operations)
        ])  # fmt: skip

    def utterances(self) -> list[tuple[UtteranceScore, UtteranceScore]]:
        """Each utterance as A and as B have it, in the order of A."""
        others = {one.id: one for one in self.second.utterances}
        return [(one, others[one.id]) for one in self.first.utterances]

    def sentence(self, test: MatchedPairs) -> str:
        """The result in plain words.

        Args:
            test: of `matched_pairs`.
        """
        errors, others = self.first.words.errors, self.second.words.errors
        if errors == others:
            return f"A and B make the same number of errors, {errors}."
        if errors == 0:
            what = f"A makes no error, B makes {others}"
        else:
            share = 100 * abs(errors - others) / errors
            more = "fewer" if others < errors else "more"
            digits = 0 if share >= 10 else 1
            what = f"B makes {share:.{digits}f}% {more} errors than A ({others} instead of {errors})"
        p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.{3 if test.p < 0.1 else 2}f}"
        if test.p < _SIGNIFICANT:
            return f"{what}; the difference is significant, {p}."
        return f"{what}; the difference is not significant, {p}: it may be chance."

    def report(self, examples: int) -> str:
        """The sentence, what it rests on, and the utterances that changed most.

        Args:
            examples: utterances that are shown.
        """
        test, paired = self.matched_pairs(), self.bootstrap()
        interval, rate = paired.interval, self.first.rate_name
        change = 100 * (self.second.wer - self.first.wer)
        note = f"; {interval.note}" if interval.note else ""
        rough = f"; {test.segments} are few for this test" if 0 < test.segments < _FEW_SEGMENTS else ""
        pairs = self.utterances()
        gains = [one.words.errors - other.words.errors for one, other in pairs]
        lines = [
            self.sentence(test),
            f"A: {self.first.wer_line()}",
            f"B: {self.second.wer_line()}",
            f"Difference of the {rate}: {change:+.2f} points, 95% interval {interval.low:+.2f} to "
            f"{interval.high:+.2f} (paired bootstrap over {interval.resampled}: {interval.count}{note}); B "
            f"has fewer errors in {100 * paired.fewer:.1f}% of the resamples",
            f"MAPSSWE: {test.segments} segments with errors, mean difference {test.mean:+.3f} errors a "
            f"segment, Z = {test.z:.2f}{rough}",
            f"Utterances: B is better in {sum(gain > 0 for gain in gains)}, A in "
            f"{sum(gain < 0 for gain in gains)}, as many errors in {gains.count(0)}",
        ]
        if test.p < _SIGNIFICANT and interval.low <= 0 <= interval.high:
            lines.insert(
                1, f"But over other {interval.resampled} it may be otherwise: the interval includes 0."
            )
        order = sorted(range(len(pairs)), key=lambda number: -abs(gains[number]))
        shown = [pairs[number] for number in order[:examples] if gains[number]]
        if shown:
            lines += ["", "Changed most (errors in capitals or brackets, *** where a word is missing):"]
        for one, other in shown:
            lines.append(f"{one.id}  errors: A {one.words.errors}, B {other.words.errors}")
            lines.append(f"  REF: {one.reference}")
            lines += [f"  {name}:   {_marked(text)}" for name, text in (("A", one), ("B", other))]
        return "\n".join(lines)


def _marked(utterance: UtteranceScore) -> str:
    """The hypothesis with its errors in capitals."""
    words = []
    for operation, _, found in utterance.columns():
        capitals = found.upper()
        wrong = "***" if not found else capitals if capitals != found else f"[{found}]"  # no capitals there
        words.append(found if operation == "C" else wrong)
    return ("" if utterance.unit == "characters" else " ").join(words)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
