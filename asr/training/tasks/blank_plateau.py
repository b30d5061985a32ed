"""The blank plateau: is a model that outputs only blanks in CTC's usual first phase, or stuck?"""

import logging

log = logging.getLogger("asr")

USUAL_UPDATES = 3000  # most runs leave the plateau long before

# An untrained model outputs noise for some updates before it outputs blanks only, and batches differ: the
# state is what this many updates in a row agree on.
_MIN_UPDATES = 20


class BlankPlateau:
    """Follows the fraction of encoder steps whose best output is blank; logs the plateau's phases."""

    def __init__(self) -> None:
        self.emits = False  # whether this or an earlier session of the run has seen the end of the plateau
        self._blank = self._emitting = 0  # updates in a row
        self._announced = self._warned = False

    def observe(self, update: int, blank_share: float) -> None:
        """Add an update's fraction of blanks, in [0, 1]; logs when the phase has changed."""
        if self.emits:
            return
        if blank_share < 0.999:
            self._emitting, self._blank = self._emitting + 1, 0
            if self._announced and self._emitting == _MIN_UPDATES:
                self.emits = True
                log.info(
                    "update %d: the model has started to output characters; the blank plateau is over", update
                )
            return
        self._blank, self._emitting = self._blank + 1, 0
        if self._blank < _MIN_UPDATES:
            return
        if update < USUAL_UPDATES and not self._announced:
            self._announced = True
            log.info(
                "update %d: the output is all blank, the usual first phase of CTC training. It usually ends "
                "within %d updates.",
                update,
                USUAL_UPDATES,
            )
        elif update >= USUAL_UPDATES and not self._warned:
            self._announced = self._warned = True
            log.warning(
                "update %d: the output is still all blank, which is no longer usual. Check that transcripts "
                "match their audio, try a third of --train.learning-rate, or lower --model.subsampling.",
                update,
            )
