"""The decoder that a command line asks for, with the weights that were tuned for it.

`build_decoder` gives greedy decoding or a beam search, whose results a language model may rescore.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.config import BeamConfig, DecoderSettings
from asr.decoding.greedy import greedy_decode
from asr.decoding.hypothesis import Hypothesis, OutputUnit
from asr.decoding.resources import DecodingResources
from asr.errors import ModelError, SettingsError
from asr.model.acoustic import AcousticModel
from asr.model.tuning import Tuning, Weights
from asr.text.tokenizer import Tokenizer

__all__ = ["Decode", "Decoder", "TwoPassDecoder", "build_decoder", "greedy_decoder"]

_WEIGHTS = tuple(item.name for item in fields(Weights))


class Decode(Protocol):
    """Log-probabilities in, the best hypotheses of each utterance out."""

    def __call__(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float
    ) -> Sequence[Sequence[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: (batch, steps, vocab) natural logs, on any device.
            step_lengths: (batch,) int64 valid steps.
            step_s: seconds per step.

        Returns:
            (batch,) hypotheses of each utterance, at least one, best first.
        """


@dataclass(frozen=True)
class Decoder:
    """A decoder with a description for reports.

    Attributes:
        decode: log-probabilities in, hypotheses out.
        name: which decoder it is.
        weights: its weights and where they come from; "" for greedy decoding, which has none.
        tuned: whether all weights are tuned or given; True where there is nothing to tune.
        unit: what it writes: words or phones.
        tuning: the stored weights that it uses, or None.
    """

    decode: Decode
    name: str
    weights: str
    tuned: bool
    unit: OutputUnit
    tuning: Tuning | None = None


def greedy_decoder(tokenizer: Tokenizer) -> Decode:
    """Greedy decoding with the interface of all decoders."""

    def decode(log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        return [[found] for found in greedy_decode(log_probs, step_lengths, tokenizer, step_s)]

    return decode


class TwoPassDecoder:
    """A beam search and, after it, a language model that rescores its texts, if there is one; a `Decode`.

    Args:
        tokenizer: the model's.
        config: width and weights.
        resources: language models, lexicon and hot words.
        priors: (vocab,) the model's mean posteriors, needed for a prior weight other than 0.

    Attributes:
        resources: as given.
        config: as given.

    Raises:
        AsrError: the parts do not fit each other.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig,
        resources: DecodingResources,
        priors: Sequence[float] = (),
    ) -> None:
        from asr.decoding.beam_decoder import BeamDecoder  # compiled: takes a second to import

        self.resources, self.config = resources, config
        self._rescorer = resources.lm if resources.key.rescore else resources.rescorer
        self._decoder = BeamDecoder(
            tokenizer,
            self._first_pass(config),
            lm=None if resources.key.rescore else resources.lm,
            lexicon=resources.lexicon,
            hotwords=resources.hotwords,
            priors=_array(priors),
        )

    def with_config(self, config: BeamConfig, priors: Sequence[float] = ()) -> "TwoPassDecoder":
        """The same decoder with other weights, and other priors if any are given; models are shared."""
        other = copy.copy(self)
        other.config = config
        other._decoder = self._decoder.with_config(self._first_pass(config), _array(priors))
        return other

    def without_rescorer(self) -> "TwoPassDecoder":
        """The same decoder without the second language model, which only rescores."""
        if self.resources.rescorer is None:
            return self
        other = copy.copy(self)
        other.resources = replace(self.resources, rescorer=None)
        other._rescorer = None
        return other.with_config(self.config)

    def __call__(self, log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        """Decode a batch, with arguments and result of `Decode`."""
        found = self._decoder.decode(log_probs, step_lengths, step_s)
        if self._rescorer is None:
            return found
        from asr.decoding.rescoring import rescore

        weights = self.config.weights
        if self.resources.key.rescore:
            found = rescore(found, self._rescorer, weights.lm_weight, weights.word_bonus)
        else:
            found = rescore(found, self._rescorer, weights.rescore_weight, second=True)
        return [best[: self.config.nbest] for best in found]

    def _first_pass(self, config: BeamConfig) -> BeamConfig:
        """The settings of the first pass: there are as many texts to rescore as the beam is wide.

        Where the only language model rescores, the word bonus is added then, too: it compensates for the cost
        of each word by that model.
        """
        if self._rescorer is None:
            return config
        config = replace(config, nbest=max(config.width, config.nbest))
        return config.with_weights(word_bonus=0.0) if self.resources.key.rescore else config


def _array(priors: Sequence[float]) -> NDArray[np.float64] | None:
    return np.array(priors) if len(priors) else None


def build_decoder(settings: DecoderSettings, model: AcousticModel, nbest: int = 1) -> Decoder:
    """The decoder that the settings ask for, with the weights that were tuned for it.

    Args:
        settings: from the command line.
        model: on its device.
        nbest: hypotheses per utterance.

    Raises:
        AsrError: the settings contradict each other, or a file cannot be used.
    """
    tokenizer = model.settings.tokenizer
    options = {
        "--lm": settings.lm, "--lexicon": settings.lexicon, "--hotwords": settings.hotwords,
        "--rescore": settings.rescore, "--rescore-lm": settings.rescore_lm, "--nbest": nbest > 1,
    }  # fmt: skip
    given = settings.given
    options |= {f"--{name.replace('_', '-')}": True for name in given}
    named = [option for option, value in options.items() if value]
    if settings.decoder == "greedy" and named:
        raise SettingsError(f"--decoder greedy takes no {named[0]}. Leave it out, or use --decoder beam.")
    if settings.decoder != "beam" and not named:
        _refuse_beam(settings.beam)
        return Decoder(greedy_decoder(tokenizer), "greedy", "", True, DecodingResources().unit(tokenizer))
    resources = DecodingResources.read(settings, model)
    tunings = model.settings.tunings
    # weights that were found without the hot words are better than none
    keys = (resources.key, replace(resources.key, hotwords=""))
    tuning = next((old for key in keys for old in tunings if old.serves(key)), None)
    start = replace(settings.beam, weights=tuning.weights) if tuning else settings.beam
    config = replace(start, nbest=nbest).with_weights(**given)
    priors: tuple[float, ...] = ()
    if config.weights.prior_weight:
        priors = next((old.priors for old in (tuning, *tunings) if old and old.priors), ())
        if not priors:
            raise ModelError(
                f"--prior-weight {config.weights.prior_weight:g}: the model's mean posteriors are not known "
                f"yet. `asr tune` measures them and stores them with the model."
            )
    used = [name for name in _WEIGHTS if resources.uses(name)]
    needed = {name for name in ("lm_weight", "rescore_weight") if resources.uses(name)}
    return Decoder(
        decode=TwoPassDecoder(tokenizer, config, resources, priors),
        name=f"beam of {config.width}, {resources.name}",
        weights=_describe(config.weights, used, given, tuning, resources.key),
        tuned=tuning is not None or not needed or given.keys() >= {*needed, "word_bonus"},
        unit=resources.unit(tokenizer),
        tuning=tuning,
    )


def _refuse_beam(config: BeamConfig) -> None:
    """Refuse settings of the beam search where decoding is greedy.

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
