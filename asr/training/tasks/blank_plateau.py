"""Says in plain words whether a model that writes only blanks is in the usual first phase, or stuck."""

import logging

log = logging.getLogger("asr")

USUAL_UPDATES = 3000  # most runs leave the plateau long before

# A fresh model writes noise for some updates before it falls silent, and single batches differ: what counts
# is what so many updates in a row agree on.
_IN_A_ROW = 20


class PlateauWatch:
    """Follows the share of encoder steps whose best output is blank."""

    def __init__(self) -> None:
        self.emits = False  # whether this or an earlier session of the run has seen the end of the plateau
        self._silent = self._writing = 0  # updates in a row
        self._told = self._warned = False

    def observe(self, update: int, blank_share: float) -> None:
        """Take in the newest share of blanks, in [0, 1], and say so when there is something to say."""
        if self.emits:
            return
        if blank_share < 0.999:
            self._writing, self._silent = self._writing + 1, 0
            if self._told and self._writing == _IN_A_ROW:
                self.emits = True
                log.info(
                    "update %d: the model has begun to write characters; the blank plateau is over", update
                )
            return
        self._silent, self._writing = self._silent + 1, 0
        if self._silent < _IN_A_ROW:
            return
        if update < USUAL_UPDATES and not self._told:
            self._told = True
            log.info(
                "update %d: the output is all blank. This is the usual first phase of CTC training: the "
                "model learns when nothing is said before it learns what is said. It usually ends within %d "
                "updates.",
                update,
                USUAL_UPDATES,
            )
        elif update >= USUAL_UPDATES and not self._warned:
            self._told = self._warned = True
            log.warning(
                "update %d: still nothing but blanks, which is no longer usual. Likely causes: transcripts "
                "that do not belong to their audio (compare a few), a learning rate that is too high or too "
                "low (try a third of --train.learning-rate), or too few encoder steps a character (lower "
                "--model.subsampling).",
                update,
            )
