"""Peers in the same run: four bidirectional LSTM layers of asr, of torch, of speechbrain; and the GEMM peak.

Forward and backward over a batch of 128 utterances (about 1600 s of audio), without norm and dropout, which
the peers' layers do not have. speechbrain, padded: not given the lengths, as its own CRDNN calls it; that is
another function.

The goal on one H100: at least 1.5 times the packed layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack
from benchmarks.gpu.part import Part
from benchmarks.gpu.recurrent import STEPS
from benchmarks.gpu.timing import FORMATS, milliseconds, number_format
from benchmarks.peers import HAS_SPEECHBRAIN, PackedStack, SpeechbrainStack

BATCH, WIDTH, DEPTH, INPUTS, GEMM_SIZE = 128, 320, 4, 640, 8192

STACKS: dict[str, Callable[[int, RecurrentConfig], nn.Module]] = {
    "asr": RecurrentStack,
    "packed nn.LSTM": PackedStack,
    "speechbrain": lambda size, config: SpeechbrainStack(size, config, packed=True),
    "speechbrain, padded": lambda size, config: SpeechbrainStack(size, config, packed=False),
}


def run(part: Part) -> None:
    """Measure in every number format: GEMM, then each stack."""
    quick = part.settings.quick
    device = torch.device(part.settings.device)
    batch, width, steps, size = (4, 8, 20, 128) if quick else (BATCH, WIDTH, STEPS, GEMM_SIZE)
    part.record(
        speechbrain="measured" if HAS_SPEECHBRAIN else "not installed",
        batch=batch,
        width=width,
        depth=DEPTH,
        steps=steps,
    )
    config = RecurrentConfig(cell="lstm", width=width, depth=DEPTH, dropout=0.0, layer_norm=False)
    lengths = torch.linspace(steps, 0.9 * steps, batch).long()
    for precision in FORMATS:
        if not part.cuda and precision in ("fp16", "tf32"):
            continue
        with number_format(precision) as dtype:
            matrix = torch.randn(size, size, device=device, dtype=dtype)
            gemm_ms = milliseconds(lambda matrix=matrix: matrix @ matrix, cuda=part.cuda)
            peak = 2 * size**3 / gemm_ms / 1e9
            part.row("gemm", precision=precision, size=size, tflops=round(peak, 3))
            inputs = torch.randn(batch, steps, INPUTS, device=device, dtype=dtype, requires_grad=True)
            for name, make in STACKS.items():
                if "speechbrain" in name and not HAS_SPEECHBRAIN:
                    continue
                if part.left_s < 0:
                    return
                part.row(
                    "stacks",
                    precision=precision,
                    name=name,
                    **_measure(part, make, config, inputs, lengths, peak),
                )


def _measure(
    part: Part,
    make: Callable[[int, RecurrentConfig], nn.Module],
    config: RecurrentConfig,
    inputs: Tensor,
    lengths: Tensor,
    peak: float,
) -> dict[str, object]:
    """Milliseconds of an update, and its share of the GEMM peak; or why it cannot be measured."""
    try:
        stack = make(INPUTS, config).to(inputs.device, inputs.dtype)
        there = lengths.to(inputs.device)

        def update() -> None:
            inputs.grad = None
            stack(inputs, there)[0].sum().backward()

        ms = milliseconds(update, cuda=part.cuda)
    except (ImportError, RuntimeError, NotImplementedError) as error:
        return {"error": str(error).splitlines()[0][:160]}
    weights = sum(weight.numel() for weight in stack.parameters() if weight.dim() == 2)
    tflops = 6 * weights * int(lengths.sum()) / ms / 1e9
    return {"ms": round(ms, 2), "tflops": round(tflops, 3), "share_of_gemm": round(tflops / peak, 4)}
