"""What is kept of earlier compilations, and what happens where nothing can be kept."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import config
from numpy.typing import NDArray

from asr import compiled as module
from asr.compiled import kernel, source_digest

_SQUARES = """
import sys
import numpy as np
from asr.compiled import kernel

@kernel
def squares(count):
    found = np.empty(count, np.int64)
    for number in range(count):
        found[number] = number * number
    return found

numbers = squares(4).tolist()
print("compiled" if "numba.np.arraymath" in sys.modules else "read", numbers, sep="\\n")
"""


@pytest.fixture(autouse=True)
def _forget() -> None:
    module._source.cache_clear()
    module._make_writable.cache_clear()
    module._warn_no_cache.cache_clear()


def test_the_content_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code of other sources used, or thrown away by a clone or a touch."""
    digests = []
    for folder, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        root = tmp_path / folder
        root.mkdir()
        (root / "top.py").write_text("from asr.other import x\n")
        (root / "other.py").write_text(text)
        monkeypatch.setattr(module, "_PACKAGE", root)
        digests.append(source_digest(root / "top.py"))
        os.utime(root / "other.py", (1, 1))
        module._source.cache_clear()
        assert source_digest(root / "top.py") == digests[-1]
    assert digests[0] == digests[1] != digests[2]


def test_compiled_code_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is written and never read."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    first, second = double(), double()
    assert first(3) == second(3) == 6
    assert sum(first.stats.cache_misses.values()) == 1
    assert sum(second.stats.cache_hits.values()) == 1


def test_machine_code_is_read_without_the_compiler(tmp_path: Path) -> None:
    """Half a second of every start for what only a compilation needs; arrays that cached code makes."""
    (tmp_path / "squares.py").write_text(_SQUARES)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start() -> list[str]:
        command = [sys.executable, "squares.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        return done.stdout.decode().split("\n")[:2]

    assert start() == ["compiled", "[0, 1, 4, 9]"]
    assert start() == ["read", "[0, 1, 4, 9]"]


def test_a_module_that_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source under another name: machine code looks for its module by the name that it had."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    there = double()
    assert there(3) == 6
    monkeypatch.setattr(sys.modules[__name__], "__name__", "moved")
    here = double()
    assert here(3) == 6
    assert sum(here.stats.cache_hits.values()) == 0


def test_no_folder_to_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only installation without a home: a traceback of numba's instead of one line."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, logger="asr"):
        assert double()(3) == double()(3) == 6
    assert caplog.text.count("compiled functions cannot be kept") == 1


def test_a_folder_that_disappears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that becomes full, or is taken away, between the first use and the end of compiling."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    function = double()
    shutil.rmtree(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, logger="asr"):
        assert function(3) == 6
    assert "compiled functions cannot be kept" in caplog.text


def double():  # type: ignore[no-untyped-def]
    @kernel
    def twice(x: int) -> int:
        return 2 * x

    return twice


@kernel(allocates=False, inline=True)
def tripled(number: int) -> int:
    return 3 * number


@kernel
def nine_times(numbers: NDArray[np.int32]) -> int:
    return tripled(tripled(numbers[0])) + tripled(0)


def test_inlined_functions() -> None:
    """One compilation for each width of integers and each constant; a crash where Python calls it."""
    assert nine_times(np.array([2], np.int32)) == 18
    dispatcher: Any = tripled
    # none where the caller's code comes from the cache
    assert {str(kind) for (kind,) in dispatcher.signatures} <= {"int64"}
    with pytest.raises(TypeError, match="tripled is inlined"):
        tripled(2)


def test_code_is_kept_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards $ASR_CACHE_DIR, which holds everything that is kept; a user without a home has no cache."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("ASR_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "plain.py"
    path.write_text("x = 1\n")
    locator = module._ContentLocator(str(path), "plain", 1)
    assert Path(locator.get_cache_path()).parent == tmp_path / "cache" / "kernels"
    monkeypatch.setattr("asr.user_cache.cache_folder", lambda: None)
    with pytest.raises(OSError, match="no cache folder"):
        module._ContentLocator(str(path), "plain", 1)
