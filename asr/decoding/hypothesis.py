"""What every decoder returns: the text of one utterance, with times, confidences and its score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asr.text.tokenizer import Tokenizer

__all__ = ["Hypothesis", "Named", "OutputUnit", "Word", "name_tokens", "place_words"]

OutputUnit = Literal["words", "phones"]
"""What a decoder writes, and what an error rate therefore counts."""

Named = list[tuple[str, slice]]
"""Words, and where their tokens are."""


@dataclass(frozen=True)
class Word:
    """A word and where it stands.

    Attributes:
        text: the word, without spaces.
        start_s: begin of the encoder step that emitted the first token, in seconds from the utterance's
            start.
        end_s: end of the last encoder step of the last token, in seconds. CTC tends to emit a token late and
            briefly, so these are the times of the evidence, not the word's acoustic boundaries.
        confidence: 0..1; see the decoder for how it is computed.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """What was recognised in one utterance.

    Attributes:
        text: the words joined by single spaces: spaces at the ends are gone and runs of spaces are folded.
        words: (words,) the same words with times and confidences. Where the units are phones and no lexicon
            told the words, each phone stands as a word.
        tokens: (tokens,) token ids as they were emitted, spaces included and not folded.
        steps: (tokens,) encoder step at which each token was emitted (the first step of its run).
        score: what the decoder ranks by, in nats; higher is better. Comparable between hypotheses of the same
            utterance only.
        acoustic_score: the model's part of it: log-probability of the tokens in nats, as the decoder scales
            it; of the best path (greedy) or of all paths (beam).
        lm_score: what the language model says of the text, its end included: log-probability in nats, not yet
            weighted; 0 without one.
        rescore_lm_score: of a second language model, which rescored the text: likewise. The rest of the score
            are bonuses and penalties.
    """

    text: str
    words: tuple[Word, ...]
    tokens: tuple[int, ...]
    steps: tuple[int, ...]
    score: float
    acoustic_score: float
    lm_score: float = 0.0
    rescore_lm_score: float = 0.0


def name_tokens(tokens: Sequence[int], tokenizer: Tokenizer) -> Named:
    """The words that tokens write; where they write none (phones), each token is a word.

    Args:
        tokens: ids.
        tokenizer: the model's.
    """
    found = tokenizer.words(tokens)
    if found is None:
        found = [slice(place, place + 1) for place in range(len(tokens))]
    return [(tokenizer.decode(tokens[where]), where) for where in found]


def place_words(
    named: Named, starts: Sequence[int], ends: Sequence[int], confidences: Sequence[float], step_s: float
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
            start_s=starts[where.start] * step_s,
            end_s=ends[where.stop - 1] * step_s,
            confidence=sum(confidences[where]) / (where.stop - where.start),
        )
        for name, where in named
    )
