"""The decoder that a command line asks for, and what there is to say about its weights."""

import copy
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import Tensor

from asr.corpora.manifest import Utterance
from asr.decoding.config import BeamConfig
from asr.decoding.greedy import greedy_decode
from asr.decoding.hotwords import parse_hot_words
from asr.decoding.hypothesis import Hypothesis, OutputUnit
from asr.errors import DataError, ModelError, SettingsError
from asr.files import file_digest
from asr.model.acoustic import AcousticModel
from asr.model.shipped import ModelFiles
from asr.model.tuning import Tuning, Weights
from asr.text.lexicon import Lexicon, parse_lexicon, read_lines
from asr.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asr.lm.charrnn import CharRnnModel
    from asr.lm.ngram.model import NgramModel

__all__ = [
    "Decode", "Decoder", "DecoderSettings", "Knowledge", "Search", "build_decoder", "data_digest",
    "file_digest", "greedy", "weighted",
]  # fmt: skip

log = logging.getLogger("asr")

_WEIGHTS = tuple(item.name for item in fields(Weights))


def _option(weight: Any) -> Any:
    """A weight on the command line, where it may be left out."""
    argument = tyro.conf.arg(
        metavar="FLOAT",
        help=weight.metadata["help"],
        help_behavior_hint=f"(default: tuned, else {weight.default:g})",
    )
    return (weight.name, Annotated[float | None, argument], None)


if TYPE_CHECKING:
    GivenWeights = Any
else:  # the fields of Weights, each of which may be left out
    GivenWeights = make_dataclass("GivenWeights", map(_option, fields(Weights)), frozen=True)


class Decode(Protocol):
    """Log-probabilities in, the best hypotheses of each utterance out."""

    def __call__(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float
    ) -> Sequence[Sequence[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: (batch, steps, vocab) natural logs, on any device.
            step_lengths: (batch,) int64 valid steps.
            step_s: seconds a step.

        Returns:
            (batch,) hypotheses of each utterance, at least one, best first.
        """


@dataclass(frozen=True)
class DecoderSettings:
    """How log-probabilities become text; weights that are not given are those that were tuned."""

    # how to search (default: greedy; beam as soon as a language model, lexicon or hot words are given)
    decoder: Annotated[
        Literal["greedy", "beam"] | None, tyro.conf.arg(metavar="greedy|beam", help_behavior_hint="")
    ] = None
    # language model: .bin, .arpa or .arpa.gz of n-grams, or .safetensors of a character network
    lm: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    # the words that there are, and how they are spelled or pronounced: a word and its tokens a line
    lexicon: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = (
        None
    )
    # words that are likelier here than elsewhere, each with its boost in nats (3 where none is given)
    hotwords: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="WORD:BOOST...", help_behavior_hint="(default: none)")
    ] = ()
    # search without the language model, which then chooses among the best texts that were found
    rescore: tyro.conf.FlagCreatePairsOff[bool] = False
    # another language model, which chooses among the best texts of the search
    rescore_lm: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None
    weights: Annotated[GivenWeights, tyro.conf.arg(name="")] = field(default_factory=GivenWeights)
    # how wide the beam search looks, whatever the weights
    beam: BeamConfig = field(default_factory=BeamConfig)

    @property
    def given(self) -> dict[str, Any]:
        """The weights that are given, by name."""
        values = {name: getattr(self.weights, name) for name in _WEIGHTS}
        return {name: value for name, value in values.items() if value is not None}

    def with_defaults_of(self, files: ModelFiles) -> "DecoderSettings":
        """The settings with what ships with a model, where nothing else is asked for.

        A language model of the user's has words of its own, and is used without the lexicon that ships.
        """
        if files.lm is None or self.decoder == "greedy":
            return self
        beam = self.beam
        if beam.beam_size == BeamConfig().beam_size:
            beam = replace(beam, beam_size=files.beam_size)
        lexicon = self.lexicon or (files.lexicon if self.lm is None else None)
        return replace(self, lm=self.lm or files.lm, lexicon=lexicon, beam=beam)


@dataclass(frozen=True)
class Knowledge:
    """What a search knows beside the acoustic model, read from its files.

    Attributes:
        lm: the language model, or None.
        rescorer: a language model that chooses among the best texts of the search with the first, or None.
        lexicon: spellings, or None.
        hotwords: boosts in nats by word.
        key: digests of the files and the kind of search, without weights: which tuning belongs to it.
        name: what messages call it.
    """

    lm: "NgramModel | CharRnnModel | None" = None
    lexicon: Lexicon | None = None
    hotwords: dict[str, float] = field(default_factory=dict)
    key: Tuning = field(default_factory=Tuning)
    name: str = "no language model"
    rescorer: "NgramModel | CharRnnModel | None" = None

    def unit(self, tokenizer: Tokenizer) -> OutputUnit:
        """What a search with this writes: words, or phones where nothing tells which words they are."""
        told = self.lexicon or (self.lm and self.lm.unit == "word" and not self.key.rescore)
        return "words" if told or tokenizer.pieces else "phones"

    def weighs(self, weight: str) -> bool:
        """Whether a weight can change what a search with this finds."""
        if weight == "lm_weight":
            return self.lm is not None
        if weight == "rescore_weight":
            return self.rescorer is not None
        if weight.startswith("unknown_"):
            words = self.lexicon or (self.lm and self.lm.unit == "word" and not self.key.rescore)
            return bool(words) and self.key.unknown_words == "allow"
        return True

    @classmethod
    def read(cls, settings: DecoderSettings, model: AcousticModel) -> "Knowledge":
        """Load the files that the settings name, and check that they fit the model.

        Raises:
            DataError: the lexicon cannot be read, or spells words with other tokens than the model's.
            ModelError: the language model cannot be read.
            SettingsError: a hot word is not WORD or WORD:BOOST, or a language model that rescores does not
                speak of what the model writes.
        """
        for option, given, file in (
            ("--rescore", settings.rescore, "lm"),
            ("--lm-weight", settings.weights.lm_weight is not None, "lm"),
            ("--rescore-weight", settings.weights.rescore_weight is not None, "rescore_lm"),
        ):
            if given and getattr(settings, file) is None:
                wanted = f"--{file.replace('_', '-')}"
                raise SettingsError(f"{option} is given, but no language model. Name one: {wanted} FILE.")
        if settings.rescore and settings.rescore_lm:
            raise SettingsError(
                "--rescore and --rescore-lm are given. With --rescore the one language model, --lm, only "
                "rescores. Leave it out for --lm in the search and --rescore-lm after it."
            )
        lm = _read_lm(settings, model, "lm", settings.rescore) if settings.lm else None
        rescorer = _read_lm(settings, model, "rescore_lm", True) if settings.rescore_lm else None
        lexicon = _read_lexicon(settings.lexicon) if settings.lexicon else None
        hotwords = parse_hot_words(settings.hotwords)
        key = Tuning(
            lm=file_digest(settings.lm),
            lexicon=file_digest(settings.lexicon),
            rescore=settings.rescore,
            rescore_lm=file_digest(settings.rescore_lm),
            hotwords=_digest_of(hotwords),
            unknown_words=settings.beam.unknown_words,
        )
        names = [f"language model {settings.lm}" if settings.lm else "no language model"]
        names += ["which rescores"] if settings.rescore else []
        names += [f"rescored by {settings.rescore_lm}"] if settings.rescore_lm else []
        names += [f"lexicon {settings.lexicon}"] if settings.lexicon else []
        names += ["no unknown words"] if settings.beam.unknown_words == "forbid" else []
        names += [f"{len(hotwords)} hot words"] if hotwords else []
        return cls(lm, lexicon, hotwords, key, ", ".join(names), rescorer)


@dataclass(frozen=True)
class Decoder:
    """A decoder, and what a score that was made with it has to say.

    Attributes:
        decode: log-probabilities in, hypotheses out.
        name: which decoder it is.
        weights: which weights it has, and where each comes from; "" for greedy decoding, which has none.
        tuned: whether all weights are tuned or given; True where there is nothing to tune.
        unit: what it writes: words, or phones.
        tuning: the stored weights that are used, or None.
    """

    decode: Decode
    name: str
    weights: str
    tuned: bool
    unit: OutputUnit
    tuning: Tuning | None = None


def greedy(tokenizer: Tokenizer) -> Decode:
    """Greedy decoding behind the call that all decoders answer."""

    def decode(log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        return [[found] for found in greedy_decode(log_probs, step_lengths, tokenizer, step_s)]

    return decode


class Search:
    """A beam search with all its weights; calling it decodes a batch, see `Decode`.

    Args:
        tokenizer: the model's.
        config: width and weights.
        known: language model, lexicon and hot words.
        priors: (vocab,) the model's mean posteriors, needed for a prior weight other than 0.

    Attributes:
        known: as given.
        config: as given.

    Raises:
        AsrError: the parts do not fit each other.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: BeamConfig, known: Knowledge, priors: Sequence[float] = ()
    ) -> None:
        from asr.decoding.beam import BeamDecoder  # compiled: takes a second to import

        self.known, self.config = known, config
        self._rescoring = known.lm if known.key.rescore else known.rescorer
        self._decoder = BeamDecoder(
            tokenizer,
            self._searched(config),
            lm=None if known.key.rescore else known.lm,
            lexicon=known.lexicon,
            hotwords=known.hotwords,
            priors=_array(priors),
        )

    def with_config(self, config: BeamConfig, priors: Sequence[float] = ()) -> "Search":
        """The same search with other weights, and other priors if any are given; nothing is built again."""
        other = copy.copy(self)
        other.config = config
        other._decoder = self._decoder.with_config(self._searched(config), _array(priors))
        return other

    def without_rescorer(self) -> "Search":
        """The same search, without the second language model that chooses among its texts."""
        if self.known.rescorer is None:
            return self
        other = copy.copy(self)
        other.known = replace(self.known, rescorer=None)
        other._rescoring = None
        return other.with_config(self.config)

    def __call__(self, log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        """Decode a batch; see `Decode`."""
        found = self._decoder.decode(log_probs, step_lengths, step_s)
        if self._rescoring is None:
            return found
        from asr.decoding.rescoring import rescore

        weights = self.config.weights
        if self.known.key.rescore:
            found = rescore(found, self._rescoring, weights.lm_weight, weights.word_bonus)
        else:
            found = rescore(found, self._rescoring, weights.rescore_weight, second=True)
        return [best[: self.config.nbest] for best in found]

    def _searched(self, config: BeamConfig) -> BeamConfig:
        """The settings of the search itself: a rescorer chooses among as many texts as the beam is wide.

        Where the only language model rescores, so does the bonus: it makes up for what the model takes for
        each word.
        """
        if self._rescoring is None:
            return config
        config = replace(config, nbest=max(config.beam_size, config.nbest))
        return config.with_weights(word_bonus=0.0) if self.known.key.rescore else config


def weighted(config: BeamConfig, weights: Weights) -> BeamConfig:
    """The settings of a search with these weights."""
    return replace(config, weights=weights.weights)


def _array(priors: Sequence[float]) -> NDArray[np.float64] | None:
    return np.array(priors) if len(priors) else None


def build_decoder(settings: DecoderSettings, model: AcousticModel, nbest: int = 1) -> Decoder:
    """The decoder that the settings ask for, with the weights that were tuned for it.

    Args:
        settings: from the command line.
        model: on its device.
        nbest: hypotheses an utterance.

    Raises:
        AsrError: the settings contradict each other, or a file cannot be used.
    """
    tokenizer = model.settings.tokenizer
    asks = {
        "--lm": settings.lm, "--lexicon": settings.lexicon, "--hotwords": settings.hotwords,
        "--rescore": settings.rescore, "--rescore-lm": settings.rescore_lm, "--nbest": nbest > 1,
    }  # fmt: skip
    given = settings.given
    asks |= {f"--{name.replace('_', '-')}": True for name in given}
    named = [option for option, value in asks.items() if value]
    if settings.decoder == "greedy" and named:
        raise SettingsError(f"--decoder greedy takes no {named[0]}. Leave it out, or use --decoder beam.")
    if settings.decoder != "beam" and not named:
        _refuse_beam(settings.beam)
        return Decoder(greedy(tokenizer), "greedy", "", True, Knowledge().unit(tokenizer))
    known = Knowledge.read(settings, model)
    tunings = model.settings.tunings
    # weights that were found without the hot words are better than none
    keys = (known.key, replace(known.key, hotwords=""))
    tuning = next((old for key in keys for old in tunings if old.serves(key)), None)
    start = weighted(settings.beam, tuning) if tuning else settings.beam
    config = replace(start, nbest=nbest).with_weights(**given)
    priors: tuple[float, ...] = ()
    if config.weights.prior_weight:
        priors = next((old.priors for old in (tuning, *tunings) if old and old.priors), ())
        if not priors:
            raise ModelError(
                f"--prior-weight {config.weights.prior_weight:g}: the model's mean posteriors are not known "
                f"yet. `asr tune` measures them and stores them with the model."
            )
    matter = [name for name in _WEIGHTS if known.weighs(name)]
    needed = {name for name in ("lm_weight", "rescore_weight") if known.weighs(name)}
    return Decoder(
        decode=Search(tokenizer, config, known, priors),
        name=f"beam of {config.beam_size}, {known.name}",
        weights=_describe(config.weights, matter, given, tuning, known.key),
        tuned=tuning is not None or not needed or given.keys() >= {*needed, "word_bonus"},
        unit=known.unit(tokenizer),
        tuning=tuning,
    )


def _refuse_beam(config: BeamConfig) -> None:
    """A setting of the beam search cannot act where there is none.

    Raises:
        SettingsError: one is not at its default.
    """
    plain = BeamConfig()
    for name in (item.name for item in fields(BeamConfig)):
        value = getattr(config, name)
        if value != getattr(plain, name):
            raise SettingsError(
                f"--beam.{name.replace('_', '-')} is {value}, but decoding is greedy. Leave it out, or add "
                f"--decoder beam."
            )


def data_digest(utterances: Sequence[Utterance]) -> str:
    """A digest of utterances' ids and texts, by which the same ones are known again."""
    digest = hashlib.sha256()
    for utterance in sorted(utterances, key=lambda utterance: utterance.id):
        digest.update(json.dumps([utterance.id, utterance.text]).encode())
    return digest.hexdigest()


def _describe(
    weights: Weights, names: list[str], given: dict[str, float], tuning: Tuning | None, key: Tuning
) -> str:
    """Each weight with its value, then where they come from."""
    values = ", ".join(f"{name.replace('_', '-')} {getattr(weights, name):g}" for name in names)
    chosen = [name.replace("_", "-") for name in names if name in given]
    if len(chosen) == len(names):
        return f"{values}: all given"
    kept = f" (but for {', '.join(chosen)}, given)" if chosen else ""
    if tuning is None:
        return f"{values}: defaults, not tuned{kept}"
    percent = 100 * tuning.errors / max(tuning.words, 1)
    kept += "" if tuning.serves(key) else ", without these hot words"
    return (
        f"{values}: tuned{kept} on {tuning.manifest} ({tuning.utterances} utterances, {percent:.2f}% there "
        f"with a beam of {tuning.beam_size}) at {tuning.date}"
    )


def _read_lm(
    settings: DecoderSettings, model: AcousticModel, field: Literal["lm", "rescore_lm"], rescores: bool
) -> "NgramModel | CharRnnModel":
    """A language model for the search or, where it only rescores, for texts."""
    from asr.lm.alphabet import check_alphabet
    from asr.lm.loading import load_language_model

    path, tokenizer = getattr(settings, field), model.settings.tokenizer
    option = f"--{field.replace('_', '-')} {path}"
    lm = load_language_model(path, model.device)
    words = settings.lexicon is not None or (field == "rescore_lm" and settings.lm is not None)
    if tokenizer.pieces is None and not words and (lm.unit != "word" or rescores):
        raise SettingsError(
            f"{option}: the model writes phones, of which this language model knows nothing. Name a "
            f"lexicon that tells which words they are, --lexicon FILE, or use a language model of words in "
            f"the search."
        )
    if rescores and not words:  # a search checks what is fused into it
        try:
            check_alphabet(lm, tokenizer)
        except SettingsError as error:
            raise SettingsError(f"{option}: {error}") from error
    return lm


def _read_lexicon(path: Path) -> Lexicon:
    """A lexicon, or a mere list of words, which the model's tokenizer spells."""
    lines = read_lines(path)
    if any(len(line.split(None, 1)) > 1 for line in lines):
        return parse_lexicon(lines, str(path))
    words = dict.fromkeys(word for line in lines for word in line.split())
    if not words:
        raise DataError(f"{path}: holds no word. Expected a word a line, alone or with its tokens.")
    return Lexicon(dict.fromkeys(words, ()), str(path))


def _digest_of(hotwords: dict[str, float]) -> str:
    """SHA-256 of hot words and boosts, whatever their order; "" for none."""
    if not hotwords:
        return ""
    return hashlib.sha256(json.dumps(sorted(hotwords.items())).encode()).hexdigest()
