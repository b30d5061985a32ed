"""How the search is compiled.

Its functions take arrays that live outside and make none, so that they are compiled without numba's reference
counts: these are atomic, and took four fifths of the time. A function that allocates is compiled with them.

Numba keeps what it has compiled until the file of the outermost function changes, whatever becomes of the
files of those that it calls. Here all of these count.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

from asr.lm import packed

__all__ = ["allocating", "compiled", "inlined"]

F = TypeVar("F", bound=Callable[..., Any])

_HERE = Path(__file__).parent
_FILES = (*(_HERE / f"{name}.py" for name in ("arena", "closing", "fusion", "search")), Path(packed.__file__))


def compiled(function: F) -> F:
    """Compile a function of its own."""
    return _compile(function, _nrt=False)


def inlined(function: F) -> F:
    """Compile a function as part of others: handing tables of thirty arrays on costs more than most parts."""
    return _compile(function, _nrt=False, inline="always")


def allocating(function: F) -> F:
    """Compile a function that makes arrays."""
    return _compile(function)


def _compile(function: F, **options: Any) -> F:
    make: Any = njit
    dispatcher: Any = make(function, cache=True, nogil=True, error_model="numpy", **options)
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None:  # numba keeps nothing where it finds no folder to write to
        stats = [path.stat() for path in _FILES if path.exists()]
        file._source_stamp = (file._source_stamp, *((stat.st_mtime, stat.st_size) for stat in stats))
    made: F = dispatcher
    return made
