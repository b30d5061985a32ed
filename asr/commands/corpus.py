"""`asr corpus`: public corpora and folders of your own, as manifests; manifests for other toolkits."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from asr.commands.common_options import Rules
from asr.commands.options import check_folder
from asr.corpora.catalogue import CORPORA, find_corpus
from asr.corpora.corpus import Corpus, LeftOut
from asr.corpora.folder.reading import SplitBy, check_outside, read_folder
from asr.errors import AsrError, DataError, SettingsError
from asr.files import json_line, write_text
from asr.manifests.arrow import ArrowManifest, write_arrow
from asr.manifests.convert import convert
from asr.manifests.manifest import ARROW, read_manifest, write_manifest
from asr.manifests.tar_files import write_tar_files
from asr.manifests.utterance import Utterance
from asr.progress import size_text
from asr.transcripts.segments import SEGMENT_READERS

__all__ = [
    "CorpusConvertSettings", "CorpusFolderSettings", "CorpusListSettings", "CorpusPrepareSettings",
    "run_folder", "run_list", "run_prepare",
]  # fmt: skip

log = logging.getLogger("asr")

_LEFT_OUT = "left_out.jsonl"


@dataclass(frozen=True)
class CorpusListSettings:
    """List the public corpora that can be prepared, from the smallest to the largest, or show some."""

    # Show all that is known of these: parts, addresses, sizes, checksums, how to get them.
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME...")] = ()


@dataclass(frozen=True)
class CorpusPrepareSettings:
    """Write train.jsonl, dev.jsonl and test.jsonl of a public corpus: official splits, speakers, lengths.

    What is in none of them (a transcript without audio, audio without a transcript) is counted, and listed in
    left_out.jsonl.
    """

    # The corpus, as `asr corpus list` names it.
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    # Its folder, or the one that holds it; used as it is.
    root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    # Fetch it into --dir, unless it is there: resumed where it was interrupted, verified, unpacked.
    download: bool = False
    # As --download, but use only archives that are in --dir; what is missing is named with its address.
    offline: bool = False
    # Where downloads go.
    dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    # Which parts, where there are some: train-clean-100 of LibriSpeech, german of MLS, de of Common Voice.
    # Default: what the folder holds.
    parts: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART...")] = ()
    # The manifests go into a folder in this one, named after the corpus.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("manifests")
    # Text rules: verbatim, lower, english or words (words:tr for Turkish). Default: those that suit the
    # corpus, in its language.
    normalizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None

    def __post_init__(self) -> None:
        if self.root is not None and (self.download or self.offline):
            raise SettingsError("--root and a download are given. Expected one of them.")


@dataclass(frozen=True)
class CorpusFolderSettings:
    """Write train.jsonl, dev.jsonl and test.jsonl of a folder of your own recordings.

    A folder that has such sets, as those of Kaldi and lhotse do, keeps them. Understands a name.txt, .lab,
    .TextGrid, .srt or .vtt beside each recording, tables (.tsv, .csv), *.trans.txt of LibriSpeech,
    metadata.csv of LJSpeech and Coqui, folders of Kaldi, manifests of NeMo and lhotse. What has no partner is
    counted, and listed in left_out.jsonl.
    """

    # The folder, which is only read; those below it are searched, too.
    root: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    # The manifests go into a folder in this one, of the same name as DIR.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("manifests")
    # auto keeps the sets of a folder that has some, such as train, dev and test, and draws them otherwise.
    # none writes all into one manifest, all.jsonl.
    split: SplitBy = "auto"
    # Of the choice of speakers, or utterances, for dev and test.
    seed: int = 0
    normalizer: Rules = "verbatim"


@dataclass(frozen=True)
class CorpusConvertSettings:
    """Write a manifest in another form: of another toolkit, or for millions of utterances.

    kaldi: wav.scp, segments, text, utt2spk, spk2utt. nemo: manifest.jsonl. lhotse: recordings.jsonl.gz and
    supervisions.jsonl.gz. csv: manifest.csv. `asr corpus folder` reads all four back.

    arrow: manifest.arrow, which all commands read as they read JSONL, and which takes no memory. webdataset:
    the recordings in tar files, and manifest.jsonl, which says where in them each one is.
    """

    # JSONL, or Arrow.
    manifest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]
    # The form.
    to: Literal["kaldi", "nemo", "lhotse", "csv", "webdataset", "arrow"]
    # The folder for its files.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    # For arrow: text rules that transcripts go through, verbatim, lower, english or words; a training with
    # the same rules starts sooner. Default: as they are.
    normalizer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None

    def __post_init__(self) -> None:
        if self.normalizer is not None and self.to != "arrow":
            raise SettingsError(f"--normalizer is for --to arrow. Got --to {self.to}. Leave it out.")


def run_list(settings: CorpusListSettings) -> str:
    """A table of all corpora, or all that is known of some.

    Raises:
        SettingsError: there is no corpus of a name.
    """
    if settings.names:
        return "\n\n".join(_describe(find_corpus(name)) for name in settings.names)
    rows = [("name", "hours", "speakers", "licence", "get it by", "language")]
    for corpus in CORPORA.values():
        how = "--download" if corpus.downloadable else "comes along" if corpus.embedded else "--root DIR"
        facts = (_number(corpus.hours), _number(corpus.speakers))
        rows.append((corpus.name, *facts, corpus.licence, how, corpus.languages))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, hours, speakers, *others in rows:
        cells = [f"{name:<{widths[0]}}", f"{hours:>{widths[1]}}", f"{speakers:>{widths[2]}}"]
        cells += [f"{text:<{width}}" for text, width in zip(others, widths[3:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines += ["", "-: it depends on language and release. `asr corpus list NAME` shows parts and addresses."]
    return "\n".join(lines)


def run_prepare(settings: CorpusPrepareSettings) -> list[tuple[str | None, AsrError | None]]:
    """Write the manifests of a corpus.

    Returns:
        The summary to print, with an error if something of the corpus is in no manifest.

    Raises:
        DataError: the folder is not that of the corpus, nothing in it can be used, or a manifest cannot be
            written.
        DownloadError: it could not be fetched.
        SettingsError: an unknown corpus or part, or no way to get it is named.
    """
    corpus = find_corpus(settings.name)
    with _own_option_names():
        parts = corpus.choose(settings.parts)
        folder = settings.output / ("-".join((corpus.name, *parts)) if corpus.one_part else corpus.name)
        check_folder(folder)
        root = settings.root
        if settings.download or settings.offline:
            root = corpus.download(settings.dir, parts, offline=settings.offline)
        elif root is None and not corpus.embedded:
            if not corpus.downloadable:
                raise SettingsError(f"{corpus.name}: --root is missing. {corpus.instructions}")
            raise SettingsError(
                f"{corpus.name}: neither --root nor --download is given. Expected --root DIR or --download."
            )
        reading = corpus.prepare(root, parts, settings.normalizer or "")
    return _write(folder, reading.splits, reading.left_out, [])


def run_folder(settings: CorpusFolderSettings) -> list[tuple[str | None, AsrError | None]]:
    """Write the manifests of a folder.

    Returns:
        The summary to print, with an error if something of the folder is in no manifest.

    Raises:
        DataError: no recording in it has a transcript, or a manifest cannot be written.
        SettingsError: the target cannot be written or is inside the folder, or the text rules are unknown.
    """
    folder = settings.output / (settings.root.resolve().name or "folder")
    check_outside(settings.root, folder, "--output")
    check_folder(folder)
    reading = read_folder(
        settings.root,
        SEGMENT_READERS,
        seed=settings.seed,
        normalizer=settings.normalizer,
        split=settings.split,
    )
    found = ", ".join(f"{count:,} {name}" for name, count in reading.found.items())
    lines = [f"recordings by layout: {found}", f"split: {reading.split_by}"]
    return _write(folder, reading.splits, reading.left_out, lines)


def run_convert(settings: CorpusConvertSettings) -> str:
    """Convert a manifest; the summary to print.

    Raises:
        AudioError: a recording cannot be read.
        DataError: the manifest cannot be read, cannot be said in this form, or cannot be written.
        SettingsError: the target is the manifest itself, or cannot be written.
    """
    manifest, output = settings.manifest, settings.output
    check_folder(output)
    if settings.to == "arrow":
        if manifest.suffix == ARROW:
            raise SettingsError(f"{manifest} is Arrow already. Expected JSONL.")
        target = output / f"manifest{ARROW}"
        return f"{write_arrow(manifest, target, settings.normalizer or ''):,} utterances: {target}"
    if (output / "manifest.jsonl").resolve() == manifest.resolve():
        raise SettingsError(f"--output: {manifest} would be overwritten. Choose another folder.")
    utterances = ArrowManifest([manifest]) if manifest.suffix == ARROW else read_manifest(manifest)
    if settings.to == "webdataset":
        files = [write_tar_files(utterances, output)]
    else:
        files = convert(utterances, settings.to, output)
    return f"{len(utterances):,} utterances: {', '.join(map(str, files))}"


def _write(
    folder: Path, splits: dict[str, list[Utterance]], left_out: Sequence[LeftOut], lines: list[str]
) -> list[tuple[str | None, AsrError | None]]:
    """Write the manifests and the list of what is in none; the summary, and an error if that is not empty."""
    for split in ("train", "dev", "test", "all"):
        if split not in splits:  # one of an earlier run would look like a part of this one
            (folder / f"{split}.jsonl").unlink(missing_ok=True)
    for split, utterances in splits.items():
        write_manifest(folder / f"{split}.jsonl", utterances)
    _write_left_out(folder / _LEFT_OUT, left_out)
    lines = [_summary(folder, splits), *lines]
    shared = _shared_speakers(splits)
    if shared:
        lines.append(f"speakers of dev or test who are in train, too: {shared}")
    expected = [one for one in left_out if one.expected]
    unexpected = [one for one in left_out if not one.expected]
    if expected:
        lines.append(f"left out, as in every copy: {_causes(expected)}")
    results: list[tuple[str | None, AsrError | None]] = [("\n".join(lines), None)]
    if unexpected:
        listed = f"All are in {folder / _LEFT_OUT}; the others were written."
        results.append((None, DataError(f"left out: {_causes(unexpected)}. {listed}")))
    return results


@contextlib.contextmanager
def _own_option_names() -> Iterator[None]:
    """Corpora name options as recipes have them; here they are shorter."""
    try:
        yield
    except AsrError as error:
        text = str(error).replace("--data.root", "--root").replace("--data.parts", "--parts")
        text = text.replace("or leave it out to download", "or give --download in its place to fetch")
        raise type(error)(text) from error


def _summary(folder: Path, splits: dict[str, list[Utterance]]) -> str:
    rows = [("manifest", "utterances", "hours", "speakers", "words")]
    for split, utterances in splits.items():
        speakers = len({utterance.speaker for utterance in utterances} - {""})
        rows.append((
            str(folder / f"{split}.jsonl"), f"{len(utterances):,}",
            f"{sum(utterance.duration for utterance in utterances) / 3600:.2f}",
            str(speakers or "-"), f"{sum(len(utterance.text.split()) for utterance in utterances):,}",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{path:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        for path, *cells in rows
    )


def _shared_speakers(splits: dict[str, list[Utterance]]) -> int:
    """How many speakers of dev or test are in train."""
    of = {name: {one.speaker for one in utterances} - {""} for name, utterances in splits.items()}
    return len(of.get("train", set()) & (of.get("dev", set()) | of.get("test", set())))


def _write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    if not left_out:
        path.unlink(missing_ok=True)
        return
    try:
        write_text(path, (json_line(asdict(one)) for one in left_out))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}. Choose another folder.") from error


def _causes(left_out: Sequence[LeftOut]) -> str:
    """How much was left out, and why, with an example of each."""
    first = {one.why.partition(":")[0]: one.what for one in reversed(left_out)}
    causes = Counter(one.why.partition(":")[0] for one in left_out).most_common()
    return "; ".join(f"{count} {why}, such as {first[why]!r}" for why, count in causes)


def _describe(corpus: Corpus) -> str:
    archives = {"": corpus.archives, **corpus.parts}
    lines = [
        f"{corpus.name}: {corpus.title}",
        f"  hours {_number(corpus.hours)}, speakers {_number(corpus.speakers)}, {corpus.languages}",
        f"  licence: {corpus.licence}",
        f"  described at: {corpus.source}",
        f"  text rules: {corpus.normalizer}",
    ]
    if corpus.instructions:
        lines.append(f"  how to get it: {corpus.instructions}")
    if corpus.parts:
        which = "one of" if corpus.one_part else "any of"
        lines.append(f"  --parts: {which} {' '.join(corpus.parts)}")
    for archive in [archive for found in archives.values() for archive in found][:40]:
        algorithm, digest = archive.checksum
        size = size_text(archive.size_bytes) if archive.size_bytes else "size not published"
        lines.append(f"  {archive.url}\n    {size}, {f'{algorithm} {digest}' if digest else 'unverified'}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")
