"""A score as text and JSON: a summary, alignments, a record per utterance. `asr.report` makes a page."""

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asr.errors import DataError
from asr.files import write_text
from asr.manifests.utterance import Utterance
from asr.scoring.wer import CountedUnit, ErrorCounts, Score, UtteranceScore
from asr.torchrun import rank_and_world_size

__all__ = [
    "alignment_text",
    "result_json",
    "summary",
    "table_by_part",
    "write_alignments",
    "write_results",
    "write_score",
    "write_score_folder",
]


def alignment_text(utterance: UtteranceScore) -> str:
    """Reference and hypothesis word under word, in the manner of sclite's pralign.

    A gap is filled with stars; EVAL marks S, D and I, and nothing where the word is right. No line ends in
    spaces.

        REF:  the cat ***  sat
        HYP:  the bat down sat
        EVAL:     S   I

    Returns:
        Three lines without a newline at the end.
    """
    lines = ["REF: ", "HYP: ", "EVAL:"]
    for operation, expected, found in utterance.columns():
        width = max(_columns(expected), _columns(found))
        mark = "" if operation == "C" else operation
        for row, cell in enumerate((expected or "*" * width, found or "*" * width, mark)):
            lines[row] += " " + cell + " " * (width - _columns(cell))
    return "\n".join(line.rstrip() for line in lines)


def summary(score: Score) -> str:
    """The score in a few lines, without a newline at the end.

        %WER 5.95 [ 46 / 773, 3 ins, 3 del, 40 sub ]
        %CER 2.10 [ 78 / 3714, 20 ins, 22 del, 36 sub ]
        95% interval of the WER: 4.21 to 7.90 (bootstrap over speakers: 12)
        Without any error: 63.00% of the utterances [ 63 / 100 ]
        Normalizer: english

    Utterances are resampled where speakers are unknown or few. A further line counts empty references, if
    any. Where phones were counted, the rate is called PER, a line states it, and characters are not counted.
    Where the script has no spaces between words, characters are counted in place of words, and a line states
    that.
    """
    total = len(score.utterances)
    perfect = sum(utterance.words.errors == 0 for utterance in score.utterances)
    empty = sum(not utterance.reference for utterance in score.utterances)
    lines = [
        score.wer_line(),
        *([score.cer_line()] if score.unit == "words" else []),
        f"95% interval of the {score.rate_name}: {score.interval()}",
        f"Without any error: {100 * perfect / total:.2f}% of the utterances [ {perfect} / {total} ]",
        f"Normalizer: {score.normalizer}",
    ]
    if score.unit == "phones":
        lines.append(
            "Counted: phones, against each reference as the model's lexicon pronounces it; not words"
        )
    if score.unit == "characters":
        lines.append("Counted: characters, since the script has no spaces between words; spaces are left out")
    if empty:
        lines.append(
            f"Empty references: {empty} (each hypothesis {score.unit[:-1]} there counts as an insertion)"
        )
    return "\n".join(lines)


def table_by_part(scores: Mapping[str, Score], parts: Mapping[str, Sequence[Utterance]]) -> str:
    """A Markdown table with a row for each score and part of it, in this order.

    Args:
        scores: by name, of the same utterances.
        parts: the utterances of each part, by its name.

    Raises:
        DataError: a part has none of the utterances.
    """
    rate = next(iter(scores.values())).rate_name
    rows = [f"| condition | part | %{rate} | 95% interval |", "|---|---|---|---|"]
    for condition, whole in scores.items():
        for name, utterances in parts.items():
            found = whole.part(utterance.id for utterance in utterances)
            line = found.wer_line().removeprefix(f"%{rate} ")
            rows.append(f"| {condition} | {name} | {line} | {found.interval()} |")
    return "\n".join(rows)


def write_score_folder(folder: Path, score: Score, notes: Sequence[str] = ()) -> str:
    """Write the score, per-utterance results and alignments into a folder.

    Under torchrun, where all processes have the same result, one writes it.

    Args:
        folder: is made when missing.
        score: the score.
        notes: further lines after the summary.

    Returns:
        The text to print: the summary, the notes, the paths.

    Raises:
        DataError: the files cannot be written.
    """
    if rank_and_world_size()[0] == 0:
        write_score(folder / "score.json", score)
        write_results(folder / "results.jsonl", score)
        write_alignments(folder / "alignments.txt", score)
    where = f"Per utterance: {folder / 'results.jsonl'}, {folder / 'alignments.txt'}"
    return "\n".join([summary(score), *notes, where])


def write_score(path: Path, score: Score) -> None:
    """Write the score of the corpus as one JSON object.

    Keys: rate (WER, CER or PER), percent (null where references are empty and there are errors), errors,
    words, characters or phones (in the references), substitutions, deletions, insertions, characters (the
    same counts in characters, where they are not the unit), utterances, normalizer, and interval: low, high
    (percent), level, resampled (speakers or utterances), count, note. The file is written atomically.

    Raises:
        DataError: the file cannot be written.
    """
    _write(path, [json.dumps(_score_row(score), ensure_ascii=False, indent=2)])


def result_json(
    score: Score, settings: Mapping[str, Mapping[str, str]], left_out: Mapping[str, str] | None = None
) -> str:
    """The score and all its utterances as one JSON object, which `asr compare` reads.

    Its keys are those of `write_score`, and settings, left_out (why, by id), and results, a list of what
    `write_results` writes.

    Args:
        score: the score.
        settings: names and values by topic, of how it came about.
        left_out: why utterances are not part of it, by their ids.
    """
    row = {
        **_score_row(score),
        "settings": settings,
        "left_out": left_out or {},
        "results": [_result_row(utterance, score.unit) for utterance in score.utterances],
    }
    return json.dumps(row, ensure_ascii=False)


def _score_row(score: Score) -> dict[str, Any]:
    interval = asdict(score.interval())
    return {
        "rate": score.rate_name,
        "percent": _percent(100 * score.words.rate),
        **_counts(score.words, score.unit),
        **({} if score.unit == "characters" else {"characters": _counts(score.characters, "characters")}),
        "utterances": len(score.utterances),
        "normalizer": score.normalizer,
        "interval": interval | {end: _percent(interval[end]) for end in ("low", "high")},
    }


def write_results(path: Path, score: Score) -> None:
    """Write one JSON record per utterance, in the order of the corpus.

    Keys: id, speaker (where known), reference, hypothesis (both as compared, that is, normalised), errors,
    words, characters or phones (in the reference), substitutions, deletions, insertions. The file is written
    atomically.

    Raises:
        DataError: the file cannot be written.
    """
    rows = (_result_row(utterance, score.unit) for utterance in score.utterances)
    _write(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def write_alignments(path: Path, score: Score) -> None:
    """Write the summary, then the alignment of every utterance, most word errors first.

    Equal ones keep the order of the corpus. Utterances without an error come last: every utterance is in the
    file. It is written atomically.

    Raises:
        DataError: the file cannot be written.
    """
    worst_first = sorted(score.utterances, key=lambda utterance: -utterance.words.errors)
    _write(path, [summary(score), "", *(_alignment_block(utterance) for utterance in worst_first)])


def _alignment_block(utterance: UtteranceScore) -> str:
    words = utterance.words
    return (
        f"{utterance.id}  [ {words.errors} / {words.reference_length}, {words.insertions} ins, "
        f"{words.deletions} del, {words.substitutions} sub ]\n{alignment_text(utterance)}\n"
    )


def _result_row(utterance: UtteranceScore, unit: CountedUnit) -> dict[str, Any]:
    return {
        "id": utterance.id,
        **({"speaker": utterance.speaker} if utterance.speaker else {}),
        "reference": utterance.reference,
        "hypothesis": utterance.hypothesis,
        **_counts(utterance.words, unit),
    }


def _counts(counts: ErrorCounts, unit: str) -> dict[str, int]:
    return {
        "errors": counts.errors,
        unit: counts.reference_length,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
    }


def _percent(value: float) -> float | None:
    """A rate for JSON, which has no infinity."""
    return value if math.isfinite(value) else None


def _columns(text: str) -> int:
    """Columns of a terminal that the text fills: wide characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _write(path: Path, lines: Iterable[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, (line + "\n" for line in lines))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. Choose a file that can be written."
        ) from None
