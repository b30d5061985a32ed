"""Decoding with an acoustic model's attention decoder alone, and its log-probabilities of given texts.

The decoder scores tokens given the whole utterance and the tokens before them. Alone it has neither lexicon
nor language model, and may skip or repeat parts of an utterance; `asr.decoding.rescoring` lets it choose
among the texts of a search.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.decoding.hypothesis import Hypothesis, name_tokens, time_words
from asr.decoding.interface import DecoderStream
from asr.errors import ModelError, SettingsError
from asr.model.recurrent_decoder import EncodedSource, RecurrentDecoder
from asr.model.sequence.search import SearchConfig, beam_search
from asr.text.scripts import join_words
from asr.text.tokenizer import Tokenizer

__all__ = ["AttentionDecoder", "require_encoded", "token_log_probs"]

_LENGTH_EXPONENT = 1.0  # outputs are compared by the mean of their log-probabilities: sums prefer short ones


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
        """Raises a SettingsError: attention reads whole utterances."""
        raise SettingsError("--decoder attention reads whole utterances. Leave it out in a stream.")

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """See `Decoder`; `log_probs` are not used. A text has at most as many tokens as there are steps.

        A token's step is the one that is read most for it, or that of the token before, if that is later; its
        confidence is its probability.

        Raises:
            ModelError: there are no outputs of the encoder.
        """
        decoder = self._decoder
        encoded, step_lengths = require_encoded(encoded).to(decoder.device), step_lengths.to(decoder.device)
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


def require_encoded(encoded: Tensor | None) -> Tensor:
    """The encoder's outputs, which an attention decoder needs.

    Raises:
        ModelError: there are none.
    """
    if encoded is None:
        raise ModelError(
            "the attention decoder needs the encoder's outputs, and there are none. Decode what "
            "`AcousticModel.outputs` gives for a model with an attention decoder."
        )
    return encoded
