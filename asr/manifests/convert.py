"""A manifest in the form of another toolkit: Kaldi's data folder, NeMo's and lhotse's manifests, a table.

    kaldi    wav.scp, segments, text, utt2spk, spk2utt; sorted by id as by LC_ALL=C sort
    nemo     manifest.jsonl: audio_filepath (absolute), duration, offset, text, speaker
    lhotse   recordings.jsonl.gz and supervisions.jsonl.gz
    csv      manifest.csv: id, path, offset, duration, speaker, text

`asr.manifests.tar_files` writes webdataset's tar files, `asr.manifests.arrow` a large manifest for this
package.

Source: "Data preparation" of Kaldi's documentation (utt2spk is sorted by speaker, too, since ids begin with
it); NeMo's documentation of ASR datasets; lhotse's Recording, AudioSource and SupervisionSegment (to_dict).
"""

import csv
import gzip
import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from asr.errors import AudioError, DataError
from asr.files import atomic_path, json_line
from asr.frontend.audio import AudioInfo, audio_info
from asr.frontend.tar_members import tar_of
from asr.manifests.utterance import Utterance

__all__ = ["CONVERTERS", "Target", "convert"]

Target = Literal["kaldi", "nemo", "lhotse", "csv"]


def convert(utterances: Sequence[Utterance], target: Target, folder: Path) -> list[Path]:
    """Write the files of another toolkit.

    Args:
        utterances: of a manifest.
        target: the toolkit.
        folder: which gets the files; made when missing.

    Returns:
        The files that were written.

    Raises:
        AudioError: a recording cannot be read (lhotse needs its rate and length).
        DataError: an utterance cannot be written in this form, or the disk does not allow it.
    """
    for one in utterances if target != "csv" else ():
        if tar := tar_of(one.audio_filepath.name):
            raise DataError(
                f"utterance {one.id}: its recording is a part of {tar}, which {target} does not find. "
                "Expected recordings that are files. Convert the manifest that the tar files were made from."
            )
    contents = CONVERTERS[target](utterances)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # all files get their names at the end, or none: half a folder misleads
            for name, text in contents.items():
                data = text.encode("utf-8", errors="surrogateescape")
                temporary = stack.enter_context(atomic_path(folder / name))
                temporary.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}. Choose another folder.") from error
    return [folder / name for name in contents]


def _kaldi(utterances: Sequence[Utterance]) -> dict[str, str]:
    """An id of Kaldi has no spaces, and begins with the speaker, so that both sort alike."""
    recordings: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {name: {} for name in ("text", "segments", "utt2spk")}
    by_speaker: dict[str, list[str]] = defaultdict(list)
    for one in utterances:
        path = str(one.audio_filepath)
        if one.channel is not None or re.search(r"\s", path):
            what = "reads a channel" if one.channel is not None else f"the path has spaces: {path}"
            raise DataError(
                f"utterance {one.id}: {what}, which a wav.scp of plain paths cannot say. Expected a mono "
                "recording without spaces in its path. Copy the recording, or choose another format."
            )
        name, speaker = _word(one.id), _word(one.speaker)
        if speaker and not name.startswith(f"{speaker}-"):
            name = f"{speaker}-{name}"
        if name in files["text"]:
            raise DataError(f"utterance {one.id}: without spaces its id is {name}, as that of another one.")
        recordings[_recording_id(one)] = path
        files["text"][name] = one.text
        files["segments"][name] = f"{_recording_id(one)} {one.offset:.3f} {one.offset + one.duration:.3f}"
        files["utt2spk"][name] = speaker or name
        by_speaker[speaker or name].append(name)
    files["wav.scp"] = recordings
    files["spk2utt"] = {speaker: " ".join(sorted(names)) for speaker, names in by_speaker.items()}
    return {
        name: "".join(f"{key} {value}\n" for key, value in sorted(rows.items(), key=_as_in_c))
        for name, rows in files.items()
    }


def _as_in_c(item: tuple[str, str]) -> bytes:
    return item[0].encode("utf-8", errors="surrogateescape")


def _word(name: str) -> str:
    return "_".join(name.split())


def _recording_id(one: Utterance) -> str:
    """A name for the file, unique since it is its path."""
    return re.sub(r"[\s/]+", "-", str(one.audio_filepath.with_suffix(""))).strip("-") + (
        "-" + one.audio_filepath.suffix.removeprefix(".")
    )


def _nemo(utterances: Sequence[Utterance]) -> dict[str, str]:
    rows = [
        {
            "audio_filepath": str(one.audio_filepath), "duration": one.duration, "text": one.text,
            **({"offset": one.offset} if one.offset else {}),
            **({"speaker": one.speaker} if one.speaker else {}),
            **({"channel": one.channel} if one.channel is not None else {}),
            "id": one.id,
        }
        for one in utterances
    ]  # fmt: skip
    return {"manifest.jsonl": "".join(map(json_line, rows))}


def _lhotse(utterances: Sequence[Utterance]) -> dict[str, str]:
    infos: dict[Path, AudioInfo] = {}
    for one in utterances:
        if one.audio_filepath not in infos:
            try:
                infos[one.audio_filepath] = audio_info(one.audio_filepath)
            except AudioError as error:
                raise AudioError(f"utterance {one.id}: {error}") from error
    names = {one.audio_filepath: _recording_id(one) for one in utterances}
    recordings = [
        {
            "id": names[path],
            "sources": [{"type": "file", "channels": [*range(info.channels)], "source": str(path)}],
            "sampling_rate": info.sample_rate, "num_samples": info.samples, "duration": info.duration_s,
            "channel_ids": [*range(info.channels)],
        }
        for path, info in infos.items()
    ]  # fmt: skip
    supervisions = [
        {
            "id": one.id, "recording_id": names[one.audio_filepath], "start": one.offset,
            "duration": one.duration, "channel": _lhotse_channel(one, infos[one.audio_filepath].channels),
            "text": one.text,
            **({"speaker": one.speaker} if one.speaker else {}),
        }
        for one in utterances
    ]  # fmt: skip
    return {
        "recordings.jsonl.gz": "".join(map(json_line, recordings)),
        "supervisions.jsonl.gz": "".join(map(json_line, supervisions)),
    }


def _lhotse_channel(one: Utterance, count: int) -> int | list[int]:
    """All channels of the file, where all are mixed."""
    if one.channel is not None:
        return one.channel
    return 0 if count == 1 else [*range(count)]


def _csv(utterances: Sequence[Utterance]) -> dict[str, str]:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "path", "offset", "duration", "channel", "speaker", "text"])
    for one in utterances:
        channel = "" if one.channel is None else one.channel
        path = str(one.audio_filepath)
        writer.writerow([one.id, path, one.offset, one.duration, channel, one.speaker, one.text])
    return {"manifest.csv": table.getvalue()}


CONVERTERS: dict[Target, Callable[[Sequence[Utterance]], dict[str, str]]] = {
    "kaldi": _kaldi, "nemo": _nemo, "lhotse": _lhotse, "csv": _csv,
}  # fmt: skip
"""What makes the contents of the files, by toolkit."""
