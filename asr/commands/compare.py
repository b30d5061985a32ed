"""`asr compare A B`: which of two results has fewer errors, where, and whether that may be chance."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from asr.commands.text_scores import score_texts
from asr.errors import DataError, SettingsError
from asr.files import read_lines

if TYPE_CHECKING:
    from asr.scoring.wer import Score

__all__ = ["CompareSettings", "run"]

log = logging.getLogger("asr")

_RESULTS = "results.jsonl"  # in a folder of `asr evaluate`


@dataclass(frozen=True)
class CompareSettings:
    """Which of two results of the same utterances has fewer errors, where, and whether that may be chance.

    A result is the folder that `asr evaluate` writes, its results.jsonl, what `asr evaluate --json` and `asr
    score --json` print, or, with --reference, a file of transcripts (.trn, .ctm, .jsonl, or text).
    """

    # The result of one system.
    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    # The result of the other one.
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")]
    # The true texts, where A and B are files of transcripts.
    reference: Annotated[Path | None, tyro.conf.arg(metavar="REF")] = None
    # With --reference, rules for all texts: verbatim, lower, english or words (words:tr for Turkish).
    normalizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "verbatim"
    # With --reference, lines of text files begin with utterance ids.
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    # Compare the utterances that both have, where they have different ones.
    common: tyro.conf.FlagCreatePairsOff[bool] = False
    # Utterances that are shown, those that changed most.
    examples: int = 5


def run(settings: CompareSettings) -> str:
    """Compare two results; returns the text to print.

    Raises:
        DataError: a file cannot be read, or the two are not of the same utterances.
        SettingsError: the normalizer is unknown, or --reference is missing.
    """
    from asr.scoring.pair import Pair

    first, second = (_read(path, settings) for path in (settings.first, settings.second))
    if not settings.common:
        pair = Pair(first, second)
    else:
        pair = Pair.common(first, second)
        count, counts = len(pair.first.utterances), [len(one.utterances) for one in (first, second)]
        if {*counts} != {count}:
            log.warning(
                "compared are the %d utterances that both have, of %d in A and %d in B", count, *counts
            )
    return f"A is {settings.first}, B is {settings.second}.\n{pair.report(settings.examples)}"


def _read(path: Path, settings: CompareSettings) -> "Score":
    """A result as a score."""
    file = path / _RESULTS if path.is_dir() else path
    if not file.exists():
        missing = f"there is no {_RESULTS} in it" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {missing}. Expected a result of `asr evaluate`, or transcripts.")
    result = _result(file) if file.suffix.lower() in (".json", ".jsonl") else None
    if result is not None:
        return _score(file, *result)
    if settings.reference is None:
        raise SettingsError(
            f"{path}: has hypotheses without references. Expected a result of `asr evaluate` or `asr score "
            f"--json`; or name the true texts: --reference FILE."
        )
    return score_texts(settings.reference, file, settings.normalizer, ids=settings.ids)


def _result(path: Path) -> tuple[list[dict[str, Any]], str] | None:
    """The rows of a result and its text rules; None where a file holds other things, such as transcripts."""
    lines = read_lines(path)
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: broken JSON: {error.msg}. Expected a result, such as of --json.") from None
    rules = "verbatim"  # the texts have gone through the rules already
    if len(rows) == 1 and isinstance(rows[0], dict) and isinstance(rows[0].get("results"), list):
        rules, rows = rows[0].get("normalizer", rules), rows[0]["results"]
    if not all(isinstance(row, dict) and {"reference", "hypothesis"} <= row.keys() for row in rows):
        return None
    return rows, rules


def _score(path: Path, rows: list[dict[str, Any]], rules: str) -> "Score":
    from asr.scoring.wer import score

    try:
        return score(
            [str(row["reference"]) for row in rows],
            [str(row["hypothesis"]) for row in rows],
            [str(row["id"]) for row in rows],
            rules,
            "phones" if rows and "phones" in rows[0] else "words",
            [str(row.get("speaker") or "") for row in rows],
        )
    except KeyError:
        raise DataError(f"{path}: an utterance has no id. Expected what `asr evaluate` writes.") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
