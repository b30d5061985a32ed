"""Speed of one recurrent layer in one direction, forward and backward: each cell of asr, and torch's layers.

No padding, no front, no loss: what the cell itself costs. All take turns, and the best turn counts; with one
thread it is counted in seconds of the processor, which other work on the machine disturbs least. nn.RNN is
the yardstick: a cell with k gates has k times the weights and multiply-adds of nn.RNN of the same width, so
the table has the ratio of the times and, for equal numbers of weights, that of the times a multiply-add.

python benchmarks/layers.py --threads 1
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from conditions import describe_machine, set_threads
from peers import TORCH
from torch import Tensor, nn

from asr.cli import recipe
from asr.model.recurrent.factory import CELL_NAMES, make_layer

GEMM_SIZE = 2048


@dataclass(frozen=True)
class Options:
    """What is measured."""

    steps: int = 200  # of every utterance
    batch: int = 28  # utterances
    width: int = 320  # units, and values of the input
    turns: int = 12  # of each system
    threads: int | None = None  # None: all cores


def main(options: Options) -> str:
    """Measure; the result is a table."""
    print(describe_machine())
    set_threads(options.threads)
    print(f"threads in use: {torch.get_num_threads()}", flush=True)
    torch.manual_seed(0)
    width = options.width
    layers: dict[str, nn.Module] = {
        f"torch {cell}": kind(width, width, **settings) for cell, (kind, settings) in TORCH.items()
    }
    layers |= {cell: make_layer(cell, width, width) for cell in CELL_NAMES}
    layers["lstm, projection 1/2"] = make_layer("lstm", width, width, projection=width // 2)
    x = torch.randn(options.steps, options.batch, width)
    matrix = torch.randn(GEMM_SIZE, GEMM_SIZE)
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys([*layers, "matmul"], float("inf"))
    for _ in range(options.turns):
        best["matmul"] = min(best["matmul"], elapsed(clock, lambda: matrix @ matrix))
        for name, layer in layers.items():
            best[name] = min(best[name], elapsed(clock, lambda layer=layer: update(layer, x)))
    peak = 2 * GEMM_SIZE**3 / best["matmul"] / 1e9
    lines = [
        f"\n{options.steps} steps, {options.batch} utterances, width {width}, float32; GEMM {peak:.0f} GF/s",
        f"{'':24}{'ms':>8}{'of GEMM':>9}{'x nn.RNN':>10}{'for equal weights':>19}{'torch / it':>12}",
    ]
    for name, layer in layers.items():
        rate = work(layer, x) / best[name]
        yardstick = work(layers["torch rnn"], x) / best["torch rnn"]
        torchs = best.get(f"torch {name}")
        lines.append(
            f"{name:24}{best[name] * 1e3:8.1f}{rate / 1e9 / peak:9.1%}{best[name] / best['torch rnn']:10.2f}"
            f"{yardstick / rate:19.2f}" + (f"{torchs / best[name]:12.2f}" if torchs else "")
        )
    return "\n".join(lines)


def update(layer: nn.Module, x: Tensor) -> None:
    """Forward and backward, with gradients of weights and input."""
    y, _ = layer(x.detach().requires_grad_())
    y.backward(torch.ones_like(y))


def work(layer: nn.Module, x: Tensor) -> float:
    """Floating-point operations: 2 for each multiply-add of the weights, forward once and backward twice."""
    matrices = [weight for name, weight in layer.named_parameters() if name.startswith("weight")]
    return 6.0 * sum(weight.numel() for weight in matrices) * x.shape[0] * x.shape[1]


def elapsed(clock: Callable[[], float], function: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = clock()
    function()
    return clock() - began


if __name__ == "__main__":
    recipe(main, Options())
