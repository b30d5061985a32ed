"""Decoding with an acoustic model's attention decoder: it rescores what a search has found, or writes alone.

The decoder scores tokens given the whole utterance and the tokens before them. Its log-probability replaces a
share of the acoustic score of a hypothesis, as in Watanabe et al. 2017, equation 47, for the texts of one
search. Alone it has neither lexicon nor language model, and may skip or repeat parts of an utterance.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asr.decoding.hypothesis import Hypothesis, name_tokens, time_words
from asr.decoding.interface import DecoderStream
from asr.errors import ModelError, SettingsError
from asr.model.decoding_weights import DecodingWeights
from asr.model.recurrent_decoder import EncodedSource, RecurrentDecoder
from asr.model.sequence_search import SearchConfig, beam_search
from asr.text.scripts import join_words
from asr.text.tokenizer import Tokenizer

__all__ = ["AttentionDecoder", "rescore_by_attention", "token_log_probs", "transcript_tokens"]

_LENGTH_EXPONENT = 1.0  # outputs are compared by the mean of their log-probabilities: sums prefer short ones


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
    """
    encoded = _required(encoded)
    results = []
    for nbest, memory, length in zip(hypotheses, encoded, step_lengths.tolist(), strict=True):
        tokens = [transcript_tokens(hypothesis.tokens, tokenizer) for hypothesis in nbest]
        log_probs = token_log_probs(decoder, memory[: max(length, 1)], tokens)
        rescored = []
        for old, log_prob in zip(nbest, log_probs, strict=True):
            change = weights.attention_weight * (weights.acoustic_scale * log_prob - old.acoustic_score)
            rescored.append(replace(old, score=old.score + change, attention_score=log_prob))
        results.append(sorted(rescored, key=lambda hypothesis: -hypothesis.score))
    return results


@torch.inference_mode()
def token_log_probs(
    decoder: RecurrentDecoder, memory: Tensor, tokens: Sequence[tuple[int, ...]]
) -> list[float]:
    """Log-probabilities of texts of one utterance, in one batch.

    Args:
        decoder: in evaluation mode.
        memory: (steps, size) the encoder's outputs of the utterance, at least one step.
        tokens: (texts,) token ids of each, at least one text; equal ones are computed once.

    Returns:
        (texts,) nats, the end of the text included.
    """
    distinct = list(dict.fromkeys(tokens))
    lengths = torch.tensor([len(ids) for ids in distinct])
    target = torch.zeros(len(distinct), int(lengths.max()), dtype=torch.int64)
    for row, ids in zip(target, distinct, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    memory = memory.to(decoder.device)
    source = decoder.source(memory.unsqueeze(0), torch.tensor([len(memory)], device=memory.device))
    source = source.repeated(len(distinct))
    losses = decoder.target_losses(source, target.to(memory.device), lengths.to(memory.device)).tolist()
    log_prob_of = {ids: -loss for ids, loss in zip(distinct, losses, strict=True)}
    return [log_prob_of[ids] for ids in tokens]


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


class AttentionDecoder:
    """The attention decoder alone, with the interface of all decoders.

    Args:
        decoder: in evaluation mode.
        tokenizer: the model's.
        beam_size: texts that are kept at each step; 1 is greedy.
        nbest: hypotheses returned, of different texts; there may be fewer.
    """

    def __init__(
        self, decoder: RecurrentDecoder, tokenizer: Tokenizer, beam_size: int = 1, nbest: int = 1
    ) -> None:
        self._decoder, self._tokenizer, self._nbest = decoder, tokenizer, nbest
        self._search = SearchConfig(beam_size=max(beam_size, nbest), length_exponent=_LENGTH_EXPONENT)

    def stream(self, step_s: float) -> DecoderStream:
        """Not possible.

        Raises:
            SettingsError: always: attention reads whole utterances.
        """
        raise SettingsError("--decoder attention reads whole utterances. Leave it out in a stream.")

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """The best texts of each utterance, at most as many tokens as steps, best first.

        A token's step is the one that is read most for it, or that of the token before, if that is later; its
        confidence is its probability.

        Args:
            log_probs: (batch, steps, vocab) is not used.
            step_lengths: (batch,) int64 valid steps.
            step_s: seconds per step.
            encoded: (batch, steps, size) the encoder's outputs, on any device.

        Raises:
            ModelError: there are no outputs of the encoder.
        """
        decoder = self._decoder
        encoded, step_lengths = _required(encoded).to(decoder.device), step_lengths.to(decoder.device)
        with torch.inference_mode():
            source = decoder.source(encoded, step_lengths.clamp(min=1))
            if self._search.beam_size > 1:
                found_outputs = beam_search(decoder, source, self._search, step_lengths)
            else:  # not the beam search, which would go on after the first end
                found_outputs = [
                    [(tokens, token_log_probs(decoder, memory[: max(length, 1)], [tokens])[0])]
                    for tokens, memory, length in zip(
                        decoder.write(source, step_lengths), encoded, step_lengths.tolist(), strict=True
                    )
                ]
            results = []
            for row, outputs in enumerate(found_outputs):
                utterance = source.rows(torch.tensor([row], device=decoder.device))
                found: dict[str, Hypothesis] = {}
                for tokens, log_prob in outputs:
                    text = join_words(name for name, _ in name_tokens(tokens, self._tokenizer))
                    if text not in found and len(found) < self._nbest:
                        found[text] = self._hypothesis(text, tokens, log_prob, utterance, step_s)
                results.append(list(found.values()))
        return results

    def _hypothesis(
        self, text: str, tokens: tuple[int, ...], log_prob: float, source: EncodedSource, step_s: float
    ) -> Hypothesis:
        log_probs, attention = self._decoder.step_through(
            source, torch.tensor([tokens], dtype=torch.int64, device=self._decoder.device)
        )
        steps: list[int] = attention[0, : len(tokens)].argmax(1).cummax(0).values.tolist()
        confidences = [float(log_probs[0, index, token].exp()) for index, token in enumerate(tokens)]
        ends = [step + 1 for step in steps]
        words = time_words(name_tokens(tokens, self._tokenizer), steps, ends, confidences, step_s)
        return Hypothesis(
            text, words, tokens, tuple(steps), log_prob, acoustic_score=log_prob, attention_score=log_prob
        )


def _required(encoded: Tensor | None) -> Tensor:
    if encoded is None:
        raise ModelError(
            "the attention decoder needs the encoder's outputs, and there are none. Decode what "
            "`AcousticModel.outputs` gives for a model with an attention decoder."
        )
    return encoded
