"""Word and character error rates of a corpus, with their alignments.

jiwer aligns (Levenshtein, unit costs, as Kaldi's compute-wer); the rest is defined here:

- The normaliser is named and applied to both sides here; jiwer's own transforms are replaced by plain
  splitting.
- Every utterance counts, one-letter and empty ones included. With an empty reference every hypothesis word is
  an insertion; with an empty hypothesis every reference word is a deletion.
- The corpus rate is errors / reference words over all utterances, not a mean of rates. Insertions can lift it
  above 100%. With empty references it is 0 without errors and infinite with them.
- For characters the spaces between words count, as in most CTC toolkits and in jiwer: a missing space is an
  error. A character is a Unicode code point of the normalised text.
- Text in a script without spaces between words (Chinese, Thai, ...) has no words to count. Where most of the
  references are in one, the unit is the character, spaces aside, and the rate is the CER.
- Several alignments can have the same, smallest number of errors. The choice affects the split into
  substitutions, deletions and insertions a little, never their sum.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import jiwer

from asr.decoding.hypothesis import OutputUnit
from asr.errors import DataError
from asr.scoring.significance import Interval, bootstrap_interval
from asr.text.normalize import normalize
from asr.text.scripts import is_unspaced

__all__ = [
    "RATE_NAMES", "CountedUnit", "ErrorCounts", "Score", "UtteranceScore", "count_errors", "counted_unit",
    "score", "split_units",
]  # fmt: skip

CountedUnit = OutputUnit | Literal["characters"]
"""What an error rate counts: what was written, or its characters where the script has no spaces."""

# jiwer's defaults strip and fold spaces; these two only split, so that nothing but the named normaliser acts.
_SPLIT_WORDS = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter=" ")])
_SPLIT_CHARACTERS = jiwer.Compose([jiwer.ReduceToListOfListOfChars()])

# Utterances aligned in one call of jiwer. It keeps every alignment as objects until the call returns; at the
# level of characters a large corpus would need gigabytes.
_ALIGNED_AT_ONCE = 1024

RATE_NAMES: dict[CountedUnit, str] = {"words": "WER", "characters": "CER", "phones": "PER"}
"""Name of each unit's error rate."""

_LETTER = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True)
class ErrorCounts:
    """Outcome of an alignment, in words or in characters.

    Attributes:
        hits: correct units.
        substitutions: units that are replaced by another.
        deletions: reference units that the hypothesis lacks.
        insertions: hypothesis units that the reference lacks.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Units in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference unit, 1 being 100%; with an empty reference 0 or, given errors, inf."""
        if self.reference_length == 0:
            return float("inf") if self.errors else 0.0
        return self.errors / self.reference_length


@dataclass(frozen=True)
class UtteranceScore:
    """One utterance as it was compared.

    Attributes:
        id: the utterance's name.
        reference: the true text, normalised.
        hypothesis: the recognised text, normalised.
        words: counts in words, or whatever `unit` is.
        characters: counts in characters, spaces included unless they are the unit.
        operations: the alignment of the units, one letter a column: C correct, S substituted, D deleted, I
            inserted.
        speaker: name of the speaker; "" where unknown.
        unit: what is aligned.
    """

    id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts
    operations: str
    speaker: str = ""
    unit: CountedUnit = "words"

    def columns(self) -> Iterator[tuple[str, str, str]]:
        """The columns of the alignment.

        Yields:
            Operation, reference word ("" for I) and hypothesis word ("" for D), or character.
        """
        reference = iter(split_units(self.reference, self.unit))
        hypothesis = iter(split_units(self.hypothesis, self.unit))
        for operation in self.operations:
            expected = next(reference) if operation != "I" else ""
            found = next(hypothesis) if operation != "D" else ""
            yield operation, expected, found


@dataclass(frozen=True)
class Score:
    """The score of a corpus.

    Attributes:
        utterances: every utterance, in the order given.
        normalizer: name of the rules that were applied to both sides, without which a score is undefined.
        unit: what is counted: words; characters, where the script has no spaces between words; or phones,
            where a model writes no words.
    """

    utterances: tuple[UtteranceScore, ...]
    normalizer: str
    unit: CountedUnit = "words"

    @cached_property
    def words(self) -> ErrorCounts:
        """Counts in words, or whatever `unit` is, over all utterances."""
        return sum((utterance.words for utterance in self.utterances), ErrorCounts())

    @cached_property
    def characters(self) -> ErrorCounts:
        """Counts in characters, spaces included unless they are the unit, over all utterances."""
        return sum((utterance.characters for utterance in self.utterances), ErrorCounts())

    @property
    def rate_name(self) -> str:
        """WER, CER where the unit is the character, or PER where phones were counted."""
        return RATE_NAMES[self.unit]

    @property
    def wer(self) -> float:
        """Errors per reference word, or whatever `unit` is, 1 being 100%."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character errors per reference character, 1 being 100%."""
        return self.characters.rate

    def wer_line(self) -> str:
        """`%WER 5.95 [ 46 / 773, 3 ins, 3 del, 40 sub ]`, the form of Kaldi's compute-wer; two decimals.

        Of phones it begins with %PER, of characters with %CER.
        """
        return _rate_line(f"%{self.rate_name}", self.words)

    def cer_line(self) -> str:
        """The same line for characters."""
        return _rate_line("%CER", self.characters)

    def part(self, ids: Iterable[str]) -> "Score":
        """The score of these utterances alone.

        Raises:
            DataError: none of them is among the utterances.
        """
        chosen = set(ids)
        utterances = tuple(utterance for utterance in self.utterances if utterance.id in chosen)
        if not utterances:
            raise DataError("none of these utterances was scored. Expected at least one.")
        return replace(self, utterances=utterances)

    def interval(self) -> Interval:
        """Bootstrap interval of the WER, over speakers or utterances, as `bootstrap_interval` gives it."""
        return self._interval([utterance.words for utterance in self.utterances])

    def cer_interval(self) -> Interval:
        """The same of the CER."""
        return self._interval([utterance.characters for utterance in self.utterances])

    def _interval(self, counts: Sequence[ErrorCounts]) -> Interval:
        return bootstrap_interval(
            [count.errors for count in counts],
            [count.reference_length for count in counts],
            [utterance.speaker for utterance in self.utterances],
        )


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None = None,
    normalizer: str = "verbatim",
    unit: OutputUnit = "words",
    speakers: Sequence[str] | None = None,
) -> Score:
    """Score hypotheses against references.

        >>> result = asr.score(["the cat sat"], ["the bat sat down"])
        >>> result.wer_line()
        '%WER 66.67 [ 2 / 3, 1 ins, 0 del, 1 sub ]'
        >>> result.utterances[0].operations
        'CSCI'

    Args:
        references: (utterances,) true texts; may be empty strings.
        hypotheses: (utterances,) recognised texts, in the same order; may be empty strings.
        ids: (utterances,) names, each once; None numbers them from 1.
        normalizer: name of the rules applied to both sides, as `asr.text.normalize.normalize` takes it.
        unit: what the spaces separate. Phones are compared as they are: the rules were applied
            to the transcripts before they were pronounced. Words that no space separates, in most of the
            references, are compared by character.
        speakers: (utterances,) names, "" where unknown, for the interval; None: all are unknown.

    Returns:
        Counts over the corpus and every utterance, in the order given.

    Raises:
        DataError: there is no utterance, the lengths differ, an id appears twice, or a single text is given
            in place of a list.
        SettingsError: the normalizer is unknown.

    Source: aligned by jiwer.process_words and jiwer.process_characters.
    """
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise DataError("a single text was given. Expected lists of texts, one per utterance: [text].")
    if ids is None:
        ids = [str(number) for number in range(1, len(references) + 1)]
    if not len(references) == len(hypotheses) == len(ids):
        raise DataError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(ids)} ids. "
            "One of each was expected for every utterance."
        )
    if speakers is None:
        speakers = [""] * len(ids)
    elif len(speakers) != len(ids):
        raise DataError(f"{len(speakers)} speakers for {len(ids)} utterances. One of each was expected.")
    if not references:
        raise DataError("there is no utterance to score. At least one was expected.")
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise DataError(f"the utterance id {twice!r} appears more than once. Ids must differ. Rename one.")

    counted = counted_unit(references) if unit == "words" else unit
    utterances: list[UtteranceScore] = []
    for begin in range(0, len(ids), _ALIGNED_AT_ONCE):
        part = slice(begin, begin + _ALIGNED_AT_ONCE)
        true, found = list(references[part]), list(hypotheses[part])
        if unit == "words":
            true = [normalize(text, normalizer) for text in true]
            found = [normalize(text, normalizer) for text in found]
        words = _align(true, found, counted)
        characters = words if counted == "characters" else _align_characters(true, found)
        for name, speaker, reference, hypothesis, by_word, by_character in zip(
            ids[part], speakers[part], true, found, words, characters, strict=True
        ):
            operations = _operations(by_word)
            utterances.append(
                UtteranceScore(
                    id=name,
                    reference=reference,
                    hypothesis=hypothesis,
                    words=_count(operations),
                    characters=_count(_operations(by_character)),
                    operations=operations,
                    speaker=speaker,
                    unit=counted,
                )
            )
    return Score(tuple(utterances), normalizer, counted)


def counted_unit(references: Iterable[str]) -> CountedUnit:
    """Words, or characters where most of these texts are in scripts without spaces between words."""
    return "characters" if is_unspaced(references) else "words"


def split_units(text: str, unit: CountedUnit) -> list[str]:
    """The units of a text: what is between single spaces, or its characters without the spaces."""
    return list(text.replace(" ", "")) if unit == "characters" else text.split(" ")


def count_errors(
    references: Sequence[str], hypotheses: Sequence[str], unit: CountedUnit = "words"
) -> list[int]:
    """(n,) errors of each pair of texts, without normalisation.

    Args:
        references: (n,) true texts, with single spaces between words; may be empty.
        hypotheses: (n,) recognised texts, likewise.
        unit: what is counted, of `counted_unit`.

    Source: aligned by jiwer.process_words, as in `score`.
    """
    errors: list[int] = []
    for begin in range(0, len(references), _ALIGNED_AT_ONCE):
        part = slice(begin, begin + _ALIGNED_AT_ONCE)
        true, found = list(references[part]), list(hypotheses[part])
        errors += [_count(_operations(alignment)).errors for alignment in _align(true, found, unit)]
    return errors


def _align(true: list[str], found: list[str], unit: CountedUnit) -> list[list[jiwer.AlignmentChunk]]:
    """The alignment of each pair of texts in units."""
    if unit == "characters":
        return _align_characters(*([text.replace(" ", "") for text in texts] for texts in (true, found)))
    return jiwer.process_words(true, found, _SPLIT_WORDS, _SPLIT_WORDS).alignments


def _align_characters(true: list[str], found: list[str]) -> list[list[jiwer.AlignmentChunk]]:
    return jiwer.process_characters(true, found, _SPLIT_CHARACTERS, _SPLIT_CHARACTERS).alignments


def _operations(alignment: Sequence[jiwer.AlignmentChunk]) -> str:
    """One letter a column of the alignment."""
    return "".join(
        _LETTER[chunk.type]
        * max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in alignment
    )


def _count(operations: str) -> ErrorCounts:
    return ErrorCounts(*(operations.count(letter) for letter in "CSDI"))


def _rate_line(name: str, counts: ErrorCounts) -> str:
    # multiplied first: one rounding less on the way to the two decimals
    length = counts.reference_length
    percent = 100.0 * counts.errors / length if length else counts.rate
    return (
        f"{name} {percent:.2f} [ {counts.errors} / {length}, {counts.insertions} ins, "
        f"{counts.deletions} del, {counts.substitutions} sub ]"
    )
