import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.errors import ModelError
from asr.training.run.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from tests.conftest import no_space

CPU = torch.device("cpu")
STATE_AT_UPDATE_40 = TrainingState(
    epoch=3,
    batch=7,
    update=40,
    training_s=12.5,
    validated_update=33,
    best="epoch 2",
    best_score=10.0,
    best_loss=0.5,
)
STATES = {"model": {"weight": torch.arange(4.0)}, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE_AT_UPDATE_40, {"train.seed": 1, "augment.speeds": [0.9, 1.0]}, STATES)
    return path


def test_round_trip(path: Path) -> None:
    """Guards every field: what is saved is what is loaded."""
    state, settings, state_dicts = load_checkpoint(path, CPU)
    assert state == STATE_AT_UPDATE_40
    assert settings == {"train.seed": 1, "augment.speeds": [0.9, 1.0]}
    assert torch.equal(state_dicts["model"]["weight"], STATES["model"]["weight"])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_infinite_scores_before_the_first_epoch(path: Path) -> None:
    """Guards the values of a run that has not been validated yet."""
    save_checkpoint(path, TrainingState(), {}, {})
    assert load_checkpoint(path, CPU)[0] == TrainingState()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("pwned").touch, ()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_pickle_cannot_run_code(
    protocol: int, form: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against an untrusted file: it is refused in one line and its code is not run."""
    monkeypatch.chdir(path.parent)
    if form == "pickle":
        path.write_bytes(pickle.dumps({"format": "asr-checkpoint", "x": _Evil()}, protocol=protocol))
    else:
        torch.save({"format": "asr-checkpoint", "x": _Evil()}, path, pickle_protocol=max(protocol, 2))
    with pytest.raises(ModelError, match="not a readable checkpoint") as caught:
        load_checkpoint(path, CPU)
    assert "\n" not in str(caught.value)
    assert not (path.parent / "pwned").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_cut_short(share: float, path: Path) -> None:
    """Guards a file of which a part is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ModelError, match=r"checkpoint\.pt: not a readable checkpoint: .*Start again"
    ) as caught:
        load_checkpoint(path, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"\0" * 1000, bytes(range(256)) * 20, b"PK\3\4" + b"x" * 500, b"{}", b"\x80\x02.", b"(lp0\n."],
)
def test_garbage(data: bytes, path: Path) -> None:
    """Guards against a traceback from whatever torch makes of a file of something else."""
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not a"):
        load_checkpoint(path, CPU)


def test_missing(tmp_path: Path) -> None:
    """Guards the message for a checkpoint that is not there."""
    with pytest.raises(
        ModelError, match=r"no checkpoint to resume from\. Start the run without --train.resume"
    ):
        load_checkpoint(tmp_path / "none.pt", CPU)


@pytest.mark.parametrize("record", [{"format": "other"}, [1, 2], {"weight": torch.ones(1)}])
def test_something_else(record: Any, path: Path) -> None:
    """Guards against a torch file of another program."""
    torch.save(record, path)
    with pytest.raises(ModelError, match="not a checkpoint of this project"):
        load_checkpoint(path, CPU)


def test_other_format(path: Path) -> None:
    """Guards against a file of another version that is misread."""
    record = torch.load(path, weights_only=True)
    torch.save({**record, "format_version": 99}, path)
    with pytest.raises(ModelError, match=r"checkpoint format 99, but .* format 4\. Resume with the version"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("change", [{"position": {"nonsense": 1}}, {"settings": "{"}, {"states": None}])
def test_damaged_contents(change: dict[str, Any], path: Path) -> None:
    """Guards against a traceback for a file of the right format with contents that are not."""
    record = {**torch.load(path, weights_only=True), **change}
    torch.save({key: value for key, value in record.items() if value is not None}, path)
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(path, CPU)


def test_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the old checkpoint: when the new one does not fit, the old one is still whole."""
    before = path.read_bytes()

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(ModelError, match="No space left on device") as caught:
        save_checkpoint(path, TrainingState(epoch=9), {}, STATES)
    assert "unharmed" in str(caught.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
