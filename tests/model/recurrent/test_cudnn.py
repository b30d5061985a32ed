"""The conditions of cuDNN's persistent kernels, as torch asks them."""

from dataclasses import dataclass

import pytest
import torch

from asr.model.recurrent.cudnn import has_persistent_kernels, persistent_obstacle, persistent_rows
from asr.model.recurrent.factory import Cell


@dataclass(frozen=True)
class Gpu:
    major: int
    minor: int
    multi_processor_count: int


@pytest.mark.parametrize(
    ("cell", "width", "projection", "input_size", "expected"),
    [
        ("lstm", 256, 0, 640, None),
        ("rnn", 1024, 0, 128, None),
        ("lstm", 320, 0, 640, "--model.width is 320, expected 256 or 384"),
        ("lstm", 64, 0, 640, "--model.width is 64, expected 128"),
        ("lstm", 1280, 0, 640, "--model.width is 1280, expected 1024"),
        ("lstm", 256, 128, 640, "--model.projection is 128, expected 0"),
        ("lstm", 256, 0, 320, "a recurrent layer gets 320 values per step, expected a multiple of 128"),
        ("gru", 256, 0, 640, "--model.cell is gru, expected lstm, rnn or rnn-relu"),
    ],
)
def test_obstacles(cell: Cell, width: int, projection: int, input_size: int, expected: str | None) -> None:
    """Guards what the log recommends: one clause with value and remedy, and none for a layer that is
    taken."""
    assert persistent_obstacle(cell, width, projection, input_size) == expected


def test_rows() -> None:
    """Guards the padding: the next multiple of 8, and none for a batch that is too large anyway."""
    rows = [persistent_rows("lstm", 256, batch) for batch in (1, 8, 9, 121, 128, 129)]
    assert rows == [8, 8, 16, 128, 128, None]
    assert persistent_rows("rnn", 896, 88) == 88
    assert persistent_rows("rnn", 896, 89) is None
    assert persistent_rows("lstm", 896, 89) == 96


def test_types_and_gpus() -> None:
    """Guards the conditions on type and GPU: float16 on an A100 or H100, not bf16, not a smaller or another
    GPU."""
    h100, a100, a40, a30 = Gpu(9, 0, 132), Gpu(8, 0, 108), Gpu(8, 6, 84), Gpu(8, 0, 56)
    assert has_persistent_kernels(torch.float16, h100)
    assert has_persistent_kernels(torch.float16, a100)
    assert not has_persistent_kernels(torch.bfloat16, h100)
    assert not has_persistent_kernels(torch.float32, h100)
    assert not has_persistent_kernels(torch.float16, a40)
    assert not has_persistent_kernels(torch.float16, a30)
