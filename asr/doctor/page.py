"""An examination as a page: one HTML file that opens from disk, with every finding that fits."""

import unicodedata
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

from asr.doctor.examination import Examination
from asr.doctor.findings import CHECKS
from asr.doctor.report import character_name, heading, verdict
from asr.doctor.sets import training_memory_mb
from asr.doctor.texts import character_check
from asr.errors import first_few
from asr.pages.render import render
from asr.progress import clock

__all__ = ["build_page"]

_MOST_ROWS = 300  # of a check: the page should open at once
_MAX_NAMED = 3  # manifests in the title
_LONGEST = 20  # utterances
_DURATIONS_S = (1, 2, 4, 6, 8, 10, 15, 20, 30)  # borders of the bars


def build_page(examination: Examination) -> str:
    """The page, as HTML.

    Args:
        examination: what was found, in its order.
    """
    found = examination.findings
    utterances = [one for part in examination.utterances.values() for one in part]
    names = [Path(name).name for name in examination.utterances]
    severities = ("error", "warning", "note")
    checks: dict[str, list[dict[str, Any]]] = {severity: [] for severity in severities}
    for name, group in groupby(found, key=lambda one: one.check):
        rows = list(group)
        checks[CHECKS[name].severity].append({
            "name": name,
            "title": CHECKS[name].title,
            "unusable": CHECKS[name].unusable,
            "count": sum(one.count for one in rows),
            "rows": [(Path(one.manifest).name, one.id, one.detail) for one in rows[:_MOST_ROWS]],
            "more": max(len(rows) - _MOST_ROWS, 0),
        })  # fmt: skip
    return render(
        "doctor.html",
        title=first_few(names, most=_MAX_NAMED),
        heading=heading(examination),
        verdict=verdict(found),
        counts={severity: sum(one.severity == severity for one in found) for severity in severities},
        quick=examination.quick,
        manifests=[_manifest_row(examination, name) for name in examination.utterances],
        checks=checks,
        durations=_histogram([one.duration for one in utterances]),
        letters=_letters(examination),
        longest=[
            (one.id, f"{one.duration:.1f}", f"{training_memory_mb(one.duration):,.0f}")
            for one in sorted(utterances, key=lambda one: -one.duration)[:_LONGEST]
        ],
    )


def _manifest_row(examination: Examination, name: str) -> dict[str, Any]:
    part = examination.utterances[name]
    counts = Counter(one.severity for one in examination.findings if one.manifest == name)
    return {
        "path": name,
        "utterances": f"{len(part):,}",
        "length": clock(sum(one.duration for one in part)),
        "speakers": f"{len({one.speaker for one in part} - {''}):,}",
        "errors": f"{counts['error']:,}",
        "warnings": f"{counts['warning']:,}",
        "notes": f"{counts['note']:,}",
        "usable": f"{len(examination.usable(name)):,}",
    }


def _histogram(durations: list[float]) -> list[tuple[str, int]]:
    """How many utterances have which length: a label (seconds) and a count for each range."""
    names = [*(f"≤{border}" for border in _DURATIONS_S), f">{_DURATIONS_S[-1]}"]
    counts = [0] * len(names)
    for duration in durations:
        counts[sum(duration > border for border in _DURATIONS_S)] += 1
    return list(zip(names, counts, strict=True))


def _letters(examination: Examination) -> list[dict[str, str]]:
    """The alphabet, the most frequent character first."""
    alphabet = examination.alphabet
    rare = set(alphabet.rare())
    return [
        {
            "character": character_name(one),
            "name": unicodedata.name(one, f"U+{ord(one):04X}").lower(),
            "count": f"{count:,}",
            "odd": character_check(one) or ("rare" if one in rare else ""),
        }
        for one, count in alphabet.counts.most_common()
    ]
