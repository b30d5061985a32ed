"""LibriSpeech (OpenSLR 12) and Mini LibriSpeech (OpenSLR 31): 1,000 hours of English audiobooks.

Volunteers of LibriVox read books in the public domain; V. Panayotov, G. Chen, D. Povey and S. Khudanpur
aligned them with their texts ("LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015).
16 kHz FLAC. No speaker is in two parts. Mini LibriSpeech is two small parts of it, made for quick
experiments: train-clean-5 (1,519 utterances, 5.3 h) and dev-clean-2 (a part of dev-clean).

Licence: CC BY 4.0.

    LibriSpeech/dev-clean/84/121123/84-121123-0000.flac …      part / speaker / chapter / utterance
                                    84-121123.trans.txt        "84-121123-0000 GO DO YOU HEAR"

Audio of any extension in this layout is read (flac, wav, ogg, opus, mp3). A transcript without audio, or
audio without a transcript, means that the folder is incomplete: an error names them.

Source: of OpenSLR 12, the SHA-256 sums of torchaudio/datasets/librispeech.py and the sizes of Kaldi's
egs/librispeech/s5/local/download_and_untar.sh; of OpenSLR 31, the MD5 sums in its md5sum.txt (which
PaddlePaddle/DeepSpeech has, too) and the sizes of the same script in Kaldi's egs/mini_librispeech.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.corpora.corpus import Corpus, Reading, check_ids, check_root, of_splits
from asr.corpora.download import Archive, fetch, openslr
from asr.corpora.durations import durations
from asr.errors import DataError, SettingsError, first_few
from asr.files import read_lines
from asr.frontend.audio_files import AUDIO_SUFFIXES
from asr.manifests.utterance import Splits, Utterance
from asr.text.normalize import normalize

__all__ = [
    "ARCHIVES", "CLEAN_100", "CORPUS", "FULL_960", "MINI", "MINI_CORPUS", "Preset", "by_part", "prepare",
    "read_part", "split_by_speaker",
]  # fmt: skip

log = logging.getLogger("asr")


# Part -> OpenSLR's number, size in bytes, SHA-256 (OpenSLR 12) or MD5 (OpenSLR 31).
_PUBLISHED = {
    "train-clean-5": (31, 332954390, "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": (31, 126046265, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "dev-clean": (12, 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (12, 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (12, 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (12, 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": (12, 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (12, 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (12, 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}


def _archive(part: str) -> Archive:
    resource, size_bytes, digest = _PUBLISHED[part]
    checksum = {"sha256" if resource == 12 else "md5": digest}
    name, folder = f"{part}.tar.gz", f"LibriSpeech/{part}"
    return openslr(resource, name, folder, "CC BY 4.0", size_bytes=size_bytes, **checksum)


ARCHIVES: dict[str, Archive] = {part: _archive(part) for part in _PUBLISHED}  # part -> its archive


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Which parts of LibriSpeech are for training, development and test."""

    train_parts: tuple[str, ...]  # to learn from
    dev_parts: tuple[str, ...]  # to choose the epoch and any setting by
    test_parts: tuple[str, ...] = ()  # to score on; () when `choosing_speakers` divides the dev parts
    choosing_speakers: int = 0  # > 0: that many dev speakers are for choosing, the others are the test set

    def __post_init__(self) -> None:
        """Check that the test set is defined once."""
        if self.test_parts and self.choosing_speakers:
            raise SettingsError(
                f"test_parts is {self.test_parts} and choosing_speakers is {self.choosing_speakers}. "
                "Expected one of the two, since each chooses what is scored. Leave one out."
            )


# Mini LibriSpeech has no test set: of the dev speakers, 8 are for choosing and the others are scored.
MINI = Preset(train_parts=("train-clean-5",), dev_parts=("dev-clean-2",), choosing_speakers=8)
_TESTS = ("test-clean", "test-other")
CLEAN_100 = Preset(train_parts=("train-clean-100",), dev_parts=("dev-clean",), test_parts=_TESTS)
FULL_960 = Preset(
    train_parts=("train-clean-100", "train-clean-360", "train-other-500"),
    dev_parts=("dev-clean", "dev-other"),
    test_parts=_TESTS,
)

# Where a folder lacks the part on the left, the part on the right, which contains it, is used.
_STAND_INS = {"dev-clean-2": "dev-clean"}


def prepare(root: Path | None, data_dir: Path, preset: Preset = MINI) -> Splits:
    """The parts that a preset names, fetched when `root` is None.

    Args:
        root: the folder `LibriSpeech`, or the one that holds it; used as it is. Where it lacks dev-clean-2
            but holds dev-clean, that is used, and the log names it.
        data_dir: where downloads go; not looked at when `root` is given.
        preset: `MINI`, `CLEAN_100`, `FULL_960`, or another one.

    Returns:
        Utterances in the order of the parts, then of speaker, chapter and utterance.

    Raises:
        DataError: a part is missing or incomplete, or two splits share an utterance.
        DownloadError: a part could not be fetched.
    """
    train = _read_parts(root, data_dir, preset.train_parts)
    dev = _read_parts(root, data_dir, preset.dev_parts)
    if preset.choosing_speakers:
        dev, test = split_by_speaker(dev, preset.choosing_speakers)
    else:
        test = _read_parts(root, data_dir, preset.test_parts)
    check_ids("LibriSpeech", {"train": train, "dev": dev, "test": test})
    return Splits(train=train, dev=dev, test=test)


def read_part(folder: Path) -> list[Utterance]:
    """Every utterance of one part, such as dev-clean.

    Args:
        folder: the part's folder: speaker / chapter / audio files and one `*.trans.txt`.

    Returns:
        Utterances in the order of speaker, chapter (as numbers) and id; text in lower case; durations from
        the files' headers.

    Raises:
        DataError: there is no transcript, a transcript lacks its audio or audio its transcript, or an
            utterance has two audio files.
        AudioError: a file has no readable header.
    """
    folder = Path(folder)
    check_root(folder, "a part of LibriSpeech")
    found: list[tuple[str, str, Path]] = []  # id, text, audio
    without_audio: list[str] = []  # transcripts without audio
    without_text: list[str] = []  # audio without a transcript
    chapters = [chapter for chapter in folder.glob("*/*") if chapter.is_dir()]
    chapters.sort(key=lambda path: (_number_first(path.parent.name), _number_first(path.name)))
    for chapter in chapters:
        texts, audio = _read_chapter(chapter)
        found.extend((name, texts[name], audio[name]) for name in sorted(texts) if name in audio)
        without_audio.extend(name for name in sorted(texts) if name not in audio)
        without_text.extend(str(audio[name]) for name in sorted(audio) if name not in texts)
    if without_audio or without_text:
        raise DataError(
            f"{folder}: {len(without_audio)} transcripts without audio and {len(without_text)} audio files "
            f"without a transcript: {first_few(without_audio + without_text)}. Expected one of each an "
            "utterance. Unpack the archive again, or remove these files and lines."
        )
    if not found:
        raise DataError(f"{folder}: no utterance. Expected speaker/chapter/*.trans.txt. Correct --data.root.")
    seconds = durations([path for _, _, path in found], folder.name)
    return [
        Utterance(id=name, audio_filepath=path, duration=duration, text=text, speaker=name.split("-")[0])
        for (name, text, path), duration in zip(found, seconds, strict=True)
    ]


def split_by_speaker(
    utterances: Sequence[Utterance], first: int = 8
) -> tuple[list[Utterance], list[Utterance]]:
    """Split utterances by speaker: some speakers for development, all others for the test.

    LibriSpeech's speaker ids are numbers and sort as numbers: the first 8 of dev-clean are 84, 174, 251,
    422, 652, 777, 1272 and 1462. (As text they would be 1272, 1462, 1673, 174, …: another split.) Ids
    that are not numbers come after those that are, in the order of their characters.

    Args:
        utterances: with speakers named.
        first: how many speakers, in that order, the first list gets.

    Returns:
        (chosen, scored), each in the order of `utterances`; together they are all of them.

    Raises:
        DataError: an utterance names no speaker, or one of the lists would be empty.
    """
    for utterance in utterances:
        if not utterance.speaker:
            raise DataError(f"utterance {utterance.id}: no speaker is named. Expected one to split by.")
    speakers = sorted({utterance.speaker for utterance in utterances}, key=_number_first)
    if not 0 < first < len(speakers):
        raise DataError(
            f"{len(speakers)} speakers cannot be split into {first} and the rest. Expected at least one "
            "speaker on each side. Give more speakers, or choose by fewer."
        )
    first_speakers = frozenset(speakers[:first])
    chosen = [utterance for utterance in utterances if utterance.speaker in first_speakers]
    scored = [utterance for utterance in utterances if utterance.speaker not in first_speakers]
    return chosen, scored


def by_part(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Group utterances by the part of LibriSpeech of their files, such as "test-clean"."""
    parts: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        parts.setdefault(utterance.audio_filepath.parents[2].name, []).append(utterance)
    return parts


def _number_first(name: str) -> tuple[bool, int, str]:
    """A key that sorts numbers by value, and other names after them."""
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)


def _read_parts(root: Path | None, data_dir: Path, parts: Sequence[str]) -> list[Utterance]:
    utterances: list[Utterance] = []
    for part in parts:
        if root is not None:
            folder = _find_part(Path(root), part)
        elif part in ARCHIVES:
            folder = fetch(ARCHIVES[part], Path(data_dir))
        else:
            raise DataError(f"{part!r} is no part of LibriSpeech. Expected one of {', '.join(ARCHIVES)}.")
        found = read_part(folder)
        hours = sum(utterance.duration for utterance in found) / 3600
        speakers = len({utterance.speaker for utterance in found})
        log.info("%s: %d utterances, %.2f h, %d speakers", folder, len(found), hours, speakers)
        utterances.extend(found)
    return utterances


def _find_part(root: Path, part: str) -> Path:
    corpus = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    check_root(corpus, "LibriSpeech, or the folder of it")
    if (corpus / part).is_dir():
        return corpus / part
    stand_in = _STAND_INS.get(part, "")
    if stand_in and (corpus / stand_in).is_dir():
        log.info("%s holds no %s: %s, which contains it, is used.", corpus, part, stand_in)
        return corpus / stand_in
    there = sorted(path.name for path in corpus.iterdir() if path.is_dir())
    raise DataError(
        f"{corpus}: no part {part}. Found {', '.join(there) or 'no folder'}. Correct --data.root, "
        "or leave it out to download what is needed."
    )


def _read_chapter(chapter: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """(texts by id, audio files by id) of one chapter."""
    texts: dict[str, str] = {}
    audio: dict[str, Path] = {}
    for path in sorted(chapter.absolute().iterdir()):
        if path.name.startswith("."):
            continue
        if path.name.endswith(".trans.txt"):
            for number, line in enumerate(read_lines(path), start=1):
                name, _, text = line.strip().partition(" ")
                if not text.strip() or name in texts:
                    what = "the id is in an earlier line already" if name in texts else "no transcript"
                    raise DataError(
                        f"{path} line {number}: {what}: {line!r:.60}. Expected 'ID WORDS'. Correct it."
                    )
                texts[name] = normalize(text, "lower")
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            if path.stem in audio:
                other = audio[path.stem].name
                raise DataError(f"{path}: the utterance has another audio file, {other}. Remove one.")
            audio[path.stem] = path
    return texts, audio


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    """Each part in the split that its name begins with; the parts that are there, where none is named."""
    root = root or Path()
    corpus = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    present = parts or [part for part in CORPUS.parts if (corpus / part).is_dir()] or ["train-clean-100"]
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for part in present:
        splits[part.partition("-")[0]] += _read_parts(root, root, [part])
    return Reading(splits)


def _read_mini(root: Path | None, parts: Sequence[str]) -> Reading:
    return of_splits(prepare(root or Path(), Path(), MINI))


CORPUS = Corpus(
    name="librispeech",
    title="LibriSpeech",
    hours=982,
    speakers=2484,
    languages="English",
    licence="CC BY 4.0",
    source="https://www.openslr.org/12/",
    read=_read,
    parts={part: (archive,) for part, archive in ARCHIVES.items() if _PUBLISHED[part][0] == 12},
)
MINI_CORPUS = Corpus(
    name="mini_librispeech",
    title="mini LibriSpeech",
    hours=7,
    speakers=None,
    languages="English",
    licence="CC BY 4.0",
    source="https://www.openslr.org/31/",
    read=_read_mini,
    archives=(ARCHIVES["train-clean-5"], ARCHIVES["dev-clean-2"]),
)
