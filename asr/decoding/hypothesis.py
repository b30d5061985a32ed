"""What every decoder returns: the text of one utterance, with times, confidences and its score."""

from dataclasses import dataclass

__all__ = ["Hypothesis", "Word"]


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
            weighted; 0 without one. The rest of the score are bonuses and penalties.
    """

    text: str
    words: tuple[Word, ...]
    tokens: tuple[int, ...]
    steps: tuple[int, ...]
    score: float
    acoustic_score: float
    lm_score: float = 0.0
