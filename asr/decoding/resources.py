"""Decoding resources: language models, lexicon, hot words, attention decoder, as a user names them."""

import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from asr.decoding.config import DecoderSettings
from asr.decoding.fusion.hotwords import parse_hotwords
from asr.decoding.hypothesis import OutputUnit, output_unit
from asr.errors import DataError, ModelError, SettingsError
from asr.files import file_digest
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.model.decoding_weights import TuningKey
from asr.model.recurrent_decoder import RecurrentDecoder
from asr.text import lexicon as lexicon_module
from asr.text.lexicon import DeferredEntries, Lexicon, parse_lexicon, read_lexicon_lines, without_stress
from asr.text.tokenizer import Tokenizer
from asr.user_cache import Arrays, cached_arrays, content_digest

if TYPE_CHECKING:
    from asr.lm.loading import AnyLanguageModel

__all__ = ["DecodingResources", "attention_decoder_of", "data_digest"]

log = logging.getLogger("asr")

_LARGE = 100_000  # bytes of a lexicon whose words are worth keeping


@dataclass(frozen=True)
class DecodingResources:
    """What decoding uses in addition to the acoustic model.

    Attributes:
        lm: the language model, or None.
        rescorer: a language model that chooses among the best texts of the search with the first, or None.
        attention: the model's attention decoder, which chooses among the best texts likewise, or None.
        lexicon: spellings, or None.
        hotwords: boosts in nats by word.
        key: digests of the files, and the kind of search: selects the tuned weights that are for it.
        name: in messages.
    """

    lm: "AnyLanguageModel | None" = None
    lexicon: Lexicon | None = None
    hotwords: dict[str, float] = field(default_factory=dict)
    key: TuningKey = field(default_factory=TuningKey)
    name: str = "no language model"
    rescorer: "AnyLanguageModel | None" = None
    attention: RecurrentDecoder | None = None

    def unit(self, tokenizer: Tokenizer) -> OutputUnit:
        """What decoding writes: words, or phones where tokens are phones and there is no vocabulary."""
        return "words" if self._has_vocabulary else output_unit(tokenizer)

    def uses(self, weight: str) -> bool:
        """Whether a weight can change the result."""
        if weight == "lm_weight":
            return self.lm is not None
        if weight == "rescore_weight":
            return self.rescorer is not None
        if weight == "attention_weight":
            return self.attention is not None
        if weight.startswith("unknown_"):
            if self.key.unknown_words == "forbid":
                return weight == "unknown_penalty" and self._lm_lacks_words
            return self._has_vocabulary
        return True

    @property
    def second_pass(self) -> tuple[str, ...]:
        """The weights that choose among the texts of a search, and do not change the search."""
        names = ("lm_weight", "word_bonus") if self.key.rescore else ()
        return (*names, *filter(self.uses, ("rescore_weight", "attention_weight")))

    @property
    def _lm_lacks_words(self) -> bool:
        """Whether the language model of the search does not know a word of the lexicon."""
        if not self.lexicon or not self.lm or self.lm.unit != "word" or self.key.rescore:
            return False
        return not self.lexicon.entries.keys() <= set(self.lm.words)

    @property
    def vocabulary(self) -> Collection[str] | None:
        """The words that the search can write, unknown words aside; None without a vocabulary."""
        if self.lexicon:
            return self.lexicon.entries.keys()
        return frozenset(self.lm.words) if self.lm and self._has_vocabulary else None

    @property
    def _has_vocabulary(self) -> bool:
        return bool(self.lexicon or (self.lm and self.lm.unit == "word" and not self.key.rescore))

    @classmethod
    def read(cls, settings: DecoderSettings, model: AcousticModel) -> "DecodingResources":
        """Load the files that the settings name, and check that they fit the model.

        Raises:
            DataError: the lexicon cannot be read, or spells words with other tokens than the model's.
            ModelError: the language model cannot be read.
            SettingsError: a hot word is not WORD or WORD:BOOST, or a language model that rescores is
                not of the words or characters that the model writes.
        """
        for option, given, file in (
            ("--rescore", settings.rescore, "lm"),
            ("--lm-weight", settings.weights.lm_weight is not None, "lm"),
            ("--rescore-weight", settings.weights.rescore_weight is not None, "rescore_lm"),
        ):
            if given and getattr(settings, file) is None:
                wanted = f"--{file.replace('_', '-')}"
                raise SettingsError(f"{option} is given, but no language model. Name one: {wanted} FILE.")
        if settings.rescore and settings.rescore_lm:
            raise SettingsError(
                "--rescore and --rescore-lm are given. With --rescore the one language model, --lm, only "
                "rescores. Leave it out for --lm in the search and --rescore-lm after it."
            )
        if settings.rescore_lm and not settings.lm:
            raise SettingsError(
                "--rescore-lm is given without --lm, whose search it rescores. Name both, or one language "
                "model that only rescores: --lm FILE --rescore."
            )
        if settings.weights.attention_weight is not None and not settings.rescore_attention:
            raise SettingsError(
                "--attention-weight is given, but no attention decoder rescores. Add --rescore-attention."
            )
        attention = attention_decoder_of(model, "--rescore-attention") if settings.rescore_attention else None
        lm = _read_lm(settings, model, "lm", settings.rescore) if settings.lm else None
        rescorer = _read_lm(settings, model, "rescore_lm", True) if settings.rescore_lm else None
        lexicon = _read_lexicon(settings.lexicon, model.settings.tokenizer) if settings.lexicon else None
        hotwords = parse_hotwords(settings.hotwords, model.settings.text_normalizer)
        key = TuningKey(
            lm=file_digest(settings.lm),
            lexicon=file_digest(settings.lexicon),
            rescore=settings.rescore,
            rescore_lm=file_digest(settings.rescore_lm),
            attention=settings.rescore_attention,
            hotwords=_digest_of(hotwords),
            unknown_words=settings.beam.unknown_words,
        )
        names = [f"language model {settings.lm}" if settings.lm else "no language model"]
        names += ["which rescores"] if settings.rescore else []
        names += [f"rescored by {settings.rescore_lm}"] if settings.rescore_lm else []
        names += ["rescored by the attention decoder"] if attention else []
        names += [f"lexicon {settings.lexicon}"] if settings.lexicon else []
        names += ["no unknown words"] if settings.beam.unknown_words == "forbid" else []
        names += [f"{len(hotwords)} hot words"] if hotwords else []
        return cls(lm, lexicon, hotwords, key, ", ".join(names), rescorer, attention)


def attention_decoder_of(model: AcousticModel, option: str) -> RecurrentDecoder:
    """The attention decoder of a model.

    Args:
        model: in evaluation mode.
        option: that asks for it, for the message.

    Raises:
        ModelError: it has none.
    """
    if model.attention_decoder is None:
        raise ModelError(
            f"{option}: the model has no attention decoder. Train one: --model.attention-decoder dot, on its "
            f"encoder with --train.warm-start and --train.freeze, or leave the option out."
        )
    return model.attention_decoder


def data_digest(utterances: Sequence[Utterance]) -> str:
    """A digest of utterances' ids and texts, by which the same utterances are recognised."""
    digest = hashlib.sha256()
    for utterance in sorted(utterances, key=lambda utterance: utterance.id):
        digest.update(json.dumps([utterance.id, utterance.text]).encode())
    return digest.hexdigest()


def _read_lm(
    settings: DecoderSettings, model: AcousticModel, field: Literal["lm", "rescore_lm"], rescores: bool
) -> "AnyLanguageModel":
    """A language model for the search or, where it only rescores, for texts."""
    from asr.lm.alphabet import check_lm_fits_tokenizer
    from asr.lm.loading import load_language_model

    path, tokenizer = getattr(settings, field), model.settings.tokenizer
    option = f"--{field.replace('_', '-')} {path}"
    lm = load_language_model(path, model.device)
    words = settings.lexicon is not None or field == "rescore_lm"
    if tokenizer.pieces is None and not words and (lm.unit != "word" or rescores):
        raise SettingsError(
            f"{option}: the model writes phones, which this language model cannot score. Name a lexicon that "
            f"turns them into words, --lexicon FILE, or use a language model of words in the search."
        )
    if rescores and not words:  # a search checks what is fused into it
        try:
            check_lm_fits_tokenizer(lm, tokenizer)
        except SettingsError as error:
            raise SettingsError(f"{option}: {error}") from error
    return lm


def _read_lexicon(path: Path, tokenizer: Tokenizer) -> Lexicon:
    """A lexicon; the words of a large one are kept in the user's cache, so that it is read when needed."""
    from asr.compiled import source_digest  # takes a while to import

    if not path.is_file() or path.stat().st_size < _LARGE:
        return _parse_lexicon(path, tokenizer)
    read = cache(lambda: _parse_lexicon(path, tokenizer))

    def make() -> Arrays:
        lexicon = read()
        words = "" if lexicon.log_probs else "\n".join(lexicon.entries)  # probabilities are not kept
        return {"words": np.frombuffer(words.encode(), np.uint8)}

    code = source_digest(Path(lexicon_module.__file__)) + source_digest(Path(__file__))
    key = content_digest([file_digest(path), path.suffix, *tokenizer.symbols, code])
    words = cached_arrays(key, make)["words"].tobytes().decode()
    if not words:
        return read()
    return Lexicon(DeferredEntries(words.split("\n"), lambda: read().entries), str(path), known_digest=key)


def _parse_lexicon(path: Path, tokenizer: Tokenizer) -> Lexicon:
    """A lexicon, or a mere list of words, which the model's tokenizer spells."""
    lines = read_lexicon_lines(path)
    if any(len(line.split(None, 1)) > 1 for line in lines):
        lexicon = parse_lexicon(lines, str(path))
        if tokenizer.units == "phones" and not set(lexicon.symbols) <= set(tokenizer.symbols):
            plain = without_stress(lexicon, lower=False)
            if set(plain.symbols) <= set(tokenizer.symbols):
                log.info("%s: stress marks are left out, which the model's phones do not have", path)
                return plain
        return lexicon
    words = dict.fromkeys(word for line in lines for word in line.split())
    if not words:
        raise DataError(f"{path}: holds no word. Expected a word per line, alone or with its tokens.")
    return Lexicon(dict.fromkeys(words, ()), str(path))


def _digest_of(hotwords: dict[str, float]) -> str:
    """SHA-256 of hot words and boosts in any order; "" for none."""
    if not hotwords:
        return ""
    return hashlib.sha256(json.dumps(sorted(hotwords.items())).encode()).hexdigest()
