"""The acoustic model on a stream: blocks of a waveform in, log-probabilities out, state carried."""

import torch
from torch import Tensor

from asr.errors import SettingsError, check_number
from asr.frontend.feature_stream import LogMelStream, StreamNormalizer
from asr.model.acoustic import AcousticModel
from asr.model.encoder import step_count
from asr.model.recurrent.unidirectional import State

__all__ = ["AcousticStream"]


class AcousticStream:
    """A model that takes utterances in blocks, one after the other; what a block costs does not grow.

    A unidirectional model gives each step as soon as its frames are complete, and the same as for the whole
    utterance, up to rounding, where its features are not normalised by the whole utterance. A bidirectional
    model is run on chunks, with right context after them (`RecurrentStack.chunk`).

    Args:
        model: on its device, in evaluation mode.
        chunk_s: of a bidirectional model, seconds; rounded to whole steps, at least one.
        right_context_s: of a bidirectional model, seconds; rounded to whole steps.

    Raises:
        SettingsError: a number of seconds is negative, or the model is a graph of whole utterances.
    """

    def __init__(self, model: AcousticModel, chunk_s: float, right_context_s: float) -> None:
        if not hasattr(model, "encoder"):
            raise SettingsError(
                "a graph (.onnx) reads whole utterances. For a stream, name its .safetensors file."
            )
        check_number("--chunk-s", chunk_s, least=0, unit="seconds")
        check_number("--right-context-s", right_context_s, least=0, unit="seconds")
        self._model = model
        self._bidirectional = model.settings.encoder.recurrent().bidirectional
        self._chunk = max(1, round(chunk_s / model.step_s))
        self._right_context = round(right_context_s / model.step_s)
        self._normalizer = StreamNormalizer(model.normalize)
        self._begin_utterance()

    def _begin_utterance(self) -> None:
        features = self._model.settings.features
        self._log_mel = LogMelStream(features)
        self._frames = torch.zeros(0, features.n_mels, device=self._model.device)  # from step `_first` on
        self._first = self._done = 0  # steps
        self._states: list[State] | None = None

    @torch.inference_mode()
    def accept(self, waveform: Tensor) -> Tensor:
        """Take the next samples, (samples,) at the model's rate, on the CPU.

        Returns:
            (steps, vocab) float32 log-probabilities of the next steps, on the model's device.
        """
        self._add(self._log_mel.accept(waveform))
        subsampling = self._model.settings.encoder.subsampling
        complete = len(self._frames) - self._model.encoder.front.frames_after
        ready = max(self._done, self._first + step_count(complete, subsampling))
        if not self._bidirectional:
            return self._run(ready - self._done, 0)
        found = []
        while ready - self._done >= self._chunk + self._right_context:
            found.append(self._run(self._chunk, self._right_context))
        return torch.cat(found) if found else self._run(0, 0)

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The log-probabilities of the utterance's last steps, (steps, vocab); then the next one begins."""
        self._add(self._log_mel.finish())
        end = self._first + step_count(len(self._frames), self._model.settings.encoder.subsampling)
        found = self._run(end - self._done, 0)
        self._normalizer.end_utterance()
        self._begin_utterance()
        return found

    def _add(self, frames: Tensor) -> None:
        frames = self._normalizer.accept(frames.to(self._model.device))
        self._frames = torch.cat([self._frames, frames])

    def _run(self, steps: int, right_context: int) -> Tensor:
        """Encode the next steps; the frames of those after them are there, too."""
        encoder, subsampling = self._model.encoder, self._model.settings.encoder.subsampling
        if steps == 0:
            return torch.zeros(0, self._model.settings.tokenizer.vocab_size, device=self._model.device)
        last = self._done + steps + right_context - 1 - self._first
        frames = self._frames[: last * subsampling + encoder.front.frames_after + 1]
        log_probs, self._states = encoder.chunk(
            self._normalizer.normalize(frames, self._first * subsampling)[None],
            self._states,
            before=self._done - self._first,
            steps=steps,
            right_context=right_context,
        )
        self._done += steps
        first = max(0, self._done - encoder.front.steps_before)
        self._frames = self._frames[(first - self._first) * subsampling :].clone()
        self._first = first
        return log_probs[0]
