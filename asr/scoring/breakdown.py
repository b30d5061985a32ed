"""Where the errors are: by speaker, length or field of the manifest, and word by word."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.scoring.wer import Score, UtteranceScore

__all__ = [
    "Confusion",
    "Part",
    "Value",
    "WordErrors",
    "breakdown",
    "confusions",
    "length_ranges",
    "ranges",
    "word_errors",
    "worst",
]  # fmt: skip

Value = str | int | float | bool
"""A value of a manifest's field."""

_MOST_NAMES = 50  # different values of a field with which a table of it is still read
_RANGES = 5  # into which numbers are cut
_LENGTHS_S = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)


@dataclass(frozen=True)
class Part:
    """The score of the utterances that have something in common."""

    name: str
    score: Score


@dataclass(frozen=True)
class Confusion:
    """A word that was replaced by another, or inserted (no reference), or deleted (no hypothesis)."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class WordErrors:
    """How often a word of the references was wrong.

    Attributes:
        word: of the references.
        errors: times that it was substituted or deleted.
        count: times that it occurs in the references.
        instead: what was recognised most often in its place; "" where it was mostly deleted.
    """

    word: str
    errors: int
    count: int
    instead: str


def breakdown(score: Score, names: Mapping[str, str], order: Sequence[str] = ()) -> list[Part]:
    """The score of each part of the utterances.

    Args:
        score: of all.
        names: of the part of each utterance, by its id; utterances without one are in no part.
        order: names in the order of the result; others follow, the highest error rate first.
    """
    ids: dict[str, list[str]] = {}
    for utterance in score.utterances:
        if name := names.get(utterance.id, ""):
            ids.setdefault(name, []).append(utterance.id)
    parts = [Part(name, score.part(members)) for name, members in ids.items()]
    position = {name: index for index, name in enumerate(order)}
    return sorted(parts, key=lambda part: (position.get(part.name, len(position)), -part.score.wer))


def length_ranges(seconds: Mapping[str, float]) -> tuple[dict[str, str], list[str]]:
    """Utterances by their length: the name of each one's range, and all names in order."""
    return _cut(seconds, _LENGTHS_S, "{:g}", " s")


def ranges(values: Mapping[str, Value]) -> tuple[dict[str, str], list[str]]:
    """The name of the part of each utterance by a field of the manifest, and the names in order.

    Numbers of many different values are cut into five ranges with about the same number of utterances. Text
    of too many different values to be a table (paths, comments) has no parts.

    Args:
        values: of the field, by the utterance's id.
    """
    different = {*values.values()}
    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if len(numbers) == len(values) and len(different) > 2 * _RANGES:
        ordered = sorted(numbers.values())
        borders = [ordered[len(ordered) * index // _RANGES] for index in range(1, _RANGES)]
        return _cut(numbers, sorted({*borders} - {ordered[0]}), "{:.4g}")
    if len(different) > min(_MOST_NAMES, max(len(values) // 2, 2)):
        return {}, []
    order = [f"{number:g}" for number in sorted({*numbers.values()})] if len(numbers) == len(values) else []
    return {
        name: f"{numbers[name]:g}" if name in numbers else str(value) for name, value in values.items()
    }, order


def _cut(
    values: Mapping[str, float], borders: Sequence[float], form: str, unit: str = ""
) -> tuple[dict[str, str], list[str]]:
    if not borders:
        return {}, []
    names = [
        f"below {form.format(borders[0])}{unit}",
        *(f"{form.format(low)} to {form.format(high)}{unit}" for low, high in itertools.pairwise(borders)),
        f"{form.format(borders[-1])}{unit} and more",
    ]
    found = {name: names[sum(value >= border for border in borders)] for name, value in values.items()}
    return found, names


def confusions(score: Score) -> list[Confusion]:
    """Every pair of a reference word and what was recognised instead, the most frequent first."""
    counts = Counter(
        (reference, hypothesis)
        for utterance in score.utterances
        for operation, reference, hypothesis in utterance.columns()
        if operation != "C"
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Confusion(*pair, count) for pair, count in ordered]


def word_errors(score: Score) -> list[WordErrors]:
    """The words of the references that were wrong, those with the most errors first."""
    occurrences: Counter[str] = Counter()
    instead: dict[str, Counter[str]] = {}
    for utterance in score.utterances:
        for operation, reference, hypothesis in utterance.columns():
            if operation != "I":
                occurrences[reference] += 1
            if operation in "SD":
                instead.setdefault(reference, Counter())[hypothesis] += 1
    words = [
        WordErrors(word, found.total(), occurrences[word], found.most_common(1)[0][0])
        for word, found in instead.items()
    ]
    return sorted(words, key=lambda word: (-word.errors, word.count, word.word))


def worst(score: Score, count: int) -> list[UtteranceScore]:
    """The utterances with the most errors, those with the higher error rate first among equals."""
    wrong = [utterance for utterance in score.utterances if utterance.words.errors]
    return sorted(
        wrong, key=lambda utterance: (-utterance.words.errors, -utterance.words.rate, utterance.id)
    )[:count]
