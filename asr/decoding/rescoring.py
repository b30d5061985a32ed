"""Rescoring: a language model ranks the hypotheses of a search again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hypothesis import Hypothesis
from asr.lm.interface import LanguageModel

__all__ = ["rescore", "text_log_probs"]


def rescore(
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
    name = "rescore_lm_score" if second else "lm_score"
    log_probs = iter(text_log_probs(lm, [one.text for nbest in hypotheses for one in nbest]).tolist())
    results = []
    for nbest in hypotheses:
        rescored = []
        for old in nbest:
            log_prob = next(log_probs)
            score = old.score + lm_weight * log_prob + word_bonus * len(old.text.split())
            changed: dict[str, Any] = {"score": score, name: log_prob}
            rescored.append(replace(old, **changed))
        results.append(sorted(rescored, key=lambda one: -one.score))
    return results


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
