"""Spoken digits: a corpus of synthetic voices that comes with the project's repository.

Strings of 1 to 7 English digit words, made by the project with the speech synthesisers flite, festival and
espeak-ng (`data/make_digits.py`; voices, licences and split are in `data/README.md`). The audio of one voice
is one Ogg Vorbis file, and each utterance is a segment of it. The test voices occur neither in training nor
in development, and no string of four or more digits occurs twice.

    data/digits/{train,dev,test}.jsonl, data/digits/<voice>.ogg, data/digits/wav/<voice>_<digits>.wav
"""

from pathlib import Path

from asr.corpora.manifest import Splits, read_manifest
from asr.errors import DataError

__all__ = ["WORDS", "prepare"]

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
    folder = Path(data_dir) if data_dir is not None else Path(__file__).resolve().parents[2] / "data"
    if not (folder / "train.jsonl").is_file():
        folder = folder / "digits"
    if not (folder / "train.jsonl").is_file():
        raise DataError(
            f"{folder}: the embedded digits corpus does not exist. Expected train.jsonl, dev.jsonl and "
            "test.jsonl: they come with the repository and not with the installed package. Run the recipe "
            "from a clone, or give the clone's data folder."
        )
    train, dev, test = (read_manifest(folder / f"{part}.jsonl") for part in ("train", "dev", "test"))
    return Splits(train=train, dev=dev, test=test)
