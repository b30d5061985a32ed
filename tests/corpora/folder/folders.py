"""What a folder of one's own is read as, for its tests."""

from collections import Counter
from pathlib import Path

from asr.corpora.folder.reading import FolderReading, read_folder
from asr.manifests.utterance import Utterance
from asr.transcripts.segments import SEGMENT_READERS


def read(root: Path, seed: int = 0) -> FolderReading:
    return read_folder(root, SEGMENT_READERS, seed=seed)


def everything(reading: FolderReading) -> dict[str, Utterance]:
    return {one.id: one for utterances in reading.splits.values() for one in utterances}


def reasons(reading: FolderReading) -> dict[str, int]:
    return Counter(one.why.partition(":")[0] for one in reading.left_out if not one.expected)
