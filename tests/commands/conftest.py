"""The recordings and settings of trainings."""

from tests.training.conftest import manifest, settings

__all__ = ["manifest", "settings"]
