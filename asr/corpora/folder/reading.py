"""A folder of recordings with transcripts in any common layout -> train, dev and test.

Every layout of `asr.corpora.folder.layouts` is tried, since a folder may have more than one; the first that
has a transcript of a recording gives it. Speakers are those of the layout, else the folders below the given
one.

Split: that of the folder, where its files or folders are called train, dev and test, or lists say so; else a
tenth each of the speakers, drawn with a seed, is dev and test; else, with fewer than three speakers, of the
utterances. A test set is never drawn again, or it would be trained on: what is in no set is left out, or,
where none is called train, is train.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from asr.corpora.corpus import SEGMENT_OVERSHOOT_S, Collector, LeftOut, hold_out, unreadable_audio
from asr.corpora.durations import measure
from asr.corpora.folder.files import Clip, FolderFiles, SegmentReader, recording_name
from asr.corpora.folder.layouts import LAYOUTS
from asr.errors import AudioError, DataError, SettingsError
from asr.frontend.audio_files import AUDIO_SUFFIXES
from asr.manifests.utterance import Utterance
from asr.text.normalize import normalize

__all__ = ["FolderReading", "SplitBy", "check_outside", "read_folder"]

SplitBy = Literal["auto", "none"]
"""The folder's own split, or one that is drawn; or all in one manifest."""

_SPLITS = {
    "train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev",
    "validated": "train", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
_NO_SPEAKER = frozenset({"wav", "wavs", "flac", "clips", "audio", "recordings", "data", *_SPLITS})
_ENDINGS = 4  # that a message names
_LARGEST_SHARE = 0.25  # of the utterances, that a held-out speaker may have


@dataclass(frozen=True)
class FolderReading:
    """What a folder holds.

    Attributes:
        splits: utterances of train, dev and test, or of "all"; a split without one is absent.
        left_out: what is in none of them, and why.
        found: how many recordings each layout had transcripts of.
        split_by: how the splits were made, in words.
    """

    splits: dict[str, list[Utterance]]
    left_out: list[LeftOut] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)
    split_by: str = ""


def read_folder(
    root: Path,
    readers: Mapping[str, SegmentReader],
    *,
    seed: int = 0,
    normalizer: str = "verbatim",
    split: SplitBy = "auto",
) -> FolderReading:
    """Read a folder.

    Args:
        root: the folder; links in it are followed, once.
        readers: of text with times, by the suffixes of their files in small letters.
        seed: of the split.
        normalizer: text rules.
        split: none makes one split of all, called "all".

    Raises:
        DataError: it is no folder, or no recording in it has a transcript.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        todo = f"Name its folder: {root.parent}" if root.exists() else "Correct it"
        raise DataError(f"{root}: {what}. Expected a folder of recordings with transcripts. {todo}.")
    files = _list(root, readers)
    found: Counter[str] = Counter()
    clips: list[Clip] = []
    paired: set[Path] = set()
    for name, read in LAYOUTS.items():
        new = [clip for clip in read(files) if clip.audio not in paired]
        paired |= (there := {clip.audio for clip in new})
        clips += new
        if there:
            found[name] = len(there)
    for path in files.audio:
        if path not in paired:
            files.leave_out(path, "audio without transcript")
    clips = list(_with_words(_with_ends(_once(clips, files)), files, normalizer))
    if not clips:
        # What a list or text lacks says more than each recording that is without a transcript for it.
        causes = [one for one in files.left_out if one.why != "audio without transcript"]
        cause = f" {causes[0].what}: {causes[0].why.rstrip('.')}." if causes else ""
        raise DataError(
            f"{root}: no recording with a transcript: {len(files.audio)} recordings, "
            f"{len(files.texts)} other files{_endings(files.texts)}.{cause} Expected one of "
            f"{', '.join(LAYOUTS)}: see docs/your-data.md. Put a name.txt beside "
            "each name.wav, or correct the path."
        )
    clips = _with_ids(_with_speakers(clips, root), root)
    whole = clips, ["all"] * len(clips), "none"
    used, splits, split_by = whole if split == "none" else _split(clips, files, seed)
    collector = _collect(used, splits, files)
    reading = collector.finish()
    return FolderReading(reading.splits, files.left_out + reading.left_out, dict(found), split_by)


def _endings(paths: Sequence[Path]) -> str:
    """Which endings files have, the most frequent first; "" where there is no file."""
    counts = Counter(path.suffix or path.name for path in paths)
    named = [f"{count:,} {ending}" for ending, count in counts.most_common(_ENDINGS)]
    return f" ({', '.join(named)}{', ...' if len(counts) > _ENDINGS else ''})" if named else ""


def check_outside(root: Path, output: Path, option: str) -> None:
    """Refuse to write manifests among the recordings: the next reading would take them for transcripts.

    Args:
        root: the folder of the recordings.
        output: where manifests are to go.
        option: that names it, for the message.

    Raises:
        SettingsError: it is inside.
    """
    if output.resolve().is_relative_to(root.resolve()):
        raise SettingsError(
            f"{option} {output}: is inside {root}, whose recordings are read: the next time its manifests "
            "would be taken for transcripts. Expected a folder outside. Choose another one."
        )


def _list(root: Path, readers: Mapping[str, SegmentReader]) -> FolderFiles:
    """All files of a folder, each once: of a folder and a link to it the folder counts, links come last."""
    audio: list[Path] = []
    texts: list[Path] = []
    left_out: list[LeftOut] = []
    visited: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        left_out.append(LeftOut(str(error.filename), f"unreadable folder: {error.strerror}"))

    links = [str(root)]
    for link in links:  # which grows
        for folder, below, names in os.walk(link, onerror=unreadable):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                below.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            paths = [os.path.join(folder, name) for name in sorted(below) if not name.startswith(".")]
            links += filter(os.path.islink, paths)
            below[:] = [os.path.basename(path) for path in paths if not os.path.islink(path)]
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith("."):
                    continue
                if path.is_file():
                    (audio if path.suffix.lower() in AUDIO_SUFFIXES else texts).append(path)
                else:
                    what = "a link that leads nowhere" if path.is_symlink() else "neither file nor folder"
                    left_out.append(LeftOut(str(path), what))
    return FolderFiles(root, audio, texts, readers, left_out)


def _once(clips: Sequence[Clip], files: FolderFiles) -> Sequence[Clip]:
    """What several lists have, such as all.tsv and test.tsv, once: as test, else dev, else training."""
    order = ("test", "dev", "train", "")
    best: dict[tuple[object, ...], Clip] = {}
    for clip in sorted(clips, key=lambda clip: order.index(_own_split(clip, files.root))):
        best.setdefault((clip.audio, clip.offset, clip.channel, clip.text), clip)
    for clip in clips:
        if best[clip.audio, clip.offset, clip.channel, clip.text] is not clip:
            files.leave_out(
                f"{clip.source}: {clip.audio.name}", "in another line or list, too", expected=True
            )
    kept = {id(clip) for clip in best.values()}
    texts: dict[Path, str] = {}  # of whole recordings
    once = []
    for clip in clips:
        whole = not clip.is_part and clip.claimed is None
        if id(clip) in kept and whole and texts.setdefault(clip.audio, clip.text) != clip.text:
            files.leave_out(
                f"{clip.source}: {clip.audio.name}", "another transcript of a recording that has one"
            )
        elif id(clip) in kept:
            once.append(clip)
    return once


def _with_ends(clips: Sequence[Clip]) -> Iterable[Clip]:
    """A length that somebody else wrote counts for parts of recordings; whole ones are measured."""
    count = Counter(clip.audio for clip in clips)
    for clip in clips:
        if clip.claimed and clip.end is None and (clip.offset or count[clip.audio] > 1):
            clip = replace(clip, end=clip.offset + clip.claimed)
        yield clip


def _with_words(clips: Iterable[Clip], files: FolderFiles, normalizer: str) -> Iterable[Clip]:
    for clip in clips:
        text = normalize(clip.text, normalizer)
        if clip.end is not None and text[:1] in ("[", "(") and text[-1:] in ("]", ")"):
            files.leave_out(f"{clip.source} {clip.offset:g} s: {text}", "a sound, no speech", expected=True)
        elif text:
            yield replace(clip, text=text)
        else:
            where = f" {clip.offset:g} s" if clip.end is not None else ""
            files.leave_out(f"{clip.audio}{where}", "no words in its transcript")


def _with_speakers(clips: Sequence[Clip], root: Path) -> Sequence[Clip]:
    """Speakers by the first folders below the root, where no layout names one and there are several."""
    if any(clip.speaker for clip in clips):
        return clips

    def folder(clip: Clip) -> str:
        if not clip.audio.is_relative_to(root):
            return ""
        parts = clip.audio.relative_to(root).parts[:-1]
        return next((part for part in parts if _words(part)[0] not in _NO_SPEAKER), "")

    names = {folder(clip) for clip in clips}
    if len(names) < 2 or "" in names:
        return clips
    return [replace(clip, speaker=folder(clip)) for clip in clips]


def _words(name: str) -> list[str]:
    """The words of train-clean-5, train_set, Train or eval2000, without numbers."""
    return [word.rstrip("0123456789") for word in re.split(r"[-_. ]+", name.lower())]


def _set(words: Sequence[str]) -> str:
    """The split that words name; Kaldi's train_dev and test_dev93 are dev. "" for none."""
    named = [_SPLITS[word] for word in words if word in _SPLITS]
    return "dev" if "dev" in named else named[0] if named else ""


def _with_ids(clips: Sequence[Clip], root: Path) -> list[Clip]:
    """Every clip with an id of its own."""
    taken: Counter[str] = Counter()
    named = []
    for clip in clips:
        name = clip.id or recording_name(clip.audio, root)
        taken[name] += 1
        while taken[name] > 1 and f"{name}-{taken[name]}" in taken:
            taken[name] += 1
        if taken[name] > 1:
            name = f"{name}-{taken[name]}"
            taken[name] += 1
        named.append(replace(clip, id=name))
    return named


def _split(clips: Sequence[Clip], files: FolderFiles, seed: int) -> tuple[Sequence[Clip], Sequence[str], str]:
    """The clips that are in a split, the split of each, and how it was made."""
    root = files.root
    splits = [_own_split(clip, root) for clip in clips]
    sets = {name for name in splits if name}
    if sets <= {"train"}:
        drawn, how = _held_out(clips, seed, dev=0.1, test=0.1)
        if own := _set(_words(root.name)[:1]):
            how += f"; {root.name} is the name of one set, {own}: --split none keeps it whole"
        return clips, drawn, how
    how = "the folder's own, by the names of its files and folders, or by its lists"
    if "train" not in sets and "" in splits:
        splits = [name or "train" for name in splits]
        sets.add("train")
        how += "; what has no such name is train"
    for clip, name in zip(clips, splits, strict=True):
        if not name:
            files.leave_out(f"{clip.source}: {clip.id}", "in none of the folder's sets, train, dev and test")
    clips = [clip for clip, name in zip(clips, splits, strict=True) if name]
    splits = [name for name in splits if name]
    missing = {name: 0.0 if name in sets else 0.1 for name in ("dev", "test")}
    if "train" not in sets or not any(missing.values()):
        return clips, splits, how
    train = [clip for clip, name in zip(clips, splits, strict=True) if name == "train"]
    drawn, by = _held_out(train, seed, **missing)
    names = iter(drawn)
    splits = [next(names) if name == "train" else name for name in splits]
    made = next(name for name, share in missing.items() if share)
    return clips, splits, f"{how}; {made} of train, {by}"


def _held_out(clips: Sequence[Clip], seed: int, *, dev: float, test: float) -> tuple[list[str], str]:
    """Speakers, or utterances, for dev and test: the split of each clip, and how it was made."""
    counts = Counter(clip.speaker for clip in clips)
    small = [name for name, count in counts.items() if name and count <= _LARGEST_SHARE * len(clips)]
    if "" not in counts and len(small) >= 3:
        held = hold_out(small, dev, test, seed)
        return [held.get(clip.speaker, "train") for clip in clips], f"by speaker, of {len(counts)}"
    recordings = {clip.audio for clip in clips}
    if len(recordings) >= 10:  # parts of one recording share its room and its topic
        by = hold_out([str(path) for path in recordings], dev, test, seed)
        names = [by[str(clip.audio)] for clip in clips]
    else:
        by = hold_out([clip.id for clip in clips], dev, test, seed)
        names = [by[clip.id] for clip in clips]
    few = "1 speaker is" if len(counts) == 1 else f"{len(counts)} speakers are"
    reason = f"{few} too few to hold out" if any(counts) else "no speaker is named"
    return names, f"by utterance: {reason}, so that a score says nothing about other people"


def _own_split(clip: Clip, root: Path) -> str:
    """The split that a list gives it, or that the list, its folders or those of the audio are named after.

    A folder is named by its first word; of a list, such as yesno_supervisions_test.jsonl.gz, any counts. The
    name of a recording is no name of a set.
    """
    if found := _set(_words(clip.split)):
        return found
    for path in (clip.source, clip.audio):
        if path.is_relative_to(root):
            for part in path.relative_to(root).parts[:-1]:
                words = _words(part)
                if words[0] in _SPLITS:
                    return _set(words)
            is_list = path == clip.source and path.with_suffix("") != clip.audio.with_suffix("")
            if is_list and (found := _set(_words(path.name))):
                return found
    return ""


def _collect(clips: Sequence[Clip], splits: Sequence[str], files: FolderFiles) -> Collector:
    """Whole recordings, and parts that end within their recording."""
    collector = Collector(files.root.name)
    parts = [clip for clip in clips if clip.is_part]
    paths = list(dict.fromkeys(clip.audio for clip in parts))
    lengths = dict(zip(paths, measure(paths, files.root.name), strict=True))
    for clip, split in zip(clips, splits, strict=True):
        length = lengths.get(clip.audio)
        if not clip.is_part:
            collector.add(split, clip.id, clip.audio, clip.text, clip.speaker)
        elif isinstance(length, AudioError):
            files.leave_out(clip.audio, unreadable_audio(clip.audio, length))
        else:
            length = length or 0.0
            end = min(clip.end or float("inf"), length)
            shown = clip.source.suffix.lower() in files.readers  # a subtitle may stay after the last word
            overshoots = not shown and clip.end is not None and clip.end > length + SEGMENT_OVERSHOOT_S
            if end - clip.offset <= 0.02 or overshoots:
                ended = clip.end is not None and clip.end <= clip.offset
                why = "ends before it begins" if ended else "begins after the end of its recording"
                if overshoots and clip.offset < length:
                    why = f"ends at {clip.end:g} s, after the end of its recording, at {length:g} s"
                files.leave_out(f"{clip.audio} {clip.offset:g} s", f"a segment that {why}")
                continue
            collector.add_segment(
                split,
                Utterance(
                    id=clip.id, audio_filepath=clip.audio, duration=round(end - clip.offset, 6),
                    text=clip.text, speaker=clip.speaker, offset=clip.offset, channel=clip.channel,
                ),
            )  # fmt: skip
    return collector
