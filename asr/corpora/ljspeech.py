"""LJ Speech 1.1: one woman reads passages of seven non-fiction books; clean studio-like speech.

K. Ito and L. Johnson, 2017 (keithito.com/LJ-Speech-Dataset); 13,100 clips of 1 to 10 s, 24 h, 22.05 kHz WAV.
Texts and recordings (LibriVox) are in the public domain.

    LJSpeech-1.1/metadata.csv              "LJ001-0001|as printed|with numbers and abbreviations in words"
    LJSpeech-1.1/wavs/LJ001-0001.wav …

Split: none is published. A tenth each of the clips is held out for dev and test, by `hold_out`: the speaker
is the same, so that a score says nothing about other people.

Source: torchaudio/datasets/ljspeech.py (address, SHA-256), lhotse/recipes/ljspeech.py (layout); the size as
others who checked that SHA-256 report it.
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.corpora.download import Archive
from asr.files import read_lines

__all__ = ["CORPUS"]

_ARCHIVE = Archive(
    name="LJSpeech-1.1.tar.bz2",
    unpacks_to="LJSpeech-1.1",
    url="https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
    licence="public domain",
    sha256="be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    size_bytes=2_748_572_632,
)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    inside = ["LJSpeech-1.1", "LJSpeech"]
    folder = find_folder(root or Path(), CORPUS.title, "metadata.csv", "wavs", inside=inside)
    found = Collector(CORPUS.title)
    texts: dict[str, str] = {}
    for number, line in enumerate(read_lines(folder / "metadata.csv"), start=1):
        fields = line.split("|")
        if len(fields) == 3 and fields[0]:
            texts[fields[0]] = fields[2]
        elif line.strip():
            found.leave_out(
                f"{folder / 'metadata.csv'} line {number}", "not three fields with | between them"
            )
    split = hold_out(list(texts))
    found.pair(texts, audio_by_stem(folder / "wavs"), split=split, speaker="LJ")
    return found.finish()


CORPUS = Corpus(
    name="ljspeech",
    title="LJ Speech",
    hours=24,
    speakers=1,
    languages="English",
    licence="public domain",
    source="https://keithito.com/LJ-Speech-Dataset/",
    read=_read,
    archives=(_ARCHIVE,),
    normalizer="english",
)
