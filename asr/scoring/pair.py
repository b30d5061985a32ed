"""Two systems on the same utterances: which makes fewer errors, where, and whether that may be chance."""

from dataclasses import dataclass

from asr.errors import DataError, first_few
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
_MAX_NAMED = 3  # ids that a message names


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
        of_a, of_b = (
            {utterance.id: utterance.reference for utterance in score.utterances}
            for score in (self.first, self.second)
        )
        only = [sorted(of_a.keys() - of_b.keys()), sorted(of_b.keys() - of_a.keys())]
        if any(only):
            found = [
                f"{len(names)} only in {name} ({first_few(names, most=_MAX_NAMED)})"
                for name, names in zip("AB", only, strict=True)
                if names
            ]
            raise DataError(
                f"A has {len(of_a)} utterances, B {len(of_b)}: {', '.join(found)}. Expected the same "
                f"ones. Score the same manifest, or add --common to compare those that both have."
            )
        different = [name for name, reference in of_a.items() if of_b[name] != reference]
        if different:
            raise DataError(
                f"{len(different)} references differ, such as {different[0]}: "
                f"{of_a[different[0]]!r:.60} and {of_b[different[0]]!r:.60}. Expected the same words. "
                f"Score both with the same references and --normalizer."
            )

    @classmethod
    def common(cls, first: Score, second: Score) -> "Pair":
        """The pair on the utterances that both have.

        Raises:
            DataError: they have none in common, or references differ.
        """
        of_a, of_b = ({utterance.id for utterance in score.utterances} for score in (first, second))
        ids = of_a & of_b
        return cls(first.part(ids), second.part(ids))

    def bootstrap(self) -> PairedInterval:
        """The interval of B's error rate minus A's."""
        pairs = self.utterances()
        return paired_bootstrap(
            [a.words.errors for a, _ in pairs],
            [b.words.errors for _, b in pairs],
            [a.words.reference_length for a, _ in pairs],
            [a.speaker or b.speaker for a, b in pairs],
        )

    def matched_pairs(self) -> MatchedPairs:
        """The matched pairs test over segments of sentences."""
        return matched_pairs([
            errors_b - errors_a
            for a, b in self.utterances()
            for errors_a, errors_b in error_segments(a.operations, b.operations)
        ])  # fmt: skip

    def utterances(self) -> list[tuple[UtteranceScore, UtteranceScore]]:
        """Each utterance as A and as B have it, in the order of A."""
        of_b = {utterance.id: utterance for utterance in self.second.utterances}
        return [(utterance, of_b[utterance.id]) for utterance in self.first.utterances]

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
        gains = [a.words.errors - b.words.errors for a, b in pairs]
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
        for a, b in shown:
            lines.append(f"{a.id}  errors: A {a.words.errors}, B {b.words.errors}")
            lines.append(f"  REF: {a.reference}")
            lines += [f"  {name}:   {_marked(utterance)}" for name, utterance in (("A", a), ("B", b))]
        return "\n".join(lines)


def _marked(utterance: UtteranceScore) -> str:
    """The hypothesis with its errors in capitals."""
    words = []
    for operation, _, found in utterance.columns():
        capitals = found.upper()
        wrong = "***" if not found else capitals if capitals != found else f"[{found}]"  # no capitals there
        words.append(found if operation == "C" else wrong)
    return ("" if utterance.unit == "characters" else " ").join(words)
