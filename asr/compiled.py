"""Compiled functions: numba with a cache that survives, and that may be missing.

Numba keeps machine code in the source file's folder, per path, and fails where it finds none to write to.
Here the code is in `NUMBA_CACHE_DIR`, or `kernels` in the user's cache folder, in a folder named by the
function's module, and by the content of that module and of those that it imports from: a clone, a
reinstallation or a `touch` finds what is there, and a change of any of these files does not. Where nothing
can be written, each process compiles the functions again, after one warning.
"""

import functools
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from numba import config, njit, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.runtime.nrt import rtsys

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("asr")

_PACKAGE = Path(__file__).parent
_IMPORT = re.compile(r"^from asr\.([\w.]+) import|^from asr import (\w+)", re.MULTILINE)


@overload
def kernel(function: F) -> F: ...


@overload
def kernel(*, allocates: bool = True, inline: bool = False, **options: Any) -> Callable[[F], F]: ...


def kernel(
    function: F | None = None, *, allocates: bool = True, inline: bool = False, **options: Any
) -> F | Callable[[F], F]:
    """Compile a function when it is first called, without the global interpreter lock.

    Args:
        function: what to compile; none in `@kernel(...)`, a decorator with options.
        allocates: whether the function makes arrays. One that makes none is compiled without numba's
            reference counts, which are atomic and cost more than most of what a small kernel does.
        inline: for functions that only other compiled functions call: LLVM makes it a part of each. (Numba's
            own inlining types the function again at each call, which takes twice as long.)
        options: more of numba's.
    """
    if function is None:
        return lambda function: _compile(function, allocates, inline, options)
    return _compile(function, allocates, inline, options)


def _compile(function: F, allocates: bool, inline: bool, options: dict[str, Any]) -> F:
    # No kernel is called from C, and the wrapper for that would have to be compiled, too.
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **options}
    if not allocates:
        options["_nrt"] = False
    if inline:
        options |= {"forceinline": True, "no_cpython_wrapper": True}
    make: Any = njit
    dispatcher: Any = make(**options)(function)
    _widen_integers(dispatcher)
    if inline:
        _refuse_python(dispatcher)
    else:
        try:
            make = _Cache  # numba has no types
            dispatcher._cache = make(function)
        except OSError:
            _warn_no_cache()
    compiled: F = dispatcher
    return compiled


def _widen_integers(dispatcher: Any) -> None:
    """Let other compiled functions pass every signed integer as an int64.

    Numba would compile a function again for each width, and for each constant that it is called with.
    """
    get_call_template = dispatcher.get_call_template

    def get_wide_template(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
        return get_call_template([*map(_widen, args)], {name: _widen(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = get_wide_template


def _widen(kind: Any) -> Any:
    numba_types: Any = types
    kind = numba_types.unliteral(kind)
    return numba_types.int64 if isinstance(kind, numba_types.Integer) and kind.signed else kind


def _refuse_python(dispatcher: Any) -> None:
    """Raise a TypeError where Python calls a function that has no wrapper for Python."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError(f"{dispatcher.__name__} is inlined: only compiled functions can call it.")

    dispatcher._insert = lambda *_: None  # what was compiled for other functions is not offered to Python
    dispatcher._compile_for_args = refuse


class _Cache(FunctionCache):
    """Numba's cache in the folder of `_ContentLocator`; a full disk costs the cache, not the call."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Numba's own method first loads all that could be needed to compile a function, which takes half a
        # second. Machine code that is read needs the memory management alone; a compilation loads the rest.
        runtime, cache = cast(Any, rtsys), cast(Any, self)  # numba has no types
        runtime.initialize(target_context)
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            save: Any = super().save_overload
            save(sig, data)
        except OSError:
            _warn_no_cache()


class _ContentLocator(_CacheLocator):
    """The folder of a function's machine code, named by the content of its sources."""

    def __init__(self, file: str, module: str, line: int) -> None:
        self._py_file = file
        self._line = line
        # Not at the margin: machine code does not depend on it, see `source_digest`.
        from asr.user_cache import cache_folder

        settings: Any = config
        cache = cache_folder()
        if not settings.CACHE_DIR and cache is None:
            raise OSError("there is no cache folder, because the user has no home")
        folder = settings.CACHE_DIR or os.path.join(str(cache), "kernels")
        digest = source_digest(Path(file))
        # Machine code refers to its module by name: a module that was moved gets another folder.
        self._folder = os.path.join(folder, f"{module}-{digest[:16]}")

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_ContentLocator":
        locator = cls(py_file, py_func.__module__, py_func.__code__.co_firstlineno)
        locator.ensure_cache_path()
        return locator

    def ensure_cache_path(self) -> None:
        _make_writable(self._folder)

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> str:
        return ""  # the folder's name holds the digest

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Impl(CompileResultCacheImpl):
    _locator_classes: Any = (_ContentLocator,)  # numba's attribute


_Cache._impl_class = _Impl


@functools.cache
def _make_writable(folder: str) -> None:
    """Make a folder.

    Raises:
        OSError: nothing can be written there.
    """
    os.makedirs(folder, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def source_digest(file: Path) -> str:
    """SHA-256 of a module's source and of those of this package that it imports from, directly or not.

    Only imports at the margin count: a kernel can use no others.
    """
    digest = hashlib.sha256()
    pending, seen = [file], {file}
    while pending:
        text, imported = _source(pending.pop())
        digest.update(text)
        for other in imported:
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return digest.hexdigest()


@functools.cache
def _source(file: Path) -> tuple[bytes, tuple[Path, ...]]:
    """The digest of a module's text, and the files of this package that it imports from."""
    try:
        text = file.read_bytes()
    except OSError:
        return b"", ()
    names = [path or name for path, name in _IMPORT.findall(text.decode(errors="replace"))]
    found = (_PACKAGE.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return hashlib.sha256(text).digest(), tuple(path for path in found if path.is_file())


@functools.cache
def _warn_no_cache() -> None:
    log.warning(
        "compiled functions cannot be kept: no folder to write to. Each process compiles them again; set "
        "NUMBA_CACHE_DIR to a writable folder to avoid it."
    )
