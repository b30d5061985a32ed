"""Augmentation of training data: what is drawn for each utterance, and how it is applied."""

from asr.frontend.augment.conditions import AS_RECORDED, Augmenter, Conditions, apply_conditions
from asr.frontend.augment.config import CONDITIONS, AugmentConfig
from asr.frontend.augment.specaugment import Masks, apply_masks

__all__ = [
    "AS_RECORDED",
    "CONDITIONS",
    "AugmentConfig",
    "Augmenter",
    "Conditions",
    "Masks",
    "apply_conditions",
    "apply_masks",
]
