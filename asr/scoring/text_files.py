"""Score one text file against another, one utterance per line, matched by line number or by utterance id.

The files are in UTF-8. A line ends at a line feed and nowhere else; an empty line is an utterance with an
empty transcript, and no line is ever dropped. Whether lines begin with utterance ids is set by a flag and
never guessed: a wrong guess would count ids as correct words, or lose the first words.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from asr.errors import DataError
from asr.scoring.wer import Score, score

__all__ = ["score_files"]

log = logging.getLogger("asr")

_NAMED = 5  # ids that a message names; further ones are only counted


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
    references, hypotheses = _read_lines(reference), _read_lines(hypothesis)
    if not ids:
        if len(references) != len(hypotheses):
            raise DataError(
                f"{reference} has {len(references)} lines, but {hypothesis} has {len(hypotheses)}. One line "
                "per utterance was expected in both, in the same order. Add the missing lines, empty ones "
                "too; if every line begins with an utterance id, add --ids."
            )
        if _look_like_ids(references, hypotheses):
            log.warning(
                "%s and %s: every line begins with a different token that is the same in both files, such "
                "as %r. If these are utterance ids, add --ids: now they are counted as correct words.",
                reference,
                hypothesis,
                references[0].split()[0],
            )
        names = [f"line-{number}" for number in range(1, len(references) + 1)]
        return _warn_about_case(score(references, hypotheses, names, normalizer))

    reference_by_id, hypothesis_by_id = _by_id(references, reference), _by_id(hypotheses, hypothesis)
    missing = [name for name in reference_by_id if name not in hypothesis_by_id]
    extra = [name for name in hypothesis_by_id if name not in reference_by_id]
    if missing or extra:
        found = []
        if missing:
            found.append(
                f"{hypothesis} lacks {len(missing)} of the {len(reference_by_id)} ids of {reference} "
                f"({_few(missing)})"
            )
        if extra:
            found.append(f"{hypothesis} has {len(extra)} ids that {reference} lacks ({_few(extra)})")
        raise DataError(
            f"{' and '.join(found)}. The same ids were expected in both. Add the missing lines (an id alone "
            "is an empty transcript), or remove the extra ones."
        )
    texts = [hypothesis_by_id[name] for name in reference_by_id]
    return _warn_about_case(score(list(reference_by_id.values()), texts, list(reference_by_id), normalizer))


def _read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, cut at line feeds only, without carriage returns and byte order mark."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist. A text file with one utterance per line was expected."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. A text file was expected."
        ) from None
    if not content:
        raise DataError(f"{path} is empty. One line per utterance was expected.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = content.removesuffix(b"\n").split(b"\n")
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} line {number}: byte 0x{line[error.start]:02x}, number {error.start + 1} of the line "
                "is not UTF-8. UTF-8 text was expected. Convert the file, for example with "
                "iconv -f LATIN1 -t UTF-8."
            ) from None
    return texts


def _by_id(lines: list[str], path: Path) -> dict[str, str]:
    """Transcripts by the first token of their line, in the file's order."""
    texts: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
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
    """Whether the first tokens agree line by line, are all different, and none is a plain word."""
    first = set()
    for left, right in zip(references, hypotheses, strict=True):
        tokens, others = left.split(maxsplit=1), right.split(maxsplit=1)
        if not tokens or not others or tokens[0] != others[0] or tokens[0] in first:
            return False
        if not any(character.isdigit() or character in "-_" for character in tokens[0]):
            return False
        first.add(tokens[0])
    return len(references) > 1


def _warn_about_case(result: Score) -> Score:
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


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
