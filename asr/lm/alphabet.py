"""Whether a language model speaks of the text that an acoustic model writes."""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from asr.errors import SettingsError
from asr.lm.interface import Unit
from asr.text.tokenizer import Tokenizer

__all__ = ["LanguageModelVocabulary", "check_alphabet"]

_LOG = logging.getLogger("asr")

_LOOKED_AT = 1000  # words; those of `asr lm train` are sorted by frequency
_NAMED = 5


class LanguageModelVocabulary(Protocol):
    """What a language model must tell of itself to be checked."""

    @property
    def unit(self) -> Unit:
        """What one of the words is."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """All that it knows, `<s>` and the like among them."""
        ...


def check_alphabet(lm: LanguageModelVocabulary, tokenizer: Tokenizer) -> None:
    """Raise where a language model cannot help to write a model's text; warn where it can only in part.

    Args:
        lm: a model of words or characters.
        tokenizer: the acoustic model's.

    Raises:
        SettingsError: most words of the language model cannot be spelled with the tokens, or most characters
            that these write are none of its; a difference in case is named.
    """
    own = [word for word in lm.words if not (len(word) > 2 and word.startswith("<") and word.endswith(">"))]
    if lm.unit == "word":
        texts = own[:_LOOKED_AT]
        what = "words of the language model cannot be written with the tokens of the acoustic model"
        sides = "language model is", "acoustic model's text is"
    elif tokenizer.pieces is None:
        raise SettingsError(
            "a language model of characters cannot be used with an acoustic model of phones. "
            "Use one of words."
        )
    else:
        texts = sorted({letter for piece in tokenizer.pieces for letter in piece.text})
        what = "characters that the acoustic model writes are unknown to the language model"
        sides = "acoustic model's text is", "language model is"
    letters = frozenset(own)

    def lost_of(texts: Iterable[str]) -> list[str]:
        if lm.unit == "word":
            return [text for text in texts if not tokenizer.spellings(text)]
        return [text for text in texts if text not in letters]

    lost = lost_of(texts)
    if not lost:
        return
    share = f"{len(lost)} of {len(texts)} {what}, such as {', '.join(map(repr, lost[:_NAMED]))}"
    if 2 * len(lost) <= len(texts):
        _LOG.warning("%s.", share)
        return
    for case, other, change in (("upper", "lower", str.lower), ("lower", "upper", str.upper)):
        if 2 * len(lost_of(map(change, lost))) < len(lost):
            raise SettingsError(
                f"the {sides[0]} in {case} case, the {sides[1]} in {other} case: {share}. Train the language "
                "model on text in the same case."
            )
    raise SettingsError(f"{share}. Train the language model on text that is written as the transcripts are.")
