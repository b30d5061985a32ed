"""TED-LIUM 2 and 3 (OpenSLR 19 and 51): talks of the TED conferences; 207 and 452 hours.

A. Rousseau and others, 2014; F. Hernandez and others, "TED-LIUM 3", 2018 (arXiv 1805.04699). 16 kHz, NIST
SPHERE, a talk a file. Licence: CC BY-NC-ND 3.0, so that a model of it is not for sale. Release 3 has all
talks of release 2, dev and test included; their recordings differ a little.

    TEDLIUM_release2/train/stm/AaronHuey_2010X.stm         "talk channel speaker begin end <label> words"
    TEDLIUM_release2/train/sph/AaronHuey_2010X.sph …
    TEDLIUM_release-3/legacy/train/stm/… and sph/…

Split: that of the corpus; of release 3 the "legacy" one, with the dev and test sets of release 2. Marks of
noise, of unknown words and of pronunciations are taken out of the transcripts, and "it 's" becomes "it's", as
in Kaldi's recipe. Kaldi lengthens the training segments by 0.15 s and 0.1 s; here they are as published.

Source: torchaudio/datasets/tedlium.py (addresses, SHA-256), TensorFlow Datasets' url_checksums/tedlium.txt
(sizes), Kaldi's egs/tedlium/s5_r3 and lhotse/recipes/tedlium.py (layout, marks).
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from asr.corpora.corpus import (
    SEGMENT_OVERSHOOT_S,
    Collector,
    Corpus,
    Reading,
    audio_by_stem,
    find_folder,
    unreadable_audio,
)
from asr.corpora.download import Archive, openslr
from asr.corpora.durations import measure
from asr.errors import AudioError
from asr.files import read_lines
from asr.manifests.utterance import Utterance

__all__ = ["RELEASE_2", "RELEASE_3"]

_LICENCE = "CC BY-NC-ND 3.0"
# [NOISE] {NOISE} <unk> <sil>, and the (2) of to(2)
_MARKS = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|\([^)]*\)")
_SUFFIX = re.compile(r"(\w) '(\w)")  # it 's


def _read(title: str, name: str, below: str, root: Path | None, parts: Sequence[str]) -> Reading:
    """Read a release.

    Args:
        title: of the corpus, in messages.
        name: of the folder that its archive unpacks to.
        below: the folder below that one which holds train, dev and test; "" for none.
        root: a folder that is, or holds, the corpus.
        parts: there are none.
    """
    splits = ("train", "dev", "test")
    needed = [f"{below}{split}/{kind}" for split in splits for kind in ("stm", "sph")]
    folder = find_folder(root or Path(), title, *needed, inside=[name])
    found = Collector(title)
    for split in splits:
        audio = audio_by_stem(folder / below / split / "sph")
        stms = {path.stem: path for path in sorted((folder / below / split / "stm").glob("[!.]*.stm"))}
        lengths = dict(zip(audio, measure([*audio.values()], title), strict=True))
        for talk, path in stms.items():
            length = lengths.get(talk)
            if length is None:
                found.leave_out(path, "transcript without audio")
                continue
            if isinstance(length, AudioError):
                found.leave_out(audio[talk], unreadable_audio(audio[talk], length))
                continue
            for number, line in enumerate(read_lines(path), start=1):
                if line.strip() and not line.startswith(";;"):
                    _add(found, split, audio[talk], length, line, f"{path} line {number}")
        for talk, path in audio.items():
            if talk not in stms:
                found.leave_out(path, "audio without transcript")
    return found.finish()


def _add(found: Collector, split: str, audio: Path, length: float, line: str, where: str) -> None:
    fields = line.split(maxsplit=6)
    try:
        begin, end = float(fields[3]), float(fields[4])
    except (ValueError, IndexError):
        found.leave_out(where, "not a line of STM: talk channel speaker begin end <label> words")
        return
    text = fields[6] if len(fields) > 6 else ""
    if text.strip() == "ignore_time_segment_in_scoring":
        found.leave_out(where, "to be ignored, says the corpus", expected=True)
    elif not 0 <= begin < end:
        found.leave_out(where, "ends before it begins")
    elif begin >= length or end > length + SEGMENT_OVERSHOOT_S:
        found.leave_out(where, f"after the end of its recording: at {length:g} s")
    else:
        found.add_segment(
            split,
            Utterance(
                id=f"{fields[0]}-{round(begin * 100):07d}-{round(end * 100):07d}",
                audio_filepath=audio.absolute(),
                offset=begin,
                duration=round(min(end, length) - begin, 6),
                text=_SUFFIX.sub(r"\1'\2", _MARKS.sub(" ", text)),
                speaker=fields[2],
            ),
        )


def _release(
    number: int, archive: Archive, *, source: str, hours: int, speakers: int, below: str = ""
) -> Corpus:
    """The record of a release, from what differs between the two; `below` is that of `_read`."""
    title = f"TED-LIUM {number}"
    return Corpus(
        name=f"tedlium{number}",
        title=title,
        hours=hours,
        speakers=speakers,
        languages="English",
        licence=_LICENCE,
        source=source,
        read=partial(_read, title, archive.unpacks_to, below),
        archives=(archive,),
    )


RELEASE_2 = _release(
    2,
    openslr(
        19, "TEDLIUM_release2.tar.gz", "TEDLIUM_release2", _LICENCE, size_bytes=36_791_529_840,
        sha256="93281b5fcaaae5c88671c9d000b443cb3c7ea3499ad12010b3934ca41a7b9c58",
    ),
    source="https://www.openslr.org/19/", hours=207, speakers=1242,
)  # fmt: skip
RELEASE_3 = _release(
    3,
    openslr(
        51, "TEDLIUM_release-3.tgz", "TEDLIUM_release-3", _LICENCE, size_bytes=54_320_173_876,
        sha256="ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
    ),
    source="https://www.openslr.org/51/", hours=452, speakers=2028, below="legacy/",
)  # fmt: skip
