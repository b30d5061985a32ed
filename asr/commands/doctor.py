"""`asr doctor`: manifests -> what is wrong with their recordings and transcripts."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.common_options import BatchSeconds, Device, Rules
from asr.commands.options import check_folder, check_output
from asr.device import choose_device, usable_cores
from asr.doctor.disagreement import disagreement_findings
from asr.doctor.examination import Examination, examine
from asr.doctor.page import build_page
from asr.doctor.report import report
from asr.errors import AsrError, DataError, SettingsError, check_number, plural
from asr.files import write_text
from asr.manifests.manifest import write_manifest
from asr.model.saved import load_model
from asr.model.shipped import find_model
from asr.text.normalize import normalize

__all__ = ["DoctorSettings", "run"]


@dataclass(frozen=True)
class DoctorSettings:
    """Look for what is wrong with manifests, each and together: audio, transcripts, speakers, alphabet.

    Exit status 0 without an error, else 1; warnings and notes do not change it.
    """

    # JSONL; what is trained on comes first: speakers and sentences of the others should not be in it.
    manifests: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST...")]
    # Read only the headers of recordings: nothing about levels, channels, bandwidth and equal recordings.
    quick: bool = False
    # Print each finding as a line of JSON.
    json: bool = False
    # Write all findings as a page there, too: HTML that opens from disk.
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    # Write the manifests there with corrected durations and without lines that cannot be used; audio stays as
    # it is.
    fix: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    # A model's file, or a name such as english: find transcripts that disagree with what it hears.
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    normalizer: Rules = "english"
    # Threads that read audio.
    workers: int = field(default_factory=usable_cores)
    batch_s: BatchSeconds = 120.0
    device: Device = "auto"

    def __post_init__(self) -> None:
        if not self.manifests:
            raise SettingsError("no manifest. Expected at least one .jsonl file. Name one.")
        check_number("--workers", self.workers, least=1)
        normalize("", self.normalizer)  # raises for an unknown name
        if self.report is not None:
            check_output(self.report, self.manifests, "--report", "doctor.html")
        if self.fix is not None:
            check_folder(self.fix, "--fix")
            goals = [(self.fix / path.name).resolve() for path in self.manifests]
            twice = next((goal for number, goal in enumerate(goals) if goal in goals[:number]), None)
            if twice:
                raise SettingsError(f"--fix: two manifests would be {twice}. Expected different names.")
            if {path.resolve() for path in self.manifests} & {*goals}:
                raise SettingsError(
                    f"--fix {self.fix} is the folder of the manifests. Expected another one: these are kept."
                )


def run(settings: DoctorSettings) -> list[tuple[str | None, AsrError | None]]:
    """Examine the manifests.

    Returns:
        The text to print, with an error if there is one among the findings.

    Raises:
        AsrError: a manifest or the model cannot be read, or a manifest cannot be written.
    """
    paths = list(dict.fromkeys(settings.manifests))
    found = examine(paths, normalizer=settings.normalizer, workers=settings.workers, quick=settings.quick)
    if settings.model is not None:
        model = load_model(find_model(settings.model).path, choose_device(settings.device))
        for path in map(str, paths):
            found.add(disagreement_findings(path, found.usable(path), model, settings.batch_s))
    lines = []
    if settings.json:
        lines += [json.dumps(one.as_row(), ensure_ascii=False) for one in found.findings]
    else:
        lines.append(report(found))
    if settings.report is not None:
        _write_page(found, settings.report)
        lines += [] if settings.json else [f"report: {settings.report}"]
    if settings.fix is not None:
        written = _fix(found, settings.fix)
        lines += [] if settings.json else written
    errors = sum(one.severity == "error" for one in found.findings)
    results: list[tuple[str | None, AsrError | None]] = [("\n".join(lines) or None, None)]
    if errors:
        results.append((None, DataError(f"{plural(errors, 'error')} in {', '.join(map(str, paths))}.")))
    return results


def _write_page(found: Examination, path: Path) -> None:
    try:
        write_text(path, build_page(found))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}. Choose another file.") from error


def _fix(found: Examination, folder: Path) -> list[str]:
    """Write what can be used of each manifest."""
    lines = []
    for name, utterances in found.utterances.items():
        usable, path = found.usable(name), folder / Path(name).name
        before = {one.id: one.duration for one in utterances}
        changed = sum(before[one.id] != one.duration for one in usable)
        if usable:
            write_manifest(path, usable)
            lines.append(
                f"{path}: {len(usable):,} of {len(utterances):,} utterances, {changed:,} durations corrected"
            )
        else:
            lines.append(f"{path}: not written: nothing of {name} can be used")
    return lines
