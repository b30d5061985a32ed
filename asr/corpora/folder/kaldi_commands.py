"""Commands in Kaldi's wav.scp that only decode a file: which file, and which of its channels. Nothing is run.

    sph2pipe -f wav -p -c 2 call.sph |      channel 1 (counted from 0) of call.sph
    flac -c -d -s talk.flac |               talk.flac
    sox film.mp3 -r 16000 -t wav - remix 1 | channel 0 of film.mp3

A recording is read at its own rate whatever rate a command asks for: training and decoding resample.

Source: Kaldi's documentation, "Data preparation" (extended filenames); the manuals of sph2pipe, flac, SoX and
FFmpeg.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence

__all__ = ["NOT_DECODED", "decoded_file"]

NOT_DECODED = (
    "a command, and none that only decodes a file with cat, sph2pipe, flac, sox or ffmpeg; commands are not "
    "run. Write its output to a file, and name that"
)
"""Why a recording that is another command is left out."""

_STDOUT = ("-", "/dev/stdout", "pipe:1", "pipe:")
_VALUED = {  # options that take a value, and change neither the time nor what is said
    "sph2pipe": {"-f"},
    "sox": {"-t", "-r", "-c", "-b", "-e", "--type", "--rate", "--channels", "--bits", "--encoding"},
    "ffmpeg": {"-v", "-loglevel", "-f", "-ar", "-ac", "-acodec", "-c:a", "-codec:a", "-threads",
               "-sample_fmt"},
}  # fmt: skip
_FLAGS = {
    "cat": set[str](),
    "sph2pipe": {"-p", "-u", "-a"},
    "flac": {"-c", "-d", "-s", "-cd", "-dc", "-cds", "-dcs", "-csd", "-scd", "-sdc", "-dsc", "--decode",
             "--stdout", "--silent", "--totally-silent"},
    "sox": {"-q", "-D", "-G", "-R", "-V", "-V0", "-V1", "-S", "--no-show-progress", "--no-dither"},
    "ffmpeg": {"-hide_banner", "-nostdin", "-nostats", "-y", "-vn"},
}  # fmt: skip
_EFFECTS = ("rate", "dither")  # of SoX, that leave what is said


def decoded_file(command: str) -> tuple[str, int | None] | None:
    """The file that a command decodes.

    Args:
        command: a value of wav.scp that ends in a bar.

    Returns:
        The file, and its channel, counted from 0; None where all are mixed. None altogether where the command
        does something else, such as cutting or changing the speed, or is not known.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = [*lexer]
    except ValueError:  # quotes that do not match
        return None
    *stages, rest = _stages(words)
    if rest or not all(stages):
        return None
    found: tuple[str, int | None] | None = None
    for number, (program, *arguments) in enumerate(stages):
        read = _PROGRAMS.get(program.rsplit("/", 1)[-1])
        result = read(arguments) if read else None
        if result is None or (number and result != ("-", None)):  # what follows has to pass it on
            return None
        found = found or result
    return None if found is None or found[0] == "-" else found


def _stages(words: Sequence[str]) -> list[list[str]]:
    stages: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    return stages


def _plain(program: str) -> Callable[[Sequence[str]], tuple[str, int | None] | None]:
    """Programs with one file; `-c N` of sph2pipe is a channel, counted from 1."""

    def read(arguments: Sequence[str]) -> tuple[str, int | None] | None:
        channel, names = None, []
        given = iter(arguments)
        for word in given:
            if program == "sph2pipe" and word == "-c":
                number = next(given, "")
                if not number.isdigit() or number == "0":
                    return None
                channel = int(number) - 1
            elif word in _VALUED.get(program, ()):
                next(given, "")
            elif word.startswith("-") and word != "-":
                if word not in _FLAGS[program]:
                    return None
            else:
                names.append(word)
        names = names[:-1] if program == "sph2pipe" and names[1:] == ["-"] else names
        return (names[0], channel) if len(names) == 1 else None

    return read


def _sox(arguments: Sequence[str]) -> tuple[str, int | None] | None:
    """`sox [OPTIONS] FILE [OPTIONS] - [remix N] [rate N]`."""
    names: list[str] = []
    given: Iterator[str] = iter(arguments)
    for word in given:
        if word in _VALUED["sox"]:
            next(given, "")
        elif word.startswith("-") and word != "-":
            if word not in _FLAGS["sox"]:
                return None
        else:
            names.append(word)
            if len(names) == 2:  # what follows are effects
                break
    if len(names) != 2 or names[1] not in _STDOUT:
        return None
    channel, effects = None, list(given)
    while effects:
        effect, *effects = effects
        if effect == "remix" and effects and effects[0].isdigit() and effects[0] != "0":
            channel, effects = int(effects[0]) - 1, effects[1:]
        elif effect not in _EFFECTS:
            return None
        else:  # its values
            while effects and effects[0] not in ("remix", *_EFFECTS):
                if not effects[0].lstrip("-").replace("k", "").isalnum() or effects[0].isalpha():
                    return None
                effects = effects[1:]
    return names[0], channel


def _ffmpeg(arguments: Sequence[str]) -> tuple[str, int | None] | None:
    """`ffmpeg [OPTIONS] -i FILE [OPTIONS] -`."""
    names, outputs = [], []
    given = iter(arguments)
    for word in given:
        if word == "-i":
            names.append(next(given, ""))
        elif word in _VALUED["ffmpeg"]:
            next(given, "")
        elif word in _STDOUT:
            outputs.append(word)
        elif word not in _FLAGS["ffmpeg"]:
            return None
    if len(names) != 1 or len(outputs) != 1:
        return None
    return ("-" if names[0] in ("-", "pipe:0") else names[0]), None


_PROGRAMS = {
    "cat": _plain("cat"), "sph2pipe": _plain("sph2pipe"), "flac": _plain("flac"),
    "sox": _sox, "ffmpeg": _ffmpeg,
}  # fmt: skip
