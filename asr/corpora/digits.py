"""Spoken digits: a corpus of synthetic voices that comes with the project's repository.

Strings of 1 to 7 English digit words, made by the project with the speech synthesisers flite, festival and
espeak-ng (`data/make_digits.py`; voices, licences and split are in `data/README.md`). The audio of one voice
is one Ogg Vorbis file, and each utterance is a segment of it. The test voices occur neither in training nor
in development, and no string of four or more digits occurs twice.

    data/digits/{train,dev,test}.jsonl, data/digits/<voice>.ogg, data/digits/wav/<voice>_<digits>.wav
"""

from pathlib import Path

from asr.errors import DataError
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Splits, Utterance

__all__ = ["WORDS", "embedded_folder", "prepare", "prepare_children"]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def prepare(data_dir: Path | None = None) -> Splits:
    """The three parts of the digits corpus that comes with the project's repository.

    Args:
        data_dir: the repository's `data` folder, or the `digits` folder in it. None: the one next to the
            package, as in a clone.

    Returns:
        Train, dev and test utterances in the order of their manifests; `speaker` is the voice.

    Raises:
        DataError: the corpus does not exist, as when the package was installed without the repository; or a
            manifest is broken, or an audio file missing.
    """
    folder = Path(data_dir) if data_dir is not None else embedded_folder("digits")
    if not (folder / "train.jsonl").is_file():
        folder = folder / "digits"
    if not (folder / "train.jsonl").is_file():
        raise _does_not_exist(folder)
    train, dev, test = (read_manifest(folder / f"{part}.jsonl") for part in ("train", "dev", "test"))
    return Splits(train=train, dev=dev, test=test)


def prepare_children() -> list[Utterance]:
    """Strings of 2 to 5 digits read by 53 children of 6 to 9 years, who speak Mandarin at home.

    All digit strings of speechocean762, for training. Licence: Creative Commons Attribution 4.0
    International.

    Raises:
        DataError: the recordings do not exist, as when the package was installed without the repository.

    Source: Zhang et al. 2021, "speechocean762: An open-source non-native English speech corpus for
        pronunciation assessment".
    """
    return read_manifest(embedded_folder("speechocean") / "manifest.jsonl")


def embedded_folder(name: str) -> Path:
    """A folder of the repository's `data`, which is beside the package in a clone.

    Raises:
        DataError: it does not exist, as when the package was installed without the repository.
    """
    folder = Path(__file__).resolve().parents[2] / "data" / name
    if not folder.is_dir():
        raise _does_not_exist(folder)
    return folder


def _does_not_exist(folder: Path) -> DataError:
    return DataError(
        f"{folder}: the embedded recordings do not exist. They come with the repository and not with the "
        "installed package. Run the recipe from a clone, or give the data folder of one."
    )
