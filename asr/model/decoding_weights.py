"""The weights of a beam search, and those that were tuned for a model and are saved with it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from asr.errors import ModelError, check_number, option_name

__all__ = [
    "OF_ANOTHER_LM", "WEIGHT_LIMITS", "WEIGHT_NAMES", "DecodingWeights", "Tuning", "TuningKey",
    "closest_tuning", "tunings_from_json", "tunings_to_json",
]  # fmt: skip


_MOST = 100.0  # absolute value of a weight: e ** 100 outweighs any evidence in audio
_ANY = {"least": -_MOST, "most": _MOST}
_FROM_0 = {"least": 0.0, "most": _MOST}
_ABOVE_0 = {"above": 0.0, "most": _MOST}


def _weight(default: float, limits: dict[str, float], meaning: str) -> Any:
    """A weight's field; its limits are those of `check_number`."""
    return field(default=default, metadata={"limits": limits, "help": meaning})


@dataclass(frozen=True, kw_only=True)
class DecodingWeights:
    """The weights of a beam search, each with its default.

    They are declared here only: the command line, the weight search and saved models use these fields.

    Raises:
        SettingsError: a value out of range, named as the user types it.
    """

    lm_weight: float = _weight(0.5, _FROM_0, "factor on the language model's log-probabilities")
    rescore_weight: float = _weight(
        0.5,
        {"least": 0.0, "most": 1.0},
        "share of the language model that rescores in the language's score, of which the first has the rest",
    )
    attention_weight: float = _weight(
        0.3,
        {"least": 0.0, "most": 1.0},
        "share of the attention decoder in the score of the audio, of which CTC has the rest",
    )
    word_bonus: float = _weight(0.0, _ANY, "nats for each word; above 0 more words are written")
    prior_weight: float = _weight(
        0.0, _FROM_0, "the tokens' probabilities are divided by the model's mean posteriors to this power"
    )
    acoustic_scale: float = _weight(1.0, _ABOVE_0, "factor on the model's log-probabilities")
    blank_scale: float = _weight(1.0, _ABOVE_0, "factor on the blank's probability; below 1 more is written")
    unknown_penalty: float = _weight(
        -5.0, _ANY, "nats for each word that vocabulary or language model does not know"
    )
    # without it, words that run together would score better than separate ones
    unknown_letter_penalty: float = _weight(
        -1.5, {"least": -_MOST, "most": 0.0}, "nats for each character (phone) of such a word"
    )

    def __post_init__(self) -> None:
        for name in WEIGHT_NAMES:
            check_number(option_name(name), getattr(self, name), **WEIGHT_LIMITS[name])

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', '-')} {getattr(self, name):g}" for name in WEIGHT_NAMES)


WEIGHT_NAMES = tuple(item.name for item in fields(DecodingWeights))
"""The weights in their order, by the names of their fields."""


WEIGHT_LIMITS: dict[str, dict[str, Any]] = {
    item.name: item.metadata["limits"] for item in fields(DecodingWeights)
}
"""The range of each weight, as `check_number` takes it."""


@dataclass(frozen=True, kw_only=True)
class TuningKey:
    """What tuned weights are for: files by their content, and the kind of search.

    Attributes:
        lm: SHA-256 of the language model's file; "" without one.
        lexicon: SHA-256 of the lexicon's file; "" without one.
        rescore: whether the language model rescored the hypotheses of a search without it.
        rescore_lm: SHA-256 of the file of a second language model, which rescored the hypotheses of a search
            with the first; "" without one.
        attention: whether the model's attention decoder rescored the hypotheses.
        hotwords: SHA-256 of the hot words and their boosts; "" without any.
        unknown_words: whether words outside the vocabulary were allowed ("allow" or "forbid").
    """

    lm: str = ""
    lexicon: str = ""
    rescore: bool = False
    rescore_lm: str = ""
    attention: bool = False
    hotwords: str = ""
    unknown_words: str = "allow"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Tuned weights, what they are for, and the utterances they were tuned on.

    Attributes:
        weights: the best ones.
        key: what they are for.
        priors: (vocab,) the model's mean posteriors on the utterances below, blank first.
        manifest: name of the file of the utterances that the weights were tuned on.
        data: digest of the ids and texts of these utterances.
        utterances: how many.
        errors: errors on them with these weights.
        words: in their references.
        beam_size: of the search that made these errors.
        date: when, ISO 8601, UTC.
    """

    weights: DecodingWeights = field(default_factory=DecodingWeights)
    key: TuningKey = field(default_factory=TuningKey)
    priors: tuple[float, ...] = ()
    manifest: str = ""
    data: str = ""
    utterances: int = 0
    errors: int = 0
    words: int = 0
    beam_size: int = 0
    date: str = ""


OF_ANOTHER_LM = ", with another language model"
_DIFFERENCES = {  # from a tuning's key, nearest first: what may be another, and how reports say so
    "": (),
    ", with other hot words": ("hotwords",),
    ", with another lexicon": ("hotwords", "lexicon"),
    OF_ANOTHER_LM: ("hotwords", "lexicon", "lm"),
}


def closest_tuning(tunings: Sequence[Tuning], key: TuningKey) -> tuple[Tuning | None, str]:
    """The tuning of the search that is most like this one: its weights are better than the defaults.

    Args:
        tunings: of the model, the newest last; of equally close ones it is used.
        key: of the search.

    Returns:
        The tuning, and in what it differs, for reports; "" if in nothing. None if the searches of all tunings
        are of another kind, for example without a language model, or rescored in another way.
    """
    for difference, others in _DIFFERENCES.items():
        for tuning in reversed(tunings):
            both_or_neither_lm = bool(tuning.key.lm) == bool(key.lm)
            if (
                both_or_neither_lm
                and replace(tuning.key, **{name: getattr(key, name) for name in others}) == key
            ):
                return tuning, difference
    return None, ""


_PARTS: dict[str, type[DecodingWeights] | type[TuningKey]] = {"weights": DecodingWeights, "key": TuningKey}


def tunings_to_json(tunings: tuple[Tuning, ...]) -> list[dict[str, Any]]:
    """Tunings as a saved model holds them: each flat, its weights first, then its key, then the rest."""
    rows = []
    for tuning in tunings:
        row = asdict(tuning)
        rows.append({**row.pop("weights"), **row.pop("key"), **row})
    return rows


def tunings_from_json(record: Mapping[str, Any]) -> tuple[Tuning, ...]:
    """The tunings in a saved model's record; none in a model that was never tuned.

    Raises:
        ModelError: the record is damaged, or of a newer version.
    """
    names = {item.name for kind in (Tuning, *_PARTS.values()) for item in fields(kind)} - _PARTS.keys()
    tunings = []
    for row in record.get("tunings", ()):
        if not isinstance(row, dict) or not row.keys() <= names:
            raise ModelError(
                "a record of tuned weights has unknown fields. It may come from a newer version of asr."
            )
        rest = {**row, "priors": tuple(map(float, row.get("priors", ())))}
        parts: dict[str, Any] = {
            name: kind(**{item.name: rest.pop(item.name) for item in fields(kind) if item.name in rest})
            for name, kind in _PARTS.items()
        }
        tunings.append(Tuning(**parts, **rest))
    return tuple(tunings)
