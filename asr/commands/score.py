"""`asr score REF HYP`: word and character error rate of one text file against another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.common_options import Rules
from asr.commands.text_scores import score_texts
from asr.errors import SettingsError

__all__ = ["ScoreSettings", "run"]


@dataclass(frozen=True)
class ScoreSettings:
    """Word and character error rate of one text file against another.

    A text file has one utterance per line. Files that end in .trn, .ctm or .jsonl have utterance ids, by
    which they are matched. A reference that ends in .stm has segments of recordings; words of a .ctm are
    scored in the segment in which they are said. With the default rules, the score is that of Kaldi's
    compute-wer and of jiwer.
    """

    # Text file with the true texts.
    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REF")]
    # Text file with the recognised texts.
    hypothesis: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="HYP")]
    normalizer: Rules = "verbatim"
    # Lines begin with utterance ids, as in Kaldi's `text`, and are matched by these, not by number.
    ids: tyro.conf.FlagCreatePairsOff[bool] = False
    # Write the alignment of every utterance to this text file, worst first.
    alignments: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    # Write the counts of every utterance to this JSONL file.
    results: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    # Print one JSON object instead: the score and every utterance; `asr compare` reads it.
    json: tyro.conf.FlagCreatePairsOff[bool] = False


def run(settings: ScoreSettings) -> str:
    """Score two files, write the requested reports, and return the summary to print.

    Raises:
        DataError: a file cannot be read or written, or the two do not match.
        SettingsError: the normalizer is unknown, or a report would overwrite another file of this command.
    """
    # Imported here, so that `asr --help`, which needs only the settings, stays fast.
    from asr.scoring.results import result_json, summary, write_alignments, write_results

    _check_outputs(settings)
    result = score_texts(settings.reference, settings.hypothesis, settings.normalizer, ids=settings.ids)
    if settings.results is not None:
        write_results(settings.results, result)
    if settings.alignments is not None:
        write_alignments(settings.alignments, result)
    if settings.json:
        return result_json(
            result, {"Files": {"reference": str(settings.reference), "hypothesis": str(settings.hypothesis)}}
        )
    return summary(result)


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
