"""Emissions: a model's log-probabilities of utterances, computed once and decoded many times."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding.hypothesis import Hypothesis
from asr.decoding.interface import Decoder
from asr.errors import AudioError
from asr.files import file_digest, weights_digest, write_atomically
from asr.frontend.tar_members import audio_file
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.recognise import Segment, run_model

__all__ = ["Emissions", "cached_emissions", "compute_emissions", "split_rows"]

log = logging.getLogger("asr")

_KEY = "asr-emissions"
_BATCH = 32  # utterances decoded by one call


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities of utterances.

    Attributes:
        log_probs: of each utterance (steps, vocab) float32 natural logs, on the CPU.
        encoded: of each utterance (steps, size) float32 encoder outputs, where the model has an attention
            decoder; else empty.
        step_s: seconds per step.
        key: digest of the model and of the utterances' ids, spans and audio; "" where it was not computed.
    """

    log_probs: tuple[Tensor, ...]
    step_s: float
    key: str = ""
    encoded: tuple[Tensor, ...] = ()

    def decode(self, decoder: Decoder) -> Iterator[tuple[Hypothesis, ...]]:
        """Decode every utterance.

        Yields:
            The hypotheses of each utterance, in order, best first.
        """
        order = sorted(range(len(self.log_probs)), key=lambda number: -len(self.log_probs[number]))
        found: dict[int, tuple[Hypothesis, ...]] = {}
        for begin in range(0, len(order), _BATCH):
            batch = order[begin : begin + _BATCH]
            rows = [self.log_probs[number] for number in batch]
            lengths = torch.tensor([len(row) for row in rows])
            encoded = [self.encoded[number] for number in batch] if self.encoded else None
            decoded = decoder.decode(
                pad_sequence(rows, batch_first=True), lengths, self.step_s,
                pad_sequence(encoded, batch_first=True) if encoded else None,
            )  # fmt: skip
            found |= zip(batch, map(tuple, decoded), strict=True)
        yield from (found[number] for number in range(len(order)))

    def mean_posteriors(self) -> NDArray[np.float64]:
        """(vocab,) mean probability of each token over all steps, blank first: the model's priors.

        Source: Sak et al. 2015, "Fast and accurate recurrent neural network acoustic models for speech
            recognition", section 2.3 (label priors by the model's mean posteriors).
        """
        total = sum(len(row) for row in self.log_probs)
        sums = torch.stack([row.double().exp().sum(0) for row in self.log_probs]).sum(0)
        priors: NDArray[np.float64] = (sums / max(total, 1)).numpy()
        return np.maximum(priors, np.finfo(np.float64).tiny)  # the logarithm of 0 is -inf


def compute_emissions(model: AcousticModel, utterances: Sequence[Utterance], batch_s: float) -> Emissions:
    """Recognise utterances without decoding them; progress is logged.

    Args:
        model: on its device.
        utterances: what to recognise.
        batch_s: seconds of audio in a batch, padding included.

    Raises:
        AudioError: an utterance's audio cannot be used.
        SettingsError: batch_s is not above 0.
    """
    segments = list(map(Segment.of, utterances))
    rows: list[Tensor] = []
    encoded: list[Tensor] = []
    for utterance, (_, _, outputs) in zip(
        utterances, run_model(model, segments, batch_s, _outputs), strict=True
    ):
        if isinstance(outputs, AudioError):
            raise AudioError(f"utterance {utterance.id}: {outputs}")
        rows.append(outputs[0])
        encoded += outputs[1:]
    return Emissions(tuple(rows), model.step_s, encoded=tuple(encoded))


def cached_emissions(
    path: Path, model: AcousticModel, utterances: Sequence[Utterance], batch_s: float
) -> Emissions:
    """Emissions from a file, if it holds those of this model and these utterances; else computed and stored.

    Args:
        path: of the file, .safetensors.
        model: on its device.
        utterances: what to recognise.
        batch_s: seconds of audio in a batch, padding included.

    Raises:
        AudioError: an utterance's audio cannot be used.
        ModelError: the file cannot be written.
        SettingsError: batch_s is not above 0.
    """
    # not the digest of the file, which a tuning changes, but not the log-probabilities
    digest = hashlib.sha256(weights_digest(model.state_dict()).encode())
    spans = [[one.id, str(one.audio_filepath), one.offset, one.duration] for one in utterances]
    digest.update(repr((model.settings.features, spans)).encode())
    for audio in dict.fromkeys(audio_file(one.audio_filepath) for one in utterances):
        digest.update(file_digest(audio).encode())
    key = digest.hexdigest()
    if path.is_file():
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) == key:
                log.info("%s: emissions of %d utterances, computed before", path, len(utterances))
                numbers = range(len(utterances))
                rows = tuple(file.get_tensor(str(number)) for number in numbers)
                encoded = numbers if model.attention_decoder is not None else ()
                return Emissions(
                    rows, model.step_s, key, tuple(file.get_tensor(f"encoded {number}") for number in encoded)
                )
        log.info("%s: of another model or other utterances, or damaged: computed again", path)
    emissions = replace(compute_emissions(model, utterances, batch_s), key=key)
    tensors = {str(number): row for number, row in enumerate(emissions.log_probs)}
    tensors |= {f"encoded {number}": row for number, row in enumerate(emissions.encoded)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {_KEY: key}))
    return emissions


def _outputs(
    log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None
) -> list[tuple[Tensor, ...]]:
    """Of each utterance, log-probabilities and, if there are any, encoder outputs."""
    parts = [log_probs] if encoded is None else [log_probs, encoded]
    return list(zip(*(split_rows(part, step_lengths) for part in parts), strict=True))


def split_rows(padded: Tensor, step_lengths: Tensor) -> list[Tensor]:
    """(steps, size) float32 of each utterance, without padding, on the CPU."""
    rows = zip(padded.float(), step_lengths.tolist(), strict=True)
    return [row[:length].clone() for row, length in rows]
