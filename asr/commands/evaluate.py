"""`asr evaluate`: a manifest and a model -> word error rate."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from asr.commands.common_options import BatchSeconds, Device, ModelName
from asr.commands.options import check_output
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import DescribedDecoder, build_decoder
from asr.decoding.resources import data_digest
from asr.errors import AsrError
from asr.export.loading import Engine, load_with_engine
from asr.files import make_writable, write_text
from asr.manifests.left_out import OnError
from asr.manifests.manifest import read_fields, read_manifest, read_usable
from asr.manifests.utterance import Utterance
from asr.model.shipped import find_model
from asr.report.evaluation import about_evaluation, describe_settings, write_page
from asr.scoring.evaluation import Evaluation
from asr.scoring.results import result_json, write_score_folder
from asr.scoring.speakers import speaker_report
from asr.scoring.wer import Score
from asr.torchrun import rank_and_world_size
from asr.transcripts.record import RecordingTranscript
from asr.transcripts.sclite import format_ctm, format_trn

log = logging.getLogger("asr")


@dataclass(frozen=True)
class EvaluateSettings:
    """Word error rate of a model on a manifest; of phones where a model of phones has no lexicon."""

    # JSONL, with the transcript of every utterance
    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    model: ModelName
    # folder for report.html, score.json, results.jsonl, alignments.txt, speakers.txt, and for sclite
    # reference.trn, hypothesis.trn and hypothesis.ctm
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            aliases=["-o"],
            metavar="DIR",
            help_behavior_hint="(default: MODEL.MANIFEST.results by the model)",
        ),
    ] = None
    # the page to look at, one HTML file with sounds and pictures
    report: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: report.html in --out)")
    ] = None
    # print one JSON object instead: the score, its settings and every utterance; `asr compare` reads it
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    # stop at a line or a recording that cannot be used, or skip it: leave it out of the score and count it
    on_error: OnError = "stop"
    # text rules for both sides: verbatim, lower, english or words (words:tr for Turkish)
    normalizer: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the model's own)")
    ] = None
    batch_s: BatchSeconds = 120.0
    device: Device = "auto"
    engine: Engine = None
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: EvaluateSettings) -> str:
    """Evaluate the model; the result is the text to print.

    Raises:
        AsrError: a setting, the manifest, the model or an utterance's audio cannot be used.
    """
    utterances, unread = _read(settings)
    files = find_model(settings.model)
    model = load_with_engine(files.path, settings.device, settings.engine)
    out = settings.out or files.beside(f"{settings.manifest.stem}.results")
    page = settings.report or out / "report.html"
    make_writable(out)  # before an hour of recognition, not after it
    check_output(page, [settings.manifest, files.path], "--report", "report.html")
    log.info("%s: %s", settings.model, describe(model.settings.provenance))
    decoder = build_decoder(settings.decoding.with_defaults_of(files), model)
    _warn_about_weights(decoder, utterances, settings)
    found = Evaluation.of(
        model, utterances, normalizer=settings.normalizer, batch_s=settings.batch_s, decoder=decoder,
        on_error=settings.on_error,
    )  # fmt: skip
    found = replace(found, left_out={**unread, **found.left_out})
    lines = [f"Decoder: {decoder.name}", *([f"Weights: {decoder.weights}"] if decoder.weights else [])]
    if settings.decoding.open_vocabulary and decoder.vocabulary is not None:
        lines += _lines_by_vocabulary(found.score, decoder.vocabulary)
    lines += [f"Left out, because they cannot be used: {len(found.left_out)}"] if found.left_out else []
    origin = describe_settings(model, settings.model, decoder, settings.manifest)
    try:
        text = write_score_folder(out, found.score, [*lines, f"Report: {page}"])
        if rank_and_world_size()[0] == 0:
            _write_for_sclite(out, found)
            run_dir = None if files.name else files.path.parent
            title = f"{files.name or files.path.stem} on {settings.manifest.name}"
            fields = read_fields(settings.manifest, found.utterances)
            about = about_evaluation(title, origin, run_dir)
            write_page(page, found, model, about, fields, settings.batch_s)
    except (OSError, AsrError):
        log.info("%s", found.score.wer_line())  # a disk that has become full must not cost the score
        raise
    if not settings.json:
        return text
    log.info("%s; report: %s", found.score.wer_line(), page)
    return result_json(found.score, origin, found.left_out)


def _read(settings: EvaluateSettings) -> tuple[list[Utterance], dict[str, str]]:
    """The utterances, and why others of the manifest are left out."""
    if settings.on_error == "skip":
        return read_usable(settings.manifest, allow_empty_text=True)
    return read_manifest(settings.manifest, allow_empty_text=True), {}


def _write_for_sclite(folder: Path, found: Evaluation) -> None:
    """Write what was compared, words with times and errors by speaker, in the formats of NIST's sclite."""
    pairs = list(zip(found.score.utterances, found.hypotheses, strict=True))
    contents = {
        "reference.trn": [format_trn(RecordingTranscript(id=one.id, text=one.reference)) for one, _ in pairs],
        "hypothesis.trn": [
            format_trn(RecordingTranscript(id=one.id, text=one.hypothesis)) for one, _ in pairs
        ],
        "hypothesis.ctm": [
            format_ctm(RecordingTranscript(id=one.id, words=found.words)) for one, found in pairs
        ],
    }
    if by_speaker := speaker_report(found.score):
        contents["speakers.txt"] = [by_speaker]
    for name, lines in contents.items():
        write_text(folder / name, lines)


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
    rates = {"dev_lm_wer": "WER with a language model", "dev_wer": "WER", "dev_per": "PER"}
    for key, name in (rates if rates.keys() & provenance.keys() else {"dev_cer": "CER"}).items():
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
    if decoder.tuning and decoder.tuning.data == data_digest(utterances):
        log.warning(
            "the weights were tuned on these utterances (%s): the score will be too good. Score others.",
            decoder.tuning.manifest,
        )
    elif not decoder.tuned:
        log.warning(
            "the weights are not tuned for this model and language model (%s): `asr tune DEV%s` on other "
            "utterances than these finds better ones.",
            decoder.weights, _tuned_by(settings),
        )  # fmt: skip


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
