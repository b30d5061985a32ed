"""Settings of decoding: the beam search, and what a command line asks for."""

from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from asr.errors import check_choice, check_number, option_name
from asr.model.decoding_weights import WEIGHT_NAMES, DecodingWeights
from asr.model.shipped import ModelFiles, SearchWidth

__all__ = ["BeamConfig", "DecoderSettings"]

_SHIPPED = "(default: what the model ships with, else none)"


def _width(name: str, metavar: str) -> Any:
    """The option of one of the fields of SearchWidth, which may be left out."""
    default = getattr(SearchWidth(), name)
    hint = f"(default: {default:g}, or what a model that ships asks for)"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


# No options of a command's --beam: DecoderSettings has the weights, by default the tuned ones; the model has
# the priors; commands have --nbest.
_Tuned = Annotated[DecodingWeights, tyro.conf.Suppress, tyro.conf.Fixed]
_Priors = Annotated[tuple[float, ...], tyro.conf.Suppress, tyro.conf.Fixed]
_Nbest = Annotated[int, tyro.conf.Suppress]


@dataclass(frozen=True)
class BeamConfig:
    """How wide the beam search is, and how it weighs its scores.

    Raises:
        SettingsError: a value out of range, named as the user types it.
    """

    # prefixes kept after each step
    beam_size: Annotated[int | None, _width("beam_size", "INT")] = None
    nbest: _Nbest = 1  # hypotheses returned, of different texts; there may be fewer
    # nats: a prefix this far below the best one is dropped; inf keeps all
    beam_threshold: Annotated[float | None, _width("beam_threshold", "FLOAT")] = None
    # nats: a token this far below the step's best starts nothing; inf tries all
    token_threshold: Annotated[float | None, _width("token_threshold", "FLOAT")] = None
    token_top: int = 0  # tokens tried in a step, the most probable ones; 0 tries all
    blank_skip: float = 0.999  # above this blank probability a step starts no new prefixes; 1 never skips
    # of prefixes that can continue in the same ways, keep the best: a smaller beam suffices, and a stream has
    # stable words sooner; approximate: where the model is unsure, another text can win
    recombine: bool = True
    # nats: a prefix that recombination drops and that is this far below the best one gives no alternative
    lattice_threshold: float = 16.0
    weights: _Tuned = field(default_factory=DecodingWeights)
    priors: _Priors = ()  # (vocab,) the model's mean posteriors, blank first, for a prior weight above 0
    unknown_words: Literal["allow", "forbid"] = "allow"  # words outside the vocabulary
    threads: int = 0  # utterances decoded at the same time; 0: one per usable core

    def __post_init__(self) -> None:
        check_number("--beam.beam-size", self.beam_size, least=1)
        check_number("--nbest", self.nbest, least=1)
        for name in ("beam_threshold", "token_threshold", "lattice_threshold"):
            check_number(option_name("beam", name), getattr(self, name), above=0)
        check_number("--beam.token-top", self.token_top, least=0)
        check_number("--beam.blank-skip", self.blank_skip, above=0, most=1)
        check_choice("--beam.unknown-words", self.unknown_words, ("allow", "forbid"))
        check_number("--beam.threads", self.threads, least=0)

    @property
    def width(self) -> SearchWidth:
        """How much the search keeps: what is given, else the default."""
        return self.complete_width(SearchWidth())

    def complete_width(self, default: SearchWidth) -> SearchWidth:
        """How much the search keeps: what is given, else as `default` has it."""
        given = {one.name: getattr(self, one.name) for one in fields(SearchWidth)}
        return replace(default, **{name: value for name, value in given.items() if value is not None})

    def with_weights(self, **weights: float) -> "BeamConfig":
        """The same settings, some weights changed."""
        return replace(self, weights=replace(self.weights, **weights))


def _option(weight: Any) -> Any:
    """The option of a weight, which may be left out: name, type, default."""
    argument = tyro.conf.arg(
        metavar="FLOAT",
        help=weight.metadata["help"],
        help_behavior_hint=f"(default: tuned, else {weight.default:g})",
    )
    return (weight.name, Annotated[float | None, argument], None)


if TYPE_CHECKING:
    GivenDecodingWeights = Any
else:  # the fields of DecodingWeights, each of which may be left out
    GivenDecodingWeights = make_dataclass(
        "GivenDecodingWeights", map(_option, fields(DecodingWeights)), frozen=True
    )


@dataclass(frozen=True)
class DecoderSettings:
    """How log-probabilities become text; weights that are not given are those that were tuned."""

    # how to search (default: beam where there is a language model, a lexicon, hot words or a weight, those
    # of the model included, or where --nbest or rescoring asks for more than one text; else greedy);
    # attention: the model's attention decoder alone, with a beam where --beam.beam-size is given
    decoder: Annotated[
        Literal["greedy", "beam", "attention"] | None,
        tyro.conf.arg(metavar="greedy|beam|attention", help_behavior_hint=""),
    ] = None
    # language model: .bin, .arpa or .arpa.gz of n-grams, or .safetensors of a network
    lm: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_SHIPPED)] = None
    # the vocabulary: a word per line, and its tokens where it is spelled or pronounced otherwise
    lexicon: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_SHIPPED)] = None
    # with a model of phones: spell by its sound what no known word fits; --unknown-penalty sets how readily
    open_vocabulary: tyro.conf.FlagCreatePairsOff[bool] = False
    # words that are more likely in these recordings, each with its boost in nats (3 where none is given)
    hotwords: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="WORD:BOOST...", help_behavior_hint="(default: none)")
    ] = ()
    # search without the language model, which then chooses among the best texts that were found
    rescore: tyro.conf.FlagCreatePairsOff[bool] = False
    # another language model, such as a word RNN, which chooses among the best texts of the search
    rescore_lm: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_SHIPPED)] = None
    # the model's attention decoder chooses among the best texts of the search
    rescore_attention: tyro.conf.FlagCreatePairsOff[bool] = False
    weights: Annotated[GivenDecodingWeights, tyro.conf.arg(name="")] = field(
        default_factory=GivenDecodingWeights
    )
    # how wide the beam search is
    beam: BeamConfig = field(default_factory=BeamConfig)

    @property
    def given(self) -> dict[str, Any]:
        """The weights that are given, by name."""
        values = {name: getattr(self.weights, name) for name in WEIGHT_NAMES}
        return {name: value for name, value in values.items() if value is not None}

    def with_defaults_of(self, files: ModelFiles) -> "DecoderSettings":
        """The settings with the files and the search's width of a model, where none are given.

        With another language model, the model's lexicon and what rescores are left out.
        """
        if files.lm is None or self.decoder in ("greedy", "attention"):
            return self
        beam = replace(self.beam, **asdict(self.beam.complete_width(files.width)))
        if self.lm is not None:
            return replace(self, beam=beam)
        return replace(
            self,
            lm=files.lm,
            lexicon=self.lexicon or files.lexicon,
            rescore_lm=self.rescore_lm or (None if self.rescore else files.rescore_lm),
            beam=beam,
        )
