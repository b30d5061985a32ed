"""Pack all that the GPU kit needs on a machine without a network: wheels, speech, and the project itself.

python -m benchmarks.gpu.pack --speech DIR [--archive FILE.tar]

DIR holds LibriSpeech/ with train-clean-5 and dev-clean. The bundle (wheels/ and speech/) is made beside this
file and is not committed; what it holds already is not made again. With --archive, one tar holds the
committed state of the project and the bundle in its place: unpack it, and run `python3 -m benchmarks.gpu` in
it. Needs the extra [dev] or [bench] (PyAV encodes the speech as Opus).
"""

import argparse
import random
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import soundfile

from asr.corpora.librispeech import read_part, split_by_speaker
from asr.device import usable_cores
from asr.errors import AsrError, DataError
from asr.frontend.augment.codec import encode_opus
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUNDLE = HERE / "bundle"
MIB = 2**20
_PLATFORMS = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__.split("\n")[0])
    parser.add_argument("--speech", type=Path, required=True, help="folder that holds LibriSpeech/")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="folder to fill (default: %(default)s)")
    parser.add_argument("--kbits", type=float, default=12.0, help="of the Opus files, kbit/s (12)")
    parser.add_argument("--dev-minutes", type=float, default=40.0, help="of dev-clean (40)")
    parser.add_argument("--train-minutes", type=float, help="of train-clean-5 (default: all)")
    parser.add_argument("--archive", type=Path, help="write the project and the bundle as one tar")
    parser.add_argument(
        "--leave-out", nargs="*", default=["asr/models"], help="paths of the project (asr/models)"
    )
    parser.add_argument("--limit-mib", type=float, default=60.0, help="refuse to be larger (60)")
    options = parser.parse_args(arguments)
    try:
        pack(options)
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pack(options: argparse.Namespace) -> None:
    """Make the bundle and, if asked for, the archive; print their sizes.

    Raises:
        DataError: the speech is not there, a wheel cannot be had, or all together is too large.
    """
    bundle: Path = options.bundle
    collect_wheels(bundle / "wheels")
    corpus = options.speech / "LibriSpeech"
    train = take(read_part(corpus / "train-clean-5"), options.train_minutes)
    dev = take(split_by_speaker(read_part(corpus / "dev-clean"))[0], options.dev_minutes)
    for name, utterances in (("train", train), ("dev", dev)):
        encode(utterances, bundle / "speech", name, options.kbits)
    (bundle / "commit").write_text(git("rev-parse", "--short", "HEAD"), encoding="utf-8")
    sizes = {folder.name: size_of(folder) for folder in (bundle / "wheels", bundle / "speech")}
    sizes["project"] = sum(path.stat().st_size for path in tracked(options.leave_out))
    total = sum(sizes.values()) / MIB
    for name, size in sizes.items():
        print(f"{name:8} {size / MIB:6.1f} MiB")
    print(f"{'total':8} {total:6.1f} MiB")
    if total > options.limit_mib:
        raise DataError(
            f"the kit has {total:.1f} MiB, expected at most {options.limit_mib:g}. Lower --kbits, "
            f"--dev-minutes or --train-minutes (and remove {bundle / 'speech'}), or name more in --leave-out."
        )
    if options.archive:
        write_archive(options.archive, bundle, options.leave_out)
        print(f"{options.archive}: {options.archive.stat().st_size / MIB:.1f} MiB")


def collect_wheels(folder: Path) -> None:
    """Download the wheels of wheels.txt that are not there yet.

    Raises:
        DataError: pip cannot get one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = (HERE / "wheels.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    there = {"==".join(path.name.split("-")[:2]).replace("_", "-").lower() for path in folder.glob("*.whl")}
    missing = [name for name in wanted if name.replace("_", "-").lower() not in there]
    if not missing:
        return
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--python-version", "3.12", "--implementation", "cp", "--dest", str(folder),
        *(f"--platform=manylinux_{version}_x86_64" for version in _PLATFORMS),
        *("--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64", "--platform=any"), *missing,
    ]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        raise DataError(f"pip cannot download {' '.join(missing)}; see above. Correct wheels.txt.")


def take(utterances: Sequence[Utterance], minutes: float | None) -> list[Utterance]:
    """So many minutes, drawn from all utterances and left in their order; None takes all."""
    if minutes is None:
        return list(utterances)
    order = list(range(len(utterances)))
    random.Random(1).shuffle(order)
    chosen, seconds = set(), 0.0
    for index in order:
        seconds += utterances[index].duration
        if seconds > 60 * minutes:
            break
        chosen.add(index)
    return [utterance for index, utterance in enumerate(utterances) if index in chosen]


def encode(utterances: Sequence[Utterance], folder: Path, name: str, kbits: float) -> None:
    """Write utterances as Opus files below folder/name, and their manifest folder/name.jsonl.

    Files that are there already are kept, so that an interrupted call goes on.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)

    def write(utterance: Utterance) -> Utterance:
        path = folder / name / f"{utterance.id}.opus"
        if not path.exists():
            samples, rate = soundfile.read(utterance.audio_filepath, dtype="int16")
            part = path.with_suffix(".part")
            part.write_bytes(encode_opus(samples, rate, kbits))
            part.rename(path)
        return replace(utterance, audio_filepath=path.absolute())

    with ThreadPoolExecutor(usable_cores()) as pool:  # both libraries let go of Python's lock
        written = []
        for number, utterance in enumerate(pool.map(write, utterances), start=1):
            written.append(utterance)
            if number % 200 == 0 or number == len(utterances):
                print(f"{name}: {number} of {len(utterances)} utterances", flush=True)
    write_manifest(folder / f"{name}.jsonl", written)


def tracked(leave_out: Sequence[str]) -> list[Path]:
    """The project's committed files that would travel."""
    names = git("ls-files", "-z", "--", ".", *(f":!{path}" for path in leave_out)).split("\0")
    return [path for path in (ROOT / name for name in names if name) if path.is_file()]


def git(*arguments: str) -> str:
    """What a git command prints, in the project's folder."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_archive(archive: Path, bundle: Path, leave_out: Sequence[str]) -> None:
    """One tar: the committed state of the project, and the bundle where the kit looks for it."""
    exclude = [f":!{path}" for path in leave_out]
    git("archive", "--prefix=asr-gpu-kit/", "-o", str(archive.absolute()), "HEAD", "--", ".", *exclude)
    with tarfile.open(archive, "a") as tar:
        tar.add(bundle, f"asr-gpu-kit/{BUNDLE.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
