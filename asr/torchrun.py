"""The processes that torchrun starts: which of them this one is, and what they agree on through its store.

`torchrun --nproc-per-node K -m asr …` starts K processes, each with its rank in the environment; without
torchrun there is one, of rank 0.
"""

import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

__all__ = ["first_to_report", "rank_and_world_size", "wait_for_all"]

_WEEK = timedelta(days=7)  # torchrun ends all processes when one is lost


def rank_and_world_size() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def first_to_report(message: str) -> bool:
    """Whether no other process of this torchrun has reported the same; without torchrun, always True.

    The processes agree through torchrun's store, which outlives them.
    """
    digest = hashlib.blake2b(message.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    try:
        store = _connect(timedelta(seconds=5))
        return store is None or bool(store.add(f"asr/reported/{_attempt()}/{digest}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True  # better twice than never


def wait_for_all() -> None:
    """Return when all processes have come here; without torchrun, at once.

    When one process ends with a status other than 0, torchrun ends those that are still working.
    """
    store = _connect(timedelta(minutes=1))
    if store is None:
        return
    rank, world_size = rank_and_world_size()
    keys = [f"asr/finished/{_attempt()}/{number}" for number in range(world_size)]
    store.set(keys[rank], "")
    store.wait(keys, _WEEK)


def _attempt() -> str:
    """How often torchrun has started all again: what an earlier attempt has stored does not count."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _connect(timeout: timedelta) -> "TCPStore | None":
    """The store of torchrun's agent; None without torchrun.

    Raises:
        KeyError, ValueError, RuntimeError: there should be one, but it does not answer.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timeout)
