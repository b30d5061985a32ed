"""The language model and the lexicon of the English model that ships: novels and modern sentences.

python recipes/english_lm.py --data.text DIR --data.modern DIR --data.dev english/dev.jsonl

Trains a model of each text, adds CMUdict's words, so that names and modern words can be recognised at all,
and interpolates; each corpus of the dev set counts equally for the weights. Writes lm.bin (6-bit values) and
lexicon.txt.xz to the output folder; parts that are already there are used again.
"""

import lzma
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr.cli import recipe
from asr.errors import SettingsError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.interpolate import best_weights, interpolate, perplexity_table, word_probs
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.trie import RESERVED
from asr.manifests.manifest import read_manifest
from asr.model.sequence.pronouncer import read_pronouncer
from asr.text.lexicon import Lexicon, cmudict
from asr.text.normalize import normalize
from asr.text.phones import PhoneTokenizer

NOVELS = "english-4gram.arpa.xz"  # made of more text than can be kept: a model, not a text
TEXTS = ("common_voice_sentences", "ljspeech", "librispeech_train_clean_100")
MODERN = ("wikipedia_summaries", "wikipedia_articles", "wordnet")
TEXT_MODEL = NgramConfig(order=4, cutoffs=(0, 0, 1), entropy=1e-6)
DICTIONARY, WORD = "cmudict", re.compile("[a-z][a-z']*")


@dataclass(frozen=True)
class Data:
    """Where the texts and the dev set are."""

    text: Path | None = None  # the folder of the novels' model and the texts
    modern: Path | None = None  # the folder that `english_text.py` has written
    dev: Path | None = None  # manifest whose transcripts the weights are found on


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    data: Data = field(default_factory=Data)
    out: Path = Path("runs/english_lm")
    words: int = 200_000  # of the model, the most probable ones
    pronouncer: Path | None = None  # network of `asr lexicon train`, for words that CMUdict lacks


def main(config: Config) -> str:
    """Train, interpolate, pronounce; the weights and perplexities."""
    if config.data.text is None or config.data.modern is None or config.data.dev is None:
        raise SettingsError("data.text, data.modern or data.dev is missing. Expected folders, a manifest.")
    config.out.mkdir(parents=True, exist_ok=True)
    models = part_models(config, config.data.text, config.data.modern)
    dev = dev_texts(config.data.dev, config.out)
    probs = {corpus: word_probs(models, [path]) for corpus, path in dev.items()}
    weights = np.mean([best_weights(rows) for rows in probs.values()], axis=0)
    model = interpolate(models, weights.tolist(), config.words).quantized(6)
    model.save(config.out / "lm.bin")
    lines = [f"{write_pronunciations(model, config.out / 'lexicon.txt.xz', config.pronouncer):,} words"]
    for corpus, path in dev.items():
        columns = np.hstack([probs[corpus], word_probs({"all": model}, [path])])
        lines += [f"{corpus}:", *perplexity_table(columns, weights.tolist(), [*models, "all"], model.unit)]
    for path in (config.out / "lm.bin", config.out / "lexicon.txt.xz"):
        lines.append(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return "\n".join(lines)


def part_models(config: Config, folder: Path, modern: Path) -> dict[str, NgramModel]:
    """The models to interpolate, from the output folder if they are there."""
    texts = {name: folder / f"{name}.txt.xz" for name in TEXTS}
    texts |= {name: modern / f"{name}.txt.xz" for name in MODERN}
    paths = {name: config.out / f"{name}.bin" for name in ("novels", *texts, DICTIONARY)}
    missing = {name: path for name, path in paths.items() if not path.exists()}
    for name, path in missing.items():
        if name == "novels":
            NgramModel.load(folder / NOVELS).save(path)
        elif name == DICTIONARY:
            text = config.out / f"{DICTIONARY}.txt"
            text.write_text(" ".join(sorted(filter(WORD.fullmatch, cmudict().entries))) + "\n")
            build([text], NgramConfig(order=1), path)
        else:
            build([texts[name]], TEXT_MODEL, path)
    return {name: NgramModel.load(path) for name, path in paths.items()}


def dev_texts(manifest: Path, out: Path) -> dict[str, Path]:
    """Write the transcripts of each corpus (a folder of audio) of a dev set, normalised, to a file."""
    texts: defaultdict[str, list[str]] = defaultdict(list)
    root = manifest.resolve().parent.parent
    for utterance in read_manifest(manifest):
        path = Path(utterance.audio_filepath).resolve()
        corpus = path.relative_to(root).parts[0] if path.is_relative_to(root) else path.parent.name
        texts[corpus].append(normalize(utterance.text, "english"))
    paths = {}
    for corpus, lines in sorted(texts.items()):
        paths[corpus] = out / f"dev-{corpus}.txt"
        paths[corpus].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def write_pronunciations(model: NgramModel, path: Path, network: Path | None = None) -> int:
    """Write the pronunciations of a model's words, by CMUdict or else by letter-to-sound; how many words."""
    words = [word for word in model.words if word not in RESERVED]
    tokenizer = PhoneTokenizer.from_texts(words, pronouncer=network and read_pronouncer(network))
    entries = {word: found for word in words if (found := tokenizer.pronunciations(word))}
    text = "".join(f"{line}\n" for line in Lexicon(entries, str(path)).lines()).encode()
    path.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    return len(entries)


if __name__ == "__main__":
    recipe(main, Config())
