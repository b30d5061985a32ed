"""Errors of each speaker, as sclite's report `sys` has them.

    | SPKR    | # Snt  # Wrd |  Corr    Sub    Del    Ins    Err  S.Err |
    |---------+--------------+------------------------------------------|
    | anna    |     2     10 |  90.0   10.0    0.0    0.0   10.0   50.0 |

Source: the SCTK toolkit's documentation of sclite, output reports (`-o sum`).
"""

import statistics
from collections.abc import Sequence

from asr.scoring.breakdown import breakdown
from asr.scoring.wer import Score

__all__ = ["speaker_report"]

_HEADS = ("Corr", "Sub", "Del", "Ins", "Err", "S.Err")


def speaker_report(score: Score) -> str:
    """A line a speaker, by their names; then all together, and mean, deviation and median of speakers.

    Utterances of no speaker count in the sum alone. Rates are percent of the words (characters, phones) in
    the references; S.Err is the share of utterances with an error.

    Returns:
        The lines; "" where no speaker is known, or a reference has no words.
    """
    names = {one.id: one.speaker for one in score.utterances if one.speaker}
    parts = sorted(breakdown(score, names), key=lambda part: part.name)
    if not parts or not score.words.reference_length:
        return ""
    rows = [(part.name, part.score) for part in parts if part.score.words.reference_length]
    width = max(len("Sum/Avg"), *(len(name) for name, _ in rows))
    line = f"|{'-' * (width + 2)}+{'-' * 15}+{'-' * 43}|"
    heads = " ".join(f"{head:>6}" for head in _HEADS)
    lines = [f"| {'SPKR':{width}} | {'# Snt':>6} {'# Wrd':>6} | {heads} |", line]
    lines += [_row(name, width, part) for name, part in rows]
    lines += [line, _row("Sum/Avg", width, score), line]
    columns = list(zip(*(_rates(part) for _, part in rows), strict=True))
    sizes = list(zip(*((len(part.utterances), part.words.reference_length) for _, part in rows), strict=True))
    for name, of in (("Mean", statistics.fmean), ("S.D.", _deviation), ("Median", statistics.median)):
        counts = " ".join(f"{of(column):6.1f}" for column in sizes)
        lines.append(f"| {name:{width}} | {counts} | {_percent([of(column) for column in columns])} |")
    return "".join(f"{text}\n" for text in lines)


def _row(name: str, width: int, part: Score) -> str:
    counts = f"{len(part.utterances):6} {part.words.reference_length:6}"
    return f"| {name:{width}} | {counts} | {_percent(_rates(part))} |"


def _percent(values: Sequence[float]) -> str:
    return " ".join(f"{value:6.1f}" for value in values)


def _rates(part: Score) -> list[float]:
    words, wrong = part.words, sum(one.words.errors > 0 for one in part.utterances)
    counts = (words.hits, words.substitutions, words.deletions, words.insertions, words.errors)
    return [
        *(100 * count / words.reference_length for count in counts), 100 * wrong / len(part.utterances),
    ]  # fmt: skip


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
