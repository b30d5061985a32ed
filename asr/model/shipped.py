"""The models that ship with the package, by name, and their files.

A command's --model is one of these names, the path of a file, or a folder with the same files as a model that
ships, as `asr adapt` writes it. A file of the same name is given by a path with a folder in it, such as
./english.
"""

import difflib
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.errors import ModelError

__all__ = ["DEFAULT_MODEL", "SHIPPED_MODELS", "ModelFiles", "SearchWidth", "find_model"]

_FOLDER = Path(__file__).parent.parent / "models"

DEFAULT_MODEL = Path("english")


@dataclass(frozen=True)
class SearchWidth:
    """How much a beam search keeps.

    Attributes:
        beam_size: prefixes after each step, at most.
        beam_threshold: nats below the best prefix; what is farther below is dropped.
        token_threshold: nats below the step's best token; what is farther below starts nothing.
    """

    beam_size: int = 100
    beam_threshold: float = 25.0
    token_threshold: float = 12.0


# Many prefixes where the network is unsure, few where it is not: 400 within 12 nats make fewer errors than
# 100 within 25, in less time. Chosen on dev; see the model card.
_ENGLISH = SearchWidth(400, 12.0, 7.0)
_ENGLISH_FAST = SearchWidth(200, 10.0, 5.0)


@dataclass(frozen=True)
class ModelFiles:
    """A model and what it is decoded with by default.

    Attributes:
        path: of the acoustic model, .safetensors.
        name: of a model that ships with the package; "" for any other file.
        lm: its language model, or None.
        lexicon: its lexicon, or None.
        width: of its search.
        rescore_lm: a second language model, which rescores what the search has found, or None.
    """

    path: Path
    name: str = ""
    lm: Path | None = None
    lexicon: Path | None = None
    width: SearchWidth = field(default_factory=SearchWidth)
    rescore_lm: Path | None = None

    @classmethod
    def of_folder(cls, folder: Path, name: str = "", width: SearchWidth = _ENGLISH) -> "ModelFiles":
        """The files of a model with its language models and its lexicon; not each has a second one."""
        second = folder / "rescoring.safetensors"
        return cls(
            path=folder / "acoustic.safetensors",
            name=name,
            lm=folder / "lm.bin",
            lexicon=folder / "lexicon.txt.xz",
            width=width,
            rescore_lm=second if second.is_file() else None,
        )

    def beside(self, ending: str) -> Path:
        """A path for results: in the folder of a user's model, in the working folder for one that ships."""
        return (
            Path(f"{self.name}.{ending}") if self.name else self.path.with_name(f"{self.path.stem}.{ending}")
        )


SHIPPED_MODELS = {
    files.name: files
    for files in (
        ModelFiles.of_folder(_FOLDER / "english", "english"),
        replace(ModelFiles.of_folder(_FOLDER / "english", "english-fast", _ENGLISH_FAST), rescore_lm=None),
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
