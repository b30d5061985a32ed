"""Multilingual LibriSpeech (OpenSLR 94): audiobooks in eight languages, 50,700 hours, 44,700 of them English.

V. Pratap and others, "MLS: a large-scale multilingual dataset for speech research", 2020 (arXiv 2012.03411);
16 kHz Opus (or FLAC, four times as large). Licence: CC BY 4.0. A language is a corpus of its own.

    mls_polish_opus/train/transcripts.txt      id, tab, transcript; dev/ and test/ likewise
    mls_polish_opus/train/audio/6892/10049/6892_10049_000000.opus …      speaker / book / utterance

Split: that of the corpus; no speaker is in two splits.

Source: OpenSLR 94 (addresses, rounded sizes, licence), lhotse/recipes/mls.py (layout). A file md5sum.txt is
published, but its content was not at hand: unverified. Bytes are not published.
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder
from asr.corpora.download import Archive
from asr.errors import SettingsError
from asr.files import read_lines

__all__ = ["CORPUS"]

_LANGUAGES = ("english", "german", "dutch", "french", "spanish", "italian", "portuguese", "polish")


def _archive(language: str) -> Archive:
    name = f"mls_{language}_opus"
    return Archive(
        name=f"{name}.tar.gz",
        unpacks_to=name,
        url=f"https://dl.fbaipublicfiles.com/mls/{name}.tar.gz",
        licence="CC BY 4.0",
    )


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    needed = [f"{split}/transcripts.txt" for split in ("train", "dev", "test")]
    root = root or Path()
    patterns = [f"mls_{language}*" for language in parts or _LANGUAGES]
    folders = [path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_dir()]
    folders = [path for path in folders if "_lm_" not in path.name]
    if len(folders) > 1 and not (root / needed[0]).exists():
        names = ", ".join(path.name for path in folders)
        raise SettingsError(f"{root}: holds {names}. Expected one language. Name one as --data.root.")
    folder = find_folder(root, CORPUS.title, *needed, inside=[path.name for path in folders])
    found = Collector(CORPUS.title)
    for split in ("train", "dev", "test"):
        texts: dict[str, str] = {}
        path = folder / split / "transcripts.txt"
        for number, line in enumerate(read_lines(path), start=1):
            key, tab, text = line.partition("\t")
            if tab:
                texts[key] = text
            elif line.strip():
                found.leave_out(f"{path} line {number}", "not an id, a tab and a transcript")
        books = sorted(book for book in (folder / split / "audio").glob("*/*") if book.is_dir())
        audio = {key: path for book in books for key, path in audio_by_stem(book).items()}
        found.pair(texts, audio, split=split, speaker={key: key.partition("_")[0] for key in texts})
    return found.finish()


CORPUS = Corpus(
    name="mls",
    title="Multilingual LibriSpeech",
    hours=50_700,
    speakers=None,
    languages="English, German, Dutch, French, Spanish, Italian, Portuguese, Polish",
    licence="CC BY 4.0",
    source="https://www.openslr.org/94/",
    read=_read,
    parts={language: (_archive(language),) for language in _LANGUAGES},
    one_part=True,
)
