"""An examination on one screen: what was found, the alphabet, the longest utterances, a verdict."""

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from asr.doctor.examination import Examination
from asr.doctor.findings import CHECKS, Finding
from asr.doctor.sets import training_memory_mb
from asr.errors import first_few, plural
from asr.progress import clock

__all__ = ["heading", "report", "verdict"]

_EXAMPLES = 2  # of each check
_LETTERS = 60  # of the alphabet
_WIDTH = 150  # of a line with an example
_LONGEST = 3  # utterances


def report(examination: Examination) -> str:
    """The text to print."""
    found = examination.findings
    lines = [heading(examination)]
    for severity in ("error", "warning", "note"):
        some = [one for one in found if one.severity == severity]
        if some:
            lines += ["", f"{severity}s"]
        for check, group in groupby(some, key=lambda one: one.check):
            lines += _of_check(check, list(group), many_manifests=len(examination.utterances) > 1)
    lines += ["", f"alphabet: {_alphabet(examination)}"]
    utterances = [one for part in examination.utterances.values() for one in part]
    longest = sorted(utterances, key=lambda one: -one.duration)[:_LONGEST]
    named = ", ".join(
        f"{one.id} {one.duration:.1f} s ({training_memory_mb(one.duration):,.0f} MB in training)"
        for one in longest
    )
    lines += [f"longest: {named}", verdict(found)]
    return "\n".join(lines)


def heading(examination: Examination) -> str:
    """What was examined, and how fast: one line."""
    utterances = [one for part in examination.utterances.values() for one in part]
    speakers = len({one.speaker for one in utterances} - {""})
    how = "headers alone" if examination.quick else "decoded"
    speed = examination.audio_s / max(examination.processor_s, 1e-3)
    return (
        f"{plural(len(examination.utterances), 'manifest')}, {plural(len(utterances), 'utterance')}, "
        f"{clock(examination.audio_s)} of audio, {plural(speakers, 'speaker')}; {how} in "
        f"{examination.elapsed_s:.1f} s, {speed:,.0f} times real time a core"
    )


def _of_check(check: str, group: Sequence[Finding], *, many_manifests: bool) -> list[str]:
    lines = [f"  {check:<17} {sum(one.count for one in group):>6,}  {CHECKS[check].title}"]
    for one in group[:_EXAMPLES]:
        manifest = Path(one.manifest).name if many_manifests or not one.id else ""
        where = f"{manifest} {one.id}".strip()
        lines.append(f"{'':28}{' '.join(f'{where}: {one.detail}'.split())}"[:_WIDTH])
    return lines


def _alphabet(examination: Examination) -> str:
    counts = examination.alphabet.counts
    shown = [f"{character_name(one)} {count:,}" for one, count in counts.most_common()]
    return f"{len(shown)} characters: {first_few(shown, most=_LETTERS)}"


def character_name(character: str) -> str:
    """A character as it can be seen: a combining mark on a circle, an invisible one by its code."""
    if character == " ":
        return "space"
    circle = "\u25cc" if unicodedata.category(character).startswith("M") else ""
    return circle + repr(character)[1:-1]


def verdict(found: Sequence[Finding]) -> str:
    """Whether the manifests can be trained on: one line."""
    counts = {name: sum(one.severity == name for one in found) for name in ("error", "warning", "note")}
    numbers = ", ".join(plural(count, name) for name, count in counts.items())
    if counts["error"]:
        return f"verdict: not ready: {numbers}. --fix DIR writes manifests without what cannot be used."
    return f"verdict: ready to train: {numbers}."
