"""What the acoustic model is trained to minimise: the settings of CTC and CTC-CRF."""

import math
from dataclasses import dataclass
from typing import Literal

from asr.errors import check_choice, check_number

__all__ = ["LossConfig"]


@dataclass(frozen=True)
class LossConfig:
    """What the acoustic model is trained to minimise."""

    # ctc, or crf: CTC-CRF, normalised over all token sequences, which a language model of tokens weighs
    criterion: Literal["ctc", "crf"] = "ctc"
    denominator_order: Literal[2, 3] = 2  # of that language model: a bigram or a trigram
    ctc_weight: float = 0.1  # of CTC's loss beside the CRF's, which keeps training stable

    def __post_init__(self) -> None:
        check_choice("--model.criterion", self.criterion, ("ctc", "crf"))
        check_number("--model.denominator-order", self.denominator_order, least=2, most=3)
        check_number("--model.ctc-weight", self.ctc_weight, least=0, below=math.inf)
