"""Decoding weights that were tuned for a model: what it carries of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from asr.errors import ModelError

__all__ = ["Tuning", "Weights", "tunings_from_json", "tunings_to_json"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of a beam search that are tuned; as in BeamConfig.

    Attributes:
        lm_weight: factor on the language model's log-probabilities.
        word_bonus: nats a word.
        prior_weight: the tokens' probabilities are divided by their priors to this power.
        acoustic_scale: factor on the model's log-probabilities.
        blank_scale: factor on the blank's probability.
    """

    lm_weight: float = 0.0
    word_bonus: float = 0.0
    prior_weight: float = 0.0
    acoustic_scale: float = 1.0
    blank_scale: float = 1.0

    def __str__(self) -> str:
        return ", ".join(
            f"{item.name.replace('_', '-')} {getattr(self, item.name):g}" for item in fields(Weights)
        )


@dataclass(frozen=True, kw_only=True)
class Tuning(Weights):
    """Weights of a beam search, the language model they belong to, and where they were found.

    Attributes:
        lm: SHA-256 of the language model's file; "" without one.
        lexicon: SHA-256 of the lexicon's file; "" without one.
        rescore: whether the language model only chose among the best texts of a search without it.
        unknown_words: whether words outside the vocabulary were allowed ("allow" or "forbid").
        priors: (vocab,) the model's mean posteriors on the utterances below, blank first.
        manifest: name of the file of the utterances that the weights were tuned on.
        data: digest of the ids and texts of these utterances.
        utterances: how many.
        errors: errors on them with these weights.
        words: in their references.
        beam_size: of the search that made these errors.
        date: when, ISO 8601, UTC.
    """

    lm: str = ""
    lexicon: str = ""
    rescore: bool = False
    unknown_words: str = "allow"
    priors: tuple[float, ...] = ()
    manifest: str = ""
    data: str = ""
    utterances: int = 0
    errors: int = 0
    words: int = 0
    beam_size: int = 0
    date: str = ""

    def serves(self, other: "Tuning") -> bool:
        """Whether the other one is of the same language model, lexicon and kind of search."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("lm", "lexicon", "rescore", "unknown_words")
        )


def tunings_to_json(tunings: tuple[Tuning, ...]) -> list[dict[str, Any]]:
    """As a saved model holds them."""
    return [asdict(tuning) for tuning in tunings]


def tunings_from_json(record: Mapping[str, Any]) -> tuple[Tuning, ...]:
    """The tunings in a saved model's record; none in a model that was never tuned.

    Raises:
        ModelError: the record is damaged, or of a newer version.
    """
    known = {item.name for item in fields(Tuning)}
    found = []
    for row in record.get("tunings", ()):
        if not isinstance(row, dict) or not row.keys() <= known:
            raise ModelError(
                "a record of tuned weights has unknown fields. It may come from a newer version of asr."
            )
        found.append(Tuning(**{**row, "priors": tuple(map(float, row.get("priors", ())))}))
    return tuple(found)
