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

__all__ = [
    "RESCORED",
    "TwoPassDecoder",
    "rescore_by_attention",
    "rescore_by_lm",
    "rescore_by_second_lm",
    "text_log_probs",
    "transcript_tokens",
]

RESCORED = 50  # texts of an utterance, at most: they take long to find and score, and further ones seldom win

_HISTORY = 3  # words that texts have to share for one state: what an n-gram model of four words knows


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
            return rescore_by_lm(found, self._rescorer, weights)
        return rescore_by_second_lm(found, self._rescorer, weights)

    def _first_pass(self, config: BeamConfig) -> BeamConfig:
        """The settings of the first pass, which gives the texts to rescore.

        Where the only language model rescores, the word bonus is added then, too: it compensates for the cost
        of each word by that model.
        """
        if self._rescorer is None and self.resources.attention is None:
            return config
        config = replace(config, nbest=max(min(config.width.beam_size, RESCORED), config.nbest))
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
    hypotheses: Sequence[Sequence[Hypothesis]], lm: LanguageModel[Any], weights: DecodingWeights
) -> list[list[Hypothesis]]:
    """Add a language model's weighted log-probabilities to the scores of hypotheses that have none.

    Args:
        hypotheses: (batch,) those of each utterance, scored without a language model and without word bonus.
        lm: of words or characters.
        weights: `lm_weight` and `word_bonus`.

    Returns:
        (batch,) the same hypotheses of each, best first.
    """

    def rescored(old: Hypothesis, log_prob: float) -> Hypothesis:
        added = weights.lm_weight * log_prob + weights.word_bonus * len(old.text.split())
        return replace(old, score=old.score + added, lm_log_prob=log_prob)

    return _rescore(hypotheses, lm, rescored)


def rescore_by_second_lm(
    hypotheses: Sequence[Sequence[Hypothesis]], lm: LanguageModel[Any], weights: DecodingWeights
) -> list[list[Hypothesis]]:
    """Replace a share of the language model's log-probabilities in the scores by those of another one.

    Args:
        hypotheses: (batch,) those of each utterance, best first.
        lm: the other one, of words or characters.
        weights: `rescore_weight`, the share, and `lm_weight`, of both together.

    Returns:
        (batch,) the same hypotheses of each, best first.
    """

    def rescored(old: Hypothesis, log_prob: float) -> Hypothesis:
        change = weights.rescore_weight * weights.lm_weight * (log_prob - old.lm_log_prob)
        return replace(old, score=old.score + change, rescore_lm_log_prob=log_prob)

    return _rescore(hypotheses, lm, rescored)


def _rescore(
    hypotheses: Sequence[Sequence[Hypothesis]],
    lm: LanguageModel[Any],
    rescored: Callable[[Hypothesis, float], Hypothesis],
) -> list[list[Hypothesis]]:
    """The hypotheses of each utterance as a function makes them with their log-probabilities, best first."""
    lists = text_log_probs(lm, [[one.text for one in nbest] for nbest in hypotheses], _HISTORY)
    return [
        _best_first([*map(rescored, nbest, log_probs.tolist())], nbest)
        for nbest, log_probs in zip(hypotheses, lists, strict=True)
    ]


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
        results.append(_best_first(rescored, nbest))
    return results


def _best_first(rescored: list[Hypothesis], found: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Rescored hypotheses by their scores, the best one with the confidences of the search.

    The search knows those of the text that it found best: the words that the best one now shares with it, at
    the same time, keep them.

    Args:
        rescored: of an utterance.
        found: the same as the search ranked them.
    """
    ranked = sorted(rescored, key=lambda hypothesis: -hypothesis.score)
    if ranked and ranked[0].text != found[0].text:
        words = tuple(
            next(
                (
                    replace(word, confidence=same.confidence)
                    for same in found[0].words
                    if same.text == word.text and same.start_s < word.end_s and word.start_s < same.end_s
                ),
                word,
            )
            for word in ranked[0].words
        )
        ranked[0] = replace(ranked[0], words=words)
    return ranked


def text_log_probs(
    lm: LanguageModel[Any], lists: Sequence[Sequence[str]], history: int | None = None
) -> list[NDArray[np.float64]]:
    """Natural log-probabilities of texts, their ends included.

    A beginning that texts share is scored once. There is one call for each position, with all texts.

    Args:
        lm: of words or characters.
        lists: of each utterance (n,) texts, the best first: words with single spaces between them.
        history: texts of a list that have so many last words in common are one from there on, with the state
            of the first of them, so that a network reads less than half as many words. None: exact.

    Returns:
        (n,) nats for each utterance.

    Source: Liu et al. 2014, "Efficient lattice rescoring using recurrent neural network language models",
        section 3.1 (n-gram based history clustering).
    """
    texts = [(number, text) for number, nbest in enumerate(lists) for text in nbest]
    symbols = [text.split() if lm.unit == "word" else list(text) for _, text in texts]
    result = np.zeros(len(texts))
    ends: list[Any] = [None] * len(texts)
    states: list[Any] = [lm.start()]  # of the different beginnings of one length
    node_of = dict.fromkeys(range(len(texts)), 0)  # index of a text -> of its beginning
    for length in range(max(map(len, symbols), default=0) + 1):
        for text in [text for text in node_of if len(symbols[text]) == length]:
            ends[text] = states[node_of.pop(text)]
        if not node_of:
            break
        longer: dict[tuple[Any, ...], int] = {}  # what makes a beginning another one -> its index
        asked: list[tuple[int, str]] = []  # beginning and next symbol
        for text, node in node_of.items():
            if lm.unit == "word" and history is not None:
                key = (texts[text][0], *symbols[text][max(length - history, 0) : length + 1])
            else:
                key = (node, symbols[text][length])
            if key not in longer:
                longer[key] = len(longer)
                asked.append((node, symbols[text][length]))
            node_of[text] = longer[key]
        before, next_symbols = zip(*asked, strict=True)
        log_probs, states = lm.score([states[node] for node in before], next_symbols)
        result[list(node_of)] += log_probs[list(node_of.values())]
    if texts:
        result += lm.finish(ends)
    sizes = [len(nbest) for nbest in lists]
    return [result[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]


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
