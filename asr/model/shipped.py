"""The models that ship with the package, by name, and their files.

A command's --model is one of these names, the path of a file, or a folder with the same files as a model that
ships, as `asr adapt` writes it. A file of the same name is given by a path with a folder in it, such as
./english.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from asr.errors import ModelError

__all__ = ["DEFAULT_MODEL", "SHIPPED_MODELS", "ModelFiles", "find_model"]

_FOLDER = Path(__file__).parent.parent / "models"

DEFAULT_MODEL = Path("english")


@dataclass(frozen=True)
class ModelFiles:
    """A model and what it is decoded with by default.

    Attributes:
        path: of the acoustic model, .safetensors.
        name: of a model that ships with the package; "" for any other file.
        lm: its language model, or None.
        lexicon: its lexicon, or None.
        beam_size: hypotheses that its search keeps; 0 for any other file.
    """

    path: Path
    name: str = ""
    lm: Path | None = None
    lexicon: Path | None = None
    beam_size: int = 0

    @classmethod
    def of_folder(cls, folder: Path, name: str = "", beam_size: int = 0) -> "ModelFiles":
        """The files of a model with its language model and its lexicon."""
        return cls(
            folder / "acoustic.safetensors", name, folder / "lm.bin", folder / "lexicon.txt.xz", beam_size
        )

    def beside(self, ending: str) -> Path:
        """A path for results: in the folder of a user's model, in the working folder for one that ships."""
        return (
            Path(f"{self.name}.{ending}") if self.name else self.path.with_name(f"{self.path.stem}.{ending}")
        )


SHIPPED_MODELS = {
    files.name: files
    for files in (
        ModelFiles.of_folder(_FOLDER / "english", "english", 100),
        ModelFiles.of_folder(_FOLDER / "english", "english-fast", 32),
    )
}


def find_model(model: Path) -> ModelFiles:
    """The files of a model.

    Args:
        model: a name of `SHIPPED_MODELS`, the path of a file, or a folder that `asr adapt` has written.

    Raises:
        ModelError: it is neither a name nor a path, or the folder lacks a file.
    """
    name = str(model)
    if name in SHIPPED_MODELS:
        return SHIPPED_MODELS[name]
    if not model.exists() and not model.suffix and model.name == name:
        near = difflib.get_close_matches(name, SHIPPED_MODELS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ModelError(
            f"{name}: no such model.{hint} Expected {', '.join(SHIPPED_MODELS)}, or the path of a "
            ".safetensors file that `asr train` has written."
        )
    files = ModelFiles.of_folder(model)
    if not files.path.is_file():
        return ModelFiles(model)
    for path in (files.lm, files.lexicon):
        if path is not None and not path.is_file():
            raise ModelError(
                f"{model}: is a folder without {path.name}. A model with its language model and lexicon was "
                f"expected, as `asr adapt` writes it. Make it again, or give the file {files.path}."
            )
    return files
