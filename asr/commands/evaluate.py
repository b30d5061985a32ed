"""`asr evaluate`: a manifest and a model -> word error rate."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from asr.corpora.manifest import Utterance, read_manifest
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import DescribedDecoder, build_decoder
from asr.decoding.resources import data_digest
from asr.device import choose_device
from asr.model.saved import load_model
from asr.model.shipped import find_model
from asr.scoring.evaluation import evaluate
from asr.scoring.report import write_report
from asr.scoring.wer import Score

log = logging.getLogger("asr")


@dataclass(frozen=True)
class EvaluateSettings:
    """Word error rate of a model on a manifest; of phones where a model of phones has no lexicon."""

    # JSONL, with the transcript of every utterance
    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    # a .safetensors file that `asr train` has written, or a name: english, english-fast
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
    # folder for score.json, results.jsonl and alignments.txt
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: MODEL.MANIFEST.results by the model)"),
    ] = None
    # text rules for both sides: verbatim, lower, english or words
    normalizer: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the model's own)")
    ] = None
    batch_s: float = 120.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: EvaluateSettings) -> str:
    """Evaluate the model; the result is the text to print.

    Raises:
        AsrError: a setting, the manifest, the model or an utterance's audio cannot be used.
    """
    utterances = read_manifest(settings.manifest, allow_empty_text=True)
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    out = settings.out or files.beside(f"{settings.manifest.stem}.results")
    out.mkdir(parents=True, exist_ok=True)  # before an hour of recognition, not after it
    log.info("%s: %s", settings.model, describe(model.settings.provenance))
    decoder = build_decoder(settings.decoding.with_defaults_of(files), model)
    _warn_about_weights(decoder, utterances, settings)
    result = evaluate(
        model, utterances, normalizer=settings.normalizer, batch_s=settings.batch_s, decoder=decoder
    )
    lines = [f"Decoder: {decoder.name}", *([f"Weights: {decoder.weights}"] if decoder.weights else [])]
    if settings.decoding.open_vocabulary and decoder.vocabulary is not None:
        lines += _lines_by_vocabulary(result, decoder.vocabulary)
    return write_report(out, result, lines)


def _lines_by_vocabulary(result: Score, vocabulary: Collection[str]) -> list[str]:
    """Error rates of the utterances with words outside the vocabulary, and of the others."""
    outside = {one.id for one in result.utterances if not all(w in vocabulary for w in one.reference.split())}
    inside = {one.id for one in result.utterances} - outside
    return [
        f"{len(ids)} utterances {kind} words outside the vocabulary: {result.part(ids).wer_line()}"
        for kind, ids in (("with", outside), ("without", inside))
        if ids
    ]


def describe(provenance: Mapping[str, Any]) -> str:
    """Where a model comes from, in one line, as far as its file records it."""
    parts = []
    if "epoch" in provenance:
        parts.append(f"epoch {provenance['epoch']}")
    for key, name in (("dev_lm_wer", "WER with a language model"), ("dev_wer", "WER"), ("dev_per", "PER")):
        if key in provenance:
            parts.append(f"dev {name} {provenance[key]:.2f}%")
    if provenance.get("date"):
        parts.append(f"trained {provenance['date']}")
    if provenance.get("commit"):
        parts.append(f"commit {provenance['commit']}")
    return ", ".join(parts) or "a model of unknown origin"


def _warn_about_weights(
    decoder: DescribedDecoder, utterances: Sequence[Utterance], settings: EvaluateSettings
) -> None:
    """Warn where the weights are defaults, or were tuned on the utterances that are scored."""
    if not decoder.tuned:
        log.warning(
            "the weights are not tuned for this model and language model (%s): `asr tune DEV%s` on other "
            "utterances than these finds better ones.",
            decoder.weights, _tuned_by(settings),
        )  # fmt: skip
    elif decoder.tuning and decoder.tuning.data == data_digest(utterances):
        log.warning(
            "the weights were tuned on these utterances (%s): the score will be too good. Score others.",
            decoder.tuning.manifest,
        )


def _tuned_by(settings: EvaluateSettings) -> str:
    """The options of the `asr tune` that would tune this search."""
    decoding = settings.decoding
    files = {
        "--model": settings.model, "--lm": decoding.lm, "--lexicon": decoding.lexicon,
        "--rescore-lm": decoding.rescore_lm,
    }  # fmt: skip
    options = [f" {option} {shlex.quote(str(file))}" for option, file in files.items() if file]
    options += [" --rescore"] if decoding.rescore else []
    options += [f" --hotwords {shlex.join(decoding.hotwords)}"] if decoding.hotwords else []
    options += [" --rescore-attention"] if decoding.rescore_attention else []
    if decoding.beam.unknown_words != "allow":
        options.append(f" --beam.unknown-words {decoding.beam.unknown_words}")
    return "".join(options)
