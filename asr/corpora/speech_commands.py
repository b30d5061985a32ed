"""Speech Commands 0.02: 105,829 recordings of one second, each of one of 35 words.

P. Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", 2018 (arXiv 1804.03209).
16 kHz, thousands of speakers. It is for telling words apart (`recipes/speech_commands.py`), not for
transcribing.

Licence: CC BY 4.0.

    yes/0a7c2a8d_nohash_0.wav …      word / speaker, "nohash", number among this speaker's

Split: by a hash of the speaker, so that no speaker is in two parts and a recording never changes parts when
others are added: about 10% for development, 10% for the test. It is the split of the corpus's own lists.

Source: Warden 2018, section 7, and `which_set` of TensorFlow's speech commands example (the hash);
torchaudio/datasets/speechcommands.py (the SHA-256).
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Corpus, Reading, find_folder, of_splits
from asr.corpora.download import Archive, fetch
from asr.corpora.durations import durations
from asr.errors import DataError, SettingsError
from asr.frontend.audio_files import AUDIO_SUFFIXES
from asr.manifests.utterance import Splits, Utterance

__all__ = ["ARCHIVE", "CORPUS", "WORDS", "prepare", "which_set"]

log = logging.getLogger("asr")

ARCHIVE = Archive(
    name="speech_commands_v0.02.tar.gz",
    unpacks_to="speech_commands_v0.02",
    flat=True,
    url="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    mirrors=("http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",),
    licence="CC BY 4.0",
    sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    size_bytes=2_428_923_189,
)

WORDS = ("down", "go", "left", "no", "right", "stop", "up", "yes")  # those of TensorFlow's "mini" selection

_ALL_WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go",
    "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven",
    "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)  # fmt: skip
_BUCKETS = 2**27 - 1  # files a word that the hash was made for


def which_set(name: str) -> str:
    """Whether a recording belongs to `train`, `dev` or `test`.

    Args:
        name: of the file, such as 0a7c2a8d_nohash_0.wav; the part before `_nohash_` decides.

    Source: `which_set` of TensorFlow's speech commands example, with its 10% and 10%.
    """
    speaker = re.sub(r"_nohash_.*$", "", name)
    bucket = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16) % (_BUCKETS + 1)
    percent = bucket * (100 / _BUCKETS)
    return "dev" if percent < 10 else "test" if percent < 20 else "train"


def prepare(root: Path | None, data_dir: Path, words: tuple[str, ...] = WORDS) -> Splits:
    """The recordings of some words, fetched when `root` is None.

    Args:
        root: the folder that holds one folder per word (or holds them below `audio`); used as it is.
        data_dir: where a download goes; not looked at when `root` is given.
        words: which ones.

    Returns:
        Train, dev and test utterances, by word and file name; text is the word, speaker the hash of one.

    Raises:
        DataError: a word has no folder, or no recording in one of the three sets.
        DownloadError: the corpus could not be fetched.
        SettingsError: fewer than two words.
    """
    if len(set(words)) < 2:
        raise SettingsError(f"words must be two or more different ones. Got {' '.join(words) or 'none'}.")
    folder = Path(root) if root is not None else fetch(ARCHIVE, Path(data_dir))
    if (folder / "audio").is_dir():
        folder = folder / "audio"
    files: list[Path] = []
    for word in words:
        if not (folder / word).is_dir():
            raise DataError(
                f"{folder}: no folder {word!r}. Expected one folder of recordings a word. Correct "
                "--data.root, or leave it out to download the corpus."
            )
        files += [
            path
            for path in sorted((folder / word).iterdir())
            if path.suffix.lower() in AUDIO_SUFFIXES and "_nohash_" in path.name
        ]
    parts: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for path, duration in zip(files, durations(files, folder.name), strict=True):
        parts[which_set(path.name)].append(_utterance(path, duration))
    for name, utterances in parts.items():
        missing = set(words) - {utterance.text for utterance in utterances}
        if missing:
            raise DataError(
                f"{folder}: no {name} recording of {', '.join(sorted(missing))}. Expected files such as "
                f"0a7c2a8d_nohash_0.wav in every word's folder. Correct --data.root."
            )
    counts = ", ".join(f"{len(utterances)} {name}" for name, utterances in parts.items())
    log.info("%s: %d words, %s", folder, len(words), counts)
    return Splits(parts["train"], parts["dev"], parts["test"])


def _utterance(path: Path, duration: float) -> Utterance:
    word = path.parent.name
    return Utterance(
        id=f"{word}/{path.stem}",
        audio_filepath=path,
        duration=duration,
        text=word,
        speaker=path.name.partition("_nohash_")[0],
    )


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    folder = find_folder(root or Path(), CORPUS.title, inside=[ARCHIVE.unpacks_to, "audio"])
    words = parts or [word for word in _ALL_WORDS if (folder / word).is_dir()] or WORDS
    return of_splits(prepare(folder, folder, tuple(words)))


CORPUS = Corpus(
    name="speech_commands",
    title="Speech Commands",
    hours=29,
    speakers=2618,
    languages="English",
    licence="CC BY 4.0",
    source="https://arxiv.org/abs/1804.03209",
    read=_read,
    archives=(ARCHIVE,),
    parts=dict.fromkeys(_ALL_WORDS, ()),
)
