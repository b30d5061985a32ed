"""Free Spoken Digit Dataset (FSDD): six people say each English digit 50 times, alone.

Z. Jackson et al.; 8 kHz, 3,000 recordings of about 0.4 s, 0.36 h in all. A file's name is its transcript:

    recordings/<digit>_<speaker>_<index>.wav

All of them come with the project's repository, in Opus (`data/fsdd`, made by `data/embed_recordings.py`).
Licence: Creative Commons Attribution-ShareAlike 4.0 International.

Split by speaker, since the corpus's own split (index 0-4 for testing) has every test speaker in training: one
speaker for the test, the next in alphabetical order (after the last comes the first) to choose by, the other
four to learn from.

Source: github.com/Jakobovski/free-spoken-digit-dataset (README: names, licence).
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.corpora import digits
from asr.corpora.corpus import Corpus, Reading, check_root, of_splits
from asr.corpora.durations import durations
from asr.errors import DataError, SettingsError
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Splits, Utterance

__all__ = ["CORPUS", "SPEAKERS", "next_speaker", "prepare", "read_folder"]

log = logging.getLogger("asr")

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

_RECORDINGS = 3000
_NAME = re.compile(rf"(?P<digit>[0-9])_(?P<speaker>{'|'.join(SPEAKERS)})_(?P<index>\d+)")


def next_speaker(speaker: str) -> str:
    """The FSDD speaker that follows in alphabetical order; the first follows the last.

    Raises:
        SettingsError: not a speaker of FSDD.
    """
    _check_speaker("test", speaker)
    return SPEAKERS[(SPEAKERS.index(speaker) + 1) % len(SPEAKERS)]


def prepare(root: Path | None, test_speaker: str, dev_speaker: str | None = None) -> Splits:
    """The Free Spoken Digit Dataset, split by speaker.

    Args:
        root: as for `read_folder`; None takes the copy that comes with the project's repository.
        test_speaker: one of SPEAKERS: the test set is all recordings of this person.
        dev_speaker: likewise for development; None takes `next_speaker(test_speaker)`.

    Returns:
        The recordings of four, one and one speakers (2,000, 500 and 500 in the full corpus); the text is the
        digit's word in lower case.

    Raises:
        SettingsError: an unknown speaker, or the same one twice.
        DataError: the folder is missing, holds a wav file whose name is not FSDD's, or lacks a speaker.
    """
    if dev_speaker is None:
        dev_speaker = next_speaker(test_speaker)
    _check_speaker("test", test_speaker)
    _check_speaker("dev", dev_speaker)
    if test_speaker == dev_speaker:
        raise SettingsError(
            f"{test_speaker} is both the test speaker and the dev speaker. Expected two people, so that "
            f"nothing is chosen on the test set. Take {next_speaker(test_speaker)} as the dev speaker."
        )
    if root is None:
        utterances = read_manifest(digits.embedded_folder("fsdd") / "manifest.jsonl")
    else:
        utterances = read_folder(root)
    test, dev = (_of_speaker(speaker, utterances) for speaker in (test_speaker, dev_speaker))
    train = [utterance for utterance in utterances if utterance.speaker not in (test_speaker, dev_speaker)]
    log.info(
        "FSDD: %d train, %d dev (%s), %d test (%s) recordings",
        len(train), len(dev), dev_speaker, len(test), test_speaker,
    )  # fmt: skip
    return Splits(train=train, dev=dev, test=test)


def read_folder(root: Path) -> list[Utterance]:
    """The recordings of a folder as FSDD publishes it, by file name.

    Args:
        root: the folder of wav files, or the one that holds it as `recordings`.

    Raises:
        DataError: the folder is missing, holds a wav file whose name is not FSDD's, or lacks a speaker.
    """
    folder = Path(root)
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    check_root(
        folder,
        "the recordings of FSDD, or the folder that holds them as recordings/",
        ", or leave it out for the copy that comes with the project",
    )
    # Names that begin with a dot were made by the system that copied the folder.
    paths = [path for path in sorted(folder.glob("*.wav")) if path.name[0] != "."]
    for path in paths:
        _check_name(path)
    seconds = durations(paths, "FSDD")
    utterances = [_utterance(path, duration) for path, duration in zip(paths, seconds, strict=True)]
    _check_complete(folder, utterances)
    return utterances


def _check_speaker(part: str, speaker: str) -> None:
    if speaker not in SPEAKERS:
        raise SettingsError(
            f"the {part} speaker is {speaker!r}. Expected a speaker of FSDD: {', '.join(SPEAKERS)}."
        )


def _of_speaker(speaker: str, utterances: Iterable[Utterance]) -> list[Utterance]:
    return [utterance for utterance in utterances if utterance.speaker == speaker]


def _check_name(path: Path) -> re.Match[str]:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise DataError(
            f"{path}: not a recording of FSDD. Expected <digit>_<speaker>_<index>.wav, such as "
            f"7_jackson_32.wav, by one of {', '.join(SPEAKERS)}. Remove the file, or correct "
            "--data.root."
        )
    return name


def _utterance(path: Path, duration: float) -> Utterance:
    name = _check_name(path)
    return Utterance(
        id=path.stem,
        audio_filepath=path.absolute(),
        duration=duration,
        text=digits.WORDS[int(name["digit"])],
        speaker=name["speaker"],
    )


def _check_complete(folder: Path, utterances: list[Utterance]) -> None:
    """Raise when a speaker is missing altogether; warn when it is a part of the published corpus."""
    missing = [speaker for speaker in SPEAKERS if not _of_speaker(speaker, utterances)]
    if missing:
        raise DataError(
            f"{folder}: no recording of {', '.join(missing)} among {len(utterances)} wav files. Expected all "
            f"six speakers of FSDD: {', '.join(SPEAKERS)}. Correct --data.root, or leave it out for "
            "the copy that comes with the project."
        )
    if len(utterances) != _RECORDINGS:
        log.warning(
            "%s: %d recordings, where FSDD has %d: the results are not those of the full corpus.",
            folder,
            len(utterances),
            _RECORDINGS,
        )


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    return of_splits(prepare(root, SPEAKERS[-1]))


CORPUS = Corpus(
    name="fsdd",
    title="Free Spoken Digit Dataset",
    hours=0.36,
    speakers=6,
    languages="English",
    licence="CC BY-SA 4.0",
    source="https://github.com/Jakobovski/free-spoken-digit-dataset",
    read=_read,
    instructions="It comes with the project's repository, and is read without --data.root.",
    embedded=True,
)
