"""A score for people: a summary, alignments to read, and one JSON record an utterance."""

import json
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from asr.errors import DataError
from asr.scoring.wer import Score, Unit, UtteranceScore

__all__ = ["alignment_text", "summary", "write_alignments", "write_results"]


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
    reference = iter(utterance.reference.split(" "))
    hypothesis = iter(utterance.hypothesis.split(" "))
    lines = ["REF: ", "HYP: ", "EVAL:"]
    for operation in utterance.operations:
        said = next(reference) if operation != "I" else ""
        heard = next(hypothesis) if operation != "D" else ""
        width = max(_columns(said), _columns(heard))
        mark = "" if operation == "C" else operation
        for row, cell in enumerate((said or "*" * width, heard or "*" * width, mark)):
            lines[row] += " " + cell + " " * (width - _columns(cell))
    return "\n".join(line.rstrip() for line in lines)


def summary(score: Score) -> str:
    """What a person wants to know first, without a newline at the end.

        %WER 5.95 [ 46 / 773, 3 ins, 3 del, 40 sub ]
        %CER 2.10 [ 78 / 3714, 20 ins, 22 del, 36 sub ]
        95% interval of the WER: 4.21 to 7.90 (bootstrap over utterances: 100)
        Without any error: 63.00% of the utterances [ 63 / 100 ]
        Normalizer: english

    A line more says how many references are empty, when some are. Where phones were counted, the rate is
    called PER, a line says so, and there is no rate of characters.
    """
    low, high = score.interval()
    total = len(score.utterances)
    perfect = sum(utterance.words.errors == 0 for utterance in score.utterances)
    empty = sum(not utterance.reference for utterance in score.utterances)
    rate = f"95% interval of the {score.rate_name}: {low:.2f} to {high:.2f}"
    lines = [
        score.wer_line(),
        *([score.cer_line()] if score.unit == "words" else []),
        f"{rate} (bootstrap over utterances: {total})",
        f"Without any error: {100 * perfect / total:.2f}% of the utterances [ {perfect} / {total} ]",
        f"Normalizer: {score.normalizer}",
    ]
    if score.unit == "phones":
        lines.append(
            "Counted: phones, against each reference as the model's lexicon pronounces it; not words"
        )
    if empty:
        lines.append(
            f"Empty references: {empty} (each hypothesis {score.unit[:-1]} there counts as an insertion)"
        )
    return "\n".join(lines)


def write_results(path: Path, score: Score) -> None:
    """Write one JSON record an utterance, in the order of the corpus.

    Keys: id, reference, hypothesis (both as compared, that is, normalised), errors, words or phones (in the
    reference), substitutions, deletions, insertions. The file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    _write(path, (_json_row(utterance, score.unit) for utterance in score.utterances))


def write_alignments(path: Path, score: Score) -> None:
    """Write the summary, then the alignment of every utterance, most word errors first.

    Equal ones stand in the order of the corpus. Utterances without an error stand at the end: every utterance
    is in the file. It appears whole or not at all.

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


def _json_row(utterance: UtteranceScore, unit: Unit) -> str:
    words = utterance.words
    row = {
        "id": utterance.id,
        "reference": utterance.reference,
        "hypothesis": utterance.hypothesis,
        "errors": words.errors,
        unit: words.reference_length,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
    }
    return json.dumps(row, ensure_ascii=False)


def _columns(text: str) -> int:
    """Columns of a terminal that the text fills: wide characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _write(path: Path, lines: Iterable[str]) -> None:
    # A pipe or a terminal must be written to directly: renaming a file onto it would replace it.
    direct = path.exists() and not path.is_file()
    target = path if direct else path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if not direct:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # a lone surrogate, legal in JSON, cannot be written as UTF-8; its escape is legal JSON again
            with target.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.writelines(line + "\n" for line in lines)
            if not direct:
                target.replace(path)
        finally:
            if not direct:
                target.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. Choose a file that you may write."
        ) from None
