"""What the acoustic model is trained to minimise: the settings of CTC and CTC-CRF."""

import math
from dataclasses import dataclass
from typing import Literal

from asr.errors import SettingsError

__all__ = ["LossConfig"]


@dataclass(frozen=True)
class LossConfig:
    """What the acoustic model is trained to minimise."""

    # ctc, or crf: CTC-CRF, normalised over all token sequences, which a language model of tokens weighs
    criterion: Literal["ctc", "crf"] = "ctc"
    denominator_order: Literal[2, 3] = 2  # of that language model: a bigram or a trigram
    ctc_weight: float = 0.1  # of CTC's loss beside the CRF's, which keeps training stable

    def __post_init__(self) -> None:
        if self.criterion not in ("ctc", "crf"):
            raise SettingsError(f"--model.criterion must be ctc or crf. Got {self.criterion!r}.")
        if self.denominator_order not in (2, 3):
            raise SettingsError(f"--model.denominator-order must be 2 or 3. Got {self.denominator_order}.")
        if not 0 <= self.ctc_weight < math.inf:
            raise SettingsError(f"--model.ctc-weight must be at least 0. Got {self.ctc_weight:g}.")
