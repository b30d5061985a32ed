"""Word and character error rates against hand counts, against jiwer and against a plain edit distance."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import jiwer
import pytest

from asr.errors import DataError, SettingsError
from asr.scoring import wer
from asr.scoring.wer import ErrorCounts, Score, count_errors, score


def scored(*pairs: tuple[str, str], normalizer: str = "verbatim") -> Score:
    """The score of (reference, hypothesis) pairs."""
    references, hypotheses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return score(references, hypotheses, [f"u{number}" for number in range(len(pairs))], normalizer)


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Edit distance by the textbook recurrence."""
    row = list(range(len(hypothesis) + 1))
    for i, left in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def random_text(generator: random.Random) -> str:
    return " ".join(generator.choice(["a", "b", "ab", "ba", "c"]) for _ in range(generator.randrange(8)))


def test_by_hand() -> None:
    """Guards the split into substitutions, deletions and insertions, and both lines, against a count by
    hand."""
    result = scored(("the cat sat on the mat", "the bat sat the mat too"), ("yes", "yes"))
    assert result.words == ErrorCounts(hits=5, substitutions=1, deletions=1, insertions=1)
    assert result.words.errors == 3
    assert result.words.reference_length == 7
    assert result.words.rate == pytest.approx(3 / 7)
    assert result.wer_line() == "%WER 42.86 [ 3 / 7, 1 ins, 1 del, 1 sub ]"
    assert result.utterances[0].operations == "CSCDCCI"
    # c -> b, "on " deleted, " too" inserted; the reference has 22 + 3 characters, spaces included
    assert result.cer_line() == "%CER 32.00 [ 8 / 25, 4 ins, 3 del, 1 sub ]"
    assert result.normalizer == "verbatim"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words"),
    [
        ("I", "I", ErrorCounts(1, 0, 0, 0)),
        ("I", "a", ErrorCounts(0, 1, 0, 0)),
        ("a", "", ErrorCounts(0, 0, 1, 0)),
        ("", "a", ErrorCounts(0, 0, 0, 1)),
        ("", "a b c", ErrorCounts(0, 0, 0, 3)),
        ("", "", ErrorCounts(0, 0, 0, 0)),
        ("a b", "a", ErrorCounts(1, 0, 1, 0)),
        ("a", "b a", ErrorCounts(1, 0, 0, 1)),
    ],
)
def test_short_and_empty_utterances_count(reference: str, hypothesis: str, words: ErrorCounts) -> None:
    """Guards against a scorer that drops one-letter or empty utterances, as jiwer's command line does."""
    result = scored((reference, hypothesis), ("x y", "x y"))
    assert result.utterances[0].words == words
    assert result.words == words + ErrorCounts(2, 0, 0, 0)
    assert len(result.utterances) == 2


def test_empty_references_of_a_whole_corpus() -> None:
    """Guards the convention.

    Empty hypotheses are a rate of 0, any other ones an infinite rate.
    """
    silent = scored(("", ""), (" ", ""))
    assert silent.words.rate == 0.0
    assert silent.wer_line() == "%WER 0.00 [ 0 / 0, 0 ins, 0 del, 0 sub ]"
    assert (silent.interval().low, silent.interval().high) == (0.0, 0.0)
    noisy = scored(("", "a b"), ("", ""))
    assert math.isinf(noisy.words.rate)
    assert noisy.wer_line() == "%WER inf [ 2 / 0, 2 ins, 0 del, 0 sub ]"
    assert noisy.interval().high == math.inf
    assert not math.isnan(noisy.interval().low)


def test_corpus_rate_is_not_a_mean_of_rates() -> None:
    """Guards against averaging per-utterance rates: a short utterance weighs as much as a long one."""
    result = scored(("a", "b"), ("a b c d e f g h i", "a b c d e f g h i"))
    assert result.words.rate == pytest.approx(0.1)


def test_characters_count_spaces() -> None:
    """Guards the stated convention for characters: a lost space between words is one deletion."""
    result = scored(("ab cd", "abcd"))
    assert result.characters == ErrorCounts(hits=4, substitutions=0, deletions=1, insertions=0)
    assert result.words == ErrorCounts(hits=0, substitutions=1, deletions=1, insertions=0)


def test_only_the_named_normaliser_acts() -> None:
    """Guards against hidden rules: case and marks count in verbatim, and vanish on both sides in english."""
    pair = ("Don’t stop!", "don't  STOP")
    assert scored(pair).words.errors == 2
    assert scored(pair, normalizer="lower").words.errors == 2  # don’t/don't and stop!/stop
    english = scored(pair, normalizer="english")
    assert english.words.errors == 0
    assert english.utterances[0].reference == "don't stop"
    assert english.utterances[0].hypothesis == "don't stop"
    assert english.normalizer == "english"


def test_a_word_ends_at_a_space_only_after_normalisation() -> None:
    """Guards against two ideas of a space: tabs and no-break spaces part words like any white space."""
    assert scored(("a\tb\u00a0c\u2003d", "a b c d")).words == ErrorCounts(4, 0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_jiwer_and_with_the_recurrence(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards sums over utterances and over the parts that are aligned at once, part borders included."""
    monkeypatch.setattr(wer, "_ALIGNED_AT_ONCE", 7)
    generator = random.Random(seed)
    pairs = [(random_text(generator), random_text(generator)) for _ in range(50)]
    result = scored(*pairs)
    assert [utterance.id for utterance in result.utterances] == [f"u{number}" for number in range(50)]
    for (reference, hypothesis), utterance in zip(pairs, result.utterances, strict=True):
        assert utterance.words.errors == distance(reference.split(), hypothesis.split())
        assert utterance.words.reference_length == len(reference.split())
        assert utterance.characters.errors == distance(reference, hypothesis)
        assert utterance.characters.reference_length == len(reference)
    references, hypotheses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert result.words.rate == pytest.approx(jiwer.wer(references, hypotheses))
    assert result.characters.rate == pytest.approx(jiwer.cer(references, hypotheses))


def test_part_is_the_score_of_these_alone() -> None:
    """Guards tables by kind of speech: counts, speakers and intervals of the chosen utterances only."""
    references, hypotheses = ["a b c", "a b", "c"], ["a b", "a b", "d e"]
    names, speakers = ["x", "y", "z"], ["s", "t", "t"]
    whole = score(references, hypotheses, names, "lower", speakers=speakers)
    part = score(references[1:], hypotheses[1:], names[1:], "lower", speakers=speakers[1:])
    assert whole.part(["z", "y", "unknown"]) == part
    assert whole.part(names) == whole
    with pytest.raises(DataError, match="none of these utterances was scored"):
        whole.part(["unknown"])


def test_rounding_of_the_line() -> None:
    """Guards the two decimals.

    Half a hundredth that binary holds exactly goes to even, as C++ streams round.
    """
    utterance = scored(("a", "b")).utterances[0]
    for counts, line in (
        (ErrorCounts(hits=799, substitutions=1), "%WER 0.12 [ 1 / 800, 0 ins, 0 del, 1 sub ]"),
        (ErrorCounts(730, 40, 3, 3), "%WER 5.95 [ 46 / 773, 3 ins, 3 del, 40 sub ]"),
    ):
        assert Score((replace(utterance, words=counts),), "verbatim").wer_line() == line


def test_counts_add_up_with_the_operations() -> None:
    """Guards against counts that contradict the alignments."""
    generator = random.Random(4)
    for utterance in scored(
        *((random_text(generator), random_text(generator)) for _ in range(30))
    ).utterances:
        counts, operations = utterance.words, utterance.operations
        assert [operations.count(letter) for letter in "CSDI"] == [
            counts.hits,
            counts.substitutions,
            counts.deletions,
            counts.insertions,
        ]
        assert len(operations) == len(utterance.reference.split()) + counts.insertions
        assert len(operations) == len(utterance.hypothesis.split()) + counts.deletions


def test_wrong_input() -> None:
    """Guards against lists that are cut to the shortest, duplicate ids, and a score of nothing."""
    with pytest.raises(DataError, match="2 references, 1 hypotheses and 2 ids"):
        score(["a", "b"], ["a"], ["1", "2"], "verbatim")
    with pytest.raises(DataError, match="no utterance to score"):
        score([], [], [], "verbatim")
    with pytest.raises(DataError, match="'1' appears more than once"):
        score(["a", "b"], ["a", "b"], ["1", "1"], "verbatim")
    with pytest.raises(SettingsError, match="normalizer must be one of"):
        score(["a"], ["a"], ["1"], "none")
    with pytest.raises(DataError, match="1 speakers for 2 utterances"):
        score(["a", "b"], ["a", "b"], ["1", "2"], "verbatim", speakers=["s"])


def test_scripts_without_spaces_are_counted_by_character() -> None:
    """A Chinese sentence that is one word, wrong as a whole; spaces of a tool that cuts words, as errors."""
    result = score(["今天天气很好", "我用 iphone"], ["今天 天汽很", "我 用iphone"], normalizer="words")
    assert result.unit == "characters"
    assert result.wer_line() == "%CER 14.29 [ 2 / 14, 0 ins, 1 del, 1 sub ]"
    assert result.words == result.characters
    assert result.utterances[0].operations == "CCCSCD"
    assert list(result.utterances[0].columns())[3:] == [
        ("S", "气", "汽"), ("C", "很", "很"), ("D", "好", ""),
    ]  # fmt: skip
    assert count_errors(["今天"], ["今 夫"], "characters") == [1]
    assert result.part(["2"]).rate_name == "CER"


def test_scripts_with_spaces_are_counted_by_word() -> None:
    """Hebrew, Arabic and Korean by character: their rates would look far better than others'."""
    for text in ("שלום עולם", "مرحبا بالعالم", "안녕하세요 세계"):
        assert score([text], [text.split()[0]]).wer_line() == "%WER 50.00 [ 1 / 2, 0 ins, 1 del, 0 sub ]"
