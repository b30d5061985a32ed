"""What tuning minimises: the errors of a decoder with given weights, on a dev set, in what is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hypothesis import Hypothesis
from asr.decoding.rescoring import TwoPassDecoder
from asr.model.decoding_weights import DecodingWeights
from asr.recognition.emissions import Emissions
from asr.scoring.wer import count_errors, counted_unit

__all__ = ["ErrorCounter", "NBestLists", "oracle_errors"]


class ErrorCounter:
    """The errors of a decoder on a dev set, as a function of its weights.

    Where the only language model rescores, the search does not depend on its weights: each search is done
    once, and the weights choose among its texts.

    Args:
        decoder: its weights do not matter.
        emissions: of the dev set.
        references: its texts.
    """

    def __init__(self, decoder: TwoPassDecoder, emissions: Emissions, references: Sequence[str]) -> None:
        self._decoder, self._emissions, self._references = decoder, emissions, references
        self._lists: dict[DecodingWeights, NBestLists] = {}

    def __call__(self, weights: DecodingWeights) -> int:
        """The errors with these weights."""
        if self._decoder.resources.key.rescore:
            return self._rescored(weights)
        decoder = self._decoder.with_config(replace(self._decoder.config, weights=weights))
        texts = [found[0].text for found in self._emissions.decode(decoder)]
        return sum(count_errors(self._references, texts, counted_unit(self._references)))

    def _rescored(self, weights: DecodingWeights) -> int:
        acoustic = replace(weights, lm_weight=0.0, word_bonus=0.0)
        if acoustic not in self._lists:
            config = self._decoder.config
            config = replace(config, weights=acoustic, nbest=config.width.beam_size)
            found = list(self._emissions.decode(self._decoder.with_config(config)))
            names = self._decoder.resources.second_pass
            self._lists[acoustic] = NBestLists.of(found, self._references, acoustic, names)
        return self._lists[acoustic].errors_with(weights)


def _per_weight(name: str, weights: DecodingWeights, hypothesis: Hypothesis) -> float:
    """What a weight of the second pass is multiplied by in a hypothesis's score."""
    if name == "attention_weight":
        return weights.acoustic_scale * hypothesis.attention_score - hypothesis.acoustic_score
    if name == "word_bonus":
        return len(hypothesis.text.split())
    if name == "rescore_weight":
        return weights.lm_weight * (hypothesis.rescore_lm_log_prob - hypothesis.lm_log_prob)
    return hypothesis.lm_log_prob


@dataclass(frozen=True)
class NBestLists:
    """The best texts of each utterance as arrays, all (utterances, nbest); a missing text has score -inf.

    Attributes:
        score: float64 nats: without what the weights of the second pass add.
        added: by the name of each such weight, float64: what it is multiplied by.
        errors: int64: errors of the text.
    """

    score: NDArray[np.float64]
    added: Mapping[str, NDArray[np.float64]]
    errors: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        found: Sequence[Sequence[Hypothesis]],
        references: Sequence[str],
        weights: DecodingWeights,
        names: Sequence[str],
    ) -> "NBestLists":
        """The lists that a decoder has found.

        Args:
            found: (utterances,) hypotheses of each.
            references: (utterances,) texts.
            weights: of the decoder.
            names: of the weights that are to be tried, of `DecodingResources.second_pass`.
        """
        shape = len(found), max(map(len, found))
        scores, errors = np.full(shape, -np.inf), np.zeros(shape, np.int64)
        unit = counted_unit(references)
        added = {name: np.zeros(shape) for name in names}
        for row, (hypotheses, reference) in enumerate(zip(found, references, strict=True)):
            texts = np.s_[row, : len(hypotheses)]
            scores[texts] = [hypothesis.score for hypothesis in hypotheses]
            for name in names:
                added[name][texts] = [_per_weight(name, weights, hypothesis) for hypothesis in hypotheses]
                scores[texts] -= getattr(weights, name) * added[name][texts]
            recognised = [hypothesis.text for hypothesis in hypotheses]
            errors[texts] = count_errors([reference] * len(hypotheses), recognised, unit)
        return cls(scores, added, errors)

    def errors_with(self, weights: DecodingWeights) -> int:
        """Errors of the best texts with other weights of the second pass."""
        total = self.score + sum(getattr(weights, name) * part for name, part in self.added.items())
        return int(np.take_along_axis(self.errors, total.argmax(1)[:, None], 1).sum())


def oracle_errors(references: Sequence[str], found: Sequence[Sequence[Hypothesis]]) -> int:
    """Errors of the hypotheses that are closest to the references, one per utterance.

    Args:
        references: (utterances,) texts.
        found: (utterances,) hypotheses of each.
    """
    pairs = [
        (reference, hypothesis.text)
        for reference, hypotheses in zip(references, found, strict=True)
        for hypothesis in hypotheses
    ]
    true, texts = map(list, zip(*pairs, strict=True))
    counts = iter(count_errors(true, texts, counted_unit(references)))
    return sum(min(next(counts) for _ in hypotheses) for hypotheses in found)
