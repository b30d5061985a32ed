"""Makes data/recordings, data/fsdd and data/speechocean: real people's speech that comes with the project.

python data/embed_recordings.py --english ENGLISH/dev.jsonl --fsdd DIR --speechocean MANIFEST

ENGLISH/dev.jsonl is a manifest of LibriSpeech dev-clean and Common Voice speakers that the shipped model has
not been trained on; DIR holds FSDD's 3,000 wav files; MANIFEST is that of speechocean762. What is chosen,
and why, is in data/README.md.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from asr.corpora.digits import WORDS
from asr.corpora.fsdd import SPEAKERS, read_folder
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance

HERE = Path(__file__).parent
PEOPLE = 6  # of each corpus
SECONDS = 3.0, 12.0  # of a recording
GAP_S = 0.05  # of silence between two recordings of FSDD
OPUS_LEVEL = 0.96  # of libsndfile, 0 (best) to 1 (smallest): about 16 kbit/s at 8 kHz


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description="Embed real people's speech.")
    parser.add_argument("--english", type=Path, required=True)
    parser.add_argument("--fsdd", type=Path, required=True)
    parser.add_argument("--speechocean", type=Path, required=True)
    options = parser.parse_args()
    embed_english(read_manifest(options.english), HERE / "recordings")
    embed_fsdd(read_folder(options.fsdd), HERE / "fsdd")
    strings = [one for one in read_manifest(options.speechocean) if set(one.text.split()) <= set(WORDS)]
    copy(strings, HERE / "speechocean")


def first_of_each_speaker(utterances: list[Utterance]) -> list[Utterance]:
    """The first recording of 3 to 12 seconds of each speaker, of the speakers that come first."""
    chosen: dict[str, Utterance] = {}
    for utterance in utterances:
        if SECONDS[0] <= utterance.duration <= SECONDS[1]:
            chosen.setdefault(utterance.speaker, utterance)
    return list(chosen.values())[:PEOPLE]


def embed_english(utterances: list[Utterance], folder: Path) -> None:
    """A dozen recordings, half of each corpus."""
    chosen = []
    for common_voice in (False, True):
        corpus = [one for one in utterances if one.id.startswith("common_voice") == common_voice]
        chosen += first_of_each_speaker(corpus)
    copy(chosen, folder)


def copy(utterances: list[Utterance], folder: Path) -> None:
    """Copy recordings as they are, and write their manifest."""
    folder.mkdir(exist_ok=True)
    copies = [replace(one, audio_filepath=folder / f"{one.id}.opus") for one in utterances]
    for one, new in zip(utterances, copies, strict=True):
        shutil.copyfile(one.audio_filepath, new.audio_filepath)
    write_manifest(folder / "manifest.jsonl", copies)


def embed_fsdd(utterances: list[Utterance], folder: Path) -> None:
    """All recordings of a speaker into one Opus file, and the manifest of all."""
    folder.mkdir(exist_ok=True)
    rows = []
    for speaker in SPEAKERS:
        path = folder / f"{speaker}.opus"
        position = 0
        with soundfile.SoundFile(
            path, "w", 8000, 1, "OPUS", format="OGG", compression_level=OPUS_LEVEL
        ) as stream:
            for one in (utterance for utterance in utterances if utterance.speaker == speaker):
                waveform, rate = soundfile.read(one.audio_filepath, dtype="float32")
                stream.write(np.pad(waveform, (0, round(GAP_S * rate))))
                rows.append(
                    Utterance(id=one.id, audio_filepath=path, offset=position / rate,
                              duration=len(waveform) / rate, text=one.text, speaker=speaker)
                )  # fmt: skip
                position += len(waveform) + round(GAP_S * rate)
    write_manifest(folder / "manifest.jsonl", rows)


if __name__ == "__main__":
    main()
