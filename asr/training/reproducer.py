"""What it takes to repeat an update whose loss or gradient was not finite, kept on disk."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from asr.errors import AsrError, ModelError
from asr.files import write_atomically
from asr.training.checkpoint import UNREADABLE

log = logging.getLogger("asr")

_FORMAT = "asr-bad-update"


def write_reproducer(path: Path, batches: Sequence[Any], record: Mapping[str, Any]) -> bool:
    """Keep the batches of an update.

    Args:
        path: the file.
        batches: as the update had them; dataclasses of tensors and plain values.
        record: the update's number, its seed, the model's file and the like; tensors and plain values.

    Returns:
        Whether it could be written; training goes on if not.
    """
    content = {"format": _FORMAT, "batches": [asdict(batch) for batch in batches], **record}
    try:
        write_atomically(path, lambda temporary: torch.save(content, temporary))
    except AsrError as error:
        log.warning("the bad update could not be kept: %s", error)
        return False
    return True


def read_reproducer(path: Path) -> dict[str, Any]:
    """What `write_reproducer` has written; it cannot run code when it is loaded.

    Raises:
        ModelError: the file is missing, damaged or something else.
    """
    try:
        content = torch.load(path, weights_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{path}: not a readable record of a bad update: {error!r}.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError(f"{path}: not a record of a bad update. Expected bad_update_N.pt of a run folder.")
    return content
