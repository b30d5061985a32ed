"""Load a language model of any kind from its file."""

from pathlib import Path

import torch

from asr.errors import ModelError
from asr.lm.charrnn import CharRnnModel, load_charrnn
from asr.lm.ngram.model import NgramModel
from asr.lm.wordrnn import FILE_KIND, WordRnnModel, load_wordrnn
from asr.model.saved import is_of_kind

__all__ = ["AnyLanguageModel", "load_language_model"]

AnyLanguageModel = NgramModel | CharRnnModel | WordRnnModel


def load_language_model(path: Path, device: torch.device | str = "cpu") -> AnyLanguageModel:
    """Read an n-gram model or a recurrent network; a name that ends in .safetensors is a network's.

    Args:
        path: .arpa, .arpa.gz or .bin of an n-gram model, or .safetensors of a character or word RNN.
        device: of a network.

    Raises:
        ModelError: no such file, not a language model, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(
            f"{path}: is a folder. Expected a language model's file, such as lm.bin or lm.arpa.gz."
        )
    if path.suffix != ".safetensors":
        return NgramModel.load(path)
    if is_of_kind(path, FILE_KIND):
        return WordRnnModel(load_wordrnn(path, device))
    return CharRnnModel(load_charrnn(path, device))
