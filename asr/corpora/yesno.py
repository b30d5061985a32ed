"""YesNo (OpenSLR 1): sixty recordings of one man, each of eight words "yes" or "no" in Hebrew.

The corpus was made for the Kaldi project by a contributor who stays anonymous, so that its scripts can be
tried quickly and for free. 8 kHz, 6 minutes in all. There is no transcript: the file's name is the
sequence, 1 for yes and 0 for no, so `1_0_1_1_1_0_1_0.wav` is "yes no yes yes yes no yes no".

Licence: Creative Commons Attribution-ShareAlike.

    waves_yesno/0_0_0_0_1_1_1_1.wav …

Split: files in the order of their names; those at even positions are for training and those at odd positions
are the test set, 30 each (240 words), as lhotse and icefall have them. Every sixth of the training files is
taken out for the choice of the epoch, so that the test set plays no part in it: 25 train, 5 dev, 30 test.

Source: lhotse/recipes/yesno.py (the split); torchaudio/datasets/yesno.py (the SHA-256).
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Corpus, Reading, check_root, of_splits
from asr.corpora.download import fetch, openslr
from asr.corpora.durations import durations
from asr.errors import DataError
from asr.manifests.utterance import Splits, Utterance

__all__ = ["ARCHIVE", "CORPUS", "prepare"]

log = logging.getLogger("asr")

ARCHIVE = openslr(
    1, "waves_yesno.tar.gz", "waves_yesno", "CC BY-SA", size_bytes=4_703_754,
    sha256="c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
)  # fmt: skip

_FILES = 60
_NAME = re.compile(r"[01](_[01]){7}")
_DEV_EVERY = 6  # of the 30 training files


def prepare(root: Path | None, data_dir: Path) -> Splits:
    """The three parts of YesNo, fetched when `root` is None.

    Args:
        root: the folder of wav files, or the one that holds it as `waves_yesno`; used as it is.
        data_dir: where a download goes; not looked at when `root` is given.

    Returns:
        25, 5 and 30 utterances; text in lower case, id and order by file name.

    Raises:
        DataError: the folder does not hold the sixty files.
        DownloadError: the corpus could not be fetched.
    """
    folder = Path(root) if root is not None else fetch(ARCHIVE, Path(data_dir))
    if (folder / "waves_yesno").is_dir():
        folder = folder / "waves_yesno"
    check_root(folder, "the wav files of YesNo")
    # Names that begin with a dot were made by the system that packed the archive.
    files = sorted(path for path in folder.glob("*.wav") if not path.name.startswith("."))
    for path in files:
        if not _NAME.fullmatch(path.stem):
            raise DataError(
                f"{path}: not a file of YesNo. Expected names of eight 0 or 1, such as 1_0_1_1_1_0_1_0.wav. "
                "Remove the file, or correct --data.root."
            )
    if len(files) != _FILES:
        raise DataError(
            f"{folder}: {len(files)} wav files. Expected the {_FILES} of YesNo, since fewer would be "
            f"split differently. Correct --data.root, or leave it out to download the corpus."
        )
    seconds = durations(files, "YesNo")
    utterances = [_utterance(path, duration) for path, duration in zip(files, seconds, strict=True)]
    even, test = utterances[::2], utterances[1::2]
    dev = even[_DEV_EVERY - 1 :: _DEV_EVERY]
    train = [utterance for utterance in even if utterance not in dev]
    log.info("YesNo in %s: %d train, %d dev, %d test utterances", folder, len(train), len(dev), len(test))
    return Splits(train=train, dev=dev, test=test)


def _utterance(path: Path, duration: float) -> Utterance:
    words = {"1": "yes", "0": "no"}
    return Utterance(
        id=path.stem,
        audio_filepath=path.absolute(),
        duration=duration,
        text=" ".join(words[digit] for digit in path.stem.split("_")),
        speaker="yesno",
    )


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    return of_splits(prepare(root or Path(), Path()))


CORPUS = Corpus(
    name="yesno",
    title="YesNo",
    hours=0.1,
    speakers=1,
    languages="Hebrew",
    licence="CC BY-SA",
    source="https://www.openslr.org/1/",
    read=_read,
    archives=(ARCHIVE,),
)
