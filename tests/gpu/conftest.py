"""Tests of a GPU. What can be run on a CPU as well is, so that the tests themselves are known to work."""

from collections.abc import Iterator

import pytest
import torch

from asr.device import set_tf32


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, which exercises a test's logic, and the GPU, which the test is about."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Begin and end without TF32, and undo what a deterministic training tells torch."""
    set_tf32(False)
    yield
    set_tf32(False)
    torch.use_deterministic_algorithms(False)
