"""VoxForge, English: volunteers read prompts at home, in submissions of about ten; 16 kHz WAV or FLAC.

voxforge.org, since 2006; hours and speakers depend on when it was fetched. Licence: GPL 3.

    1snoke-20120412-hge/etc/PROMPTS            "1snoke-20120412-hge/mfc/a0405 IT SEEMED THE ORDAINED ORDER …"
    1snoke-20120412-hge/wav/a0405.wav …        or flac/a0405.flac

Each submission is a .tgz of its own, thousands of them in one list: no program of ours fetches them.

Split: none is published. A tenth each of the speakers is held out for dev and test, by `hold_out` (Kaldi
draws 30 speakers at random). Each anonymous submission counts as a speaker. What has no partner is counted,
and left out, as is a file of prompts that is not UTF-8.

Source: Kaldi's egs/voxforge/s5 (address, layout, names of speakers).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.errors import DataError
from asr.files import read_lines

__all__ = ["CORPUS"]

_ADDRESS = "http://www.repository.voxforge1.org/downloads/SpeechCorpus/Trunk/Audio/Main/16kHz_16bit"
_SUBMISSION = re.compile(r"(?P<speaker>.+?)-[0-9]{8,10}[a-z]*([_-].*)?", re.DOTALL)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    folders = sorted(path.parents[1] for path in root.glob("*/etc/PROMPTS"))
    if not folders:
        find_folder(root, CORPUS.title, "SPEAKER-DATE-CODE/etc/PROMPTS")
    found = Collector(CORPUS.title)
    split = hold_out([_speaker(folder) for folder in folders])
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        path = folder / "etc" / "PROMPTS"
        audio = audio_by_stem(folder / "wav") or audio_by_stem(folder / "flac")
        if not path.is_file():
            found.leave_out(folder, "a submission without etc/PROMPTS")
            continue
        texts: dict[str, str] = {}
        try:
            for number, line in enumerate(read_lines(path), start=1):
                fields = line.split(maxsplit=1)
                if len(fields) == 2:
                    texts[fields[0].rpartition("/")[2]] = fields[1]
                elif fields:
                    found.leave_out(f"{path} line {number}", "not a name and its prompt")
        except DataError as error:
            found.leave_out(path, f"unreadable transcripts: {str(error).removeprefix(f'{path} ')}")
            continue
        speaker = _speaker(folder)
        found.pair(texts, audio, split=split[speaker], speaker=speaker, prefix=f"{folder.name}-")
    return found.finish()


def _speaker(folder: Path) -> str:
    """1snoke-20120412-hge -> 1snoke; of an anonymous one the whole name."""
    match = _SUBMISSION.fullmatch(folder.name)
    name = match["speaker"] if match else folder.name
    return folder.name if name.lower() == "anonymous" else name


CORPUS = Corpus(
    name="voxforge",
    title="VoxForge",
    hours=None,
    speakers=None,
    languages="English",
    licence="GPL 3",
    source="http://www.voxforge.org",
    read=_read,
    instructions=f"Download the .tgz files of {_ADDRESS} (wget -r -np -nd -A tgz) and unpack all of them. "
    "Then give their folder as --data.root.",
    normalizer="english",
)
