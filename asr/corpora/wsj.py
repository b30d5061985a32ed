"""Wall Street Journal, WSJ0 and WSJ1 (LDC93S6, LDC94S13): people read the newspaper; 81 hours to learn from.

D. Paul and J. Baker, 1992; 16 kHz, NIST SPHERE, compressed with Shorten. Licensed by the Linguistic Data
Consortium (catalog.ldc.upenn.edu/LDC93S6A, LDC94S13A): no program fetches it.

    11-13.1/wsj0/doc/indices/train/tr_s_wv1.ndx       "11_1_1:wsj0/si_tr_s/01i/01ic0201.wv1", one a line
    11-1.1/wsj0/si_tr_s/01i/01ic0201.wv1 …            disk / corpus / set / speaker / utterance
    11-4.1/wsj0/transcrp/dots/si_tr_s/01i/01ic0200.dot    "The words … (01ic0201)"

The folder holds the disks, or links to them, or one tree with all of them; they are searched through.

Split, as in Kaldi: si284 (both si_tr_s lists) to learn from, dev93 (h1_p0) to choose by, eval92 (si_et_20) to
score. Marks of noise and of hesitation are taken out of the transcripts, as in Kaldi's recipe; punctuation
that was read aloud (",COMMA") keeps its word.

Source: Kaldi's egs/wsj/s5 (lists, transcripts, marks). It was not read from the disks themselves by us.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, check_root
from asr.errors import DataError
from asr.files import read_lines

__all__ = ["CORPUS"]

log = logging.getLogger("asr")

# Split -> the ends of the paths of its lists.
_LISTS = {
    "train": ("indices/train/tr_s_wv1.ndx", "doc/indices/si_tr_s.ndx"),
    "dev": ("doc/indices/h1_p0.ndx",),
    "test": ("indices/test/nvp/si_et_20.ndx",),
}
_AUDIO = (".wv1", ".wav", ".flac", ".sph", ".opus")
# They are on another disk, too, says Kaldi.
_SKIPPED = re.compile(r"11-2\.1/wsj0/si_tr_s/401/", re.IGNORECASE)
_LINE = re.compile(r"(?P<text>.*)\((?P<id>\w{8})\)\s*")


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    check_root(root, "the disks of WSJ")
    found = Collector(CORPUS.title)
    audio: dict[str, Path] = {}
    texts: dict[str, str] = {}
    lists: dict[str, Path] = {}
    for path in _walk(root, found):
        name = path.as_posix().lower()
        if name.endswith(_AUDIO):
            if not _SKIPPED.search(path.as_posix()):
                audio.setdefault(path.stem.lower(), path)
        elif name.endswith(".dot"):
            for line in read_lines(path):
                if match := _LINE.fullmatch(line):
                    texts.setdefault(match["id"].lower(), _words(match["text"]))
        else:
            for end in (end for ends in _LISTS.values() for end in ends):
                if name.endswith(end):
                    lists.setdefault(end, path)
    for split, ends in _LISTS.items():
        for end in ends:
            if end not in lists:
                raise DataError(
                    f"{root / '*' / end}: does not exist. Expected the disks of WSJ, with their lists (such "
                    "as 11-13.1 and 13-34.1). Copy all of them, or correct --data.root."
                )
            for line in read_lines(lists[end]):
                if line.startswith(";") or not line.strip():
                    continue
                if (
                    split == "train"
                    and "si_tr_s/401/" in line.replace("\\", "/")
                    and line.startswith("11_2_1")
                ):
                    continue
                key = line.replace("\\", "/").rpartition("/")[2].split(".")[0].strip().lower()
                if key not in audio:
                    found.leave_out(key, "transcript without audio" if key in texts else "neither was found")
                elif key not in texts:
                    found.leave_out(audio[key], "audio without transcript")
                else:
                    found.add(split, key, audio[key], texts[key], key[:3])
    return found.finish()


def _walk(root: Path, found: Collector) -> Iterator[Path]:
    """Every file below a folder, links followed; one that leads back into a folder around it is noted."""

    def inside(folder: str, around: frozenset[tuple[int, int]]) -> Iterator[Path]:
        status = os.stat(folder)
        key = (status.st_dev, status.st_ino)
        if key in around:
            found.leave_out(folder, "a link that leads back into a folder around it")
            return
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    yield from inside(entry.path, around | {key})
                elif not entry.name.startswith("."):
                    yield Path(entry.path)

    yield from inside(str(root), frozenset())


def _words(text: str) -> str:
    """The transcript without marks, by the rules of Kaldi's normalize_transcript.pl."""
    words = []
    for word in text.replace("\\", "").split():
        if word.startswith("[") or word.endswith("]") or word in ("~", "."):
            continue  # a noise, truncation, a pause
        word = re.sub(r"^<([\w']+)>$", r"\1", word)  # deleted verbally, but spoken
        words.append({"%percent": "percent", ".point": "point"}.get(word.lower(), word))
    return " ".join(words)


CORPUS = Corpus(
    name="wsj",
    title="Wall Street Journal",
    hours=83,
    speakers=301,
    languages="English",
    licence="LDC",
    source="https://catalog.ldc.upenn.edu/LDC93S6A",
    read=_read,
    normalizer="english",
    instructions="Get WSJ0 and WSJ1 (LDC93S6A, LDC94S13A) from the Linguistic Data Consortium. Then "
    "give the folder of their disks as --data.root.",
)
