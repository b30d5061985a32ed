"""Large manifests as Arrow: columns in a file that is mapped into memory; utterances are made when needed.

A manifest of JSON Lines is read whole into Python objects. The same in Arrow is opened at once, whatever its
length, and processes that train together share its memory. `asr corpus convert --to arrow` checks all lines
and makes it; pyarrow and anything else that reads Arrow's IPC files can look inside.

The columns are the fields of `Utterance`, and two that save a start some work: `tar`, the number of the tar
file that holds the audio, -1 for none, and `hash`, that of the id, by which a training draws (`hash_ids`).
Paths are bytes, relative to the file's own folder where they are below it. The schema's metadata name the
text rules that the transcripts have gone through.
"""

import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError, SettingsError
from asr.files import atomic_path
from asr.frontend.augment.draws import hash_ids
from asr.frontend.tar_members import tar_of
from asr.manifests.lines import Row, missing_audio, parse_lines, unique_ids, unreadable
from asr.manifests.manifest import ARROW, plain_path
from asr.manifests.utterance import Utterance
from asr.progress import Progress
from asr.text.normalize import normalize

__all__ = ["ArrowManifest", "columns", "durations", "id_hashes", "tar_numbers", "write_arrow"]

log = logging.getLogger("asr")

_BLOCK = 1 << 14  # rows of a record batch
_PART = 1 << 11  # utterances whose fields are looked at together: they fit a processor's cache
_LISTED = 1_000_000  # names of files that conversion keeps while it checks that they exist
_KEY = b"asr manifest"  # in the metadata: the text rules, "" for text as it was
_DIGESTED = ("id", "text")
_DERIVED = ("tar", "hash")  # columns that are no fields of `Utterance`


class ArrowManifest(Sequence[Utterance]):
    """The utterances of one or more Arrow files, read-only; each is made when it is indexed.

    Args:
        paths: of the files.

    Raises:
        DataError: a file cannot be read, or is none of `write_arrow`.
        SettingsError: pyarrow is not installed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        readers = [_open(path) for path in paths]
        files = [
            [reader.get_batch(number) for number in range(reader.num_record_batches)] for reader in readers
        ]
        self._batches = [batch for batches in files for batch in batches]
        self._files = [number for number, batches in enumerate(files) for _ in batches]  # of each batch
        # Of each batch, and the end.
        self._starts = [0, *accumulate(batch.num_rows for batch in self._batches)]
        self._bases = [path.parent.absolute() for path in paths]
        rules = {reader.schema.metadata[_KEY].decode() for reader in readers}
        # The text rules that all transcripts have gone through; "" for none.
        self.normalizer = rules.pop() if len(rules) == 1 else ""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...

    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]  # from the end, or an IndexError
        block = bisect_right(self._starts, number) - 1
        batch, row = self._batches[block], number - self._starts[block]
        values = {
            name: batch.column(name)[row].as_py() for name in batch.schema.names if name not in _DERIVED
        }
        return _utterance(values, self._bases[self._files[block]])

    def __iter__(self) -> Iterator[Utterance]:
        for batch, file in zip(self._batches, self._files, strict=True):
            names = [name for name in batch.schema.names if name not in _DERIVED]
            lists = [batch.column(name).to_pylist() for name in names]
            for values in zip(*lists, strict=True):
                yield _utterance(dict(zip(names, values, strict=True)), self._bases[file])

    def __reduce__(self) -> tuple[Any, ...]:
        # Loader processes that are not forked open the files again.
        return ArrowManifest, (self.paths,)

    def columns(self, *names: str) -> Iterator[tuple[list[Any], ...]]:
        """See `columns`."""
        for batch in self._batches:
            fields = [batch.column(name) for name in names]
            for start in range(0, batch.num_rows, _PART):
                yield tuple(field.slice(start, _PART).to_pylist() for field in fields)

    def tar_numbers(self) -> NDArray[np.int32]:
        """(utterances,) of the tar file of each, -1 for none."""
        parts, first, end, last = [], 0, 0, 0
        for batch, file in zip(self._batches, self._files, strict=True):
            if file != last:  # each file counts from 0
                first, last = end, file
            numbers = batch.column("tar").to_numpy()
            parts.append(np.where(numbers < 0, np.int32(-1), numbers + np.int32(first)))
            end = max(end, int(parts[-1].max()) + 1)
        return np.concatenate(parts)

    def id_hashes(self) -> NDArray[np.uint64]:
        """(utterances,) of their ids."""
        return np.concatenate([batch.column("hash").to_numpy() for batch in self._batches])

    def digest(self) -> str:
        """Of ids, durations and transcripts; 10 million are read in seconds."""
        digest = blake2b(digest_size=8)
        for batch in self._batches:
            for name in _DIGESTED:
                _, ends, data = batch.column(name).buffers()
                ends = memoryview(ends)[: 4 * (batch.num_rows + 1)]
                digest.update(ends)
                digest.update(memoryview(data or b"")[: ends.cast("i")[-1]])
            digest.update(batch.column("duration").to_numpy().tobytes())
        return digest.hexdigest()


def columns(utterances: Sequence[Utterance], *names: str) -> Iterator[tuple[list[Any], ...]]:
    """Fields of utterances, in the order of these names, for two thousand utterances at a time.

    Args:
        utterances: a list, or an `ArrowManifest`, of which no utterance is made.
        names: of fields but for audio_filepath.
    """
    if isinstance(utterances, ArrowManifest):
        yield from utterances.columns(*names)
        return
    for start in range(0, len(utterances), _PART):
        part = utterances[start : start + _PART]
        yield tuple([getattr(one, name) for one in part] for name in names)


def durations(utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """(utterances,) seconds."""
    return np.concatenate([np.zeros(0), *(np.array(part) for (part,) in columns(utterances, "duration"))])


def id_hashes(utterances: Sequence[Utterance]) -> NDArray[np.uint64]:
    """(utterances,) `hash_ids` of their ids."""
    if isinstance(utterances, ArrowManifest):
        return utterances.id_hashes()
    return hash_ids([utterance.id for utterance in utterances])


def tar_numbers(utterances: Sequence[Utterance]) -> NDArray[np.int32] | None:
    """(utterances,) number of the tar file that holds each one's audio, -1 for none; None if none has any."""
    if isinstance(utterances, ArrowManifest):
        numbers = utterances.tar_numbers()
    else:
        tar_ids: dict[str, int] = {}
        numbers = np.array(
            [_tar_number(os.path.normpath(one.audio_filepath), tar_ids) for one in utterances], np.int32
        )
    return numbers if (numbers >= 0).any() else None


def write_arrow(manifest: Path, target: Path, normalizer: str = "") -> int:
    """Convert a manifest, line by line; after a failure an older file is unchanged.

    Args:
        manifest: JSON Lines.
        target: the Arrow file; its folder is made when missing.
        normalizer: text rules that the transcripts go through; "" for none.

    Returns:
        The number of utterances.

    Raises:
        DataError: as `read_manifest`, or the file cannot be written.
        SettingsError: pyarrow is not installed, or there are no such text rules.
    """
    normalize("", normalizer or "verbatim")
    base = plain_path(manifest.parent)
    folder = plain_path(target.parent).rstrip(os.sep) + os.sep
    numbers, names, audio = array("q"), list[str](), list[str]()
    listings: dict[str, frozenset[str]] = {}
    tar_ids: dict[str, int] = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            with _writer(temporary, normalizer) as write:
                for rows in _blocks(manifest):
                    paths = [os.path.normpath(os.path.join(base, row.audio)) for row in rows]
                    _check_audio(manifest, rows, paths, listings)
                    texts = [row.text for row in rows]
                    write(
                        id=[row.name for row in rows],
                        audio_filepath=[os.fsencode(path.removeprefix(folder)) for path in paths],
                        duration=[row.duration for row in rows],
                        text=[normalize(text, normalizer) for text in texts] if normalizer else texts,
                        speaker=[row.speaker for row in rows],
                        offset=[row.offset for row in rows],
                        channel=[row.channel for row in rows],
                        tar=[_tar_number(path, tar_ids) for path in paths],
                    )
                    numbers.extend(row.number for row in rows)
                    names += [row.name for row in rows]
                    audio += ["" if row.name else row.audio for row in rows]
            if not names:
                raise DataError(f"{manifest}: the manifest is empty. Expected at least one utterance.")
            ids = unique_ids(manifest, numbers, names, audio)
            if ids is not names:  # some were made of others' names: known at the end only
                _write_ids(temporary, ids, normalizer)
    except OSError as error:
        raise DataError(
            f"{target}: cannot write the manifest: {error.strerror or error}. Make room, or choose another "
            f"folder."
        ) from error
    return len(names)


def _blocks(manifest: Path) -> Iterator[list[Row]]:
    """The lines of a manifest, some thousand at a time; one that cannot be used is an error."""
    try:
        with manifest.open("rb") as file:
            progress = Progress("converting", os.fstat(file.fileno()).st_size)
            rows = _usable(file, manifest)
            while block := list(islice(rows, _BLOCK)):
                yield block
                progress.report(file.tell(), f"{block[-1].number} lines")
    except OSError as error:
        raise unreadable(manifest, error) from error


def _usable(lines: Iterable[bytes], manifest: Path) -> Iterator[Row]:
    for _, row in parse_lines(lines, manifest, allow_empty_text=False):
        if isinstance(row, DataError):
            raise row
        yield row


def _check_audio(
    manifest: Path, rows: Sequence[Row], paths: Sequence[str], listings: dict[str, frozenset[str]]
) -> None:
    if sum(map(len, listings.values())) > _LISTED:
        listings.clear()
    if missing := missing_audio(paths, listings):
        row, path = rows[missing[0]], paths[missing[0]]
        raise DataError(
            f"{manifest} line {row.number}: the audio file {path} does not exist. Relative paths are "
            f"relative to {plain_path(manifest.parent)}. Put the file back, correct the path, or remove the "
            f"line."
        )


def _tar_number(path: str, tar_ids: dict[str, int]) -> int:
    tar = tar_of(path)
    return tar_ids.setdefault(tar, len(tar_ids)) if tar else -1


def _utterance(values: dict[str, Any], base: Path) -> Utterance:
    return Utterance(**{**values, "audio_filepath": base / os.fsdecode(values["audio_filepath"])})


def _open(path: Path) -> Any:
    """The reader of a file, which is mapped into memory."""
    arrow = _pyarrow()
    try:
        reader = arrow.ipc.open_file(arrow.memory_map(os.fspath(path)))
    except OSError as error:
        raise unreadable(path, error) from error
    except arrow.ArrowInvalid as error:
        raise DataError(
            f"{path}: no Arrow file, or cut short: {error}. Convert the manifest again."
        ) from error
    if _KEY not in (reader.schema.metadata or {}):
        raise DataError(
            f"{path}: an Arrow file, but no manifest. Expected one of `asr corpus convert --to arrow`."
        )
    return reader


@contextmanager
def _writer(path: Path, normalizer: str) -> Iterator[Any]:
    """A function that writes a record batch of lists by their names."""
    arrow = _pyarrow()
    schema = arrow.schema(
        [
            ("id", arrow.string()), ("audio_filepath", arrow.binary()), ("duration", arrow.float64()),
            ("text", arrow.string()), ("speaker", arrow.string()), ("offset", arrow.float64()),
            ("channel", arrow.int32()), ("tar", arrow.int32()), ("hash", arrow.uint64()),
        ],
        metadata={_KEY: normalizer},
    )  # fmt: skip
    with arrow.OSFile(os.fspath(path), "wb") as file, arrow.ipc.new_file(file, schema) as writer:

        def write(**lists: Any) -> None:
            try:
                lists["hash"] = hash_ids(lists["id"])
                writer.write_batch(arrow.record_batch(lists, schema=schema))
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{error.object!r:.80} has half a character, U+{ord(error.object[error.start]):04X}, "
                    f"which UTF-8 cannot hold. Correct the line of the manifest."
                ) from error

        yield write


def _write_ids(path: Path, ids: Sequence[str], normalizer: str) -> None:
    """Write a file again with other ids."""
    start = 0
    with atomic_path(path) as temporary, _writer(temporary, normalizer) as write:
        reader = _open(path)
        for batch in map(reader.get_batch, range(reader.num_record_batches)):
            of_batch = dict(zip(batch.schema.names, batch.columns, strict=True))
            write(**{**of_batch, "id": list(ids[start : start + batch.num_rows])})
            start += batch.num_rows


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise SettingsError(
            f"manifests with the ending {ARROW} need pyarrow, which cannot be imported ({error}). "
            "Type: pip install '.[arrow]' (or: pip install pyarrow)."
        ) from error
    return pyarrow
