"""Which device, number format and cores a run gets, with GPUs that are faked: no test here needs one."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asr import device as device_module
from asr.device import (
    HostCopy,
    autocast,
    choose_device,
    choose_precision,
    describe_precision,
    has_bf16_recurrence,
    has_tf32,
    is_out_of_memory,
    set_tf32,
    share_cores,
    usable_cores,
    use_precision,
    without_tf32,
)
from asr.errors import SettingsError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)

# What torch 2.14 warns when the driver does not fit.
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update "
    "your GPU driver by downloading and installing a new version from the URL: "
    "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to install a "
    "PyTorch version that has been compiled with your version of the CUDA driver. (Triggered internally at "
    "../c10/cuda/CUDAFunctions.cpp:109.)"
)


@pytest.fixture(autouse=True)
def as_torch_was() -> Iterator[None]:
    """Undo torch's settings after a choice, and forget a faked GPU."""
    yield
    backends: Any = torch.backends
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = False, True
    backends.cudnn.fp32_precision = "none"
    has_bf16_recurrence.cache_clear()


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Fakes a machine with so many usable GPUs; a warning is what torch gives when it first looks."""

    def fake(
        count: int, *, warning: str = "", capability: tuple[int, int] = (9, 0), driver: str = ""
    ) -> None:
        def is_available() -> bool:
            if warning:
                warnings.warn(warning, stacklevel=1)
            return count > 0

        file = tmp_path / "version"
        if driver:
            file.write_text(driver)
        monkeypatch.setattr(device_module, "_DRIVER", file)
        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)

    return fake


# ---------------------------------------------------------------------------------------------------- device


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_choice(
    name: str, count: int, expected: str, gpus: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards each name of the setting; a machine without any sign of a GPU gets the CPU without a word."""
    gpus(count)
    assert str(choose_device(name)) == expected
    assert not caplog.messages


def test_a_gpu_for_each_process(gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards torchrun: the process's own GPU, unless one is named."""
    gpus(4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert str(choose_device("auto")) == "cuda:3"
    assert str(choose_device("cuda")) == "cuda:3"
    assert str(choose_device("cuda:1")) == "cuda:1"


@pytest.mark.parametrize("rank", ["0", "3"])
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_more_processes_than_gpus(
    name: str, rank: str, gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against cuda:3 on a machine with one GPU. Every process refuses, so that none waits."""
    gpus(1)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(SettingsError) as caught:
        choose_device(name)
    assert str(caught.value) == (
        f"--device {name}: torchrun started 4 processes on this machine, which has 1 usable GPU(s). Start "
        "one process a GPU with --nproc-per-node 1, or choose cpu."
    )


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("tpu", 1, r"--device must be auto, cpu, cuda or cuda:N\. Got 'tpu'"),
        ("auto:1", 1, r"--device must be auto, cpu, cuda or cuda:N\. Got 'auto:1'"),
        ("cuda:x", 1, r"Got 'cuda:x'"),
        ("cuda", 0, r"--device cuda: this machine has no usable GPU\(s\)\. Use cpu, or auto\."),
        (
            "cuda:2",
            2,
            r"--device cuda:2: this machine has 2 usable GPU\(s\)\. Use cuda:0 to cuda:1",
        ),
    ],
)
def test_refused_devices(name: str, count: int, message: str, gpus: Callable[..., None]) -> None:
    """Guards the message for each device that cannot be had."""
    gpus(count)
    with pytest.raises(SettingsError, match=message):
        choose_device(name)


def test_driver_too_old(gpus: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """Guards against days of training on the CPU beside a GPU whose driver is too old: one line warns."""
    gpus(0, warning=OLD_DRIVER)
    assert choose_device("auto") == CPU
    [message] = caplog.messages
    assert (
        "the CPU is used although there may be a GPU: The NVIDIA driver on your system is too old (found"
        in message
    )
    assert f"built for CUDA {torch.version.cuda}" in message
    assert "update its driver" in message
    assert "\n" not in message
    with pytest.raises(
        SettingsError, match=r"cuda: this machine has no usable GPU\(s\): .*driver on your system"
    ):
        choose_device("cuda")


def test_driver_without_a_usable_gpu(
    gpus: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the same where torch does not warn: it warns once a process, and a build for the CPU never."""
    gpus(0, driver="NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021")
    choose_device("auto")
    assert "although there is an NVIDIA driver, version 470.57.02, and torch" in caplog.text
    caplog.clear()
    monkeypatch.setattr(torch.version, "cuda", None)
    choose_device("auto")
    assert "is built without CUDA" in caplog.text
    caplog.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # somebody has hidden the GPUs
    choose_device("auto")
    assert not caplog.messages


# ------------------------------------------------------------------------------------------------- precision


def test_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards an old processor: auto takes float32, and asking for bf16 names the alternative."""
    monkeypatch.setattr(device_module, "_has_bf16_kernels", lambda: False)
    assert choose_precision("auto", CPU) is torch.float32
    with pytest.raises(SettingsError, match=r"bf16: this processor has no instructions for it\. Use float32"):
        choose_precision("bf16", CPU)


def test_cpu_that_only_emulates_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against auto choosing bf16 where it is slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", CPU) is torch.float32


def test_cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that auto takes bf16 where it gains."""
    monkeypatch.setattr(device_module, "_has_bf16_kernels", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_precision("auto", CPU) is torch.bfloat16
    assert choose_precision("bf16", CPU) is torch.bfloat16
    assert choose_precision("float32", CPU) is torch.float32


def test_refused_precisions(gpus: Callable[..., None]) -> None:
    """Guards the messages for what is for GPUs, for newer GPUs, and for an unknown name."""
    with pytest.raises(SettingsError, match="fp16 is for GPUs"):
        choose_precision("fp16", CPU)
    with pytest.raises(SettingsError, match=r"tf32 needs a GPU of compute capability 8\.0"):
        choose_precision("tf32", CPU)
    gpus(1, capability=(7, 5))
    with pytest.raises(SettingsError, match=r"tf32 needs a GPU of compute capability 8\.0"):
        choose_precision("tf32", GPU)
    with pytest.raises(SettingsError, match=r"must be auto, float32, tf32, bf16 or fp16\. Got 'half'"):
        choose_precision("half", CPU)  # type: ignore[arg-type]


def test_autocast_computes_in_the_format() -> None:
    """Guards against a context that leaves matrices in float32, and against one that lowers float32."""
    matrix = torch.ones(4, 4)
    with autocast(torch.bfloat16, CPU):
        assert (matrix @ matrix).dtype is torch.bfloat16
    with autocast(torch.float32, CPU):
        assert (matrix @ matrix).dtype is torch.float32


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_precision_of_a_gpu(capability: tuple[int, int], gpus: Callable[..., None]) -> None:
    """Guards the choice on a GPU: bf16 from compute capability 8.0 on."""
    gpus(1, capability=capability)
    modern = capability >= (8, 0)
    assert choose_precision("auto", GPU) is (torch.bfloat16 if modern else torch.float32)
    assert choose_precision("fp16", GPU) is torch.float16


# ------------------------------------------------------------------------------------------------------ TF32


def switches() -> list[str]:
    """What torch's kernels read, by operation."""
    names = ("matmul", "conv", "rnn")
    return [torch._C._get_fp32_precision_getter("cuda", name) for name in names]  # type: ignore[attr-defined]


@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_of_all_operations(enabled: bool) -> None:
    """Guards one policy for products, convolutions and recurrent layers, and what still reads torch's older
    switches: torch.backends.cudnn.flags, in the gradient microscope, raises where they differ."""
    set_tf32(not enabled)
    set_tf32(enabled)
    assert switches() == ["tf32" if enabled else "ieee"] * 3
    assert has_tf32() is enabled
    assert torch.backends.cudnn.allow_tf32 is enabled
    with torch.backends.cudnn.flags(enabled=False):
        pass
    assert switches() == ["tf32" if enabled else "ieee"] * 3


@pytest.mark.parametrize("enabled", [True, False])
def test_without_tf32(enabled: bool, gpus: Callable[..., None]) -> None:
    """Guards sums of many products: matrix products are exact inside, and afterwards as they were."""
    gpus(1)
    set_tf32(enabled)
    before = switches()
    with without_tf32():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert switches() == before
    assert torch.backends.cuda.matmul.allow_tf32 is enabled


def test_float32_is_exact_on_a_gpu(gpus: Callable[..., None]) -> None:
    """Guards every command that decodes: a chosen GPU computes float32 in float32."""
    gpus(1)
    assert has_tf32()  # torch's default, for convolutions and recurrent layers
    choose_device("cpu")
    assert has_tf32()  # nobody's business
    choose_device("auto")
    assert switches() == ["ieee"] * 3


@pytest.mark.parametrize(
    ("name", "dtype", "described"),
    [
        ("float32", torch.float32, "float32, TF32 off"),
        ("tf32", torch.float32, "float32, TF32 on"),
        ("bf16", torch.bfloat16, "bf16, TF32 off"),
        ("fp16", torch.float16, "fp16, TF32 off"),
    ],
)
def test_tf32_of_a_training(name: str, dtype: torch.dtype, described: str, gpus: Callable[..., None]) -> None:
    """Guards the setting and the words of the log, whatever was in force before."""
    gpus(1)
    for before in (True, False):
        set_tf32(before)
        assert use_precision(name, GPU) is dtype  # type: ignore[arg-type]
        assert describe_precision(dtype, GPU) == described


def test_precision_of_a_cpu_is_described() -> None:
    """Guards the log of a CPU against a word about TF32."""
    assert describe_precision(use_precision("float32", CPU), CPU) == "float32"


@pytest.mark.parametrize(
    ("compiled", "capability", "expected"),
    [
        ((9, 13, 0), (8, 0), True),
        ((9, 24, 0), (9, 0), True),
        ((10, 0, 0), (12, 0), True),
        ((9, 10, 2), (9, 0), False),
        ((9, 24, 0), (7, 5), False),
    ],
)
def test_bf16_recurrence(
    compiled: tuple[int, ...], capability: tuple[int, int], expected: bool, gpus: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Guards the condition under which torch gives bf16 to cuDNN, and one message, not one per layer."""
    gpus(1, capability=capability)
    monkeypatch.setattr(torch._C._cudnn, "getCompileVersion", lambda: compiled)  # type: ignore[attr-defined]
    for _ in range(3):
        assert has_bf16_recurrence(GPU) is expected
    assert len(caplog.messages) == (0 if expected else 1)
    if not expected:
        assert "run in float32 on this GPU" in caplog.text
        assert ".".join(map(str, compiled)) in caplog.text


# ---------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        torch.AcceleratorError(
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the docs"
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("not enough memory: you tried to allocate 4000 bytes."),
        MemoryError(),
    ],
)
def test_what_is_out_of_memory(error: Exception) -> None:
    """Guards the words that CUDA, torch and Python have for it; one that is not known ends the run."""
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("CUDA error: out of memory"),
    ],
)
def test_what_is_not_out_of_memory(error: Exception) -> None:
    """Guards against a bug that is hidden as out of memory."""
    assert not is_out_of_memory(error)


def test_real_allocation_that_is_too_large() -> None:
    """Guards the signs by which it is known against other words of a newer torch."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


# ----------------------------------------------------------------------------------------------------- cores


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine of four cores; the numbers that torch is given."""
    given: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    return given


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_threads_and_workers_fit(
    workers: int, four_cores: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against more threads and loader processes than cores."""
    assert share_cores(None, workers) == 4 - workers
    assert four_cores == [4 - workers]
    assert not caplog.messages


def test_omp_num_threads_is_honoured(four_cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a user's OMP_NUM_THREADS=2, which torch has read already."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert share_cores(None, 0) == 2


@pytest.mark.parametrize(("threads", "workers"), [(8, 0), (3, 2), (None, 4)])
def test_too_many_threads_are_logged(
    threads: int | None, workers: int, four_cores: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards that a number that exceeds the cores is granted, but not in silence."""
    assert share_cores(threads, workers) == (threads or 1)
    with caplog.at_level(logging.WARNING, "asr"):
        share_cores(threads, workers)
    assert "for 4 usable cores: this is often many times slower" in caplog.text
    assert "--batch.workers" in caplog.text


def test_neighbours_under_torchrun(four_cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against two processes that each take all cores."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert usable_cores() == 2
    assert share_cores(None, 1) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert usable_cores() == 1


def test_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards macOS, where a process cannot be pinned to cores and os has no such function."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_a_copy_does_not_follow_the_weights() -> None:
    """Guards a checkpoint against updates that are made while it is written."""
    weights = {"net": {"a": torch.ones(2)}, "moments": [torch.zeros(2)], "step": 3}
    host = HostCopy(weights)
    weights["net"]["a"].add_(1)
    weights["moments"][0].add_(1)
    assert host.complete
    copy = host.get()
    assert copy["net"]["a"].tolist() == [1.0, 1.0]
    assert copy["moments"][0].tolist() == [0.0, 0.0]
    assert copy["step"] == 3


def test_a_copy_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards results that are read before a GPU has sent them."""
    waited: list[str] = []

    class Event:
        def __init__(self, device: torch.device) -> None:
            self.device = device.type

        def synchronize(self) -> None:
            waited.append(self.device)

    monkeypatch.setattr("asr.device._record_event", Event)
    host = HostCopy([torch.ones(2), {"a": torch.ones(1), "b": 3}, "c"])
    assert not host.complete
    assert waited == []
    assert host.get()[1]["b"] == 3
    assert waited == ["cpu"]
    assert host.complete
    host.get()
    assert waited == ["cpu"]
