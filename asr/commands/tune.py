"""`asr tune`: the decoding weights with which a model and a language model make the fewest errors."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.common_options import BatchSeconds, Device
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import DescribedDecoder, build_decoder
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources
from asr.device import choose_device
from asr.errors import SettingsError
from asr.manifests.manifest import read_manifest
from asr.model.saved import load_model, store_tuning
from asr.model.shipped import find_model
from asr.recognition.emissions import compute_emissions
from asr.scoring.tuning import tune, write_points
from asr.scoring.weight_search import Grid

log = logging.getLogger("asr")


@dataclass(frozen=True)
class TuneSettings:
    """Find decoding weights on a dev set and store them with the model; one that is given keeps its value.

    Emissions are computed once; each point is a beam search over the whole manifest. A grid over LM weight
    and word bonus, then the other weights one by one, with a small beam; then the best few, and smaller steps
    of all weights around the best of them, with the beam that will be used. Last, where a second language
    model or the attention decoder rescores, their weights, among the texts that the search finds with the
    others.
    """

    # JSONL of utterances that neither training nor a later score uses, with their transcripts
    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    # a .safetensors file, which gets the weights, or a name such as english: a copy of it in DIR gets them
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
    # folder for surface.png and points.jsonl
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: MODEL.LM.tuning by the model)"),
    ] = None
    search_beam: int = 24  # prefixes kept in the grid and the lines; --beam.beam-size is for the rest
    batch_s: BatchSeconds = 120.0
    device: Device = "auto"
    grid: Grid = field(default_factory=Grid)
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: TuneSettings) -> str:
    """Tune the weights; the result is the text to print.

    Raises:
        AsrError: a setting, the manifest, the model or an utterance's audio cannot be used.
    """
    if settings.decoding.decoder in ("greedy", "attention"):
        raise SettingsError(f"--decoder {settings.decoding.decoder} has no weights to tune. Leave it out.")
    if settings.decoding.open_vocabulary:
        raise SettingsError(
            "--open-vocabulary is not tuned: it uses the weights of the search before it. Leave it out, and "
            "choose its --unknown-penalty with `asr evaluate`."
        )
    utterances = read_manifest(settings.manifest)
    files = find_model(settings.model)
    model = load_model(files.path, choose_device(settings.device))
    decoding = settings.decoding.with_defaults_of(files)
    resources = DecodingResources.read(decoding, model)
    out = settings.out or files.beside(f"{_kind(decoding)}.tuning")
    out.mkdir(parents=True, exist_ok=True)  # before an hour of decoding, not after it
    # settings that contradict each other are found here, likewise
    decoder = TwoPassDecoder(model.settings.tokenizer, decoding.beam, resources)
    emissions = compute_emissions(model, utterances, settings.batch_s)
    tuned = tune(
        model, utterances, emissions, decoder, settings.grid,
        given=decoding.given, search_beam=settings.search_beam, manifest=str(settings.manifest),
    )  # fmt: skip
    for warning in tuned.warnings:
        log.warning("%s", warning)
    write_points(out, tuned, resources.name)
    stored = files.path
    if files.name:  # the package's own files stay as they are
        stored = out / f"{files.name}.safetensors"
        shutil.copyfile(files.path, stored)
    store_tuning(stored, tuned.tuning)
    return "\n".join(
        [
            *tuned.lines(),
            f"Stored in {stored}; surface: {out / 'surface.png'}, {out / 'points.jsonl'}",
        ]
    )


def tuned_decoder(settings: TuneSettings) -> DescribedDecoder:
    """The decoder that `asr tune` tunes; a model that has weights for it keeps them.

    Args:
        settings: with a model's file, not a name.

    Raises:
        AsrError: as `run`.
    """

    def build() -> DescribedDecoder:
        model = load_model(settings.model, choose_device(settings.device))
        return build_decoder(settings.decoding, model)

    decoder = build()
    if not decoder.tuned:
        run(settings)
        decoder = build()  # with the weights that are now stored in the model's file
    return decoder


def _kind(decoding: DecoderSettings) -> str:
    """A name for what is tuned: whatever has its own weights in the model has its own folder."""
    parts = [decoding.lm.stem if decoding.lm else "beam"]
    parts += ["rescore"] if decoding.rescore else []
    parts += [decoding.rescore_lm.stem, "rescores"] if decoding.rescore_lm else []
    parts += ["attention"] if decoding.rescore_attention else []
    parts += ["hotwords"] if decoding.hotwords else []
    parts += [decoding.lexicon.stem] if decoding.lexicon else []
    parts += ["forbid"] if decoding.beam.unknown_words == "forbid" else []
    return ".".join(parts)
