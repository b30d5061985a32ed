"""Score one text file against another, one utterance per line, matched by line number or by utterance id.

The files are in UTF-8. A line ends at a line feed and nowhere else; an empty line is an utterance with an
empty transcript, and no line is ever dropped. Whether lines begin with utterance ids is set by a flag and
never guessed: a wrong guess would count ids as correct words, or lose the first words.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from asr.errors import DataError, first_few
from asr.files import read_lines
from asr.scoring.wer import Score, score

__all__ = ["read_by_id", "score_by_id", "score_files", "warn_about_case"]

log = logging.getLogger("asr")


def score_files(reference: Path, hypothesis: Path, *, normalizer: str, ids: bool) -> Score:
    """Score one text file against another.

    Args:
        reference: text file with the true texts, one utterance per line.
        hypothesis: text file with the recognised texts.
        normalizer: name of the rules applied to both sides.
        ids: True: the first token of each line is the utterance's id, and lines are matched by id, in the
            order of the reference. False: lines are matched by number, and the ids are line-1, line-2, ...

    Raises:
        DataError: a file cannot be read, is empty or not UTF-8; line counts differ; an id is missing, extra
            or appears twice.
        SettingsError: the normalizer is unknown.
    """
    if ids:
        return score_by_id(read_by_id(reference), read_by_id(hypothesis), reference, hypothesis, normalizer)
    references, hypotheses = _lines(reference), _lines(hypothesis)
    if len(references) != len(hypotheses):
        raise DataError(
            f"{reference} has {len(references)} lines, but {hypothesis} has {len(hypotheses)}. One line "
            "per utterance was expected in both, in the same order. Add the missing lines, empty ones "
            "too; if every line begins with an utterance id, add --ids."
        )
    if _look_like_ids(references, hypotheses):
        log.warning(
            "%s and %s: every line begins with a different token, and they are the same in both files, such "
            "as %r. If these are utterance ids, add --ids: now they are counted as correct words.",
            reference,
            hypothesis,
            references[0].split()[0],
        )
    elif _look_like_trn(references, hypotheses):
        log.warning(
            "%s and %s: every line ends with a token in brackets, such as %r. If these are the utterance ids "
            "of sclite's trn format, rename the files to .trn: now they are counted as words.",
            reference,
            hypothesis,
            references[0].split()[-1],
        )
    names = [f"line-{number}" for number in range(1, len(references) + 1)]
    return warn_about_case(score(references, hypotheses, names, normalizer))


def score_by_id(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    reference: Path,
    hypothesis: Path,
    normalizer: str,
) -> Score:
    """Score texts against texts with the same utterance ids, in the order of the references.

    Args:
        references: the true texts by id.
        hypotheses: the recognised texts by id.
        reference: where the true texts are from, for messages.
        hypothesis: where the recognised texts are from.
        normalizer: name of the rules applied to both sides.

    Raises:
        DataError: an id is missing or extra.
        SettingsError: the normalizer is unknown.
    """
    missing = [name for name in references if name not in hypotheses]
    extra = [name for name in hypotheses if name not in references]
    if missing or extra:
        found = []
        if missing:
            found.append(
                f"{hypothesis} lacks {len(missing)} of the {len(references)} ids of {reference} "
                f"({first_few(missing)})"
            )
        if extra:
            found.append(f"{hypothesis} has {len(extra)} ids that {reference} lacks ({first_few(extra)})")
        raise DataError(
            f"{' and '.join(found)}. The same ids were expected in both. Add the missing lines (an id alone "
            "is an empty transcript), or remove the extra ones."
        )
    texts = [hypotheses[name] for name in references]
    return warn_about_case(score(list(references.values()), texts, list(references), normalizer))


def _lines(path: Path) -> list[str]:
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} is empty. One line per utterance was expected.")
    return lines


def read_by_id(path: Path) -> dict[str, str]:
    """Transcripts by the first token of their line, in the file's order.

    Raises:
        DataError: the file cannot be read, is empty or not UTF-8, has an empty line, or an id twice.
    """
    texts: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        tokens = line.split(maxsplit=1)
        if not tokens:
            raise DataError(
                f"{path} line {number} is empty. With --ids every line begins with an utterance id. "
                "Remove the line, or add its id."
            )
        name = tokens[0]
        if name in texts:
            raise DataError(
                f"{path} line {number}: the id {name!r} is already in line {first_line[name]}. "
                "Each id was expected once. Remove one of the lines."
            )
        texts[name], first_line[name] = tokens[1] if len(tokens) > 1 else "", number
    return texts


def _look_like_ids(references: list[str], hypotheses: list[str]) -> bool:
    """Whether both have the same first tokens, all different, and none is a plain word."""
    first, others = (
        {"".join(line.split(maxsplit=1)[:1]) for line in side} for side in (references, hypotheses)
    )
    return (
        len(references) > 1
        and first == others
        and len(first) == len(references) == len(hypotheses)
        and all(any(character.isdigit() or character in "-_" for character in token) for token in first)
    )


def _look_like_trn(references: list[str], hypotheses: list[str]) -> bool:
    """Whether every line of both ends with a token in brackets, each a different one."""
    ends = [[line.split()[-1:] for line in lines] for lines in (references, hypotheses)]
    tokens = [end[0] if end else "" for end in ends[0] + ends[1]]
    return all(re.fullmatch(r"\([^()]+\)", token) for token in tokens) and all(
        len({*map(str, side)}) == len(side) for side in ends
    )


def warn_about_case(result: Score) -> Score:
    """Warn where the two sides are written in opposite case: no word could be right."""
    reference_case = _case(utterance.reference for utterance in result.utterances)
    hypothesis_case = _case(utterance.hypothesis for utterance in result.utterances)
    if {reference_case, hypothesis_case} == {"upper case", "lower case"}:
        log.warning(
            "The reference is all in %s and the hypothesis all in %s, so no word can be right. "
            "--normalizer lower compares without case.",
            reference_case,
            hypothesis_case,
        )
    return result


def _case(texts: Iterable[str]) -> str:
    """The one case that all letters of these texts have, or "" where there is none."""
    together = " ".join(texts)
    return "upper case" if together.isupper() else "lower case" if together.islower() else ""
