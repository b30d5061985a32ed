"""`asr evaluate`: a manifest and a model -> word error rate."""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from asr.commands.transcribe import Segment, recognise
from asr.corpora.manifest import Utterance, read_manifest
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import Decoder, build_decoder
from asr.decoding.hypothesis import OutputUnit
from asr.decoding.resources import DecodingResources, data_digest
from asr.device import choose_device
from asr.errors import AudioError
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.model.shipped import find_model
from asr.scoring.report import summary, write_alignments, write_results, write_score
from asr.scoring.wer import Score, score
from asr.text.normalize import normalize
from asr.text.phones import report_guesses
from asr.text.tokenizer import Tokenizer

log = logging.getLogger("asr")

_NAMED = 8  # characters that a message names before it only counts


@dataclass(frozen=True)
class EvaluateSettings:
    """Word error rate of a model on a manifest; of phones where a model of phones has no lexicon."""

    # JSONL, with the true text of every utterance
    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    # a .safetensors file that `asr train` has written, or a name: english, english-fast
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
    # folder for score.json, results.jsonl and alignments.txt
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: MODEL.MANIFEST.results beside the model)"),
    ] = None
    # text rules for both sides: verbatim, lower or english
    normalizer: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the model's own)")
    ] = None
    batch_s: float = 120.0  # seconds of audio in a batch, padding included; bounds the memory that is needed
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: EvaluateSettings) -> str:
    """Evaluate as the command line says; the text is for the user.

    Raises:
        AsrError: a setting, the manifest, the model or an utterance's audio cannot be used.
    """
    utterances = read_manifest(settings.manifest, allow_empty_text=True)
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    out = settings.out or files.beside(f"{settings.manifest.stem}.results")
    out.mkdir(parents=True, exist_ok=True)  # now, not after an hour of recognition
    log.info("%s: %s", settings.model, describe(model.settings.provenance))
    decoder = build_decoder(settings.decoding.with_defaults_of(files), model)
    _warn_about_weights(decoder, utterances, settings)
    result = evaluate(
        model, utterances, normalizer=settings.normalizer, batch_s=settings.batch_s, decoder=decoder
    )
    lines = [f"Decoder: {decoder.name}", *([f"Weights: {decoder.weights}"] if decoder.weights else [])]
    return report(result, out, lines)


def evaluate(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    *,
    normalizer: str | None = None,
    batch_s: float = 120.0,
    decoder: Decoder | None = None,
) -> Score:
    """Recognise utterances and score the result: words, or phones where the decoder writes these.

    Args:
        model: on its device.
        utterances: with their true text.
        normalizer: text rules for both sides; None for the model's.
        batch_s: seconds of audio in a batch, padding included.
        decoder: see `build_decoder`; None decodes greedily.

    Raises:
        AudioError: an utterance's audio cannot be used. A score over what is left would be another score.
        DataError: the units are phones, and a reference cannot be pronounced.
        SettingsError: the normalizer is unknown, or batch_s is not above 0.
    """
    rules = normalizer or model.settings.normalizer
    unit = decoder.unit if decoder else DecodingResources().unit(model.settings.tokenizer)
    references = reference_texts(utterances, model.settings.tokenizer, rules, unit)
    segments = [
        Segment(utterance.audio_filepath, utterance.offset, utterance.duration, utterance.channel)
        for utterance in utterances
    ]
    texts: list[str] = []
    results = recognise(model, segments, batch_s, decoder.decode if decoder else None)
    for utterance, result in zip(utterances, results, strict=True):
        if isinstance(result.outcome, AudioError):
            raise AudioError(f"utterance {utterance.id}: {result.outcome}")
        texts.append(result.outcome.text)
    ids, speakers = zip(*((utterance.id, utterance.speaker) for utterance in utterances), strict=True)
    return score(references, texts, ids, rules, unit, speakers)


def reference_texts(
    utterances: Sequence[Utterance], tokenizer: Tokenizer, rules: str, unit: OutputUnit
) -> list[str]:
    """What hypotheses are compared with: normalised words, or their phones; what is odd is logged.

    Raises:
        DataError: the units are phones, and a reference cannot be pronounced.
        SettingsError: the rules are unknown.
    """
    texts = [normalize(utterance.text, rules) for utterance in utterances]
    if unit == "words":
        if tokenizer.pieces:
            _warn_about_alphabet(texts, tokenizer, rules)
        return texts
    report_guesses(tokenizer, texts, "the")
    return [
        tokenizer.decode(tokenizer.encode(text, utterance=utterance.id))
        for text, utterance in zip(texts, utterances, strict=True)
    ]


def report(result: Score, out: Path, notes: Sequence[str] = ()) -> str:
    """Write the score, per-utterance results and alignments into a folder; the summary is for the user.

    Under torchrun, where all processes have the same result, one writes it.

    Args:
        result: the score.
        out: the folder.
        notes: lines to say after the summary.

    Raises:
        DataError: the files cannot be written.
    """
    if os.environ.get("RANK", "0") == "0":
        write_score(out / "score.json", result)
        write_results(out / "results.jsonl", result)
        write_alignments(out / "alignments.txt", result)
    where = f"Per utterance: {out / 'results.jsonl'}, {out / 'alignments.txt'}"
    return "\n".join([summary(result), *notes, where])


def describe(provenance: Mapping[str, Any]) -> str:
    """Where a model comes from, in one line, as far as it knows."""
    parts = []
    if "epoch" in provenance:
        parts.append(f"epoch {provenance['epoch']}")
    for key, name in (("dev_wer", "WER"), ("dev_per", "PER")):
        if key in provenance:
            parts.append(f"dev {name} {provenance[key]:.2f}%")
    if provenance.get("date"):
        parts.append(f"trained {provenance['date']}")
    if provenance.get("commit"):
        parts.append(f"commit {provenance['commit']}")
    return ", ".join(parts) or "a model of unknown origin"


def _warn_about_weights(
    decoder: Decoder, utterances: Sequence[Utterance], settings: EvaluateSettings
) -> None:
    """Say so when the weights are mere defaults, or were chosen on what is scored now."""
    if not decoder.tuned:
        log.warning(
            "the weights are not tuned for this model and language model (%s): `asr tune DEV%s` on other "
            "utterances than these finds better ones.",
            decoder.weights, _tuned_by(settings),
        )  # fmt: skip
    elif decoder.tuning and decoder.tuning.data == data_digest(utterances):
        log.warning(
            "the weights were tuned on these very utterances (%s): the score will be too good. Score others.",
            decoder.tuning.manifest,
        )


def _tuned_by(settings: EvaluateSettings) -> str:
    """The options, as they are typed, of the tuning that serves this search; another search has another."""
    decoding = settings.decoding
    files = {"--model": settings.model, "--lm": decoding.lm, "--lexicon": decoding.lexicon}
    options = [f" {option} {shlex.quote(str(file))}" for option, file in files.items() if file]
    options += [" --rescore"] if decoding.rescore else []
    if decoding.beam.unknown_words != "allow":
        options.append(f" --beam.unknown-words {decoding.beam.unknown_words}")
    return "".join(options)


def _warn_about_alphabet(references: Sequence[str], tokenizer: Tokenizer, rules: str) -> None:
    """Say so when no hypothesis can hold some characters of the references: their words are sure errors."""
    pieces = tokenizer.pieces or ()
    letters = {character for piece in pieces for character in piece.text}
    letters |= {" "} if any(piece.begins_word for piece in pieces) else set()
    writable = letters.union(*(normalize(letter, rules) for letter in letters))
    missing = Counter(character for text in references for character in text if character not in writable)
    if not missing:
        return
    concerned = sum(not writable.issuperset(text) for text in references)
    named = ", ".join(f"{character!r} x {count}" for character, count in missing.most_common(_NAMED))
    case = any(character.swapcase() in writable for character in missing)
    log.warning(
        "%d characters in %d of %d references are ones that the model cannot write: %s%s. The words that "
        "hold them count as errors. Correct the transcripts, or choose other rules%s.",
        missing.total(),
        concerned,
        len(references),
        named,
        ", ..." if len(missing) > _NAMED else "",
        ": --normalizer lower compares without case" if case else f" than --normalizer {rules}",
    )
