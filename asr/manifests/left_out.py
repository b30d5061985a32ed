"""Utterances that cannot be used: what `--on-error` does with them, and how they are reported."""

import logging
from collections.abc import Mapping
from typing import Literal

from asr.errors import DataError, first_few

__all__ = ["OnError", "report_left_out"]

log = logging.getLogger("asr")

OnError = Literal["stop", "skip"]
"""What an utterance that cannot be used does: it ends the command, or it is left out and counted."""


def report_left_out(left_out: Mapping[str, str], total: int, kind: str) -> None:
    """Warn of what was left out; nothing where everything is used.

    Args:
        left_out: why each cannot be used, by its id.
        total: how many there were, those left out among them.
        kind: what they are, such as "training utterances".

    Raises:
        DataError: none is left.
    """
    if not left_out:
        return
    first = next(iter(left_out.values()))
    if len(left_out) == total:
        raise DataError(f"none of {total} {kind} can be used. The first one: {first}")
    named = first_few([f"{name}: {reason}" for name, reason in left_out.items()], separator="; ")
    log.warning("%d of %d %s cannot be used and are left out: %s", len(left_out), total, kind, named)
