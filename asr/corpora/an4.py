"""AN4, the CMU Alphanumeric database: people spell names, addresses and numbers; the smallest classic.

Carnegie Mellon University, 1991; 16 kHz, NIST SPHERE. 948 utterances of 74 people for training, 130 of 10
other people for the test. Free for any use ("no restrictions").

    an4/etc/an4_train.fileids          "an4_clstk/fash/an251-fash-b"
    an4/etc/an4_train.transcription    "<s> YES </s> (an251-fash-b)"
    an4/wav/an4_clstk/fash/an251-fash-b.sph …

Split: the test set is that of the corpus. It has no development set: a tenth of the training speakers is
held out, by `hold_out`.

Source: Kaldi's egs/an4/s5 (address, layout, speakers); NVIDIA NeMo's mirror, and the SHA-256 that its users
checked that copy with. Its size is not published; hours and speakers are counted from its lists.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.corpora.download import Archive
from asr.files import read_lines

__all__ = ["CORPUS"]

_ARCHIVE = Archive(
    name="an4_sphere.tar.gz",
    unpacks_to="an4",
    url="http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz",
    mirrors=("https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz",),
    licence="free for any use",
    sha256="a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
)
_TRANSCRIPT = re.compile(r"(?P<text>.*)\((?P<id>[^()]+)\)\s*")


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    needed = ("etc/an4_train.transcription", "etc/an4_test.transcription", "wav")
    folder = find_folder(root or Path(), CORPUS.title, *needed, inside=["an4"])
    found = Collector(CORPUS.title)
    for part, wavs in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        texts: dict[str, str] = {}
        path = folder / "etc" / f"an4_{part}.transcription"
        for number, line in enumerate(read_lines(path), start=1):
            if match := _TRANSCRIPT.fullmatch(line):
                texts[match["id"]] = re.sub(r"</?s>", " ", match["text"])
            elif line.strip():
                found.leave_out(f"{path} line {number}", "not a transcript and its id in brackets")
        places = [path for path in sorted((folder / "wav" / wavs).glob("*")) if path.is_dir()]
        audio = {key: path for place in places for key, path in audio_by_stem(place).items()}
        speakers = {key: _speaker(key) for key in texts}
        held_out = hold_out(list(speakers.values()), test=0) if part == "train" else {}
        split = {key: held_out.get(speaker, part) for key, speaker in speakers.items()}
        found.pair(texts, audio, split=split, speaker=speakers)
    return found.finish()


def _speaker(key: str) -> str:
    """an251-fash-b -> fash."""
    return key.split("-")[1] if key.count("-") >= 2 else ""


CORPUS = Corpus(
    name="an4",
    title="AN4",
    hours=0.9,
    speakers=84,
    languages="English",
    licence="free for any use",
    source="http://www.speech.cs.cmu.edu/databases/an4/",
    read=_read,
    archives=(_ARCHIVE,),
)
