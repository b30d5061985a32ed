"""Load a language model of any kind from its file."""

from pathlib import Path

import torch

from asr.errors import ModelError
from asr.lm.charrnn import CharRnnModel, load_charrnn
from asr.lm.ngram.model import NgramModel

__all__ = ["load_language_model"]


def load_language_model(path: Path, device: torch.device | str = "cpu") -> NgramModel | CharRnnModel:
    """Read an n-gram model or a character RNN; a name that ends in .safetensors is a network's.

    Args:
        path: .arpa, .arpa.gz or .bin of an n-gram model, or .safetensors of a character RNN.
        device: of a network.

    Raises:
        ModelError: no such file, not a language model, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(
            f"{path}: is a folder. Expected a language model's file, such as lm.bin or lm.arpa.gz."
        )
    if path.suffix == ".safetensors":
        return CharRnnModel(load_charrnn(path, device))
    return NgramModel.load(path)
