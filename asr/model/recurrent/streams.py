"""Two pieces of work on a GPU at the same time, on two streams.

A recurrent layer of one direction is a chain of small products that leaves most of a GPU idle; the other
direction can run at the same time. CUDA runs work of different streams at the same time, where there is room.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


def on_two_streams(
    first: Callable[[], _T], second: Callable[[], Tensor], shared: Iterable[Tensor], device: torch.device
) -> tuple[_T, Tensor]:
    """Run `second` on a second stream, in parallel with `first`; then the current stream has both results.

    The backward pass needs nothing: autograd runs each operation on the stream of its forward pass, and
    orders them. A stream has its own pool of cached memory, so that the peak of reserved memory can rise.
    Never run on a GPU so far.

    Args:
        first: runs on the current stream.
        second: runs on the side stream.
        shared: what `second` reads, or keeps for its backward pass, and the current stream has allocated;
            weights, which are never freed, need not be among them.
        device: a CUDA device.
    """
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)  # what `second` reads has been computed
    for tensor in shared:
        # Once freed, its memory is not reused before the side stream has finished with it, in the backward
        # pass too.
        tensor.record_stream(side)
    with torch.cuda.stream(side):
        result = second()
    first_result = first()
    current.wait_stream(side)
    result.record_stream(current)
    return first_result, result


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
