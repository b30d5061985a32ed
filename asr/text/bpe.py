"""Byte-pair encoding: tokens are frequent pieces of words, learned from the training transcripts.

sentencepiece learns and applies the pieces; its normalisation is off, so that only the named rules of
`normalize` change a text. A piece that begins a word begins with "\u2581", which is the space before it and
may be a piece alone. Only learning and encoding need sentencepiece; decoding does not.
"""

import base64
import binascii
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asr.errors import DataError, ModelError, SettingsError
from asr.text.tokenizer import BLANK, Piece, TextTokenizer, Units, check_ids, read_symbols

__all__ = ["BpeTokenizer"]

_SPACE = "\u2581"  # how sentencepiece writes a space


@dataclass(frozen=True)
class BpeTokenizer(TextTokenizer):
    """Pieces of words; a `Tokenizer`.

    Attributes:
        symbols: (n,) the pieces; symbol i has the id i + 1, in sentencepiece as well, whose <unk> is 0.
        model: sentencepiece's model, the content of its file.

    Raises:
        DataError: no piece, an empty one, one that occurs twice, or one with a space inside.

    Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016;
        Kudo, Richardson, "SentencePiece", EMNLP 2018, whose library this is.
    """

    symbols: tuple[str, ...]
    model: bytes = field(repr=False)
    _alphabet: frozenset[str] = field(init=False, repr=False, compare=False)
    _pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.symbols:
            raise DataError("there are no BPE pieces. Learn them again.")
        duplicates = [symbol for symbol, count in Counter(self.symbols).items() if count > 1]
        invalid = [symbol for symbol in self.symbols if not symbol or _SPACE in symbol[1:]]
        if duplicates or invalid:
            raise DataError(
                f"{(duplicates + invalid)[0]!r} cannot be a BPE piece here. Each was expected once, with a "
                f"space ({_SPACE}) only at its front. Learn them again."
            )
        letters = {symbol for symbol in self.symbols if len(symbol) == 1} - {_SPACE}
        pieces = [Piece(symbol.removeprefix(_SPACE), symbol.startswith(_SPACE)) for symbol in self.symbols]
        object.__setattr__(self, "_alphabet", frozenset(letters | {" "}))
        object.__setattr__(self, "_pieces", (Piece("", False), *pieces))

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int) -> "BpeTokenizer":
        """Learn the pieces of these transcripts; the same transcripts give the same pieces in any order.

        Args:
            texts: transcripts as they will be encoded, that is, already normalised.
            size: number of ids, the blank included.

        Raises:
            DataError: the transcripts are empty, or have a character that sentencepiece reserves.
            SettingsError: sentencepiece is not installed, or the transcripts do not give that many pieces.
        """
        library = _sentencepiece()
        training_texts = sorted(text for text in texts if text.strip(" "))
        letters = {character for text in training_texts for character in text} - {" "}
        if not letters:
            raise DataError(
                "no BPE pieces can be learned: the transcripts hold not one character. "
                "Text was expected. Check the manifest's `text` fields and the normalizer."
            )
        minimum = len(letters) + 2  # the blank, and the space alone
        if size < minimum:
            raise SettingsError(
                f"--text.bpe-size must be at least {minimum}, because the training transcripts have "
                f"{len(letters)} characters. Got {size}. Raise it."
            )
        model = _learn(library, training_texts, size)
        processor = library.SentencePieceProcessor(model_proto=model)
        symbols = tuple(processor.id_to_piece(list(range(1, processor.vocab_size()))))
        missing = sorted(letters.difference(symbols) | (letters & {_SPACE}))
        if missing:
            named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in missing)
            raise DataError(
                f"the training transcripts hold {named}, which sentencepiece reserves. Remove these "
                f"characters, or choose --text.units characters."
            )
        return cls(symbols, model)

    @property
    def units(self) -> Units:
        """Byte-pair encoding."""
        return "bpe"

    def _encode(self, text: str) -> list[int]:
        return list(self._processor.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids, without the space before its first word."""
        check_ids(ids, self)
        written = "".join([self.symbols[number - 1] for number in ids])
        return written.removeprefix(_SPACE).replace(_SPACE, " ")

    def to_json(self) -> str:
        """One line of ASCII JSON that `tokenizer_from_json` reads back; a saved model carries it."""
        model = base64.b64encode(self.model).decode("ascii")
        return json.dumps({"type": self.units, "symbols": list(self.symbols), "sentencepiece": model})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "BpeTokenizer":
        """The tokenizer of the JSON object that `to_json` wrote.

        Raises:
            ModelError: the record is damaged.
        """
        try:
            return cls(read_symbols(record), base64.b64decode(record["sentencepiece"], validate=True))
        except (DataError, KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ModelError(f"the stored tokenizer is damaged: {type(error).__name__}: {error}") from None

    @cached_property
    def _processor(self) -> Any:
        """The encoder of sentencepiece, loaded when a text is first encoded."""
        try:
            processor = _sentencepiece().SentencePieceProcessor(model_proto=self.model)
            same = tuple(processor.id_to_piece(list(range(1, processor.vocab_size())))) == self.symbols
        except RuntimeError as error:
            raise ModelError(f"the stored sentencepiece model is damaged: {error}") from error
        if not same:
            raise ModelError("the stored BPE pieces are not those of the stored sentencepiece model.")
        return processor


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise SettingsError(
            f"BPE needs sentencepiece, which cannot be imported ({error}). "
            "Type: pip install '.[bpe]' (or: pip install sentencepiece)."
        ) from error
    return sentencepiece


def _learn(library: Any, texts: Sequence[str], size: int) -> bytes:
    """The model that sentencepiece learns from texts, of so many pieces."""
    stream = io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=stream,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            byte_fallback=False,
            normalization_rule_name="identity",
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            max_sentence_length=2**30,  # sentencepiece skips longer ones in silence
            minloglevel=2,
        )
    except RuntimeError as error:
        maximum = re.search(r"value <= (\d+)", str(error))
        if maximum is None:
            raise DataError(
                f"sentencepiece cannot learn from these transcripts: {error}. Check them for characters "
                f"such as {_SPACE} (U+2581), which it reserves."
            ) from error
        raise SettingsError(
            f"--text.bpe-size must be at most {maximum[1]}: the training transcripts have no more "
            f"pieces. Got {size}. Lower it, or add transcripts."
        ) from error
    return stream.getvalue()
