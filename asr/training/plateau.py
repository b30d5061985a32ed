"""Says in plain words whether a model that outputs nothing but blanks is in the usual first phase, or stuck."""

import logging

log = logging.getLogger("asr")

USUAL_UPDATES = 3000  # most runs leave the plateau long before; see recipes/README.md


class PlateauWatch:
    """Follows the share of encoder steps whose best output is blank.

    Args:
        emits: whether an earlier session of this run has already seen the end of the plateau.
    """

    def __init__(self, emits: bool) -> None:
        self.emits = emits
        self._told = self._warned = False

    def observe(self, update: int, blank_share: float) -> None:
        """Take in the newest share of blanks, in [0, 1], and say so when there is something to say."""
        if blank_share < 0.999:
            if not self.emits and self._told:
                log.info("update %d: the model has begun to write characters; the blank plateau is over", update)
            self.emits = True
        elif self.emits:
            return
        elif update >= USUAL_UPDATES and not self._warned:
            self._warned = True
            log.warning(
                "update %d: still nothing but blanks, which is no longer usual. Likely causes: transcripts that do not "
                "belong to their audio (compare a few), a learning rate that is too high or too low (try a third of "
                "--train.learning-rate), or too few encoder steps a character (lower --model.subsampling).",
                update,
            )
        elif not self._told:
            self._told = True
            log.info(
                "update %d: the output is all blank. This is the usual first phase of CTC training: the model learns "
                "when nothing is said before it learns what is said. It usually ends within %d updates.",
                update,
                USUAL_UPDATES,
            )
