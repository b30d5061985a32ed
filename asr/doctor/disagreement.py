"""Which transcripts disagree most with their audio, as a model hears it.

The measure is the CTC loss of the transcript less that of the text which the model finds by itself, a token:
0 where both are the same, and little higher in noise, which lowers both. A transcript of another recording
has several nats a token.
"""

import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.doctor.findings import Finding
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.emissions import compute_emissions
from asr.text.normalize import normalize
from asr.text.tokenizer import BLANK

__all__ = ["disagreement_findings"]

_AT_ONCE = 500  # utterances whose log-probabilities are held in memory
_OUTLIER = 5.0  # times the median deviation
_LEAST = 1.0  # nats a token: what is below is no disagreement


def disagreement_findings(
    manifest: str, utterances: Sequence[Utterance], model: AcousticModel, batch_s: float
) -> Iterator[Finding]:
    """The transcripts that stand out among those of a manifest, the worst first.

    Args:
        manifest: its name.
        utterances: whose audio can be used.
        model: on its device.
        batch_s: seconds of audio in a batch, padding included.
    """
    tokenizer, rules = model.settings.tokenizer, model.settings.text_normalizer
    values: list[tuple[float, Utterance, str]] = []
    for begin in range(0, len(utterances), _AT_ONCE):
        some = utterances[begin : begin + _AT_ONCE]
        for one, log_probs in zip(some, compute_emissions(model, some, batch_s).log_probs, strict=True):
            tokens = tokenizer.encode(normalize(one.text, rules), unknown="drop")
            found = _best_path(log_probs)
            values.append((_excess(log_probs, tokens, found), one, tokenizer.decode(found)))
    if not values:
        return
    middle = statistics.median(value for value, _, _ in values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value, _, _ in values)
    limit = max(middle + _OUTLIER * spread, _LEAST)
    for value, one, heard in sorted(values, key=lambda item: -item[0]):
        if value > limit:
            detail = f"{value:.1f} nats a token: {one.text!r:.60}; the model hears {heard!r:.60}"
            yield Finding(check="disagreement", manifest=manifest, id=one.id, detail=detail, value=value)


def _best_path(log_probs: Tensor) -> list[int]:
    """Tokens of the most probable path, (steps, vocab) -> ids."""
    return [token for token, _ in groupby(log_probs.argmax(dim=-1).tolist()) if token != BLANK]


def _excess(log_probs: Tensor, tokens: Sequence[int], found: Sequence[int]) -> float:
    """Nats a token by which the transcript is less probable than what the model finds."""
    losses = [_loss(log_probs, text) for text in (tokens, found)]
    return (losses[0] - losses[1]) / max(len(tokens), 1)


def _loss(log_probs: Tensor, tokens: Sequence[int]) -> float:
    """-log P(tokens); that of one step a token where they do not fit at all."""
    steps = torch.tensor([len(log_probs)])
    target = torch.tensor([list(tokens)], dtype=torch.int64)
    loss = F.ctc_loss(
        log_probs[:, None], target, steps, torch.tensor([len(tokens)]), blank=BLANK, reduction="sum"
    )
    return float(loss) if torch.isfinite(loss) else float(-log_probs.min(dim=-1).values.sum())
