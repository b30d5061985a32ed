"""`asr lm …`: language models from text, how well they predict other text, their files in another format."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import tyro

from asr.errors import DataError, SettingsError
from asr.lm.interface import Unit
from asr.text.normalize import normalize

if TYPE_CHECKING:
    from asr.lm.charrnn import CharRnnModel
    from asr.lm.ngram.model import NgramModel

__all__ = [
    "ConvertSettings", "Fit", "ScoreSettings", "TrainSettings", "check_output", "measure", "run_convert",
    "run_score", "run_train",
]  # fmt: skip

_NO_TEXT = "no TEXT is given. One text file or more was expected; - is the standard input."


@dataclass(frozen=True)
class TrainSettings:
    """Train an n-gram language model with modified Kneser-Ney smoothing, as KenLM's lmplz does."""

    texts: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="TEXT...")]
    """Text files, one sentence a line, in UTF-8; packed (.gz, .xz) ones too; - is the standard input. Text
    should be written as the transcripts are; see --normalizer."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The model: .bin (fast to load), .arpa or .arpa.gz (for other tools)."""
    normalizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "verbatim"
    """Rules for the text: verbatim (as written), lower (no case) or english (no case, no punctuation)."""
    order: int = 3
    """Length of the longest n-grams: 3 or 4 for words, 6 to 10 for characters."""
    unit: Unit = "word"
    """What the model predicts: words, or characters (the space among them)."""
    prune: tuple[int, ...] = ()
    """Leave out n-grams that occur so often or less: a number for each order, 0 for words first, as in 0 0 1.
    The last number holds for the higher orders."""
    prune_entropy: float = 0.0
    """Leave out n-grams without which the perplexity grows by less than this share, such as 1e-8."""
    vocabulary: Annotated[str | None, tyro.conf.arg(metavar="FILE|NUMBER")] = None
    """Words of the model: those of a file (one a line), or so many, the most frequent. Others are <unk>."""
    temporary: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for intermediate files, about 20 bytes a word and order. Default: the system's."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise SettingsError(_NO_TEXT)


def run_train(settings: TrainSettings) -> str:
    """Train a model; the summary to print.

    Raises:
        DataError: a text cannot be read or holds nothing.
        SettingsError: a setting is out of range.
    """
    from asr.lm.ngram.build import NgramConfig, build

    vocabulary = settings.vocabulary
    config = NgramConfig(
        settings.order, settings.unit, settings.prune, settings.prune_entropy,
        None if vocabulary is None else int(vocabulary) if vocabulary.isdecimal() else Path(vocabulary),
        settings.normalizer,
    )  # fmt: skip
    check_output(settings.output, settings.texts)
    return _describe(build(settings.texts, config, settings.output, settings.temporary), settings.output)


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Before the work, not after it.

    Raises:
        SettingsError: the output's folder does not exist, it is a folder itself, or it is one of the inputs.
    """
    if output.is_dir():
        raise SettingsError(f"--output {output}: is a folder. Name a file, such as {output / 'lm.bin'}.")
    if not output.absolute().parent.is_dir():
        raise SettingsError(
            f"--output {output}: the folder {output.absolute().parent} does not exist. "
            "Make it, or choose another one."
        )
    if any(path.resolve() == output.resolve() for path in inputs):
        raise SettingsError(f"--output {output} would overwrite what is read. Choose another file.")


def _describe(model: "NgramModel", path: Path) -> str:
    counts = ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(model.counts, start=1))
    size = path.stat().st_size
    return f"{path}: {counts}; {size / 1e6:.1f} MB, {size / sum(model.counts):.1f} bytes an n-gram"


@dataclass(frozen=True)
class ConvertSettings:
    """Write an n-gram model in the other format, ARPA or a binary that loads at once, or quantise its values.

    Weights that `asr tune` has stored belong to the file that they were found with: tune again.
    """

    lm: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The model: .arpa or .arpa.gz, from any tool, or .bin from `asr lm train`."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """Where it goes: .bin, .arpa or .arpa.gz."""
    quantize: int = 0
    """Bits of a log-probability and of a back-off weight, 2 to 16, such as 8; 0 keeps them exactly."""
    unit: Unit | None = None
    """What an ARPA file's words stand for, if that is not to be seen from them: characters or words."""

    def __post_init__(self) -> None:
        if self.quantize and not 2 <= self.quantize <= 16:
            raise SettingsError(
                f"--quantize is {self.quantize}. Expected 2 to 16 bits, or 0 for exact values."
            )


def run_convert(settings: ConvertSettings) -> str:
    """Convert a model; the summary to print.

    Raises:
        ModelError: the model cannot be read.
        SettingsError: the output cannot be written there.
    """
    from asr.lm.ngram.model import NgramModel

    check_output(settings.output, [settings.lm])
    if settings.lm.suffix == ".safetensors":
        raise SettingsError(
            f"{settings.lm}: a network is no n-gram model, and has one format only. Use its file as it is."
        )
    model = NgramModel.load(settings.lm, settings.unit)
    if settings.quantize:
        model = model.quantized(settings.quantize)
    model.save(settings.output)
    return _describe(model, settings.output)


@dataclass(frozen=True)
class ScoreSettings:
    """Perplexity of a language model on texts, and its share of unknown words."""

    texts: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="TEXT...")]
    """Text files, one sentence a line, in UTF-8; packed (.gz, .xz) ones too; - is the standard input."""
    lm: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The model: .bin, .arpa or .arpa.gz, from `asr lm train` or elsewhere, or a network's .safetensors."""
    normalizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "verbatim"
    """Rules for the text: verbatim (as written), lower (no case) or english (no case, no punctuation)."""
    results: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write words, unknown words and natural log-probability of every sentence to this JSONL file."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise SettingsError(_NO_TEXT)
        if self.results is not None and self.results.resolve() in {
            path.resolve() for path in (*self.texts, self.lm)
        }:
            raise SettingsError(
                f"--results {self.results} would overwrite what is read. Choose another file."
            )


@dataclass(frozen=True)
class Fit:
    """How well a model predicts a text; a sentence's end counts as a symbol that is predicted.

    Attributes:
        sentences: lines with at least one symbol.
        symbols: words, or characters, without sentence ends.
        unknown: those that the model does not have.
        log_prob: natural logarithm of the text's probability, sentence ends included.
        unknown_log_prob: the part of it that unknown symbols have.
    """

    sentences: int
    symbols: int
    unknown: int
    log_prob: float
    unknown_log_prob: float

    @property
    def perplexity(self) -> float:
        """With unknown symbols, at the probability that the model gives to `<unk>`."""
        return math.exp(-self.log_prob / (self.symbols + self.sentences))

    @property
    def known_perplexity(self) -> float:
        """Without unknown symbols."""
        known = self.symbols - self.unknown + self.sentences
        return math.exp(-(self.log_prob - self.unknown_log_prob) / known)


def run_score(settings: ScoreSettings) -> str:
    """Score texts with a model; the summary to print.

    Raises:
        DataError: a text cannot be read or holds nothing.
        ModelError: the model cannot be read.
        SettingsError: the normalizer is unknown.
    """
    from asr.lm.loading import load_language_model

    model = load_language_model(settings.lm)
    with contextlib.ExitStack() as stack:
        results = None
        if settings.results is not None:
            results = stack.enter_context(open(settings.results, "w", encoding="utf-8"))
        fit = measure(model, settings.texts, settings.normalizer, results)
    lines = [
        f"{fit.sentences:,} sentences, {fit.symbols:,} {model.unit}s, "
        f"{fit.unknown:,} unknown ({100 * fit.unknown / fit.symbols:.2f}%)",
        f"perplexity {fit.perplexity:.2f} ({model.unit}s and sentence ends, unknown ones as <unk>)",
        f"perplexity {fit.known_perplexity:.2f} without the unknown ones",
    ]
    if model.unit == "character":
        bits = -fit.log_prob / math.log(2) / (fit.symbols + fit.sentences)
        lines.append(f"{bits:.3f} bits per character")
    return "\n".join(lines)


def measure(
    model: "NgramModel | CharRnnModel",
    texts: Sequence[Path],
    normalizer: str = "verbatim",
    results: IO[str] | None = None,
) -> Fit:
    """How well a model predicts texts.

    Args:
        model: the model.
        texts: text files, see `lm.corpus`.
        normalizer: rules for each line, see `text.normalize`.
        results: where a JSON object a sentence is written.

    Raises:
        DataError: a text cannot be read, or there is no text at all.
        SettingsError: the normalizer is unknown.
    """
    from asr.lm.corpus import read_blocks

    sentences = symbols = unknown = 0
    log_prob = unknown_log_prob = 0.0
    for block, path, first in read_blocks(texts):
        for number, line in enumerate(block.decode().split("\n")[:-1], start=first):
            text = normalize(line, normalizer)
            if not text:
                continue
            ids, log_probs = model.encode(text), model.log_probs(text)
            new = ids == 0
            sentences, symbols, unknown = sentences + 1, symbols + len(ids), unknown + int(new.sum())
            log_prob += float(log_probs.sum())
            unknown_log_prob += float(log_probs[:-1][new].sum())
            if results is not None:
                row = {
                    "text": str(path), "line": number, f"{model.unit}s": len(ids), "unknown": int(new.sum()),
                    "log_prob": round(float(log_probs.sum()), 6),
                }  # fmt: skip
                results.write(json.dumps(row) + "\n")
    if not sentences:
        raise DataError(
            f"no text in {', '.join(map(str, texts))}. Lines with at least one word were expected."
        )
    return Fit(sentences, symbols, unknown, log_prob, unknown_log_prob)
