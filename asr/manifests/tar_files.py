"""Recordings in tar files, as webdataset reads them, with a manifest that names the bytes of each.

Of an utterance u1 a tar file has u1.flac (or whatever ending the recording has), u1.txt, the transcript, and
u1.json, the fields of the manifest. The manifest beside them, manifest.jsonl, names FILE.tar:OFFSET:SIZE, so
that a recording is found without reading the tar file from its start.

Utterances are in a random order, so that any few tar files are a fair sample of the whole, as those who read
one file after the other need it.

Source: webdataset's documentation of its format: files of a sample follow each other, and have the same name
up to its first dot.
"""

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from asr.errors import AudioError, DataError
from asr.files import atomic_path
from asr.frontend.audio import audio_info, read_audio
from asr.frontend.tar_members import is_member
from asr.manifests.arrow import durations
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.progress import Progress

__all__ = ["write_tar_files"]

log = logging.getLogger("asr")

_TAR_S = 20_000.0  # seconds of speech in a tar file: 400 MB of FLAC, 640 MB of wav
_UNUSED_S = 0.5  # a recording that is longer than its utterance by more is cut


def write_tar_files(utterances: Sequence[Utterance], folder: Path, tar_s: float = _TAR_S) -> Path:
    """Write tar files and their manifest; after an interruption, only the files that are missing.

    A recording that an utterance is the whole of is copied as it is; others are cut, and written as FLAC of
    16 bits.

    Args:
        utterances: with audio in files of their own.
        folder: which gets 000000.tar, 000001.tar, ... and manifest.jsonl; made when missing.
        tar_s: seconds of speech in a tar file.

    Returns:
        The manifest.

    Raises:
        AudioError: a recording cannot be read.
        DataError: two utterances have the same name, or the disk does not allow it; tar files that are
            complete stay for the next start.
    """
    order = np.random.default_rng(0).permutation(len(utterances))
    numbers = (np.cumsum(durations(utterances)[order]) // tar_s).astype(np.int64)  # of each one's tar file
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    groups = np.split(order, starts[1:])
    manifest = folder / "manifest.jsonl"
    finished = manifest.exists()  # no interrupted start: recordings may have changed since
    progress = Progress("tar files", len(utterances))

    def written() -> Iterator[Utterance]:
        done = 0
        for number, group in enumerate(groups):
            path = folder / f"{number:06d}.tar"
            members = {_name(utterances[index].id): index for index in group.tolist()}
            if len(members) < len(group):
                raise DataError(
                    f"{path}: two utterances have the same id but for dots and slashes, which names in a tar "
                    f"file cannot have. Rename one."
                )
            if finished or not _is_complete(path, [utterances[index] for index in members.values()]):
                with atomic_path(path) as temporary, tarfile.open(temporary, "w") as tar:
                    for name, index in members.items():
                        _add(tar, name, utterances[index])
            yield from _read(path)
            done += len(group)
            progress.report(done, f"{done} of {len(utterances)} utterances in {number + 1} files")

    write_manifest(manifest, written())
    return manifest


def _name(utterance_id: str) -> str:
    """The name of a sample: all up to the first dot, and no folder."""
    return utterance_id.replace(".", "_").replace("/", "_")


def _is_complete(path: Path, utterances: Sequence[Utterance]) -> bool:
    """Whether a tar file of an interrupted start has these utterances, in this order."""
    if not path.exists():
        return False
    wanted = [(one.id, one.text, one.speaker) for one in utterances]
    return [(one.id, one.text, one.speaker) for one in _read(path)] == wanted


def _add(tar: tarfile.TarFile, name: str, utterance: Utterance) -> None:
    try:
        data, suffix, duration = _recording(utterance)
    except AudioError as error:
        raise AudioError(f"utterance {utterance.id}: {error}") from error
    fields = {
        "id": utterance.id, "duration": duration, "text": utterance.text, "speaker": utterance.speaker,
    }  # fmt: skip
    for ending, content in (
        (suffix, data),
        (".txt", utterance.text.encode()),
        (".json", json.dumps(fields, ensure_ascii=False).encode()),
    ):
        member = tarfile.TarInfo(name + ending)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _recording(utterance: Utterance) -> tuple[bytes, str, float]:
    """The bytes of an utterance's recording, the ending of its name, and its seconds."""
    path = utterance.audio_filepath
    if is_member(path):
        raise AudioError(f"{path} is in a tar file already. Name the manifest that it was made from.")
    info = audio_info(path)
    if (
        not utterance.offset
        and utterance.channel is None
        and info.duration_s <= utterance.duration + _UNUSED_S
    ):
        return path.read_bytes(), path.suffix.lower() or ".audio", utterance.duration
    waveform = read_audio(
        path,
        info.sample_rate,
        offset_s=utterance.offset,
        duration_s=utterance.duration,
        channel=utterance.channel,
    )
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), info.sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue(), ".flac", len(waveform) / info.sample_rate


def _read(path: Path) -> Iterator[Utterance]:
    """The utterances of a tar file that was written here."""
    audio = path  # of the sample
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                file = tar.extractfile(member)
                fields = json.load(file) if file else {}
                yield Utterance(audio_filepath=audio, **fields)
            elif not member.name.endswith(".txt"):
                audio = path.with_name(f"{path.name}:{member.offset_data}:{member.size}").absolute()
