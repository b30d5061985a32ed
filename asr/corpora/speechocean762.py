"""speechocean762 (OpenSLR 101): 250 speakers of Mandarin, half of them children, read English sentences.

J. Zhang and others, "speechocean762: an open-source non-native English speech corpus for pronunciation
assessment", 2021 (arXiv 2104.01378); 5,000 utterances, about 6 h, 16 kHz WAV. Licence: CC BY 4.0.

    speechocean762/train/text, utt2spk, wav.scp       as Kaldi has them; test/ likewise
    speechocean762/WAVE/SPEAKER0003/000030012.WAV …

Split: test is that of the corpus, 125 speakers who are not in train. It has no development set: a tenth of
the training speakers is held out, by `hold_out`.

Source: Kaldi's egs/gop_speechocean762/s5 (address, size). Its checksum is not published: unverified.
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.corpora.download import openslr
from asr.files import read_lines

__all__ = ["CORPUS"]

_ARCHIVE = openslr(101, "speechocean762.tar.gz", "speechocean762", "CC BY 4.0", size_bytes=520_810_923)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    needed = [f"{part}/{name}" for part in ("train", "test") for name in ("text", "utt2spk", "wav.scp")]
    folder = find_folder(root or Path(), CORPUS.title, *needed, "WAVE", inside=["speechocean762"])
    found = Collector(CORPUS.title)
    listings: dict[Path, dict[str, Path]] = {}
    for part in ("train", "test"):
        texts, speakers, paths = (
            _table(folder / part / name, found) for name in ("text", "utt2spk", "wav.scp")
        )
        audio: dict[str, Path] = {}
        for key, path in paths.items():
            place = (folder / path).parent
            listings[place] = listings.get(place) or audio_by_stem(place)
            if Path(path).stem in listings[place]:  # any ending: .WAV, .wav, .flac
                audio[key] = listings[place][Path(path).stem]
        held_out = hold_out(list(speakers.values()), test=0) if part == "train" else {}
        speaker = {key: speakers.get(key, "") for key in texts}
        split = {key: held_out.get(speaker[key], part) for key in texts}
        found.pair(texts, audio, split=split, speaker=speaker)
    return found.finish()


def _table(path: Path, found: Collector) -> dict[str, str]:
    """A file of Kaldi: a key, white space, a value."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split(maxsplit=1)
        if len(fields) == 2:
            table[fields[0]] = fields[1].strip()
        elif fields:
            found.leave_out(f"{path} line {number}", "not an id and its value")
    return table


CORPUS = Corpus(
    name="speechocean762",
    title="speechocean762",
    hours=6,
    speakers=250,
    languages="English of Mandarin speakers",
    licence="CC BY 4.0",
    source="https://www.openslr.org/101/",
    read=_read,
    archives=(_ARCHIVE,),
)
