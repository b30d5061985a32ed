"""The decoder that a command line asks for, with the weights that were tuned for it.

There are three, all with the method of `Decoder`: `GreedyDecoder`, `BeamDecoder`, and `TwoPassDecoder`, which
is a beam search whose hypotheses a language model may rescore. `build_decoder` makes the first or the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

from torch import Tensor

from asr.decoding.config import BeamConfig, DecoderSettings
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis, OutputUnit
from asr.decoding.partial import DecoderStream
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources
from asr.errors import ModelError, SettingsError, option_name
from asr.model.acoustic import AcousticModel
from asr.model.tuning import Tuning, TuningKey, Weights

__all__ = ["Decoder", "DescribedDecoder", "build_decoder"]

_WEIGHTS = tuple(item.name for item in fields(Weights))


class Decoder(Protocol):
    """What all decoders have in common: log-probabilities in, the best hypotheses of each utterance out."""

    def decode(
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

    def stream(self, step_s: float) -> DecoderStream:
        """A decoder of one utterance that comes in blocks.

        Args:
            step_s: seconds per step.
        """


@dataclass(frozen=True)
class DescribedDecoder:
    """A decoder with a description for reports.

    Attributes:
        decoder: what decodes.
        name: which decoder it is.
        weights: its weights and where they come from; "" for greedy decoding, which has none.
        tuned: whether all weights are tuned or given; True where there is nothing to tune.
        unit: what it writes: words or phones.
        tuning: the stored weights that it uses, or None.
    """

    decoder: Decoder
    name: str
    weights: str
    tuned: bool
    unit: OutputUnit
    tuning: Tuning | None = None

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float
    ) -> Sequence[Sequence[Hypothesis]]:
        """Decode a batch; see `Decoder`."""
        return self.decoder.decode(log_probs, step_lengths, step_s)

    def stream(self, step_s: float) -> DecoderStream:
        """A decoder of one utterance that comes in blocks; see `Decoder`."""
        return self.decoder.stream(step_s)


def build_decoder(settings: DecoderSettings, model: AcousticModel, nbest: int = 1) -> DescribedDecoder:
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
        return DescribedDecoder(
            GreedyDecoder(tokenizer), "greedy", "", True, DecodingResources().unit(tokenizer)
        )
    resources = DecodingResources.read(settings, model)
    tunings = model.settings.tunings
    # weights that were found without the hot words are better than none
    keys = (resources.key, replace(resources.key, hotwords=""))
    tuning = next((old for key in keys for old in tunings if old.key == key), None)
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
    return DescribedDecoder(
        decoder=TwoPassDecoder(tokenizer, config, resources, priors),
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
                f"{option_name('beam', name)} is {value}, but decoding is greedy. Leave it out, or add "
                f"--decoder beam."
            )


def _describe(
    weights: Weights, names: list[str], given: dict[str, float], tuning: Tuning | None, key: TuningKey
) -> str:
    """Each weight with its value, then where they come from."""
    values = ", ".join(f"{name.replace('_', '-')} {getattr(weights, name):g}" for name in names)
    chosen = [name.replace("_", "-") for name in names if name in given]
    if len(chosen) == len(names):
        return f"{values}: all given"
    kept = f" (except {', '.join(chosen)}, given)" if chosen else ""
    if tuning is None:
        return f"{values}: defaults, not tuned{kept}"
    percent = 100 * tuning.errors / max(tuning.words, 1)
    kept += "" if tuning.key == key else ", without these hot words"
    return (
        f"{values}: tuned{kept} on {tuning.manifest} ({tuning.utterances} utterances, {percent:.2f}% there "
        f"with a beam of {tuning.beam_size}) at {tuning.date}"
    )
