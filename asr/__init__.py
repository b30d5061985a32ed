"""Recurrent speech recognition: load a model, transcribe recordings, score the result.

    >>> import asr
    >>> model = asr.load("english")
    >>> model.transcribe("recording.wav").text
    'this dressing should stand in the ice box'
    >>> asr.score(["stand in the ice box"], ["stand in an ice box"]).wer
    0.2

An audio frontend extracts log-mel features that feed a recurrent acoustic model trained with CTC or CTC-CRF,
and decoding turns its outputs (characters, word pieces or phones) into transcripts scored by word error
rate; docs/how-it-works.md says which folder does what. The names below are imported when they are first
used, so that `asr --help` does not wait for torch.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.batching.batches import BatchConfig
    from asr.batching.examples import TextConfig
    from asr.decoding.config import BeamConfig, DecoderSettings
    from asr.decoding.hypothesis import Hypothesis, Word
    from asr.errors import AsrError
    from asr.export.loading import load
    from asr.frontend.augment import AugmentConfig
    from asr.frontend.endpointing import EndpointConfig
    from asr.frontend.features import FeatureConfig
    from asr.frontend.segmentation import SegmentationConfig
    from asr.model.encoder import EncoderConfig
    from asr.recognition.streaming import RecognitionStream, StreamConfig, StreamResult
    from asr.recognition.transcription import Model, Transcript
    from asr.scoring.wer import Score, score
    from asr.training.config import TrainConfig

__all__ = [
    "AsrError", "AugmentConfig", "BatchConfig", "BeamConfig", "DecoderSettings", "EncoderConfig",
    "EndpointConfig", "FeatureConfig", "Hypothesis", "Model", "RecognitionStream", "Score",
    "SegmentationConfig", "StreamConfig", "StreamResult", "TextConfig", "TrainConfig", "Transcript", "Word",
    "__version__", "load", "score",
]  # fmt: skip

__version__ = "0.1.0"

_MODULES = {
    "AsrError": "asr.errors",
    "AugmentConfig": "asr.frontend.augment",
    "BatchConfig": "asr.batching.batches",
    "BeamConfig": "asr.decoding.config",
    "DecoderSettings": "asr.decoding.config",
    "EncoderConfig": "asr.model.encoder",
    "EndpointConfig": "asr.frontend.endpointing",
    "FeatureConfig": "asr.frontend.features",
    "Hypothesis": "asr.decoding.hypothesis",
    "Model": "asr.recognition.transcription",
    "RecognitionStream": "asr.recognition.streaming",
    "Score": "asr.scoring.wer",
    "SegmentationConfig": "asr.frontend.segmentation",
    "StreamConfig": "asr.recognition.streaming",
    "StreamResult": "asr.recognition.streaming",
    "TextConfig": "asr.batching.examples",
    "TrainConfig": "asr.training.config",
    "Transcript": "asr.recognition.transcription",
    "Word": "asr.decoding.hypothesis",
    "load": "asr.export.loading",
    "score": "asr.scoring.wer",
}
"""Where each public name is defined."""

# The threads of a recurrent net meet at every time step. By default those that wait spin for milliseconds,
# which takes the core from the thread that they wait for as soon as another process runs: with one other
# busy process a step of 0.6 s took 13 to 60 s on 2 cores. Spinning only 1,000 times costs nothing on an idle
# machine and makes that 1.7 s (measured with GNU OpenMP, which comes with torch). It must be set before torch
# loads OpenMP; a user who sets one of the two variables is not overruled.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
