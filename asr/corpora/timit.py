"""TIMIT (LDC93S1): 630 people of eight dialect regions of the USA read ten sentences each; 5.4 hours.

J. Garofolo and others, 1993; 16 kHz, NIST SPHERE. Licensed by the Linguistic Data Consortium
(catalog.ldc.upenn.edu/LDC93S1): no program fetches it.

    TIMIT/TRAIN/DR1/FCJF0/SI1027.WAV, SI1027.TXT      "0 56525 Even then, if she took one step forward …"

Names in capitals or not. Split, as in Kaldi: the training speakers, and of the others 50 for dev and the 24
of the core test; the two sentences that all speakers read (SA1, SA2) are in no split. Transcripts are words;
for phones, train with --text.units phones.

Source: Kaldi's egs/timit/s5 (speakers of dev and test, layout).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder
from asr.errors import DataError
from asr.files import read_lines

__all__ = ["CORPUS"]

_DEV = """
faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0
mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4
fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1
"""
_TEST = """
mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0
mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
_TEXT = re.compile(r"\s*\d+\s+\d+\s+(?P<text>.+)")


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    inside = ["TIMIT", "timit", "data", "*/TIMIT", "*/timit"]
    candidates = [root, *(path for pattern in inside for path in sorted(root.glob(pattern)))]
    capitals = not any((path / "train").is_dir() for path in candidates if not (path / "TRAIN").is_dir())
    needed = ("TRAIN", "TEST") if capitals else ("train", "test")
    folder = find_folder(root, CORPUS.title, *needed, inside=inside)
    found = Collector(CORPUS.title)
    for part in needed:
        speakers = sorted(path for path in (folder / part).glob("[dD][rR]*/*") if path.is_dir())
        for place in speakers:
            speaker = place.name.lower()
            split = "train" if part.lower() == "train" else _split(speaker)
            if split is None:
                why = "a test speaker outside of dev and the core test"
                found.leave_out(place, why, expected=True)
                continue
            texts = {path.stem.lower(): text for path, text in _texts(place, found)}
            audio = {stem.lower(): path for stem, path in audio_by_stem(place).items()}
            for key in sorted(texts.keys() | audio.keys()):
                if key.startswith("sa"):
                    found.leave_out(f"{speaker}-{key}", "a sentence that all speakers read", expected=True)
                    texts.pop(key, "")
                    audio.pop(key, None)
            found.pair(texts, audio, split=split, speaker=speaker, prefix=f"{speaker}-")
    return found.finish()


def _texts(folder: Path, found: Collector) -> Iterator[tuple[Path, str]]:
    """The transcripts of a speaker."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".txt" or path.name.startswith("."):
            continue
        try:
            match = _TEXT.fullmatch(" ".join(read_lines(path)))
        except DataError as error:
            found.leave_out(path, f"unreadable transcript: {str(error).removeprefix(f'{path} ')}")
            continue
        if match is None:
            found.leave_out(path, "not of the form: first sample, last sample, words")
        else:
            yield path, match["text"]


def _split(speaker: str) -> str | None:
    return "dev" if speaker in _DEV.split() else "test" if speaker in _TEST.split() else None


CORPUS = Corpus(
    name="timit",
    title="TIMIT",
    hours=5.4,
    speakers=630,
    languages="English",
    licence="LDC",
    source="https://catalog.ldc.upenn.edu/LDC93S1",
    read=_read,
    instructions="Get it from the Linguistic Data Consortium (LDC93S1) and unpack it. Then give its "
    "folder as --data.root.",
    normalizer="english",
)
