"""What a public corpus is: its facts, its parts and their archives, and how its folder becomes utterances.

Each file of this folder that describes a corpus has a `CORPUS`; `asr.corpora.catalogue` lists them. A corpus
is read file by file into a `Collector`, which pairs recordings with transcripts, keeps account of what has no
partner, and measures the recordings at the end.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from asr.corpora.download import Archive, fetch_all
from asr.corpora.durations import measure
from asr.errors import AudioError, DataError, SettingsError, first_few
from asr.frontend.audio_files import AUDIO_SUFFIXES
from asr.manifests.utterance import Splits, Utterance
from asr.text.normalize import in_language, normalize

__all__ = [
    "SEGMENT_OVERSHOOT_S", "Collector", "Corpus", "LeftOut", "Reading", "audio_by_stem", "check_root",
    "find_folder", "hold_out", "of_splits", "unreadable_audio",
]  # fmt: skip

log = logging.getLogger("asr")

SEGMENT_OVERSHOOT_S = 0.5
"""Seconds that a segment may end after its recording, as in Kaldi's extract-segments."""

_SUFFIXES = (*AUDIO_SUFFIXES, ".sph", ".wv1", ".g722")  # NIST's, and what public corpora have besides
_SPLITS = ("train", "dev", "test")

Key = TypeVar("Key")


@dataclass(frozen=True)
class LeftOut:
    """What is in a corpus and in no split."""

    what: str  # a file, or the id of an utterance
    why: str
    expected: bool = False  # it is so in every copy of the corpus


@dataclass(frozen=True)
class Reading:
    """A corpus that was read."""

    splits: dict[str, list[Utterance]]
    left_out: list[LeftOut] = field(default_factory=list)
    language: str = ""  # its code, where text rules depend on it and the folder names it


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A public corpus.

    Attributes:
        name: on the command line.
        title: as its authors call it.
        hours: of speech, rounded; None where it depends on language and release.
        speakers: likewise.
        languages: in words.
        licence: short.
        source: where it is described.
        read: takes the folder (None for the copy in the project's repository) and the chosen parts.
        archives: of all of it; none where no program may fetch it.
        parts: what can be chosen, with the archives of each.
        default_parts: without a choice; () for all, or, where there is one to choose, for the one that the
            folder holds.
        one_part: one part makes a corpus of its own, such as a language.
        any_part: names of parts need not be in `parts`.
        obtain: takes data folder, chosen parts and whether nothing may be fetched; returns the folder to
            read. None fetches the archives.
        instructions: how to get it, where no program can, and what to do then.
        normalizer: the text rules of its transcripts.
        embedded: it comes with the project's repository.
    """

    name: str
    title: str
    hours: float | None
    speakers: int | None
    languages: str
    licence: str
    source: str
    read: Callable[[Path | None, Sequence[str]], Reading]
    archives: tuple[Archive, ...] = ()
    parts: Mapping[str, tuple[Archive, ...]] = field(default_factory=dict)
    default_parts: tuple[str, ...] = ()
    one_part: bool = False
    any_part: bool = False
    obtain: Callable[[Path, Sequence[str], bool], Path] | None = None
    instructions: str = ""
    normalizer: str = "lower"
    embedded: bool = False

    @property
    def downloadable(self) -> bool:
        """Whether a program can fetch it."""
        return self.obtain is not None or bool(self.archives) or any(self.parts.values())

    def choose(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The parts to use, in the corpus's order.

        Raises:
            SettingsError: one is unknown, or several are named where each is a corpus of its own.
        """
        for part in parts:
            if part not in self.parts and not self.any_part:
                expected = f"Expected of {', '.join(self.parts)}" if self.parts else "The corpus has none"
                raise SettingsError(f"--data.parts: {self.name} has no part {part!r}. {expected}.")
        if self.one_part and len(set(parts)) > 1:
            raise SettingsError(
                f"--data.parts: {', '.join(parts)} are corpora of their own. Expected one. Name one."
            )
        order = list(self.parts)
        chosen = sorted(set(parts), key=lambda part: (order.index(part) if part in order else 0, part))
        return tuple(chosen) or self.default_parts

    def download(self, folder: Path, parts: Sequence[str], *, offline: bool = False) -> Path:
        """Fetch the archives of some parts, unless they are there.

        Args:
            folder: where downloads go.
            parts: as `choose` returns them; () for all.
            offline: fetch nothing: what is not there is an error that names it.

        Returns:
            The folder to read.

        Raises:
            DownloadError: something could not be fetched, or is not there.
            SettingsError: the corpus cannot be fetched by a program, or a part has to be named.
        """
        if not self.downloadable:
            raise SettingsError(f"{self.title} cannot be downloaded by a program. {self.instructions}")
        if self.one_part and not parts:
            raise SettingsError(
                f"{self.name}: --data.parts is missing. Expected one of {', '.join(self.parts)}."
            )
        if self.obtain is not None:
            return self.obtain(folder, parts, offline)
        chosen = [archive for part in parts or self.parts for archive in self.parts[part]]
        fetch_all([*self.archives, *chosen], folder, offline=offline)
        return folder

    def splits(self, root: Path | None, parts: Sequence[str] = ()) -> dict[str, list[Utterance]]:
        """The utterances of each split; see `prepare`."""
        return self.prepare(root, parts).splits

    def prepare(self, root: Path | None, parts: Sequence[str] = (), normalizer: str = "") -> Reading:
        """Read the corpus: official splits, speakers, transcripts, lengths.

        Args:
            root: the corpus's folder, or the one that holds it. None: the copy in the project's repository.
            parts: as `choose` takes them.
            normalizer: text rules; "" for those of the corpus, in its language.

        Returns:
            Splits that are not empty, and what is in none of them.

        Raises:
            DataError: the folder is not that of the corpus, nothing in it can be used, or an utterance is
                twice in it.
            SettingsError: an unknown part.
        """
        reading = self.read(None if root is None else Path(root), self.choose(parts))
        splits: dict[str, list[Utterance]] = {}
        left_out = list(reading.left_out)
        rules = normalizer or in_language(self.normalizer, reading.language)
        for name, utterances in reading.splits.items():
            for utterance in utterances:
                text = normalize(utterance.text, rules)
                if text:
                    splits.setdefault(name, []).append(replace(utterance, text=text))
                else:
                    left_out.append(LeftOut(utterance.id, "no words in its transcript"))
        if not splits:
            causes = ", ".join(f"{n} {why}" for why, n in Counter(one.why for one in left_out).items())
            raise DataError(
                f"{root}: no utterance of {self.title} can be used: {causes or 'the folder holds none'}. "
                "Unpack the archive again, or correct --data.root."
            )
        check_ids(self.title, splits)
        return Reading(splits, left_out, reading.language)


class Collector:
    """Utterances of a corpus, collected file by file; measured at the end."""

    def __init__(self, name: str) -> None:
        """Start with nothing.

        Args:
            name: of the corpus, for the log.
        """
        self._name = name
        self._clips: list[tuple[str, Path, str, str, str]] = []  # split, audio, id, text, speaker
        self._splits: dict[str, list[Utterance]] = {}
        self.left_out: list[LeftOut] = []

    def add(self, split: str, identifier: str, audio: Path, text: str, speaker: str = "") -> None:
        """Add a recording with its transcript."""
        self._clips.append((split, audio, identifier, text, speaker))

    def add_segment(self, split: str, utterance: Utterance) -> None:
        """Add an utterance whose length is known, such as a part of a recording."""
        self._splits.setdefault(split, []).append(utterance)

    def leave_out(self, what: str | Path, why: str, *, expected: bool = False) -> None:
        """Note what is in no split; expected: it is so in every copy of the corpus."""
        self.left_out.append(LeftOut(str(what), why, expected))

    def pair(
        self,
        texts: Mapping[str, str],
        audio: Mapping[str, Path],
        *,
        split: str | Mapping[str, str],
        speaker: str | Mapping[str, str] = "",
        prefix: str = "",
    ) -> None:
        """Add each recording that has a transcript, and note those that have no partner.

        Args:
            texts: transcripts.
            audio: recordings, by the same keys.
            split: of all of them, or of each key.
            speaker: likewise.
            prefix: that makes the keys ids, unique in the corpus.
        """
        for key, text in texts.items():
            if key in audio:
                name, who = (one if isinstance(one, str) else one[key] for one in (split, speaker))
                self.add(name, prefix + key, audio[key], text, who)
            else:
                self.leave_out(prefix + key, "transcript without audio")
        for key, path in audio.items():
            if key not in texts:
                self.leave_out(path, "audio without transcript")

    def finish(self, language: str = "") -> Reading:
        """All of it, with lengths; recordings that cannot be read are left out.

        Args:
            language: name of a folder that begins with its code, such as tr or tr_tr.
        """
        seconds = measure([clip[1] for clip in self._clips], self._name)
        splits = {split: list(utterances) for split, utterances in self._splits.items()}
        for (split, audio, identifier, text, speaker), duration in zip(self._clips, seconds, strict=True):
            if isinstance(duration, AudioError):
                self.leave_out(audio, unreadable_audio(audio, duration))
            elif duration <= 0:
                self.leave_out(audio, "audio without a sample")
            else:
                splits.setdefault(split, []).append(
                    Utterance(
                        id=identifier,
                        audio_filepath=audio.absolute(),
                        duration=duration,
                        text=text,
                        speaker=speaker,
                    )
                )
        order = {name: number for number, name in enumerate(_SPLITS)}
        names = sorted(splits, key=lambda name: order.get(name, len(order)))
        code = re.match("([a-z]{2,3})(?![a-z])", language)
        return Reading({name: splits[name] for name in names}, self.left_out, code[1] if code else "")


def unreadable_audio(audio: Path, error: AudioError) -> str:
    """Why a recording that cannot be read is left out."""
    return f"unreadable audio: {str(error).removeprefix(f'{audio}: ')}"


def of_splits(splits: Splits) -> Reading:
    """The three parts of a corpus that is read by a function of its own."""
    return Reading({"train": splits.train, "dev": splits.dev, "test": splits.test})


def check_root(root: Path, expected: str, otherwise: str = "") -> None:
    """Refuse what is no folder.

    Args:
        root: that the user named.
        expected: what was, for the message.
        otherwise: another way, for the message.

    Raises:
        DataError: it does not exist, or is a file.
    """
    if not root.is_dir():
        what, todo = "no such folder", "Correct --data.root"
        if root.exists():
            what, todo = "is a file", "Unpack it, if it is an archive, and name its folder as --data.root"
        raise DataError(f"{root}: {what}. Expected {expected}. {todo}{otherwise}.")


def find_folder(root: Path, title: str, *needed: str, inside: Sequence[str] = ()) -> Path:
    """The folder of a corpus: the one that is given, or one in it.

    Args:
        root: that the user named.
        title: of the corpus, for the message.
        needed: files and folders that it holds; without one, a folder inside is preferred.
        inside: names of the folder, where `root` may be the one that holds it; patterns of glob.

    Raises:
        DataError: something that is needed does not exist; the message names the first.
    """
    root = Path(root)
    check_root(root, f"the folder of {title}")
    candidates = [path for pattern in inside for path in sorted(root.glob(pattern)) if path.is_dir()]
    for folder in (root, *candidates) if needed else (*candidates, root):
        if all((folder / path).exists() for path in needed):
            return folder
    folder = candidates[0] if candidates else root
    missing = next((folder / path for path in needed if not (folder / path).exists()), folder)
    there = sorted(path.name for path in folder.iterdir())
    found = first_few(there, most=6) or "nothing"
    raise DataError(
        f"{missing}: does not exist. Expected the folder of {title}; {folder} holds {found}. "
        "Unpack all of its archive, or correct --data.root."
    )


def audio_by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    """The recordings of a folder by their names without ending, in the order of the names.

    Names that begin with a dot were made by the system that copied the folder.

    Args:
        folder: one that does not exist has none.
        suffix: only files with this ending, and no other.
    """
    found: dict[str, Path] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            wanted = path.suffix.lower() == suffix if suffix else path.suffix.lower() in _SUFFIXES
            if wanted and not path.name.startswith("."):
                found.setdefault(path.stem, path)
    return found


def hold_out(keys: Sequence[Key], dev: float = 0.1, test: float = 0.1, seed: int = 0) -> dict[Key, str]:
    """A split of one's own, for a corpus that has none: the same on every computer.

    Keys are sorted by the SHA-256 of their text; the first go to the test, the next to dev.

    Args:
        keys: speakers, so that none is in two splits, or utterances.
        dev: share of dev; at least one key, unless 0.
        test: likewise.
        seed: another number draws other keys.

    Returns:
        The split of each key. With fewer than three keys all are for training.
    """
    salt = f"{seed} " if seed else ""

    def digest(key: Key) -> bytes:
        return sha256(f"{salt}{key}".encode(errors="surrogateescape")).digest()

    ordered = sorted(set(keys), key=digest)
    counts = [max(1, round(share * len(ordered))) if share else 0 for share in (test, dev)]
    if len(ordered) <= sum(counts):
        return dict.fromkeys(ordered, "train")
    names = ["test"] * counts[0] + ["dev"] * counts[1]
    return {key: names[n] if n < len(names) else "train" for n, key in enumerate(ordered)}


def check_ids(title: str, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """Refuse an utterance that is in two splits, or twice in one: a score on training data is no score.

    Args:
        title: of the corpus, for the message.
        splits: utterances by the names of their splits.

    Raises:
        DataError: names the utterance.
    """
    owner: dict[str, str] = {}
    for name, utterances in splits.items():
        for utterance in utterances:
            if utterance.id in owner:
                where = f"{owner[utterance.id]} and {name}" if owner[utterance.id] != name else name
                raise DataError(
                    f"{title}: the utterance {utterance.id!r} is twice in {where}. Expected each "
                    "once. Remove one of its recordings, or unpack the corpus again."
                )
            owner[utterance.id] = name
