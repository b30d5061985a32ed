"""`asr lm`: train and interpolate n-gram language models, score text with a model, convert model files."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from asr.commands.common_options import Rules, TextFiles
from asr.commands.options import check_output
from asr.errors import SettingsError
from asr.lm.interface import Unit

if TYPE_CHECKING:
    from asr.lm.ngram.model import NgramModel

__all__ = [
    "LmScoreSettings", "NgramConvertSettings", "NgramInterpolateSettings", "NgramTrainSettings",
    "run_convert", "run_interpolate", "run_score", "run_train",
]  # fmt: skip

_NO_TEXT = "no TEXT is given. One text file or more was expected; - is the standard input."


@dataclass(frozen=True)
class NgramTrainSettings:
    """Train an n-gram language model with modified Kneser-Ney smoothing, as KenLM's lmplz does."""

    texts: TextFiles
    # The model: .bin (fast to load), .arpa or .arpa.gz (for other tools).
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    normalizer: Rules = "verbatim"
    # Length of the longest n-grams: 3 or 4 for words, 6 to 10 for characters.
    order: int = 3
    # What the model predicts: words, or characters (the space among them).
    unit: Unit = "word"
    # Remove n-grams that occur so often or less: a number for each order, 0 for words first, as in 0 0 1. The
    # last number also applies to the higher orders.
    prune: tuple[int, ...] = ()
    # Remove n-grams without which the perplexity grows by less than this fraction, such as 1e-8.
    prune_entropy: float = 0.0
    # Words of the model: those of a file (one per line), or the NUMBER most frequent. Others are <unk>.
    vocabulary: Annotated[str | None, tyro.conf.arg(metavar="FILE|NUMBER")] = None
    # Folder for temporary files, about 20 bytes per word and order.
    temporary: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: the system's)")
    ] = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise SettingsError(_NO_TEXT)


def run_train(settings: NgramTrainSettings) -> str:
    """Train a model; the summary to print.

    Raises:
        DataError: a text cannot be read or holds nothing.
        SettingsError: a setting is out of range.
    """
    from asr.lm.ngram.build import NgramConfig, build

    config = NgramConfig(
        order=settings.order, unit=settings.unit, cutoffs=settings.prune, entropy=settings.prune_entropy,
        vocabulary=_vocabulary(settings.vocabulary), normalizer=settings.normalizer,
    )  # fmt: skip
    check_output(settings.output, settings.texts)
    return _describe(build(settings.texts, config, settings.output, settings.temporary), settings.output)


def _vocabulary(option: str | None) -> Path | int | None:
    """The value of --vocabulary: a number of words, or a file."""
    return None if option is None else int(option) if option.isdecimal() else Path(option)


def _describe(model: "NgramModel", path: Path) -> str:
    counts = ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(model.counts, start=1))
    size = path.stat().st_size
    return f"{path}: {counts}; {size / 1e6:.1f} MB, {size / sum(model.counts):.1f} bytes per n-gram"


@dataclass(frozen=True)
class NgramInterpolateSettings:
    """Interpolate n-gram models into one that has the words and n-grams of all of them.

    Give a text that is like what will be recognised and that no model was trained on: the weights with which
    the result predicts it best are found. Then tune: decoding weights belong to one language model.
    """

    # Two models or more: .bin, .arpa or .arpa.gz, from `asr lm train` or elsewhere.
    lms: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...")]
    # The interpolated model: .bin, .arpa or .arpa.gz.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    # Text files for the weights, one sentence a line; with --weights, only perplexities are printed.
    dev: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="TEXT...")] = ()
    # A weight for each model, instead of those found on --dev.
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT...")] = ()
    # Rules for --dev: verbatim, lower, english or words (words:tr for Turkish).
    normalizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "verbatim"
    # Words of the result: those of a file (one per line), or the NUMBER most probable. Others are <unk>.
    vocabulary: Annotated[str | None, tyro.conf.arg(metavar="FILE|NUMBER")] = None
    # Bits of a log-probability and of a back-off weight, 2 to 16, such as 8; 0 keeps them exactly.
    quantize: int = 0

    def __post_init__(self) -> None:
        if len(self.lms) < 2:
            raise SettingsError(
                f"{len(self.lms)} language model is given. Two or more were expected. To change the "
                "format of one, use `asr lm convert`."
            )
        if len({path.resolve() for path in self.lms}) < len(self.lms):
            raise SettingsError("a language model is given twice. Give each once; --weights has its weight.")
        if not self.dev and not self.weights:
            raise SettingsError(
                "neither --dev nor --weights is given. A text to find the weights on, or a weight for each "
                "model, was expected."
            )
        _check_bits(self.quantize)


def run_interpolate(settings: NgramInterpolateSettings) -> str:
    """Interpolate models; the summary to print.

    Raises:
        DataError: a text cannot be read or holds nothing.
        ModelError: a model cannot be read, or the models do not fit together.
        SettingsError: a setting is out of range, or the output cannot be written there.
    """
    import numpy as np

    from asr.lm.ngram.interpolate import best_weights, interpolate, perplexity_table, word_probs

    check_output(settings.output, [*settings.lms, *settings.dev])
    models = {str(path): _load_ngrams(path) for path in settings.lms}
    weights: Sequence[float] = settings.weights
    probs = word_probs(models, settings.dev, settings.normalizer) if settings.dev else None
    if probs is not None and not weights:
        weights = best_weights(probs).tolist()
    merged = interpolate(models, weights, _vocabulary(settings.vocabulary))
    if settings.quantize:
        merged = merged.quantized(settings.quantize)
    merged.save(settings.output)
    rows = [f"{weight / sum(weights):.4f}  {name}" for weight, name in zip(weights, models, strict=True)]
    rows.insert(0, "weight  model")
    if probs is not None:
        found = word_probs({str(settings.output): merged}, settings.dev, settings.normalizer)
        names = [*models, str(settings.output)]
        rows = perplexity_table(np.hstack([probs, found]), weights, names, merged.unit)
    return "\n".join([*rows, _describe(merged, settings.output)])


def _load_ngrams(path: Path) -> "NgramModel":
    """An n-gram model.

    Raises:
        ModelError: it cannot be read.
        SettingsError: it is a network.
    """
    from asr.lm.ngram.model import NgramModel

    if path.suffix == ".safetensors":
        raise SettingsError(
            f"{path}: is a network. An n-gram model was expected; a network can rescore, see --rescore-lm of "
            "`asr evaluate`."
        )
    return NgramModel.load(path)


@dataclass(frozen=True)
class NgramConvertSettings:
    """Convert an n-gram model between ARPA and a binary that loads at once, or quantise a model's values.

    Weights that `asr tune` has stored belong to the file that they were tuned with: tune again.
    """

    # The model: .arpa or .arpa.gz, from any tool, .bin from `asr lm train`, or .safetensors of a word RNN.
    lm: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    # The converted model: .bin, .arpa or .arpa.gz; .safetensors of a word RNN.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    # Bits of a log-probability and of a back-off weight, 2 to 16, such as 8; 0 keeps them exactly. A word
    # RNN takes 8.
    quantize: int = 0
    # Whether an ARPA file's words are words or characters. Default: found out from them.
    unit: Unit | None = None

    def __post_init__(self) -> None:
        _check_bits(self.quantize)


def _check_bits(quantize: int) -> None:
    if quantize and not 2 <= quantize <= 16:
        raise SettingsError(f"--quantize is {quantize}. Expected 2 to 16 bits, or 0 for exact values.")


def run_convert(settings: NgramConvertSettings) -> str:
    """Convert a model; the summary to print.

    Raises:
        ModelError: the model cannot be read.
        SettingsError: the output cannot be written there.
    """
    from asr.lm.ngram.model import NgramModel

    check_output(settings.output, [settings.lm])
    if settings.lm.suffix == ".safetensors":
        return _quantize_network(settings)
    model = NgramModel.load(settings.lm, settings.unit)
    if settings.quantize:
        model = model.quantized(settings.quantize)
    model.save(settings.output)
    return _describe(model, settings.output)


def _quantize_network(settings: NgramConvertSettings) -> str:
    from asr.lm.loading import load_language_model
    from asr.lm.wordrnn import WordRnnModel, save_small_wordrnn

    if settings.quantize != 8 or settings.output.suffix != ".safetensors":
        raise SettingsError(
            f"{settings.lm}: a network has only one format, whose weights may be of 8 bits. Expected "
            "--quantize 8 and an --output that ends in .safetensors."
        )
    model = load_language_model(settings.lm)
    if not isinstance(model, WordRnnModel):
        raise SettingsError(
            f"{settings.lm}: is a network of characters, which is small. Use the file itself."
        )
    save_small_wordrnn(settings.output, model.network)
    size = settings.output.stat().st_size / 1e6
    return f"{settings.output}: word RNN of {len(model.network.vocabulary.words):,} words, {size:.1f} MB"


@dataclass(frozen=True)
class LmScoreSettings:
    """Perplexity of a language model on texts, and its rate of unknown words."""

    texts: TextFiles
    # The model: .bin, .arpa or .arpa.gz, from `asr lm train` or elsewhere, or a network's .safetensors.
    lm: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    normalizer: Rules = "verbatim"
    # Write words, unknown words and natural log-probability of every sentence to this JSONL file.
    results: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise SettingsError(_NO_TEXT)
        if self.results is not None and self.results.resolve() in {
            path.resolve() for path in (*self.texts, self.lm)
        }:
            raise SettingsError(
                f"--results {self.results} would overwrite what is read. Choose another file."
            )


def run_score(settings: LmScoreSettings) -> str:
    """Score texts with a model; the summary to print.

    Raises:
        DataError: a text cannot be read or holds nothing.
        ModelError: the model cannot be read.
        SettingsError: the normalizer is unknown.
    """
    from asr.lm.loading import load_language_model
    from asr.lm.perplexity import perplexity

    model = load_language_model(settings.lm)
    with contextlib.ExitStack() as stack:
        results = None
        if settings.results is not None:
            results = stack.enter_context(open(settings.results, "w", encoding="utf-8"))
        result = perplexity(model, settings.texts, settings.normalizer, results)
    lines = [
        f"{result.sentences:,} sentences, {result.symbols:,} {model.unit}s, "
        f"{result.unknown:,} unknown ({100 * result.unknown / result.symbols:.2f}%)",
        f"perplexity {result.perplexity:.2f} ({model.unit}s and sentence ends, unknown ones as <unk>)",
        f"perplexity {result.in_vocabulary_perplexity:.2f} without the unknown ones",
    ]
    if model.unit == "character":
        bits = -result.log_prob / math.log(2) / (result.symbols + result.sentences)
        lines.append(f"{bits:.3f} bits per character")
    return "\n".join(lines)
