"""What the system does to a training from outside, told in one line each."""

from collections.abc import Iterator
from contextlib import contextmanager

from asr.batching.loader import is_killed_loader, loader_killed
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


_GO_ON = "Go on from the newest checkpoint with --train.resume."
