"""Asterisk's voice prompts from Debian packages: studio speech in five languages (en, es, fr, it, ru).

The sounds of the telephone exchange Asterisk (core-sounds 1.6.1): one speaker a language (Allison Smith,
June Wallack, Carlo Flora, a woman of ivrvoice.ru), about 500 prompts and 0.4 h each. G.722 at 16 kHz is read
(the package -wav has 8 kHz). Licences: CC BY-SA 3.0 (en, es, fr), CC BY 3.0 (it, ru), as the packages say.
A language is a corpus of its own.

    usr/share/doc/asterisk-core-sounds-es/core-sounds-es.txt.gz         "agent-pass: Por favor ingrese …"
    usr/share/asterisk/sounds/es_MX_f_Allison/agent-pass.g722 …

The packages are fetched by `apt-get download`, which verifies them, and unpacked here without being
installed: no root, no script. A folder of .deb files, or one into which they were unpacked, will do.

Remarks in brackets, such as "[beep]", are no speech and taken out; numbers are digits ("Marque 0"), as the
texts have them. Split: none is published. A tenth each of the prompts is held out, by `hold_out`.

Source: packages.debian.org/bookworm/asterisk-core-sounds-es and the like (files, licences).
"""

import gzip
import logging
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder, hold_out
from asr.corpora.unpack import unpack
from asr.errors import DataError, DownloadError, SettingsError
from asr.files import locked, not_utf8

__all__ = ["CORPUS"]

log = logging.getLogger("asr")

_LANGUAGES = ("en", "es", "fr", "it", "ru")
_DOC, _SOUNDS = "usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt", "usr/share/asterisk/sounds"
_REMARK = re.compile(r"\[[^]]*\]|\([^)]*\)|<[^>]*>")


def _obtain(folder: Path, parts: Sequence[str], offline: bool) -> Path:
    """Fetch the two packages of a language and unpack them."""
    (language,) = parts
    target = folder / "asterisk" / language
    target.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{language}.lock"), remove=True):
        if (target / ".completed").is_file():
            return target
        packages = (f"asterisk-core-sounds-{language}", f"asterisk-core-sounds-{language}-g722")
        missing = [name for name in packages if not list(target.glob(f"{name}_*.deb"))]
        if missing:
            _download(target, missing, offline)
        _unpack_all(target, target)
        (target / ".completed").touch()
    return target


def _download(target: Path, packages: Sequence[str], offline: bool) -> None:
    apt = shutil.which("apt-get")
    if offline or apt is None:
        why = "--offline downloads nothing" if offline else "this computer has no apt-get"
        raise DownloadError(
            f"{target}: {' and '.join(packages)} are not there, and {why}. Expected these Debian packages. "
            f"Put their .deb files (packages.debian.org) into {target} and run the same command again."
        )
    licence = "CC BY 3.0" if target.name in ("it", "ru") else "CC BY-SA 3.0"
    log.info("Downloading %s with apt-get: licence %s, into %s", " and ".join(packages), licence, target)
    result = subprocess.run(
        [apt, "download", *packages], cwd=target, capture_output=True, text=True, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason is given"])[-1]
        raise DownloadError(
            f"apt-get download {' '.join(packages)}: {reason}. Run apt-get update, or put their .deb files "
            f"into {target}, and run the same command again."
        )


def _unpack_all(packages: Path, target: Path) -> None:
    for package in sorted(packages.glob("asterisk-core-sounds-*.deb")):
        unpack(package, target)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    languages = parts or [one for one in _LANGUAGES if _text_file(root, one) is not None]
    if len(languages) > 1:
        raise SettingsError(
            f"{root}: holds {', '.join(languages)}. Expected one language. Name it as --data.parts."
        )
    language = languages[0] if languages else "LANGUAGE"
    inside = [language, f"asterisk/{language}"]
    if not any((root / name / "usr").is_dir() for name in (".", *inside)) and list(root.glob("*.deb")):
        raise DataError(
            f"{root}: the packages are not unpacked. Unpack each (dpkg-deb -x PACKAGE {root}), or copy them "
            f"to data/asterisk/{language} and use --download."
        )
    folder = find_folder(root, CORPUS.title, "usr/share/doc", _SOUNDS, inside=inside)
    path = _text_file(folder, language)
    if path is None:
        find_folder(folder, CORPUS.title, f"{_DOC.format(language)}.gz")
        raise DataError(f"{folder}: no texts.")
    found = Collector(CORPUS.title)
    texts = _texts(path, found)
    sounds = {one.what for one in found.left_out}
    voices = [one for one in sorted((folder / _SOUNDS).glob(f"{language}*")) if one.is_dir()]
    audio: dict[str, Path] = {}
    for voice in voices:
        for place in (voice, *sorted(one for one in voice.iterdir() if one.is_dir())):
            prefix = "" if place == voice else f"{place.name}/"
            recordings = audio_by_stem(place, ".g722") or audio_by_stem(place)
            audio |= {prefix + stem: recording for stem, recording in recordings.items()}
    audio = {key: recording for key, recording in audio.items() if key not in sounds}
    speaker = voices[0].name if voices else language
    found.pair(texts, audio, split=hold_out(list(texts)), speaker=speaker, prefix=f"{language}-")
    return found.finish()


def _text_file(folder: Path, language: str) -> Path | None:
    path = folder / _DOC.format(language)
    return next((one for one in (path, path.with_name(f"{path.name}.gz")) if one.is_file()), None)


def _texts(path: Path, found: Collector) -> dict[str, str]:
    """Prompt -> what is spoken; sounds that are no speech are noted."""
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = not_utf8(error.object, error.start, str(path))
        raise DataError(f"{path}: not UTF-8. {remedy}") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: damaged: {error}. Unpack the package again.") from None
    texts: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.lstrip("\ufeff").strip()
        if not line or line.startswith(";"):
            continue
        key, colon, spoken = line.partition(":")
        spoken = _REMARK.sub(" ", spoken.strip().removeprefix(f"{key}:")).strip()
        if key.startswith("silence/") or (colon and not spoken):
            found.leave_out(key, "a sound or silence, no speech", expected=True)
        elif colon and " " not in key:
            texts[key] = spoken
        else:
            found.leave_out(f"{path} line {number}", "not a prompt, a colon and its text")
    return texts


CORPUS = Corpus(
    name="asterisk",
    title="Asterisk's prompts",
    hours=2.3,
    speakers=4,
    languages="English, Spanish, French, Italian, Russian",
    licence="CC BY-SA 3.0, CC BY 3.0",
    source="https://packages.debian.org/source/bookworm/asterisk-core-sounds",
    read=_read,
    parts=dict.fromkeys(_LANGUAGES, ()),
    one_part=True,
    obtain=_obtain,
    normalizer="words",
)
