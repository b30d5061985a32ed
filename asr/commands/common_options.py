"""Options that several commands have, with the help text where it is the same: a command adds the default."""

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["BatchSeconds", "Device", "Formats", "ModelName", "OutputDir", "Rules", "TextFiles", "Threads"]

ModelName = Annotated[
    Path,
    tyro.conf.arg(
        metavar="MODEL",
        help="a model that ships with asr, english or english-fast (searches less), a folder of `asr adapt`, "
        "or a .safetensors of `asr train`",
    ),
]

Device = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")]

BatchSeconds = Annotated[
    float,
    tyro.conf.arg(help="seconds of audio in a batch, padding included; bounds the memory that is needed"),
]

Threads = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all cores)")]

Formats = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME [NAME ...]")]

OutputDir = Annotated[
    Path | None,
    tyro.conf.arg(
        aliases=["-o"],
        metavar="DIR",
        help="folder for a file of each recording and format, written as soon as it is known; nothing goes "
        "to stdout",
        help_behavior_hint="(default: none, but stdout)",
    ),
]

Rules = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME",
        help="Text rules: verbatim (as written), lower (no case), english or words (no punctuation), such as "
        "words:tr for Turkish.",
    ),
]

TextFiles = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="TEXT...",
        help="Text files, one sentence a line, in UTF-8, plain or .gz, .xz or .bz2, or manifests; - is the "
        "standard input. Their text should be written as the transcripts are; see --normalizer.",
        help_behavior_hint="(required)",
    ),
]
