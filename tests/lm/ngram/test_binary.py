"""The mapped binary: what is written is read back; what is damaged is never followed."""

from pathlib import Path

import numpy as np
import pytest

from asr.errors import ModelError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.packed import empty


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
    for ours, theirs in zip(model.unpacked().arrays, other.unpacked().arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.allclose(ours, theirs, atol=1e-5)
    assert list(saved.parent.glob("*.part*")) == []


def test_every_damaged_byte_is_found(saved: Path) -> None:
    """A bit that flips in any part of the file: header, words, arrays."""
    whole = saved.read_bytes()
    for position in [*range(8, 180, 3), *range(180, len(whole) - 1, 41), len(whole) - 1]:
        saved.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(ModelError, match=r"m\.bin (is damaged|is cut short|has the format)"):
            NgramModel.load(saved)


def test_cut_files_are_found(saved: Path) -> None:
    """A copy that was broken off, in the header or later; and one that has grown."""
    whole = saved.read_bytes()
    for size, message in ((50, "is cut short: 50 bytes"), (len(whole) - 4, "was not copied completely")):
        saved.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=message):
            NgramModel.load(saved)
    saved.write_bytes(whole + b"more")
    with pytest.raises(ModelError, match=r"bytes where .* were expected"):
        NgramModel.load(saved)


def test_compiled_code_has_one_form_for_all_models(saved: Path) -> None:
    """Arrays that are mapped from a file compile the search a second time, for a minute."""
    from numba import typeof

    mapped = NgramModel.load(saved).ngrams
    made = NgramModel.load(saved).quantized(8).ngrams
    assert typeof(mapped) == typeof(made) == typeof(empty())


def test_another_format_is_named(saved: Path) -> None:
    """A file from another version, and any other file."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[:8] + b"\x03" + whole[9:])
    with pytest.raises(
        ModelError, match=r"has the format 3, but this version of asr reads the format 2.*`asr lm convert`"
    ):
        NgramModel.load(saved)
    saved.write_bytes(b"RIFF....WAVE")
    with pytest.raises(ModelError, match=r"line 1: found .* where \\data\\ was expected"):
        NgramModel.load(saved)
