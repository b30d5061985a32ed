"""N-gram language model: load it, score with it, save it.

    NgramModel.load(path)         .arpa, .arpa.gz (SRILM, KenLM, ours) or the binary of binary.py
    start, score, finish          the methods of interface.LanguageModel
    save(path)                    to .arpa, .arpa.gz or the binary, by the name's ending

Compiled decoders use `ngrams` with `packed.advance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.interface import Unit
from asr.lm.ngram import arpa, binary
from asr.lm.ngram.packed import PackedNgrams, advance, pack, unpack
from asr.lm.ngram.trie import BOS, EOS, UnpackedNgrams

__all__ = ["NgramModel", "is_arpa"]


@dataclass(frozen=True, eq=False)
class NgramModel:
    """An n-gram language model; a state is a number, see `packed`.

    Attributes:
        ngrams: the n-grams, packed.
        words: the word of each id; the ids 0, 1 and 2 are those of `<unk>`, `<s>` and `</s>`.
        counts: the number of n-grams of each order, unigrams first.
        unit: whether one of `words` is a word or a character (a space among them).
        ids: the id of each word; an out-of-vocabulary word has the id 0.
        start_state: the state after `<s>`.

    """

    ngrams: PackedNgrams
    words: tuple[str, ...]
    counts: tuple[int, ...]
    unit: Unit = "word"
    ids: dict[str, int] = field(init=False, repr=False)
    start_state: int = field(init=False)

    def __post_init__(self) -> None:
        ids = {word: index for index, word in enumerate(self.words)}
        object.__setattr__(self, "ids", ids)
        # The state after `<s>`, whose probability does not matter.
        object.__setattr__(self, "start_state", int(advance(self.ngrams, 0, ids[BOS])[1]))

    @classmethod
    def from_unpacked(cls, unpacked: UnpackedNgrams, bits: int = 0) -> "NgramModel":
        """A model that was trained or read from an ARPA file.

        Args:
            unpacked: the model.
            bits: of log-probabilities and back-off weights, see `packed.pack`; 0: exact.
        """
        return cls(
            pack(unpacked.arrays, unpacked.counts, bits), unpacked.words, unpacked.counts, unpacked.unit
        )

    @classmethod
    def load(cls, path: Path, unit: Unit | None = None) -> "NgramModel":
        """Read a model; its format is recognised by its content, not by its name.

        Args:
            path: .arpa (also compressed with gzip or xz), or our binary, which is memory-mapped.
            unit: what an ARPA file's words are. None: characters if there is a word `<space>` and no other is
                longer than one character, as in the ARPA files written here; else words.

        Raises:
            ModelError: no such file, not a language model, or a damaged one.
        """
        path = Path(path)
        model = cls(*binary.read(path)) if binary.is_binary(path) else cls.from_unpacked(arpa.read(path))
        if unit in (None, model.unit):
            return model
        old, new = (" ", arpa.SPACE) if model.unit == "character" else (arpa.SPACE, " ")
        return replace(model, words=tuple(new if word == old else word for word in model.words), unit=unit)

    def save(self, path: Path) -> None:
        """Write the model: ARPA if the name ends in .arpa or .arpa.gz, else our binary.

        Raises:
            OSError: the file cannot be written.
        """
        if is_arpa(path):
            arpa.write(path, self.unpacked())
        else:
            binary.write(path, self.ngrams, self.words, self.counts, self.unit)

    def quantized(self, bits: int) -> "NgramModel":
        """The model with values of `bits` bits, see `packed.pack`."""
        return NgramModel.from_unpacked(self.unpacked(), bits)

    def unpacked(self) -> UnpackedNgrams:
        """The model unpacked."""
        return UnpackedNgrams(unpack(self.ngrams, self.counts), self.words, self.counts, self.unit)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.counts)

    @property
    def end_id(self) -> int:
        """The id of `</s>`."""
        return self.ids[EOS]

    def start(self) -> int:
        """The state in which a text begins."""
        return self.start_state

    def score(self, states: Sequence[int], symbols: Sequence[str]) -> tuple[NDArray[np.float64], list[int]]:
        """Natural log-probabilities of symbols after states, and the states that follow."""
        ids = np.array([self.ids.get(symbol, 0) for symbol in symbols], np.int32)
        log_probs, following = _advance_all(self.ngrams, np.array(states, np.int32), ids)
        return log_probs, following.tolist()

    def finish(self, states: Sequence[int]) -> NDArray[np.float64]:
        """(n,) natural log-probabilities that the text ends after each of n states."""
        ends = np.full(len(states), self.end_id, np.int32)
        return _advance_all(self.ngrams, np.array(states, np.int32), ends)[0]

    def encode(self, text: str) -> NDArray[np.int32]:
        """(n,) the ids of a text's words or characters; 0 for unknown ones."""
        symbols = text.split() if self.unit == "word" else text
        return np.array([self.ids.get(symbol, 0) for symbol in symbols], np.int32)

    def log_probs(self, text: str) -> NDArray[np.float64]:
        """(n + 1,) natural log-probability of each word (or character) of a sentence, and of its end."""
        ids = np.append(self.encode(text), np.int32(self.end_id))
        return _advance_along(self.ngrams, self.start_state, ids)


def is_arpa(path: Path) -> bool:
    """Whether a file of this name is written as ARPA."""
    return str(path).endswith((".arpa", ".arpa.gz"))


@kernel
def _advance_all(
    ngrams: PackedNgrams, states: NDArray[np.int32], ids: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """`NgramModel.score` of (n,) states and word ids."""
    log_probs, following = np.empty(len(ids), np.float64), np.empty(len(ids), np.int32)
    for i in range(len(ids)):
        log_probs[i], following[i] = advance(ngrams, int(np.int64(states[i])), int(np.int64(ids[i])))
    return log_probs, following


@kernel
def _advance_along(ngrams: PackedNgrams, state: int, ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n,) log-probability of each word of a sequence that begins in a state."""
    log_probs = np.empty(len(ids), np.float64)
    for i in range(len(ids)):
        log_probs[i], state = advance(ngrams, state, int(np.int64(ids[i])))
    return log_probs
