"""Check that an acoustic model writes the words or characters of a language model."""

import logging
from collections.abc import Iterable
from typing import Any

from asr.errors import SettingsError
from asr.lm.interface import LanguageModel
from asr.text.tokenizer import Tokenizer

__all__ = ["check_lm_fits_tokenizer"]

log = logging.getLogger("asr")

_CHECKED_WORDS = 1000  # from the first one on; those of `asr lm train` are sorted by frequency
_MAX_NAMED = 5  # words or characters that a message lists


def check_lm_fits_tokenizer(lm: LanguageModel[Any], tokenizer: Tokenizer) -> None:
    """Raise if most of a language model does not fit an acoustic model's text; warn if a part does not.

    Args:
        lm: a model of words or characters.
        tokenizer: the acoustic model's.

    Raises:
        SettingsError: most words of the language model cannot be spelled with the tokens, or it lacks most
            characters that these write; a difference in case is named.
    """
    symbols = [
        word for word in lm.words if not (len(word) > 2 and word.startswith("<") and word.endswith(">"))
    ]
    if lm.unit == "word":
        texts = symbols[:_CHECKED_WORDS]
        problem = "words of the language model cannot be written with the tokens of the acoustic model"
        sides = "language model is", "acoustic model's text is"
    elif tokenizer.pieces is None:
        raise SettingsError(
            "a language model of characters cannot be used with an acoustic model of phones. "
            "Use one of words."
        )
    else:
        texts = sorted({character for piece in tokenizer.pieces for character in piece.text})
        problem = "characters that the acoustic model writes are unknown to the language model"
        sides = "acoustic model's text is", "language model is"
    alphabet = frozenset(symbols)

    def missing_of(texts: Iterable[str]) -> list[str]:
        if lm.unit == "word":
            return [text for text in texts if not tokenizer.spellings(text)]
        return [text for text in texts if text not in alphabet]

    missing = missing_of(texts)
    if not missing:
        return
    found = f"{len(missing)} of {len(texts)} {problem}, such as {', '.join(map(repr, missing[:_MAX_NAMED]))}"
    if 2 * len(missing) <= len(texts):
        log.warning("%s.", found)
        return
    for case, other, change in (("upper", "lower", str.lower), ("lower", "upper", str.upper)):
        if 2 * len(missing_of(map(change, missing))) < len(missing):
            raise SettingsError(
                f"the {sides[0]} in {case} case, the {sides[1]} in {other} case: {found}. Train the language "
                "model on text in the same case."
            )
    raise SettingsError(f"{found}. Train the language model on text that is written as the transcripts are.")
