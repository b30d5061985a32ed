"""The mapped binary: what is written is read back; what is damaged is never followed."""

from pathlib import Path

import numpy as np
import pytest

from asr.errors import ModelError
from asr.lm.building import NgramConfig, build
from asr.lm.ngram import NgramModel


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("the cat sat\nthe cat ran\n\u00e9t\u00e9\n")
    build([tmp_path / "text"], NgramConfig(order=3), tmp_path / "m.bin")
    return tmp_path / "m.bin"


def test_read_back_whole(saved: Path) -> None:
    """An array that is cut, shifted or of another type."""
    model = NgramModel.load(saved)
    model.save(saved.with_name("m.arpa"))
    other = NgramModel.load(saved.with_name("m.arpa"))
    assert model.words == other.words
    assert model.counts == other.counts
    for ours, theirs in zip(model.arrays, other.arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.allclose(ours, theirs, atol=1e-5)
    assert isinstance(model.arrays.word, np.memmap)
    assert list(saved.parent.glob("*.part*")) == []


def test_every_damaged_byte_is_found(saved: Path) -> None:
    """A bit that flips in any part of the file: header, words, arrays."""
    whole = saved.read_bytes()
    for place in [*range(8, 180, 3), *range(180, len(whole), 41), len(whole) - 1]:
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ModelError, match=r"m\.bin (is damaged|has the format)"):
            NgramModel.load(saved)


def test_cut_files_are_found(saved: Path) -> None:
    """A copy that was broken off, in the header or later; and one that has grown."""
    whole = saved.read_bytes()
    for size, message in ((50, "is cut short: 50 bytes"), (len(whole) - 4, "was not copied to its end")):
        saved.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=message):
            NgramModel.load(saved)
    saved.write_bytes(whole + b"more")
    with pytest.raises(ModelError, match="bytes, but its header says"):
        NgramModel.load(saved)


def test_another_format_is_named(saved: Path) -> None:
    """A file from a later version, and any other file."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[:8] + b"\x02" + whole[9:])
    with pytest.raises(ModelError, match="has the format 2, but this version of asr reads the format 1"):
        NgramModel.load(saved)
    saved.write_bytes(b"RIFF....WAVE")
    with pytest.raises(ModelError, match=r"line 1: .* stands where \\data\\ was expected"):
        NgramModel.load(saved)
