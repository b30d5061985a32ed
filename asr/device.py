"""What a run computes on: the device, its number formats, copies from it, its memory, the machine's cores.

Float32 on a GPU means float32. torch's default is TF32, which keeps 10 of the 23 bits of a mantissa, in
convolutions and recurrent layers but not in matrix products; here it is one policy for all three, off unless
a training asks for it (`--train.precision tf32`).
"""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.utils.deterministic
from torch import Tensor

from asr.errors import SettingsError, check_number

log = logging.getLogger("asr")

T = TypeVar("T")

Precision = Literal["auto", "float32", "tf32", "bf16", "fp16"]

_DRIVER = Path("/proc/driver/nvidia/version")  # exists where the system has loaded NVIDIA's driver

# ---------------------------------------------------------------------------------------------------- device


def choose_device(device: str, option: str = "--device") -> torch.device:
    """The device that a setting means on this machine, for this process among those of torchrun.

    On a GPU, float32 is exact from then on: TF32 is switched off.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is a GPU where there is a usable one. Under torchrun, auto and
            cuda give each process another GPU.
        option: that sets it, for messages.

    Raises:
        SettingsError: the name is unknown, or this machine does not have the device.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind == "auto" or not index.isdigit())):
        raise SettingsError(f"{option} must be auto, cpu, cuda or cuda:N. Got {device!r}.")
    if kind == "cpu":
        return torch.device("cpu")
    count, problem = _usable_gpus()
    if kind == "auto" and count == 0:
        if problem:
            log.warning("%s auto: the CPU is used although %s. %s", option, problem, _FIX_DRIVER)
        return torch.device("cpu")
    number = int(index or os.environ.get("LOCAL_RANK", "0"))
    # All processes of torchrun refuse together, so that none waits for another that has ended.
    needed = number + 1 if index else max(number + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if needed > count:
        if count and not index:
            raise SettingsError(
                f"{option} {device}: torchrun started {needed} processes on this machine, which has {count} "
                f"usable GPU(s). Start one process a GPU with --nproc-per-node {count}, or choose cpu."
            )
        advice = f"Use cuda:0 to cuda:{count - 1}, or cpu." if count else "Use cpu, or auto."
        reason = f": {problem}. {_FIX_DRIVER}" if problem else f". {advice}"
        raise SettingsError(f"{option} {device}: this machine has {count or 'no'} usable GPU(s){reason}")
    set_tf32(False)
    return torch.device("cuda", number)


_FIX_DRIVER = (
    "To use the GPU, update its driver or install a torch built for it (https://pytorch.org); "
    "to do without, choose the device cpu."
)


def _usable_gpus() -> tuple[int, str]:
    """How many GPUs torch can use, and if none although the machine seems to have one, the reason."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return torch.cuda.device_count(), ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # hidden on purpose
        return 0, ""
    built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    prefix = "CUDA initialization: "
    for warning in caught:  # torch warns once a process, at its first look
        text = str(warning.message)
        if text.startswith(prefix):
            return 0, f"there may be a GPU: {text.removeprefix(prefix).split('. ')[0].rstrip('.')} ({built})"
    try:
        version = re.search(r"\d+(\.\d+)+", _DRIVER.read_text())
    except OSError:
        return 0, ""
    if torch.version.cuda is None:
        built = f"torch {torch.__version__} is built without CUDA"
    return 0, f"there is an NVIDIA driver, version {version[0] if version else 'unknown'}, and {built}"


# ------------------------------------------------------------------------------------------------- precision


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of the encoder's arithmetic; weights, CTC and the optimiser stay in float32.

    Args:
        precision: the setting; auto is bf16 where the device has instructions for it, else float32; tf32 is
            float32 whose products may round their factors to TF32.
        device: where the model is.

    Raises:
        SettingsError: the device cannot do it.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_fast_bf16(device) else torch.float32
    if precision == "float32":
        return torch.float32
    if precision == "tf32":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
            raise SettingsError(
                "--train.precision tf32 needs a GPU of compute capability 8.0 or newer. Use float32 or auto."
            )
        return torch.float32
    if precision == "bf16":
        if device.type == "cpu" and not _has_bf16_kernels():
            raise SettingsError(
                "--train.precision bf16: this processor has no instructions for it. Use float32 or auto."
            )
        return torch.bfloat16
    if precision == "fp16":
        if device.type == "cpu":
            raise SettingsError("--train.precision fp16 is for GPUs. Use bf16, float32 or auto on a CPU.")
        return torch.float16
    raise SettingsError(f"--train.precision must be auto, float32, tf32, bf16 or fp16. Got {precision!r}.")


def use_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """As `choose_precision`, and on a GPU switch TF32 on for tf32 and off for everything else.

    Raises:
        SettingsError: the device cannot do it.
    """
    dtype = choose_precision(precision, device)
    if device.type == "cuda":
        set_tf32(precision == "tf32")
    return dtype


def describe_precision(dtype: torch.dtype, device: torch.device) -> str:
    """For the log: the number format and, on a GPU, whether TF32 is on."""
    name = PRECISION_NAMES[dtype]
    return f"{name}, TF32 {'on' if has_tf32() else 'off'}" if device.type == "cuda" else name


# The names of the setting for the number formats.
PRECISION_NAMES = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def autocast(precision: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a model computes in a number format."""
    if precision is torch.float32:
        return nullcontext()
    return torch.autocast(device.type, precision)


def set_tf32(enabled: bool) -> None:
    """Let float32 products on a GPU use TF32 or not: matrix products, convolutions, recurrent layers alike.

    Source: "TensorFloat-32 on Ampere (and later) devices" in torch's CUDA notes.
    """
    backends: Any = torch.backends
    # The older switches too: torch.backends.cudnn.flags reads them, and raises where they say something else.
    backends.cuda.matmul.allow_tf32 = enabled
    backends.cudnn.allow_tf32 = enabled
    for operations in (backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn):
        operations.fp32_precision = "tf32" if enabled else "ieee"


def has_tf32() -> bool:
    """Whether any float32 product on a GPU may use TF32."""
    backends: Any = torch.backends
    operations = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    return "tf32" in [operation.fp32_precision for operation in operations]


@contextmanager
def without_tf32() -> Iterator[None]:
    """Exact float32 matrix products inside, whatever a training has chosen."""
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.allow_tf32, matmul.fp32_precision = False, "ieee"  # both, as in `set_tf32`
    try:
        yield
    finally:
        matmul.allow_tf32, matmul.fp32_precision = before == "tf32", before


@cache
def has_bf16_recurrence(device: torch.device) -> bool:
    """Whether cuDNN's recurrent layers compute in bf16 on a GPU; the first no is logged.

    Where it is False, torch would run bf16 layers step by step, many times slower than cuDNN in float32.

    Source: CUDAHooks::supportsBFloat16RNNWithCuDNN of torch 2.11 and later, which looks at the version of
        cuDNN that torch was compiled with.
    """
    capability = torch.cuda.get_device_capability(device)
    compiled: tuple[int, ...] = torch._C._cudnn.getCompileVersion()
    if compiled >= (9, 13) and capability >= (8, 0):
        return True
    log.warning(
        "bf16: recurrent layers run in float32 on this GPU. In bf16 they need a torch built with cuDNN 9.13 "
        "or newer (this one: %s) and compute capability 8.0 or newer (this GPU: %d.%d).",
        ".".join(map(str, compiled)), *capability,
    )  # fmt: skip
    return False


def _has_bf16_kernels() -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older GPUs emulate it
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(fast) and _has_bf16_kernels()


# ----------------------------------------------------------------------------------------------- determinism


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


# ---------------------------------------------------------------------------------------------------- copies


def is_asynchronous(device: torch.device) -> bool:
    """Whether the device computes while the host continues, so that results are best read later."""
    return device.type == "cuda"


class HostCopy(Generic[T]):
    """A copy in the host's memory of tensors, as they are after all work that was started so far.

    On a GPU it goes to page-locked memory, and the host continues meanwhile; `get` waits for it.

    Args:
        tree: dicts, lists and tuples of tensors (on any device) and plain values.
    """

    def __init__(self, tree: T) -> None:
        devices: set[torch.device] = set()
        self._tree: T = _copy_tensors(tree, devices)
        self._events = [event for event in map(_record_event, devices) if event is not None]

    @property
    def complete(self) -> bool:
        """Whether the copy is known to be complete, so that `get` does not wait."""
        return not self._events

    def get(self) -> T:
        """The copy; waits until it is complete."""
        while self._events:
            self._events.pop().synchronize()
        return self._tree


def _copy_tensors(value: Any, devices: set[torch.device]) -> Any:
    """The same tree with copies in the host's memory; gets the tensors' devices into `devices`."""
    if isinstance(value, Tensor):
        devices.add(value.device)
        if value.device.type == "cpu":
            return value.detach().clone()
        return value.detach().to("cpu", non_blocking=True)  # torch takes page-locked memory
    if isinstance(value, Mapping):
        return {key: _copy_tensors(part, devices) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_tensors(part, devices) for part in value)
    return value


def _record_event(device: torch.device) -> torch.cuda.Event | None:
    """An event after all work that the device was given so far; None where it has finished that."""
    if not is_asynchronous(device):
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


# ---------------------------------------------------------------------------------------------------- memory


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, of a GPU or of the host, ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


# What the CUDA runtime, torch's allocator on a CPU, and the libraries that torch calls say in a plain
# RuntimeError or torch.AcceleratorError.
_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "not enough memory: you tried to allocate", "can't allocate memory: you tried to allocate",
    "ALLOC_FAILED", "ALLOCATION_FAILED",
)  # fmt: skip


# ----------------------------------------------------------------------------------------------------- cores


def usable_cores() -> int:
    """Cores that this process may use, shared fairly with its neighbours under torchrun; at least 1."""
    if _core_limit is not None:
        return _core_limit
    # Not every system can pin a process to cores (macOS cannot).
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


_core_limit: int | None = None  # see `limit_cores`


@contextmanager
def limit_cores(threads: int | None) -> Iterator[None]:
    """Use so many threads for whatever is computed in between: by the model, in a search, to read audio.

    Args:
        threads: at least 1; None changes nothing.

    Raises:
        SettingsError: there are fewer than 1.
    """
    global _core_limit
    check_number("--threads", threads, least=1)
    if threads is None:
        yield
        return
    before = torch.get_num_threads(), _core_limit
    torch.set_num_threads(threads)
    _core_limit = threads
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _core_limit = before[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Read audio with as many threads as loader processes have: with more, sums round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def share_cores(threads: int | None, workers: int) -> int:
    """Set torch's threads so that they and the loader processes do not outnumber the cores.

    Threads that do make a recurrent net's training many times slower, which is why a larger number gets a
    warning.

    Args:
        threads: of one operation; None takes the cores that the workers leave, or fewer where
            OMP_NUM_THREADS asks for fewer.
        workers: loader processes.

    Returns:
        The number of threads.
    """
    cores = usable_cores()
    chosen = threads or min(max(1, cores - workers), torch.get_num_threads())
    if chosen + workers > cores:
        log.warning(
            "%d threads and %d loader processes for %d usable cores: this is often many times slower. Lower "
            "--train.threads or --batch.workers.",
            chosen,
            workers,
            cores,
        )
    torch.set_num_threads(chosen)
    return chosen
