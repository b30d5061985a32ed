"""Recurrent speech recognition.

An audio frontend extracts log-mel features that feed a recurrent acoustic model (bidirectional LSTM) trained
with CTC, and decoding turns its outputs into transcripts scored by word error rate.

The nouns of that sentence are the folders: `frontend`, `model`, `training`, `decoding`, `scoring`. Importing
this package imports none of them, so that `asr --help` does not wait for torch.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
