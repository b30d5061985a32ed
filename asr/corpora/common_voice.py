"""Mozilla Common Voice: volunteers read sentences in more than 100 languages, and check each other.

R. Ardila and others, "Common Voice: a massively-multilingual speech corpus", 2020 (arXiv 1912.06670); MP3.
Licence: CC0. A language is a corpus of its own; hours and speakers depend on language and release. English
has thousands of hours, most languages less than a hundred.

    cv-corpus-20.0-2024-12-06/de/train.tsv, dev.tsv, test.tsv, validated.tsv    a header, then a clip a line
    cv-corpus-20.0-2024-12-06/de/clips/common_voice_de_17298952.mp3 …

Split: that of the release, train, dev and test, without a speaker in two of them. Delta releases have only
validated.tsv: where a folder holds some besides a release, their clips are for training, except those of
speakers in dev and test; where it holds nothing else, a tenth each of the speakers is held out (`hold_out`).

Mozilla asks for an address or an account before it gives a link, so that no program can fetch a release.

Source: commonvoice.mozilla.org, lhotse/recipes/commonvoice.py (layout; no quoting in the lists).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.errors import DataError, SettingsError
from asr.files import read_lines

__all__ = ["CORPUS"]

_LISTS = ("train.tsv", "dev.tsv", "test.tsv", "validated.tsv")


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    folders = _language_folders(root or Path(), parts)
    releases = [folder for folder in folders if (folder / "train.tsv").is_file()]
    deltas = [folder for folder in folders if folder not in releases]
    found = Collector(CORPUS.title)
    scored: dict[str, str] = {}  # speakers that are not to be learned from
    for folder in releases:
        clips = audio_by_stem(folder / "clips")
        for split in ("test", "dev", "train"):
            path = find_folder(folder, CORPUS.title, f"{split}.tsv", "clips") / f"{split}.tsv"
            for key, speaker, text in _rows(path, found):
                _add(found, split, clips, key, speaker, text)
                if split != "train":
                    scored[speaker] = split
    rows = [
        (clips, row)
        for folder in deltas
        for clips in [audio_by_stem(folder / "clips")]
        for row in _rows(folder / "validated.tsv", found)
    ]
    split_of = {} if releases else hold_out([speaker for _, (_, speaker, _) in rows])
    for clips, (key, speaker, text) in rows:
        if speaker in scored:
            found.leave_out(key, f"its speaker is in {scored[speaker]}")
        else:
            _add(found, split_of.get(speaker, "train"), clips, key, speaker, text)
    return found.finish(folders[0].name)


def _language_folders(root: Path, parts: Sequence[str]) -> list[Path]:
    """The folder of the language, or of several releases those of the language."""
    if any((root / name).is_file() for name in _LISTS):
        return [root]
    below = parts[0] if parts else "*"
    folders = sorted(
        {
            path.parent
            for name in _LISTS
            for depth in ("", "*/")
            for path in root.glob(f"{depth}{below}/{name}")
        }
    )
    if not folders:
        find_folder(root, CORPUS.title, *(f"{part}/validated.tsv" for part in parts or ["LANGUAGE"]))
    languages = sorted({folder.name for folder in folders})
    if len(languages) > 1:
        raise SettingsError(
            f"{root}: holds {', '.join(languages)}. Expected one language. Name it as --data.parts."
        )
    return folders


def _rows(path: Path, found: Collector) -> Iterator[tuple[str, str, str]]:
    """(clip, speaker, sentence) of each line of a list."""
    lines = read_lines(path)
    header = lines[0].split("\t") if lines else []
    try:
        client, clip, sentence = (header.index(name) for name in ("client_id", "path", "sentence"))
    except ValueError:
        raise DataError(
            f"{path}: no columns client_id, path and sentence in its first line: {' '.join(header):.80}. "
            "Expected a list of Common Voice. Unpack the archive again, or correct --data.root."
        ) from None
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) == len(header):
            yield Path(fields[clip]).stem, fields[client], fields[sentence]
        elif line.strip():
            found.leave_out(f"{path} line {number}", f"{len(fields)} fields, {len(header)} expected")


def _add(found: Collector, split: str, clips: dict[str, Path], key: str, speaker: str, text: str) -> None:
    if key in clips:
        found.add(split, key, clips[key], text, speaker)
    else:
        found.leave_out(key, "transcript without audio")


CORPUS = Corpus(
    name="common_voice",
    title="Common Voice",
    hours=None,
    speakers=None,
    languages="more than 100",
    licence="CC0",
    source="https://arxiv.org/abs/1912.06670",
    read=_read,
    one_part=True,
    any_part=True,
    instructions="Download a release of your language from commonvoice.mozilla.org and unpack it. "
    "Then give its folder as --data.root.",
    normalizer="words",
)
