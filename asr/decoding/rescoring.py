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
    hypotheses: Sequence[Hypothesis], lm: LanguageModel[Any], lm_weight: float, word_bonus: float = 0.0
) -> list[Hypothesis]:
    """Add a language model's weighted log-probabilities to the scores of one utterance's hypotheses.

    Args:
        hypotheses: (n,) of one utterance, scored without the language model.
        lm: of words or characters.
        lm_weight: factor on its log-probabilities.
        word_bonus: nats for each word.

    Returns:
        (n,) the same hypotheses, best first.
    """
    log_probs = text_log_probs(lm, [hypothesis.text for hypothesis in hypotheses])
    scored = [
        replace(
            old,
            score=old.score + lm_weight * float(nats) + word_bonus * len(old.text.split()),
            lm_score=float(nats),
        )
        for old, nats in zip(hypotheses, log_probs, strict=True)
    ]
    return sorted(scored, key=lambda hypothesis: -hypothesis.score)


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
