"""`asr score REF HYP`: word and character error rate of one text file against another."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from asr.errors import SettingsError
from asr.transcripts.formats import WITH_IDS, texts_by_id

if TYPE_CHECKING:
    from asr.scoring.wer import Score

__all__ = ["ScoreSettings", "run"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class ScoreSettings:
    """Word and character error rate of one text file against another.

    A text file has one utterance per line. Files that end in .trn, .ctm or .jsonl have utterance ids, by
    which they are matched.
    """

    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REF")]
    """Text file with the true texts."""
    hypothesis: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="HYP")]
    """Text file with the recognised texts."""
    # Verbatim, so that a score without options is that of Kaldi's compute-wer and of jiwer on the same files.
    normalizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "verbatim"
    """Rules for both sides: verbatim (as written), lower (no case), english or words (no punctuation)."""
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    """Lines begin with utterance ids, as in Kaldi's `text`, and are matched by these, not by number."""
    alignments: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the alignment of every utterance to this text file, worst first."""
    results: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the counts of every utterance to this JSONL file."""


def run(settings: ScoreSettings) -> str:
    """Score two files, write the requested reports, and return the summary to print.

    Raises:
        DataError: a file cannot be read or written, or the two do not match.
        SettingsError: the normalizer is unknown, or a report would overwrite another file of this command.
    """
    # Imported here, so that `asr --help`, which needs only the settings, stays fast.
    from asr.scoring.report import summary, write_alignments, write_results

    _check_outputs(settings)
    result = _score(settings)
    if settings.results is not None:
        write_results(settings.results, result)
    if settings.alignments is not None:
        write_alignments(settings.alignments, result)
    return summary(result)


def _score(settings: ScoreSettings) -> "Score":
    from asr.scoring.text_files import score_by_id, score_files

    paths = settings.reference, settings.hypothesis
    if not any(path.suffix.lower() in WITH_IDS for path in paths):
        return score_files(*paths, normalizer=settings.normalizer, ids=settings.ids)
    references, hypotheses = (_read_by_id(path, settings) for path in paths)
    if settings.hypothesis.suffix.lower() == ".ctm":
        empty = [name for name in references if name not in hypotheses]
        if empty:  # a recording without words has no line in a ctm
            log.warning(
                "%s: no words of %d of the %d utterances of %s, such as %s: scored as empty transcripts.",
                settings.hypothesis, len(empty), len(references), settings.reference, empty[0],
            )  # fmt: skip
        hypotheses = {**dict.fromkeys(empty, ""), **hypotheses}
    return score_by_id(references, hypotheses, *paths, settings.normalizer)


def _read_by_id(path: Path, settings: ScoreSettings) -> dict[str, str]:
    from asr.scoring.text_files import read_by_id

    if path.suffix.lower() in WITH_IDS:
        return texts_by_id(path)
    if settings.ids:
        return read_by_id(path)
    other = settings.hypothesis if path == settings.reference else settings.reference
    raise SettingsError(
        f"{other} has utterance ids, {path} has none. Expected both to have them: add --ids if the lines of "
        f"{path.name} begin with ids, or score files of the same format."
    )


def _check_outputs(settings: ScoreSettings) -> None:
    """Check that no report replaces a file that this command reads or writes."""
    taken = {settings.reference.resolve(): "the reference", settings.hypothesis.resolve(): "the hypothesis"}
    for flag, path in (("--results", settings.results), ("--alignments", settings.alignments)):
        if path is None:
            continue
        other = taken.get(path.resolve())
        if other is not None:
            raise SettingsError(f"{flag} {path} would overwrite {other}. Choose another file.")
        taken[path.resolve()] = f"the file of {flag}"
