"""Decoders and language models compared on mini LibriSpeech: one model, one table.

python recipes/compare_decoders.py --model MODEL --lms words.bin chars.bin rnn.safetensors [--data.root DIR]

Each system is tuned on the 8 dev-clean speakers whose ids sort first, and scores the 32 others once: greedy;
a beam search; with each language model; with one of words also held to its words; a network also as rescorer.
A stopped run goes on: the run folder keeps emissions and finished systems. The model's file stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.cli import recipe
from asr.corpora import librispeech
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.device import choose_device
from asr.lm.loading import load_language_model
from asr.model.saved import load_model
from asr.scoring.decoder_comparison import CorpusPart, DecoderComparison
from asr.scoring.system_table import draw, table
from asr.scoring.weight_search import Grid


@dataclass(frozen=True)
class Data:
    """Where the corpus is."""

    root: Path | None = None  # a folder that holds LibriSpeech/, or is it; None downloads the part
    dir: Path = Path("data")  # where downloads go
    every: int = 1  # 10 takes each tenth utterance only, to try the recipe


NETWORK_GRID = Grid(
    lm_weights=(0.25, 0.5, 1.0), word_bonuses=(0.0, 1.0, 2.0), prior_weights=(0.0,), blank_scales=(1.0,),
    acoustic_scales=(0.5, 0.7, 1.0), refinements=1,
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    model: Path = Path("runs/mini_librispeech/model.safetensors")  # that `asr train` or a recipe has written
    lms: tuple[Path, ...] = ()  # language models' files
    run_dir: Path = Path("runs/compare_decoders")  # emissions, results and pictures
    search_beam: int = 24  # prefixes kept while tuning
    network_beam: int = 12  # prefixes kept with a network in the search, which takes longer
    batch_s: float = 60.0  # seconds of audio in a batch
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    beam: BeamConfig = field(default_factory=BeamConfig)
    grid: Grid = field(default_factory=Grid)
    network_grid: Grid = NETWORK_GRID  # with a network in the search
    data: Data = field(default_factory=Data)


def systems(config: Config) -> Iterator[tuple[str, DecoderSettings | None, Grid]]:
    """Name, settings and grid of each."""
    yield "greedy", None, config.grid
    beam = DecoderSettings(beam=config.beam)
    yield "beam", beam, config.grid
    networks = [lm for lm in config.lms if lm.suffix == ".safetensors"]
    for lm in config.lms:
        if lm in networks:
            continue
        yield f"beam + {lm.stem}", replace(beam, lm=lm), config.grid
        if load_language_model(lm).unit == "word":
            only = replace(config.beam, unknown_words="forbid")
            yield f"beam + {lm.stem}, no other words", replace(beam, lm=lm, beam=only), config.grid
    narrow = replace(config.beam, beam_size=min(config.network_beam, config.beam.width.beam_size))
    for lm in networks:  # last, because they take longest
        name = f"beam of {narrow.width.beam_size} + {lm.stem}"
        yield name, replace(beam, lm=lm, beam=narrow), config.network_grid
        yield f"beam, {lm.stem} rescores", replace(beam, lm=lm, rescore=True), config.grid


def main(config: Config) -> str:
    """Compute, tune, score."""
    preset = replace(librispeech.MINI, train_parts=())
    splits = librispeech.prepare(config.data.root, config.data.dir, preset)
    model = load_model(config.model, choose_device(config.device))
    dev, test = (
        CorpusPart.of(
            config.run_dir / f"{name}.safetensors", model, part[:: config.data.every], config.batch_s
        )
        for name, part in (("dev", splits.dev), ("test", splits.test))
    )
    comparison = DecoderComparison(config.run_dir, model, dev, test, config.search_beam)
    results = [comparison.system(*system) for system in systems(config)]
    tables = []
    # a model of phones writes words only where a vocabulary is given
    for unit, picture in (("words", "systems.png"), ("phones", "phones.png")):
        alike = [result for result in results if result.scores[0].unit == unit]
        if alike:
            tables.append(table(alike))
            draw(alike, config.run_dir / picture)
    text = "\n\n".join(tables)
    (config.run_dir / "table.md").write_text(text + "\n")
    return f"{text}\nPictures and points: {config.run_dir}"


if __name__ == "__main__":
    recipe(main, Config())
