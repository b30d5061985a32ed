"""Options that several commands have, each with its help text: a command adds the default."""

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["BatchSeconds", "Device", "ModelName", "Rules", "TextFiles"]

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
