"""LibriTTS: LibriSpeech's books again, cut at sentences, with case and punctuation, at 24 kHz; 585 hours.

H. Zen and others, "LibriTTS: a corpus derived from LibriSpeech for text-to-speech", 2019 (OpenSLR 60); 2,456
speakers. Licence: CC BY 4.0. No speaker is in two parts.

    LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav …      part / speaker / chapter / utterance
                                 84_121123.trans.tsv                id, text as printed, text in words

Split: that of the corpus: train-* to learn from, dev-* to choose by, test-* to score.

Source: torchaudio/datasets/libritts.py (addresses, SHA-256), TensorFlow Datasets' url_checksums/libritts.txt
(sizes), lhotse/recipes/libritts.py (layout).
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder
from asr.corpora.download import Archive, openslr
from asr.errors import DataError
from asr.files import read_lines

__all__ = ["CORPUS"]

_PUBLISHED = {
    "train-clean-100": (7723686890, "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b"),
    "train-clean-360": (27504073644, "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886"),
    "train-other-500": (44565031479, "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df"),
    "dev-clean": (1291469655, "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a"),
    "dev-other": (924804676, "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c"),
    "test-clean": (1230670113, "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5"),
    "test-other": (964502297, "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d"),
}


def _archive(part: str) -> Archive:
    size_bytes, sha256 = _PUBLISHED[part]
    folder = f"LibriTTS/{part}"
    return openslr(60, f"{part}.tar.gz", folder, "CC BY 4.0", sha256=sha256, size_bytes=size_bytes)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    folder = find_folder(root or Path(), CORPUS.title, *parts, inside=["LibriTTS", "LibriTTS_R"])
    present = parts or [part for part in CORPUS.parts if (folder / part).is_dir()]
    if not present:
        raise DataError(
            f"{folder / next(iter(CORPUS.parts))}: does not exist, nor does another part of LibriTTS. "
            "Expected the folder of LibriTTS. Correct --data.root."
        )
    found = Collector(CORPUS.title)
    for part in present:
        for chapter in sorted(path for path in (folder / part).glob("*/*") if path.is_dir()):
            texts: dict[str, str] = {}
            for path in sorted(chapter.glob("[!.]*.trans.tsv")):
                for number, line in enumerate(read_lines(path), start=1):
                    fields = line.split("\t")
                    if len(fields) == 3:
                        texts[fields[0]] = fields[2]
                    elif line.strip():
                        found.leave_out(f"{path} line {number}", "not three fields with tabs between them")
            found.pair(
                texts, audio_by_stem(chapter), split=part.partition("-")[0], speaker=chapter.parent.name
            )
    return found.finish()


CORPUS = Corpus(
    name="libritts",
    title="LibriTTS",
    hours=585,
    speakers=2456,
    languages="English",
    licence="CC BY 4.0",
    source="https://www.openslr.org/60/",
    read=_read,
    parts={part: (_archive(part),) for part in _PUBLISHED},
    normalizer="english",
)
