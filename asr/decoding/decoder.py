"""The decoder that a command line asks for, with the weights that were tuned for it.

`build_decoder` makes one of four, which all are a `Decoder`: `GreedyDecoder`; `TwoPassDecoder`, a beam search
(`BeamDecoder`) whose hypotheses may be rescored; `OpenVocabularyDecoder`, which spells words that a beam
search cannot write; and `AttentionDecoder`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

from torch import Tensor

from asr.decoding.attention_decoder import AttentionDecoder
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis, OutputUnit, output_unit
from asr.decoding.interface import Decoder, DecoderStream
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources, attention_decoder_of
from asr.errors import ModelError, SettingsError, option_name
from asr.model.acoustic import AcousticModel
from asr.model.decoding_weights import (
    OF_ANOTHER_LM,
    WEIGHT_NAMES,
    DecodingWeights,
    Tuning,
    closest_tuning,
)  # fmt: skip

__all__ = ["DescribedDecoder", "build_decoder"]


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
        vocabulary: the words that its search can write, or None where there is no limit.
    """

    decoder: Decoder
    name: str
    weights: str
    tuned: bool
    unit: OutputUnit
    tuning: Tuning | None = None
    vocabulary: Collection[str] | None = None

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> Sequence[Sequence[Hypothesis]]:
        """See `Decoder`."""
        return self.decoder.decode(log_probs, step_lengths, step_s, encoded)

    def stream(self, step_s: float) -> DecoderStream:
        """See `Decoder`."""
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
    named = _options_of_a_search(settings, nbest)
    if settings.decoder in ("greedy", "attention") and named:
        raise SettingsError(
            f"--decoder {settings.decoder} takes no {named[0]}. Leave it out, or use --decoder beam."
        )
    if settings.decoder == "attention":
        return _attention_decoder(settings, model, nbest)
    if settings.decoder == "beam" or named:
        return _beam_decoder(settings, model, nbest)
    _refuse_beam(settings.beam, "greedy")
    unit = output_unit(tokenizer)
    return DescribedDecoder(GreedyDecoder(tokenizer), name="greedy", weights="", tuned=True, unit=unit)


def _options_of_a_search(settings: DecoderSettings, nbest: int) -> list[str]:
    """The options that are given and that only a beam search has, as they are typed."""
    options = {
        "--lm": settings.lm, "--lexicon": settings.lexicon, "--hotwords": settings.hotwords,
        "--rescore": settings.rescore, "--rescore-lm": settings.rescore_lm,
        "--rescore-attention": settings.rescore_attention,
        "--nbest": nbest > 1 and settings.decoder != "attention",
        "--open-vocabulary": settings.open_vocabulary,
    }  # fmt: skip
    return [option for option, value in options.items() if value] + [*map(option_name, settings.given)]


def _attention_decoder(settings: DecoderSettings, model: AcousticModel, nbest: int) -> DescribedDecoder:
    _refuse_beam(replace(settings.beam, beam_size=None), "by the attention decoder")
    tokenizer, beam_size = model.settings.tokenizer, settings.beam.beam_size or 1
    alone = AttentionDecoder(attention_decoder_of(model, "--decoder attention"), tokenizer, beam_size, nbest)
    name = f"attention decoder, beam of {max(beam_size, nbest)}"
    unit = output_unit(tokenizer)
    return DescribedDecoder(alone, name=name, weights="", tuned=True, unit=unit)


def _beam_decoder(settings: DecoderSettings, model: AcousticModel, nbest: int) -> DescribedDecoder:
    """A beam search: the weights that are given, else those tuned for these resources, else the defaults."""
    tokenizer, tunings, given = model.settings.tokenizer, model.settings.tunings, settings.given
    resources = DecodingResources.read(settings, model)
    tuning, difference = closest_tuning(tunings, resources.key)
    start = replace(settings.beam, weights=tuning.weights) if tuning else settings.beam
    config = replace(start, nbest=nbest).with_weights(**given)
    if config.weights.prior_weight:
        priors = next((old.priors for old in (tuning, *tunings) if old and old.priors), ())
        if not priors:
            raise ModelError(
                f"--prior-weight {config.weights.prior_weight:g}: the model's mean posteriors are not known "
                f"yet. `asr tune` measures them and stores them with the model."
            )
        config = replace(config, priors=priors)
    used = [name for name in WEIGHT_NAMES if resources.uses(name)]
    needed = {name for name in ("lm_weight", "rescore_weight", "attention_weight") if resources.uses(name)}
    decoder: Decoder = TwoPassDecoder(tokenizer, config, resources)
    name = f"beam of {config.width.beam_size}, {resources.name}"
    if settings.open_vocabulary:
        from asr.decoding.open_vocabulary import open_vocabulary  # takes a second to import

        decoder = open_vocabulary(decoder, tokenizer, config, resources)
        name += ", open vocabulary"
    return DescribedDecoder(
        decoder=decoder,
        name=name,
        weights=_describe(config.weights, used, given, tuning, difference),
        tuned=bool(tuning and difference != OF_ANOTHER_LM)
        or not needed
        or given.keys() >= {*needed, "word_bonus"},
        unit=resources.unit(tokenizer),
        tuning=tuning,
        vocabulary=resources.vocabulary,
    )


def _refuse_beam(config: BeamConfig, kind: str) -> None:
    """Refuse settings of the beam search where decoding is of another kind.

    Raises:
        SettingsError: one is not at its default.
    """
    plain = BeamConfig()
    for name in (item.name for item in fields(BeamConfig)):
        value = getattr(config, name)
        if value != getattr(plain, name):
            raise SettingsError(
                f"{option_name('beam', name)} is {value}, but decoding is {kind}. Leave it out, or add "
                f"--decoder beam."
            )


def _describe(
    weights: DecodingWeights,
    names: list[str],
    given: dict[str, float],
    tuning: Tuning | None,
    difference: str,
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
    return (
        f"{values}: tuned{kept}{difference} on {tuning.manifest} ({tuning.utterances} utterances, "
        f"{percent:.2f}% there with a beam of {tuning.beam_size}) at {tuning.date}"
    )
