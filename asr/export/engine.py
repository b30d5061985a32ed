"""onnxruntime in torch's place: a graph of `asr export` that transcribes as the model it was made of."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import AsrError, ModelError
from asr.export.model import SETTINGS_KEY, STATES_KEY
from asr.frontend.augment import Masks
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import step_count
from asr.model.saved import settings_from_record

__all__ = ["OnnxModel", "OnnxStream"]

Arrays = dict[str, NDArray[Any]]


class OnnxModel(AcousticModel):
    """A graph over whole utterances, used as an `AcousticModel`, on the CPU.

    Args:
        graph: the bytes of a file of `asr export`.

    Raises:
        ModelError: the graph cannot be used.
    """

    def __init__(self, graph: bytes) -> None:
        nn.Module.__init__(self)  # it has no weights of its own
        self.attention_decoder = None  # graphs have none
        self._session = _session(graph)
        self.settings, states = _metadata(self._session)
        if states:
            raise ModelError(
                "the graph takes blocks of a stream. Expected one that was exported without --streaming."
            )

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def forward(
        self, features: Tensor, lengths: Tensor, masks: Masks | None = None
    ) -> tuple[Tensor, Tensor, None]:
        """As `AcousticModel.forward`; masks are for training and cannot be given."""
        log_probs, steps = self._session.run(
            ["log_probs", "step_lengths"], {"features": features.numpy(), "lengths": lengths.numpy()}
        )
        return torch.from_numpy(log_probs), torch.from_numpy(steps), None


class OnnxStream:
    """A streaming graph over one stream, block by block.

    Args:
        graph: the bytes of a file of `asr export --streaming`.

    Attributes:
        settings: of the model.
        flush_frames: zeros that complete all steps after the last frame.

    Raises:
        ModelError: the graph cannot be used.
    """

    def __init__(self, graph: bytes) -> None:
        self._session = _session(graph)
        self.settings, shapes = _metadata(self._session)
        if not shapes:
            raise ModelError(
                "the graph takes whole utterances. Expected one that was exported with --streaming."
            )
        self.flush_frames = 6 * self.settings.encoder.subsampling
        self._states: Arrays = {}
        for name, shape in shapes.items():
            sizes = [1 if isinstance(size, str) else size for size in shape]  # a name stands for the batch
            self._states[name] = np.zeros(sizes, np.int64 if shape == [1] else np.float32)
        self._waiting = np.zeros((0, self.settings.features.n_mels), np.float32)
        self._frames = self._steps = 0

    def accept(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log-probabilities (steps, vocab) of the steps that frames (n, n_mels) complete."""
        self._waiting = np.concatenate([self._waiting, features])
        self._frames += len(features)
        block = self.settings.encoder.subsampling
        # The first block has to fill both convolutions.
        size = len(self._waiting) // block * block if len(self._waiting) >= self.flush_frames else 0
        ready, self._waiting = self._waiting[:size], self._waiting[size:]
        return self._run(ready, size)

    def finish(self) -> NDArray[np.float32]:
        """The log-probabilities of the remaining steps."""
        subsampling = self.settings.encoder.subsampling
        frames = step_count(len(self._waiting), subsampling) * subsampling + self.flush_frames
        zeros = np.zeros((frames - len(self._waiting), self.settings.features.n_mels), np.float32)
        found = self._run(np.concatenate([self._waiting, zeros]), len(self._waiting))
        extra = self._steps - step_count(self._frames, subsampling)
        return found[: len(found) - extra]

    def _run(self, features: NDArray[np.float32], valid: int) -> NDArray[np.float32]:
        if not len(features):
            return np.zeros((0, self.settings.tokenizer.vocab_size), np.float32)
        given = {"features": features[None], "valid_frames": np.array([valid]), **self._states}
        wanted = {one.name for one in self._session.get_inputs()}
        names = [f"next_{name}" for name in self._states]
        log_probs, *states = self._session.run(
            ["log_probs", *names], {name: value for name, value in given.items() if name in wanted}
        )
        self._states = dict(zip(self._states, states, strict=True))
        self._steps += log_probs.shape[1]
        return np.asarray(log_probs[0])


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())
        raise ModelError(f"not a readable ONNX graph: {reason}. Export the model again.") from error


def _metadata(session: Any) -> tuple[ModelSettings, Mapping[str, list[int | str]]]:
    """The settings and the shapes of the states."""
    texts = session.get_modelmeta().custom_metadata_map
    if SETTINGS_KEY not in texts:
        raise ModelError(
            "an ONNX graph, but not of this project. Expected one that `asr export` has written."
        )
    try:
        return settings_from_record(json.loads(texts[SETTINGS_KEY])), json.loads(texts[STATES_KEY])
    except (KeyError, TypeError, ValueError, AsrError) as error:
        raise ModelError(
            f"the settings in this graph cannot be read: {type(error).__name__}: {error} Export it again."
        ) from error
