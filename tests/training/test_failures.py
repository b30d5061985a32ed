import pytest
import torch

from asr.errors import ModelError, TrainingError
from asr.training.failures import plain_failures


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("too much")])
def test_out_of_memory_elsewhere(error: Exception) -> None:
    """Guards validation and the optimiser, where there is no batch to halve."""
    with pytest.raises(TrainingError, match=r"out of memory where no batch can be halved"), plain_failures():
        raise error


@pytest.mark.parametrize(
    "words",
    ["DataLoader worker (pid 7) is killed by signal: Killed. ", "DataLoader worker (pid(s) 7) exit"],
)
def test_killed_loader(words: str) -> None:
    """Guards both ways in which torch tells of it; tests/commands/test_train.py kills a real one."""
    with pytest.raises(TrainingError, match=r"^a loader process was ended from outside") as caught:
        with_failure(RuntimeError(words))
    assert "Go on from the newest checkpoint with --train.resume." in str(caught.value)


def test_loader_killed_while_a_file_is_written() -> None:
    """Guards against an error about a full disk for a loader that was killed; a full disk stays one."""
    told = ModelError("checkpoint.pt: cannot be written")
    told.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(TrainingError, match=r"^a loader process was ended from outside"):
        with_failure(told)
    told.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(ModelError, match="cannot be written"):
        with_failure(told)


def test_other_errors_pass() -> None:
    """Guards bugs against being told as somebody else's fault."""
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        with_failure(RuntimeError("a bug"))


def with_failure(error: Exception) -> None:
    with plain_failures():
        raise error
