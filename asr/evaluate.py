"""`asr evaluate`: a manifest and a model -> word error rate."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from asr.corpora.manifest import Utterance, read_manifest
from asr.errors import SettingsError
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.scoring.report import summary, write_alignments, write_results
from asr.scoring.wer import Score, score
from asr.training.distributed import choose_device
from asr.transcribe import Segment, recognise

log = logging.getLogger("asr")


@dataclass(frozen=True)
class EvaluateSettings:
    """Word error rate of a model on a manifest, with greedy decoding."""

    manifest: Annotated[Path, tyro.conf.Positional]  # JSONL, with the true text of every utterance
    model: Path  # a .safetensors file that `asr train` has written
    out: Path | None = None  # folder for results.jsonl and alignments.txt; None: MANIFEST.results beside the manifest
    normalizer: str | None = None  # text rules for both sides; None: the model's
    batch_s: float = 120.0  # seconds of audio in a batch, padding included
    device: str = "auto"  # auto, cpu, cuda or cuda:N


def run(settings: EvaluateSettings) -> str:
    """Evaluate as the command line says; the text is for the user."""
    if settings.batch_s <= 0:
        raise SettingsError(f"batch-s must be above 0. Got {settings.batch_s:g}.")
    utterances = read_manifest(settings.manifest, allow_empty_text=True)
    model = load_model(settings.model, choose_device(settings.device))
    result = evaluate(model, utterances, normalizer=settings.normalizer, batch_s=settings.batch_s)
    out = settings.out or settings.manifest.with_suffix(".results")
    return report(result, out)


def evaluate(
    model: AcousticModel, utterances: Sequence[Utterance], *, normalizer: str | None = None, batch_s: float = 120.0
) -> Score:
    """Recognise utterances and score the result.

    Args:
        model: in evaluation mode, on its device.
        utterances: with their true text.
        normalizer: text rules for both sides; None for the model's.
        batch_s: seconds of audio in a batch, padding included.

    Raises:
        AudioError: an utterance's audio cannot be used. A score over what is left would be another score.
    """
    segments = [Segment(utterance.audio_filepath, utterance.offset, utterance.duration) for utterance in utterances]
    texts: list[str] = []
    for result in recognise(model, segments, batch_s):
        if result.hypothesis is None:
            raise result.error or SettingsError(f"{result.segment.path}: no hypothesis")
        texts.append(result.hypothesis.text)
        log.info("%d of %d utterances", len(texts), len(utterances), extra={"transient": True})
    references = [utterance.text for utterance in utterances]
    names = [utterance.id for utterance in utterances]
    return score(references, texts, names, normalizer or model.settings.normalizer)


def report(result: Score, out: Path) -> str:
    """Write per-utterance results and alignments into a folder; the summary is for the user."""
    write_results(out / "results.jsonl", result)
    write_alignments(out / "alignments.txt", result)
    return f"{summary(result)}\nPer utterance: {out / 'results.jsonl'}, {out / 'alignments.txt'}"
