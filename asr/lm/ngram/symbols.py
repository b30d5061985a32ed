"""Symbols: the id of every word or character of a text, given in the order of first occurrence.

Words are what ASCII white space separates; in character models a run of it is one space, and there is
none at the ends of a line. Blocks of bytes are encoded by compiled code, without a Python string a word.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.interface import Unit
from asr.lm.ngram.trie import BOS_ID, EOS_ID, RESERVED

__all__ = ["SymbolTable"]

_RESERVED = len(RESERVED)  # the first id of a word
_LINE_FEED, _SPACE = 10, 32  # codes; those from 9 to 13 are white space, too


class SymbolTable:
    """Ids of words or characters, in the order in which they first occur; 0, 1 and 2 are reserved.

    Attributes:
        unit: what a symbol is.
        empty_lines: lines without a symbol so far.
        sentences: the other lines.
    """

    def __init__(self, unit: Unit) -> None:
        self.unit, self.empty_lines, self.sentences = unit, 0, 0
        self._count = _RESERVED
        self._table = np.full(1 << 16, -1, np.int32)  # words: open addressing
        self._codes = np.full(0x110000 if unit == "character" else 0, -1, np.int32)  # characters: id by code
        if unit == "character":  # every alphabet has the space
            self._codes[_SPACE], self._count = self._count, self._count + 1
        # Where each word begins in the pool, and the end of the last one. The reserved words are not in it.
        self._starts = np.zeros(1 << 12, np.int64)
        self._hashes = np.zeros(1 << 12, np.uint64)
        self._pool = np.zeros(1 << 16, np.uint8)

    def encode(self, block: bytes) -> NDArray[np.int32]:
        """Ids of a block of whole lines: for each, 1 (`<s>`), its symbols, 2 (`</s>`)."""
        if self.unit == "character":
            codes = np.frombuffer(block.decode().encode("utf-32-le"), np.uint32)
            out = np.empty(2 * len(codes) + 2, np.int32)
            written, self._count, sentences = _encode_characters(codes, self._codes, self._count, out)
        else:
            data = np.frombuffer(block, np.uint8)
            self._make_room(len(data))
            out = np.empty(2 * len(data) + 2, np.int32)
            written, self._count, sentences = _encode_words(
                data, self._table, self._starts, self._hashes, self._pool, self._count, out
            )
        self.sentences += sentences
        self.empty_lines += block.count(b"\n") - sentences
        return out[:written].copy()

    def _make_room(self, n_bytes: int) -> None:
        """Enlarge the arrays for all words that a block of `n_bytes` bytes could have."""
        words = self._count + n_bytes // 2 + 2
        if len(self._starts) < words + 1:
            self._starts = np.concatenate([self._starts, np.zeros(words, np.int64)])
            self._hashes = np.concatenate([self._hashes, np.zeros(words, np.uint64)])
        used = int(self._starts[self._count - _RESERVED])
        if len(self._pool) < used + n_bytes:
            self._pool = np.concatenate([self._pool, np.zeros(used + n_bytes, np.uint8)])
        if len(self._table) < 2 * words:
            self._table = np.full(1 << (2 * words).bit_length(), -1, np.int32)
            _fill_table(self._table, self._hashes, self._count)

    def __len__(self) -> int:
        """Number of ids, the reserved ones included."""
        return self._count

    def names(self) -> list[str]:
        """(ids,) the word or character of each id."""
        if self.unit == "character":
            codes = np.flatnonzero(self._codes >= 0)
            return [*RESERVED, *(chr(code) for code in codes[np.argsort(self._codes[codes])])]
        starts = self._starts[: self._count - _RESERVED + 1].tolist()
        pool = self._pool[: starts[-1]].tobytes()
        return [
            *RESERVED,
            *(pool[start:stop].decode() for start, stop in pairwise(starts)),
        ]


@kernel
def _encode_words(
    data: NDArray[np.uint8],
    table: NDArray[np.int32],
    starts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    pool: NDArray[np.uint8],
    count: int,
    out: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Write the ids of a block of whole lines, new words included; see `SymbolTable.encode`.

    Args:
        data: (bytes,) the block, UTF-8.
        table: (power of 2,) hash table with open addressing: ids, -1 where empty.
        starts: (words + 1,) first byte of each word in `pool`; enlarged before, as all arrays are.
        hashes: (ids,) FNV-1a hash of each word.
        pool: (bytes,) the words, one after the other.
        count: number of ids so far.
        out: (ids of the block,) output.

    Returns:
        ids written, number of ids, sentences of the block.
    """
    mask = np.uint64(len(table) - 1)
    written, sentences, opened, i = 0, 0, False, 0
    while i < len(data):
        byte = data[i]
        if byte == _LINE_FEED:
            if opened:
                out[written] = EOS_ID
                written += 1
                opened = False
            i += 1
            continue
        if byte == _SPACE or 9 <= byte <= 13:
            i += 1
            continue
        first, code = i, np.uint64(14695981039346656037)
        while i < len(data) and not (data[i] == _SPACE or 9 <= data[i] <= 13):
            code = (code ^ np.uint64(data[i])) * np.uint64(1099511628211)  # FNV-1a
            i += 1
        if not opened:
            out[written] = BOS_ID
            written += 1
            sentences += 1
            opened = True
        bucket = code & mask
        word_id = table[bucket]
        while word_id >= 0:
            if hashes[word_id] == code:
                begin = starts[word_id - _RESERVED]
                if starts[word_id - _RESERVED + 1] - begin == i - first:
                    same = 0
                    while same < i - first and pool[begin + same] == data[first + same]:
                        same += 1
                    if same == i - first:
                        break
            bucket = (bucket + np.uint64(1)) & mask
            word_id = table[bucket]
        if word_id < 0:
            word_id = np.int32(count)
            table[bucket] = word_id
            hashes[word_id] = code
            begin = starts[count - _RESERVED]
            for k in range(i - first):
                pool[begin + k] = data[first + k]
            starts[count - _RESERVED + 1] = begin + i - first
            count += 1
        out[written] = word_id
        written += 1
    return written, count, sentences


@kernel
def _fill_table(table: NDArray[np.int32], hashes: NDArray[np.uint64], count: int) -> None:
    """Enter the ids 3 to `count` - 1 into an empty hash table, by the hashes of their words."""
    mask = np.uint64(len(table) - 1)
    for word_id in range(_RESERVED, count):
        bucket = hashes[word_id] & mask
        while table[bucket] >= 0:
            bucket = (bucket + np.uint64(1)) & mask
        table[bucket] = word_id


@kernel
def _encode_characters(
    codes: NDArray[np.uint32], ids: NDArray[np.int32], count: int, out: NDArray[np.int32]
) -> tuple[int, int, int]:
    """Write the ids of a block of whole lines, new characters included; see `SymbolTable.encode`.

    Args:
        codes: (characters,) code points of the block.
        ids: (0x110000,) id of each code point, -1 where it has none.
        count: number of ids so far.
        out: (ids of the block,) output.

    Returns:
        ids written, number of ids, sentences of the block.
    """
    written, sentences, opened, spaced = 0, 0, False, False
    for code in codes:
        if code == _LINE_FEED:
            if opened:
                out[written] = EOS_ID
                written += 1
            opened = spaced = False
        elif code == _SPACE or 9 <= code <= 13:
            spaced = opened
        else:
            if not opened:
                out[written] = BOS_ID
                written += 1
                sentences += 1
                opened = True
            if spaced:
                out[written] = ids[_SPACE]
                written += 1
                spaced = False
            if ids[code] < 0:
                ids[code] = count
                count += 1
            out[written] = ids[code]
            written += 1
    return written, count, sentences
