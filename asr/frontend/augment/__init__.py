"""Augmentation of training data: what is drawn for each utterance, and how it is applied."""

from asr.frontend.augment.conditions import AS_RECORDED, Augmenter, Conditions
from asr.frontend.augment.config import AugmentConfig

__all__ = ["AS_RECORDED", "AugmentConfig", "Augmenter", "Conditions"]
