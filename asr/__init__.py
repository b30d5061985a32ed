"""Recurrent speech recognition.

An audio frontend extracts log-mel features that feed a recurrent acoustic model (bidirectional LSTM) trained
with CTC, and decoding turns its outputs into transcripts scored by word error rate.

The nouns of that sentence are the folders: `frontend`, `model`, `training`, `decoding`, `scoring`. Importing
this package imports none of them, so that `asr --help` does not wait for torch.
"""

import os

__all__ = ["__version__"]

__version__ = "0.1.0"

# The threads of a recurrent net meet at every time step. By default those that wait spin for milliseconds,
# which takes the core from the thread that they wait for as soon as another process runs: beside one busy
# process a step of 0.6 s took 13 to 60 s on 2 cores. Spinning only 1,000 times costs nothing on an idle
# machine and makes that 1.7 s (measured with GNU OpenMP, which torch brings). It must be said before torch
# loads it; whoever sets one of the two variables is not overruled.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
