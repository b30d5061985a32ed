"""A language model chooses among texts that were found without it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hypothesis import Hypothesis
from asr.lm.interface import LanguageModel

__all__ = ["rescore", "text_log_probs"]


def rescore(
    found: Sequence[Sequence[Hypothesis]],
    lm: LanguageModel[Any],
    lm_weight: float,
    word_bonus: float = 0.0,
    *,
    second: bool = False,
) -> list[list[Hypothesis]]:
    """Add a language model's weighted log-probabilities to the scores of a batch's hypotheses.

    Args:
        found: (batch,) hypotheses of each utterance, scored without this language model.
        lm: of words or characters.
        lm_weight: factor on its log-probabilities.
        word_bonus: nats for each word.
        second: whether the scores hold another language model's already.

    Returns:
        (batch,) the same hypotheses of each, best first.
    """
    name = "rescore_lm_score" if second else "lm_score"
    log_probs = iter(text_log_probs(lm, [one.text for hypotheses in found for one in hypotheses]).tolist())
    rescored = []
    for hypotheses in found:
        scored = []
        for old in hypotheses:
            nats = next(log_probs)
            score = old.score + lm_weight * nats + word_bonus * len(old.text.split())
            changed: dict[str, Any] = {"score": score, name: nats}
            scored.append(replace(old, **changed))
        rescored.append(sorted(scored, key=lambda one: -one.score))
    return rescored


def text_log_probs(lm: LanguageModel[Any], texts: Sequence[str]) -> NDArray[np.float64]:
    """Natural log-probabilities of texts, their ends included.

    What several texts begin with is asked once, since the best texts of an utterance mostly differ in a word
    or two; each symbol's place is one call for all texts.

    Args:
        lm: of words or characters.
        texts: (n,) words with single spaces between them.

    Returns:
        (n,) nats.
    """
    symbols = [text.split() if lm.unit == "word" else list(text) for text in texts]
    result = np.zeros(len(texts))
    ends: list[Any] = [None] * len(texts)
    states: list[Any] = [lm.start()]  # of the different beginnings of one length
    nats = np.zeros(1)
    place = dict.fromkeys(range(len(texts)), 0)  # text -> its beginning among these
    for depth in range(max(map(len, symbols), default=0) + 1):
        for text in [text for text in place if len(symbols[text]) == depth]:
            result[text] = nats[place[text]]
            ends[text] = states[place.pop(text)]
        if not place:
            break
        longer: dict[tuple[int, str], int] = {}
        place = {
            text: longer.setdefault((before, symbols[text][depth]), len(longer))
            for text, before in place.items()
        }
        before, following = zip(*longer, strict=True)
        gained, states = lm.score([states[number] for number in before], following)
        nats = nats[list(before)] + gained
    return result + lm.finish(ends) if texts else result
