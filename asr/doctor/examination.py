"""Manifests -> all that is wrong with them, and manifests without it."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.doctor.audio import AudioFacts, audio_findings, measure_audio
from asr.doctor.findings import CHECKS, Finding
from asr.doctor.sets import set_findings
from asr.doctor.texts import Alphabet, text_findings
from asr.errors import AudioError
from asr.manifests.manifest import parse_manifest
from asr.manifests.utterance import Utterance
from asr.progress import Progress

__all__ = ["Examination", "examine"]

_ORDER = {name: number for number, name in enumerate(CHECKS)}


@dataclass
class Examination:
    """Manifests that were examined.

    Attributes:
        utterances: of each manifest, by its path as text.
        findings: what is wrong, the worst check first, and within a check the highest values.
        alphabet: of all transcripts, after the text rules.
        file_s: lengths of the files, by utterance, where they are known.
        elapsed_s: that it took, seconds.
        processor_s: likewise, of all cores together.
        quick: whether only headers were read.
    """

    utterances: dict[str, list[Utterance]]
    findings: list[Finding]
    alphabet: Alphabet = field(default_factory=Alphabet)
    file_s: dict[tuple[str, str], float] = field(default_factory=dict)
    elapsed_s: float = 0.0
    processor_s: float = 0.0
    quick: bool = False

    @property
    def audio_s(self) -> float:
        """Seconds of audio, as the manifests have it."""
        return sum(one.duration for part in self.utterances.values() for one in part)

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings in their order."""
        self.findings = sorted([*self.findings, *findings], key=lambda one: (_ORDER[one.check], -one.value))

    def usable(self, manifest: str) -> list[Utterance]:
        """The utterances of a manifest that something can be learned from, with corrected durations."""
        bad = {one.id for one in self.findings if one.manifest == manifest and CHECKS[one.check].unusable}
        wrong = {
            one.id
            for one in self.findings
            if one.manifest == manifest and one.check in ("duration", "unused-audio")
        }
        kept = []
        for one in self.utterances[manifest]:
            if one.id in wrong:
                one = replace(one, duration=round(self.file_s[manifest, one.id] - one.offset, 6))
            if one.id not in bad:
                kept.append(one)
        return kept


def examine(paths: Sequence[Path], *, normalizer: str, workers: int, quick: bool = False) -> Examination:
    """Examine manifests: each, and together.

    Args:
        paths: of the manifests; what is trained on comes first.
        normalizer: the text rules of the training.
        workers: threads that read audio.
        quick: read headers alone.

    Raises:
        DataError: a manifest cannot be read.
    """
    utterances: dict[str, list[Utterance]] = {}
    findings: list[Finding] = []
    for path in paths:
        utterances[str(path)], errors = parse_manifest(path)
        findings += [
            Finding(check="line", manifest=str(path), detail=str(error).removeprefix(f"{path} "))
            for error in errors
        ]
        if not utterances[str(path)]:
            findings.append(Finding(check="no-utterance", manifest=str(path), detail="nothing to train on"))
    everything = [one for part in utterances.values() for one in part]
    progress, began_s = Progress("headers" if quick else "audio", len(everything)), time.process_time()
    measured = iter(
        measure_audio(
            everything,
            workers=workers,
            quick=quick,
            report=lambda done: progress.report(done, f"{done:,} of {len(everything):,} utterances"),
        )
    )
    facts = {name: [next(measured) for _ in part] for name, part in utterances.items()}
    shared = Counter(one.audio_filepath for one in everything)
    examination = Examination(utterances, findings, quick=quick)
    for name, part in utterances.items():
        examination.file_s |= _file_seconds(name, part, facts[name])
        findings += audio_findings(name, part, facts[name], shared)
        findings += text_findings(name, part, normalizer, examination.alphabet)
    findings += set_findings(utterances, facts, normalizer)
    examination.add(examination.alphabet.findings())
    examination.elapsed_s, examination.processor_s = progress.elapsed_s, time.process_time() - began_s
    return examination


def _file_seconds(
    name: str, utterances: Sequence[Utterance], facts: Sequence[AudioFacts | AudioError]
) -> Mapping[tuple[str, str], float]:
    return {
        (name, one.id): fact.file_s
        for one, fact in zip(utterances, facts, strict=True)
        if not isinstance(fact, AudioError) and fact.file_s is not None
    }
