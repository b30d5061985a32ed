"""How many cores there are for this process."""

import os

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use, shared fairly with its neighbours under torchrun; at least 1."""
    # Not every system can pin a process to cores (macOS cannot).
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
