"""What every decoder returns: the text of one utterance, with times, confidences and its score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from asr.text.scripts import split_words
from asr.text.tokenizer import Tokenizer

__all__ = ["Hypothesis", "NamedSpans", "OutputUnit", "Word", "name_tokens", "output_unit", "time_words"]

OutputUnit = Literal["words", "phones"]
"""What a decoder writes."""

NamedSpans = list[tuple[str, slice]]
"""Words, each with the slice of the tokens that it is made of."""


@dataclass(frozen=True)
class Word:
    """A word with its times and confidence.

    Attributes:
        text: the word, without spaces; in scripts that are written without them, one character.
        start_s: begin of the encoder step that emitted the first token, in seconds from the utterance's
            start.
        end_s: end of the last encoder step of the last token, in seconds. CTC tends to emit a token late and
            briefly, so these are the times of the evidence, not the word's acoustic boundaries.
        confidence: 0..1: how likely the word is right, see `GreedyDecoder` and `BeamDecoder.decode`.
        unknown: whether it is outside the decoder's vocabulary and spelled by its sound, see
            `OpenVocabularyDecoder`.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    unknown: bool = False

    def shifted(self, seconds: float) -> "Word":
        """The same word so many seconds later."""
        return replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds)


@dataclass(frozen=True)
class Hypothesis:
    """The text of one utterance.

    Attributes:
        text: the words joined by single spaces; without them in scripts that have none, see `join_words`.
        words: (words,) the same words with times and confidences. Where the units are phones and no lexicon
            names the words, each phone is a word.
        tokens: (tokens,) token ids as they were emitted, spaces included and not folded.
        steps: (tokens,) encoder step at which each token was emitted (the first step of its run).
        score: what the decoder ranks by, in nats; higher is better. Comparable between hypotheses of the same
            utterance only.
        acoustic_score: the model's part of it: log-probability of the tokens in nats, as the decoder scales
            it; of the best path (greedy) or of all paths (beam).
        lm_log_prob: log-probability of the text by the language model, its end included, in nats, not
            weighted; 0 without one.
        rescore_lm_log_prob: likewise by a second language model, which rescored the text. The rest of the
            score is bonuses and penalties.
        attention_score: log-probability of the tokens by the attention decoder, their end included, in nats,
            which replaces a share of the acoustic score in the score; 0 without one.
    """

    text: str
    words: tuple[Word, ...]
    tokens: tuple[int, ...]
    steps: tuple[int, ...]
    score: float
    acoustic_score: float
    lm_log_prob: float = 0.0
    rescore_lm_log_prob: float = 0.0
    attention_score: float = 0.0


def output_unit(tokenizer: Tokenizer) -> OutputUnit:
    """What a decoder writes that has no vocabulary: words, or phones where these are the tokens."""
    return "words" if tokenizer.pieces else "phones"


def name_tokens(tokens: Sequence[int], tokenizer: Tokenizer) -> NamedSpans:
    """The words that tokens spell; where tokens spell none (phones), each token is a word.

    In scripts that are written without spaces, each character that is a token is a word, so that it has its
    own times.

    Args:
        tokens: ids.
        tokenizer: the model's.
    """
    spans = tokenizer.words(tokens)
    if spans is None:
        spans = [slice(index, index + 1) for index in range(len(tokens))]
    return [one for span in spans for one in _without_unspaced(tokenizer.decode(tokens[span]), span)]


def _without_unspaced(name: str, span: slice) -> NamedSpans:
    """A word, or its characters where they are of a script without spaces, and a token each."""
    if name.isascii() or len(name) != span.stop - span.start:
        return [(name, span)]
    parts, begin = [], span.start
    for part in split_words(name):
        parts.append((part, slice(begin, begin + len(part))))
        begin += len(part)
    return parts


def time_words(
    named: NamedSpans, starts: Sequence[int], ends: Sequence[int], confidences: Sequence[float], step_s: float
) -> tuple[Word, ...]:
    """Words with the times of their tokens; a word's confidence is the mean over its tokens.

    Args:
        named: the words.
        starts: (tokens,) first step of each token's run.
        ends: (tokens,) first step after it.
        confidences: (tokens,) of each token.
        step_s: seconds an encoder step.
    """
    return tuple(
        Word(
            text=name,
            start_s=starts[span.start] * step_s,
            end_s=ends[span.stop - 1] * step_s,
            confidence=sum(confidences[span]) / (span.stop - span.start),
        )
        for name, span in named
    )
