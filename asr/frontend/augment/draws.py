"""Random numbers as pure functions of seed, epoch, purpose and utterance id.

They do not depend on the other utterances, their order, the number of loader processes or the machine, so a
resumed run draws as if it had never stopped. `uniform` gives one number for each of millions of utterances at
once; `generator` gives one utterance as many as it needs.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 11  # ids hashed at a time: a byte's 8-byte intermediate results fit a processor's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def generator(seed: int, epoch: int, utterance_id: str, purpose: str) -> np.random.Generator:
    """A random generator of one utterance in one epoch for one purpose, the same on every machine.

    Args:
        seed: of the run.
        epoch: counted from 1.
        utterance_id: as the manifest has it.
        purpose: what is drawn; different purposes are independent.
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}/{utterance_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def uniform(hashes: NDArray[np.uint64], seed: int, epoch: int, purpose: str) -> NDArray[np.float64]:
    """One number of each utterance in one epoch for one purpose.

    Args:
        hashes: (utterances,) of their ids; see `hash_ids`.
        seed: of the run.
        epoch: counted from 1.
        purpose: what is drawn; different purposes are independent.

    Returns:
        (utterances,) in [0, 1).
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    mixed = _splitmix(hashes ^ np.uint64(int.from_bytes(digest, "little")))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """(ids,) 64-bit hashes, each of its id alone; computed once a run.

    Source: simple tabulation hashing (Zobrist 1970), the table's entry of a byte at a position being
        splitmix64's number for the pair.
    """
    hashes = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _CHUNK):
        names = [name.encode("utf-8", "surrogatepass") for name in ids[start : start + _CHUNK]]
        sizes = np.fromiter(map(len, names), dtype=np.int64, count=len(names)) + 1
        ends = np.cumsum(sizes)
        # The zero after each id takes part, so that an empty id has a byte, and "a" differs from "a\0".
        values = np.frombuffer(b"\0".join(names) + b"\0", dtype=np.uint8).astype(np.uint64)
        positions = np.arange(len(values)) - np.repeat(ends - sizes, sizes)
        entries = _splitmix(values | (positions.astype(np.uint64) << np.uint64(8)))
        hashes[start : start + len(names)] = np.bitwise_xor.reduceat(entries, ends - sizes)
    return hashes


def _splitmix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's output for a state (Steele, Lea and Flood 2014, figure 17); wraps around on purpose."""
    mixed = values + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
