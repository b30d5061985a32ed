"""Free Spoken Digit Dataset (FSDD): six people say each English digit 50 times, alone.

Z. Jackson et al.; 8 kHz, 3,000 recordings of about 0.4 s, 0.36 h in all. A file's name is its transcript:

    recordings/<digit>_<speaker>_<index>.wav

Licence: Creative Commons Attribution-ShareAlike 4.0 International.

Split by speaker, since the corpus's own split (index 0-4 for testing) has every test speaker in training: one
speaker for the test, the next in alphabetical order (after the last comes the first) to choose by, the other
four to learn from.

Source: github.com/Jakobovski/free-spoken-digit-dataset (README: names, licence).
"""

import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from asr.corpora import digits
from asr.corpora.download import Archive, fetch
from asr.corpora.manifest import Splits, Utterance
from asr.errors import DataError, SettingsError
from asr.frontend.audio import audio_info

__all__ = ["ARCHIVE", "SPEAKERS", "next_speaker", "prepare"]

log = logging.getLogger("asr")

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

# No published checksum of this version's archive was found: TensorFlow Datasets has one for v1.0.9, which
# lacks the sixth speaker. So the recordings themselves are compared after the download (_DIGEST).
ARCHIVE = Archive(
    name="free-spoken-digit-dataset-1.0.10.tar.gz",
    unpacks_to="free-spoken-digit-dataset-1.0.10",
    url="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",
    licence="CC BY-SA 4.0",
)

_RECORDINGS = 3000
# SHA-256 over "name, zero byte, content" of the 3,000 recordings in the order of their names, as this project
# has used them.
_DIGEST = "6b1a8e30f4df78a933fe25cf1ca0140c8c6f169c0a83649a15b70a5ae7407014"
_NAME = re.compile(rf"(?P<digit>[0-9])_(?P<speaker>{'|'.join(SPEAKERS)})_(?P<index>\d+)")


def next_speaker(speaker: str) -> str:
    """The FSDD speaker that follows in alphabetical order; the first follows the last.

    Raises:
        SettingsError: not a speaker of FSDD.
    """
    _check_speaker("test", speaker)
    return SPEAKERS[(SPEAKERS.index(speaker) + 1) % len(SPEAKERS)]


def prepare(root: Path | None, data_dir: Path, test_speaker: str, dev_speaker: str | None = None) -> Splits:
    """The Free Spoken Digit Dataset, split by speaker; fetched when `root` is None.

    Args:
        root: the folder of wav files, or the one that holds it as `recordings`; used as it is.
        data_dir: where a download goes; not looked at when `root` is given.
        test_speaker: one of SPEAKERS: the test set is all recordings of this person.
        dev_speaker: likewise for development; None takes `next_speaker(test_speaker)`.

    Returns:
        The recordings of four, one and one speakers (2,000, 500 and 500 in the full corpus), by file name;
        the text is the digit's word in lower case.

    Raises:
        SettingsError: an unknown speaker, or the same one twice.
        DataError: the folder is missing, holds a wav file whose name is not FSDD's, or lacks a speaker.
        DownloadError: the corpus could not be fetched.
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
    folder = Path(root) if root is not None else fetch(ARCHIVE, Path(data_dir))
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Expected the recordings of FSDD, or the folder that holds them as "
            "recordings/. Correct --data.root, or leave it out to download the corpus."
        )
    # Names that begin with a dot were made by the system that copied the folder.
    files = sorted(path for path in folder.glob("*.wav") if not path.name.startswith("."))
    if root is None:
        _compare_digest(folder, files)
    utterances = [_utterance(path) for path in files]
    _check_complete(folder, utterances)
    parts = {
        part: _of_speaker(who, utterances) for part, who in (("test", test_speaker), ("dev", dev_speaker))
    }
    train = [utterance for utterance in utterances if utterance.speaker not in (test_speaker, dev_speaker)]
    log.info(
        "FSDD in %s: %d train, %d dev (%s), %d test (%s) recordings",
        folder,
        len(train),
        len(parts["dev"]),
        dev_speaker,
        len(parts["test"]),
        test_speaker,
    )
    return Splits(train=train, dev=parts["dev"], test=parts["test"])


def _check_speaker(part: str, speaker: str) -> None:
    if speaker not in SPEAKERS:
        raise SettingsError(
            f"the {part} speaker is {speaker!r}. Expected a speaker of FSDD: {', '.join(SPEAKERS)}."
        )


def _of_speaker(speaker: str, utterances: Iterable[Utterance]) -> list[Utterance]:
    return [utterance for utterance in utterances if utterance.speaker == speaker]


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise DataError(
            f"{path}: not a recording of FSDD. Expected <digit>_<speaker>_<index>.wav, such as "
            f"7_jackson_32.wav, by one of {', '.join(SPEAKERS)}. Remove the file, or correct "
            "--data.root."
        )
    return Utterance(
        id=path.stem,
        audio_filepath=path.absolute(),
        duration=audio_info(path).duration_s,
        text=digits.WORDS[int(name["digit"])],
        speaker=name["speaker"],
    )


def _check_complete(folder: Path, utterances: list[Utterance]) -> None:
    """Raise when a speaker is missing altogether; warn when it is a part of the published corpus."""
    missing = [speaker for speaker in SPEAKERS if not _of_speaker(speaker, utterances)]
    if missing:
        raise DataError(
            f"{folder}: no recording of {', '.join(missing)} among {len(utterances)} wav files. Expected all "
            f"six speakers of FSDD: {', '.join(SPEAKERS)}. Correct --data.root, or leave it out to "
            "download the corpus."
        )
    if len(utterances) != _RECORDINGS:
        log.warning(
            "%s: %d recordings, where FSDD has %d: the results are not those of the full corpus.",
            folder,
            len(utterances),
            _RECORDINGS,
        )


def _compare_digest(folder: Path, files: list[Path]) -> None:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    if digest.hexdigest() != _DIGEST:
        # Not an error: it comes over TLS from its author, and a corrected recording must not stop anyone.
        log.warning(
            "%s: these recordings are not byte for byte those that the project's results were measured on "
            "(SHA-256 %s, expected %s). Compare results with care.",
            folder,
            digest.hexdigest(),
            _DIGEST,
        )
