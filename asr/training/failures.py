"""What the system does to a training from outside, told in one line each."""

from collections.abc import Iterator
from contextlib import contextmanager

from asr.device import is_out_of_memory
from asr.errors import ModelError, TrainingError


@contextmanager
def plain_failures(batch_setting: str = "--batch.seconds") -> Iterator[None]:
    """Turn a loader process that was killed, and memory that does not suffice, into errors for the user.

    The weights may be half-way through an update then, so nothing is saved: the newest checkpoint counts.

    Args:
        batch_setting: what makes batches smaller when it is lowered.

    Raises:
        TrainingError: instead of torch's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(
                f"out of memory where no batch can be halved (in validation, or for the optimiser): {error}. "
                f"Lower {batch_setting}, or make the model smaller. {_GO_ON}"
            ) from error
        if is_killed_loader(error):
            raise loader_killed(error) from error
        raise
    except ModelError as error:  # torch may tell of it at any moment, also while a file is being written
        if error.__cause__ is not None and is_killed_loader(error.__cause__):
            raise loader_killed(error.__cause__) from error
        raise


def loader_killed(error: BaseException, remedy: str | None = None) -> TrainingError:
    """The error for the user when a loader process was killed.

    Args:
        error: what torch or Python raised.
        remedy: what the user can do; None for the remedy while training.
    """
    words = str(error).strip().rstrip(".") or type(error).__name__
    remedy = remedy or f"Lower --batch.workers, or --batch.seconds. {_GO_ON}"
    return TrainingError(
        f"a loader process was ended from outside, most often by the system because memory ran out: {words}. "
        f"{remedy}"
    )


def is_killed_loader(error: BaseException) -> bool:
    """Whether torch reports that a loader process was killed."""
    return "DataLoader worker (pid" in str(error)  # torch has no class for it


_GO_ON = "Go on from the newest checkpoint with --train.resume."
