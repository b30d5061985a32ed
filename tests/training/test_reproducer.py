from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.errors import ModelError
from asr.files import weights_digest
from asr.training.reproducer import read_reproducer, write_reproducer


@dataclass(frozen=True)
class Part:
    ids: tuple[str, ...]
    data: Tensor


PART = Part(("a", "b"), torch.tensor([[1.0, float("nan")], [3.0, 4.0]]))


def test_round_trip(tmp_path: Path) -> None:
    """Guards what is needed to repeat an update: every field of every batch, and the record."""
    path = tmp_path / "bad.pt"
    assert write_reproducer(path, [PART, replace(PART, ids=("c", "d"))], {"update": 7})
    content = read_reproducer(path)
    assert content["update"] == 7
    assert [part["ids"] for part in content["batches"]] == [("a", "b"), ("c", "d")]
    torch.testing.assert_close(content["batches"][0]["data"], PART.data, equal_nan=True)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Guards training against ending because of a file that is only an aid."""

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert not write_reproducer(tmp_path / "bad.pt", [PART], {})
    assert "the bad update could not be kept" in caplog.text


@pytest.mark.parametrize("content", [b"", b"hello", {"format": "other"}, [1]])
def test_other_files(content: object, tmp_path: Path) -> None:
    """Guards against a traceback, or against running a stranger's code."""
    path = tmp_path / "bad.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ModelError, match="of a bad update"):
        read_reproducer(path)


def test_digest_sees_every_bit() -> None:
    """Guards the digest against missing a change of name, shape, type or one bit, and against order."""
    weights = {"a": torch.arange(4.0), "b": torch.tensor(3)}
    same = weights_digest(weights)
    assert weights_digest(dict(reversed(weights.items()))) == same
    others = [
        {"a": torch.arange(4.0), "c": torch.tensor(3)},
        {"a": torch.arange(4.0).view(2, 2), "b": torch.tensor(3)},
        {"a": torch.arange(4.0), "b": torch.tensor(3, dtype=torch.int32)},
        {"a": torch.nextafter(torch.arange(4.0), torch.tensor(9.0)), "b": torch.tensor(3)},
    ]
    assert same not in [weights_digest(other) for other in others]
