"""The provenance in a saved model."""

import pytest
import torch

from asr.errors import SettingsError
from asr.training.run.provenance import provenance


def test_of_a_cpu() -> None:
    """Guards what distinguishes two trainings; nothing about a GPU that was not used."""
    facts = provenance(torch.device("cpu"), "float32")
    assert facts["torch"] == torch.__version__
    assert facts["precision"] == "float32"
    assert not facts.keys() & {"gpu", "cuda", "cudnn", "tf32"}
    with pytest.raises(SettingsError, match="fp16 is for GPUs"):
        provenance(torch.device("cpu"), "fp16")


@pytest.mark.parametrize(
    ("setting", "precision", "tf32"),
    [
        ("auto", "bf16", False),
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("fp16", "fp16", False),
    ],
)
def test_of_a_gpu(setting: str, precision: str, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what a GPU's numbers depend on, on a faked one: its name, CUDA, cuDNN, the format of auto."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    facts = provenance(torch.device("cuda", 0), setting)  # type: ignore[arg-type]
    expected = {"gpu": "NVIDIA H100", "cuda": "13.0", "cudnn": 92400, "precision": precision, "tf32": tf32}
    assert {key: facts[key] for key in expected} == expected
