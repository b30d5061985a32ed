"""Decoding in two passes: language model and attention decoder rank the hypotheses of a beam search again."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.attention_decoder import require_encoded, token_log_probs
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.interface import DecoderStream
from asr.decoding.resources import DecodingResources
from asr.errors import SettingsError
from asr.lm.interface import LanguageModel
from asr.model.decoding_weights import DecodingWeights
from asr.model.recurrent_decoder import RecurrentDecoder
from asr.text.tokenizer import Tokenizer

__all__ = ["TwoPassDecoder", "rescore_by_attention", "rescore_by_lm", "text_log_probs", "transcript_tokens"]


class TwoPassDecoder:
    """A beam search and, after it, what rescores its texts: a language model, an attention decoder, or both.

    Args:
        tokenizer: the model's.
        config: width, weights and priors.
        resources: language models, lexicon, hot words and attention decoder.

    Attributes:
        resources: as given.
        config: as given.

    Raises:
        AsrError: the parts do not fit each other.
    """

    def __init__(self, tokenizer: Tokenizer, config: BeamConfig, resources: DecodingResources) -> None:
        from asr.decoding.beam_decoder import BeamDecoder  # takes a second to import

        self.resources, self.config = resources, config
        self._tokenizer = tokenizer
        self._rescorer = resources.lm if resources.key.rescore else resources.rescorer
        self._decoder = BeamDecoder(
            tokenizer,
            self._first_pass(config),
            lm=None if resources.key.rescore else resources.lm,
            lexicon=resources.lexicon,
            hotwords=resources.hotwords,
        )

    def with_config(self, config: BeamConfig) -> "TwoPassDecoder":
        """The same decoder with other weights; models are shared."""
        other = copy.copy(self)
        other.config = config
        other._decoder = self._decoder.with_config(self._first_pass(config))
        return other

    def without_rescorers(self) -> "TwoPassDecoder":
        """The same decoder without second language model and attention decoder, which only rescore."""
        other = copy.copy(self)
        other.resources = replace(self.resources, rescorer=None, attention=None)
        other._rescorer = self.resources.lm if self.resources.key.rescore else None
        return other.with_config(self.config)

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """See `Decoder`.

        Raises:
            ModelError: as `BeamDecoder.decode`, or there are no outputs for an attention decoder.
        """
        found = self._decoder.decode(log_probs, step_lengths, step_s)
        return self._second_pass(found, step_lengths, encoded)

    def stream(self, step_s: float) -> DecoderStream:
        """See `Decoder`; partial results are those of the first pass.

        Raises:
            SettingsError: an attention decoder rescores, which reads whole utterances.
        """
        if self.resources.attention is not None:
            raise SettingsError("--rescore-attention reads whole utterances. Leave it out in a stream.")
        stream = self._decoder.stream(step_s)
        return stream if self._rescorer is None else _RescoredStream(stream, self._rescored)

    def _second_pass(
        self, found: list[list[Hypothesis]], step_lengths: Tensor, encoded: Tensor | None
    ) -> list[list[Hypothesis]]:
        found, weights = self._rescored(found), self.config.weights
        attention = self.resources.attention
        if attention is not None:
            found = rescore_by_attention(found, attention, encoded, step_lengths, self._tokenizer, weights)
        return [best[: self.config.nbest] for best in found]

    def _rescored(self, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """The hypotheses, ranked by the language model of the second pass, if there is one."""
        weights = self.config.weights
        if self._rescorer is None:
            return found
        if self.resources.key.rescore:
            return rescore_by_lm(found, self._rescorer, weights.lm_weight, weights.word_bonus)
        return rescore_by_lm(found, self._rescorer, weights.rescore_weight, second=True)

    def _first_pass(self, config: BeamConfig) -> BeamConfig:
        """The settings of the first pass: there are as many texts to rescore as the beam is wide.

        Where the only language model rescores, the word bonus is added then, too: it compensates for the cost
        of each word by that model.
        """
        if self._rescorer is None and self.resources.attention is None:
            return config
        config = replace(config, nbest=max(config.width.beam_size, config.nbest))
        return config.with_weights(word_bonus=0.0) if self.resources.key.rescore else config


class _RescoredStream:
    """A stream whose hypotheses a language model rescores at the end."""

    def __init__(
        self, stream: DecoderStream, second_pass: Callable[[list[list[Hypothesis]]], list[list[Hypothesis]]]
    ) -> None:
        self.accept = stream.accept
        self._stream, self._second_pass = stream, second_pass

    def finish(self) -> list[Hypothesis]:
        [found] = self._second_pass([self._stream.finish()])
        return found


def rescore_by_lm(
    hypotheses: Sequence[Sequence[Hypothesis]],
    lm: LanguageModel[Any],
    lm_weight: float,
    word_bonus: float = 0.0,
    *,
    second: bool = False,
) -> list[list[Hypothesis]]:
    """Add a language model's weighted log-probabilities to the scores of a batch's hypotheses.

    Args:
        hypotheses: (batch,) those of each utterance, scored without this language model.
        lm: of words or characters.
        lm_weight: factor on its log-probabilities.
        word_bonus: nats for each word.
        second: whether the scores already hold those of another language model.

    Returns:
        (batch,) the same hypotheses of each, best first.
    """
    name = "rescore_lm_log_prob" if second else "lm_log_prob"
    log_probs = iter(
        text_log_probs(lm, [hypothesis.text for nbest in hypotheses for hypothesis in nbest]).tolist()
    )
    results = []
    for nbest in hypotheses:
        rescored = []
        for old in nbest:
            log_prob = next(log_probs)
            score = old.score + lm_weight * log_prob + word_bonus * len(old.text.split())
            changed: dict[str, Any] = {"score": score, name: log_prob}
            rescored.append(replace(old, **changed))
        results.append(_best_first(rescored))
    return results


def rescore_by_attention(
    hypotheses: Sequence[Sequence[Hypothesis]],
    decoder: RecurrentDecoder,
    encoded: Tensor | None,
    step_lengths: Tensor,
    tokenizer: Tokenizer,
    weights: DecodingWeights,
) -> list[list[Hypothesis]]:
    """Replace a share of the acoustic scores of a batch's hypotheses by the attention decoder's.

    Args:
        hypotheses: (batch,) those of each utterance.
        decoder: in evaluation mode.
        encoded: (batch, steps, size) the encoder's outputs, on any device.
        step_lengths: (batch,) int64 valid steps.
        tokenizer: the model's.
        weights: `attention_weight`, the share; `acoustic_scale`, a factor on the decoder's log-probabilities,
            as on the model's in the acoustic scores.

    Returns:
        (batch,) the same hypotheses of each, best first.

    Raises:
        ModelError: there are no outputs of the encoder.

    Source: Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition",
        equation 47, for the texts of one search.
    """
    encoded = require_encoded(encoded)
    results = []
    for nbest, memory, length in zip(hypotheses, encoded, step_lengths.tolist(), strict=True):
        tokens = [transcript_tokens(hypothesis.tokens, tokenizer) for hypothesis in nbest]
        log_probs = token_log_probs(decoder, memory[: max(length, 1)], tokens)
        rescored = []
        for old, log_prob in zip(nbest, log_probs, strict=True):
            change = weights.attention_weight * (weights.acoustic_scale * log_prob - old.acoustic_score)
            rescored.append(replace(old, score=old.score + change, attention_score=log_prob))
        results.append(_best_first(rescored))
    return results


def _best_first(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def text_log_probs(lm: LanguageModel[Any], texts: Sequence[str]) -> NDArray[np.float64]:
    """Natural log-probabilities of texts, their ends included.

    A beginning that texts share is scored once, since the best texts of an utterance mostly differ in a word
    or two. There is one call for each position, with all texts.

    Args:
        lm: of words or characters.
        texts: (n,) words with single spaces between them.

    Returns:
        (n,) nats.
    """
    symbols = [text.split() if lm.unit == "word" else list(text) for text in texts]
    result = np.zeros(len(texts))
    ends: list[Any] = [None] * len(texts)
    states: list[Any] = [lm.start()]  # of the different prefixes of one length
    log_probs = np.zeros(1)  # of these prefixes
    prefix_of = dict.fromkeys(range(len(texts)), 0)  # index of a text -> index of its prefix
    for length in range(max(map(len, symbols), default=0) + 1):
        for text in [text for text in prefix_of if len(symbols[text]) == length]:
            result[text] = log_probs[prefix_of[text]]
            ends[text] = states[prefix_of.pop(text)]
        if not prefix_of:
            break
        longer: dict[tuple[int, str], int] = {}  # prefix and next symbol -> index of the longer prefix
        prefix_of = {
            text: longer.setdefault((prefix, symbols[text][length]), len(longer))
            for text, prefix in prefix_of.items()
        }
        prefixes, next_symbols = zip(*longer, strict=True)
        added, states = lm.score([states[prefix] for prefix in prefixes], next_symbols)
        log_probs = log_probs[list(prefixes)] + added
    return result + lm.finish(ends) if texts else result


def transcript_tokens(tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Emitted tokens as transcripts have them, which the decoder has learned from.

    CTC may emit a space first, last, or twice.

    Args:
        tokens: ids, as in `Hypothesis.tokens`.
        tokenizer: the model's.
    """
    if tokenizer.pieces is None:
        return tuple(tokens)
    spaces = {number for number, piece in enumerate(tokenizer.pieces) if piece.begins_word and not piece.text}
    kept: list[int] = []
    for token in tokens:
        if token not in spaces or (kept and kept[-1] not in spaces):
            kept.append(token)
    return tuple(kept[:-1] if kept and kept[-1] in spaces else kept)
