"""Lengths of recordings: measured once, again where a file has changed, and without a place to keep them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import durations as module
from asr.corpora.durations import durations, measure
from asr.errors import AudioError
from asr.frontend.audio import audio_info


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Three recordings of 0.1, 0.2 and 0.3 s in two folders, one with a name of two lines."""
    paths = [tmp_path / "a" / "0.wav", tmp_path / "a" / "new\nline.wav", tmp_path / "b" / "2.wav"]
    for number, path in enumerate(paths, start=1):
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(800 * number), 8000)
    return paths


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the recordings that were opened."""
    names: list[str] = []

    def counted(path: Path) -> object:
        names.append(path.name)
        return audio_info(path)

    monkeypatch.setattr(module, "audio_info", counted)
    return names


def test_measured_once(recordings: list[Path], measured: list[str]) -> None:
    """290,000 headers read at every start; the length of a file that has been replaced; a wrong order."""
    assert durations(recordings, "x") == [0.1, 0.2, 0.3]
    assert durations(recordings[::-1], "x") == [0.3, 0.2, 0.1]
    assert sorted(measured) == ["0.wav", "2.wav", "new\nline.wav"]
    soundfile.write(recordings[0], np.zeros(4000), 8000)
    assert durations(recordings, "x") == [0.5, 0.2, 0.3]
    assert measured[3:] == ["0.wav"]


def test_a_date_alone_counts(recordings: list[Path], measured: list[str]) -> None:
    """A recording that was changed and has as many bytes as before."""
    durations(recordings, "x")
    os.utime(recordings[2], ns=(0, 1))
    durations(recordings, "x")
    assert measured[3:] == ["2.wav"]


def test_several_at_once_measure_once(recordings: list[Path], measured: list[str]) -> None:
    """Every rank of a training that reads all headers."""
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: durations(recordings, "x"), range(4)))
    assert results == [[0.1, 0.2, 0.3]] * 4
    assert len(measured) == 3


def test_errors(recordings: list[Path]) -> None:
    """One bad file of many that ends all, is kept as if it were good, or is passed over."""
    recordings[1].write_bytes(b"")
    missing = recordings[0].with_name("missing.wav")
    first, bad, third, absent = measure([*recordings, missing], "x")
    assert (first, third) == (0.1, 0.3)
    assert isinstance(bad, AudioError)
    assert isinstance(absent, AudioError)
    assert "missing.wav: cannot be read: No such file" in str(absent)
    with pytest.raises(AudioError, match=r"line\.wav: "):
        durations(recordings, "x")
    soundfile.write(recordings[1], np.zeros(800), 8000)
    assert durations(recordings, "x") == [0.1, 0.1, 0.3]


@pytest.mark.parametrize("damage", ["file", "line", "type"])
def test_without_a_place_to_keep_them(
    recordings: list[Path], damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that cannot be written, or a cache that is damaged."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("ASR_CACHE_DIR", str(cache))
    if damage == "file":
        cache.write_bytes(b"")
    else:
        durations(recordings, "x")
        (file,) = (cache / "durations").iterdir()
        file.write_text('["a/0.wav", 1' if damage == "line" else '[["a/0.wav"], 1, 2, 3]\n')
    assert durations(recordings, "x") == [0.1, 0.2, 0.3]


def test_no_recordings() -> None:
    """An empty corpus."""
    assert measure([], "x") == []
