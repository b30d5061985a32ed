"""The recordings and trainers of the training tests."""

from tests.training.conftest import make_trainer, tones

__all__ = ["make_trainer", "tones"]
