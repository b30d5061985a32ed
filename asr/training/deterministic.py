"""The same bits from every run on a GPU: what torch has to be told."""

import os

import torch
import torch.utils.deterministic


def make_deterministic() -> None:
    """Let torch choose kernels whose results do not depend on the order in which a GPU's threads arrive.

    Call it before a GPU is used: cuBLAS reads its part when it starts. An operation without such a kernel
    raises a RuntimeError that names it. On a CPU, whose results are the same without, it changes nothing.

    Source: the notes on reproducibility in torch's documentation; cuBLAS and cuDNN's recurrent layers need a
        workspace of fixed size.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
