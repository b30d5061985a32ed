"""Language model files of other tools that are no ARPA: named by their first bytes, each with what to do."""

import re
import shlex
from pathlib import Path

from asr.files import encoding_of, not_utf8, packed_format

__all__ = ["HEAD_SIZE", "other_format"]

HEAD_SIZE = 512  # bytes of a file, decompressed, that tell its format

_ARPA_OF = "Give the ARPA file that it was made from"

# What a file begins with: its name, and what to do; {path} is the file, quoted for a shell.
_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (rb"mmap lm http://kheafield\.com", "a KenLM binary", f"{_ARPA_OF} with `build_binary`."),
    (
        rb"\s*iARPA\s",
        "IRSTLM's intermediate format (iARPA): its numbers are not yet the probabilities",
        "Finish it with IRSTLM: compile-lm {path} --text=yes NEW.arpa.",
    ),
    (
        rb"\s*qARPA\s",
        "IRSTLM's quantised text format (qARPA)",
        "Give the ARPA file that `quantize-lm` made it from.",
    ),
    (
        rb"Q?blmtI?\b",
        "an IRSTLM binary (.blm)",
        "Write it as ARPA with IRSTLM: compile-lm {path} --text=yes NEW.arpa.",
    ),
    (
        rb"LM(INTERPOLATION|MACRO|CLASS)\b",
        "a settings file of IRSTLM that names models",
        "Give an ARPA file.",
    ),
    (
        rb"SRILM_BINARY_COUNTS",
        "a file of SRILM's counts",
        "Train on it: ngram-count -read {path} -lm NEW.arpa.",
    ),
    (
        rb"SRILM_BINARY_NGRAM",
        "an SRILM binary",
        "Write it as ARPA with SRILM: ngram -lm {path} -write-lm NEW.arpa.",
    ),
    (
        rb"Trie Language Model|.{4}Darpa Trigram LM",
        "a Sphinx binary (.lm.bin, .DMP)",
        "Write it as ARPA: sphinx_lm_convert -i {path} -o NEW.arpa -ofmt arpa.",
    ),
    (rb"julius_bingram", "a binary of Julius", f"{_ARPA_OF} with `mkbingram`."),
    (rb"\0B<ConstArpaLm>", "Kaldi's ConstArpaLm (G.carpa)", f"{_ARPA_OF}."),
    (rb"\xd6\xfd\xb2\x7e", "a finite-state transducer of OpenFst (G.fst)", f"{_ARPA_OF}."),
    (rb".{257}ustar", "a tar archive", "Unpack it: tar -xf {path}."),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page", "Download the file that the page is about."),
)


def other_format(head: bytes, path: Path) -> str:
    """The format of a file that is no ARPA, and what to do, for a message; "" if it may be ARPA.

    Args:
        head: the file's first `HEAD_SIZE` bytes, decompressed.
        path: of the file.
    """
    expected = "a language model in ARPA format"
    for start, name, remedy in _FORMATS:
        if re.match(start, head, re.DOTALL):
            return f"{path} is {name}. Expected {expected}. {remedy.format(path=shlex.quote(str(path)))}"
    if packed := packed_format(head, path, expected):
        return packed
    if (name := encoding_of(head)) and re.search(rb"\\\0*d\0*a\0*t\0*a\0*\\", head):
        return f"{path} is {name}. Expected UTF-8 text. {not_utf8(head, 0, str(path))}"
    if b"\0" in head:
        return (
            f"{path} holds binary data, of a tool that is not recognised (RandLM's files are such). Expected "
            f"{expected}. Give the ARPA file that it was made from."
        )
    return ""
