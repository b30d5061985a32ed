"""VCTK 0.92: 110 people with different accents of English read about 400 sentences each.

J. Yamagishi, C. Veaux and K. MacDonald, University of Edinburgh, 2019 (doi.org/10.7488/ds/2645); 44 h, 48 kHz
FLAC, two microphones, of which the second is read, as in torchaudio and lhotse. Licence: CC BY 4.0.

    VCTK-Corpus-0.92/txt/p225/p225_001.txt                                 "Please call Stella."
    VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic2.flac …

Version 0.80 has wav48/p225/p225_001.wav; it is read, too. The corpus has no texts of p315, no second
microphone of p280, and lacks some recordings of p362: these are counted and left out. Other archives of it
that have one folder of audio files and a manifest are no layout of VCTK.

Split: none is published. A tenth each of the speakers is held out for dev and test, by `hold_out`. The first
24 sentences are the same for all speakers, so that their text is in all three.

Source: torchaudio/datasets/vctk.py (address, SHA-256), TensorFlow Datasets' url_checksums/vctk.txt (size),
lhotse/recipes/vctk.py (layout, what it lacks).
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.corpora.download import Archive
from asr.errors import DataError
from asr.files import read_lines

__all__ = ["CORPUS"]

_ARCHIVE = Archive(
    name="VCTK-Corpus-0.92.zip",
    unpacks_to="VCTK-Corpus-0.92",
    flat=True,
    url="https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
    mirrors=("https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",),
    licence="CC BY 4.0",
    sha256="f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
    size_bytes=11_747_302_977,
)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    folder = find_folder(root or Path(), CORPUS.title, "txt", inside=["VCTK-Corpus-0.92", "VCTK-Corpus"])
    wavs = next(
        (folder / name for name in ("wav48_silence_trimmed", "wav48") if (folder / name).is_dir()), None
    )
    if wavs is None:
        find_folder(folder, CORPUS.title, "wav48_silence_trimmed")
        raise DataError(f"{folder}: no recordings.")
    found = Collector(CORPUS.title)
    texts: dict[str, str] = {}
    audio: dict[str, Path] = {}
    for speaker in sorted(path for path in (folder / "txt").iterdir() if path.is_dir()):
        for path in sorted(speaker.glob("*.txt")):
            try:
                texts[path.stem] = " ".join(read_lines(path))
            except DataError as error:
                found.leave_out(path, f"unreadable transcript: {str(error).removeprefix(f'{path} ')}")
    for speaker in sorted(path for path in wavs.iterdir() if path.is_dir()):
        for stem, path in audio_by_stem(speaker).items():
            key, _, microphone = stem.partition("_mic")
            if microphone in ("", "2"):
                audio[key] = path
    speakers = {key: key.partition("_")[0] for key in texts}
    held_out = hold_out(list(speakers.values()))
    split = {key: held_out[speaker] for key, speaker in speakers.items()}
    found.pair(texts, audio, split=split, speaker=speakers)
    return found.finish()


CORPUS = Corpus(
    name="vctk",
    title="VCTK",
    hours=44,
    speakers=110,
    languages="English, many accents",
    licence="CC BY 4.0",
    source="https://doi.org/10.7488/ds/2645",
    read=_read,
    archives=(_ARCHIVE,),
    normalizer="english",
)
