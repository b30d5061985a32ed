"""Random draws: functions of seed, epoch, purpose and id alone, pinned to stored values."""

import hashlib
import math
from typing import Any

import numpy as np
import torch

from asr.frontend.augment.draws import generator, hash_ids, uniform


def names(count: int) -> list[str]:
    return [f"{number % 251}-{number // 7}-{number:04d}" for number in range(count)]


def test_hash_is_of_the_id_alone() -> None:
    """Guards the draws against the other utterances of a set, their order and where chunks of work end."""
    ids = [*names(70_000), "", "é", "\0", "a\0", "a", "\0a"]
    hashes = hash_ids(ids)
    assert len(set(hashes.tolist())) == len(ids)
    assert np.array_equal(hash_ids(ids[::-1])[::-1], hashes)
    for index in (0, 1, 65_535, 65_536, len(ids) - 6, len(ids) - 1):
        assert hash_ids([ids[index]])[0] == hashes[index]
    assert hash_ids([]).shape == (0,)


def splitmix(state: int) -> int:
    """In Python's own integers, after the published C code."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_same_one_by_one() -> None:
    """Guards runs that go on with a newer version: draws stay what they are, and nothing overflows."""
    assert splitmix(0) == 0xE220A8397B1DCDAF  # the published first number of seed 0
    for name in ("", "a1", "1272-128104-0000", "größe"):
        expected = 0
        for position, byte in enumerate(name.encode() + b"\0"):
            expected ^= splitmix(position * 256 + byte)
        assert int(hash_ids([name])[0]) == expected
        key = int.from_bytes(hashlib.blake2b(b"1/2/speed", digest_size=8).digest(), "little")
        drawn = uniform(hash_ids([name]), 1, 2, "speed")[0]
        assert drawn == (splitmix(expected ^ key) >> 11) / 2**53


def test_uniform() -> None:
    """Guards the draws' quality: each epoch, seed and purpose has different numbers, evenly spread, and
    unlike the others'."""
    hashes = hash_ids(names(20_000))
    draws = [
        uniform(hashes, seed, epoch, purpose)
        for seed, epoch, purpose in [(1, 1, "speed"), (1, 2, "speed"), (2, 1, "speed"), (1, 1, "noise")]
    ]
    for numbers in draws:
        assert ((numbers >= 0) & (numbers < 1)).all()
        counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert ((counts - 1000.0) ** 2 / 1000).sum() < 50  # chi-squared, 19 degrees of freedom: p = 1e-4
    correlations = np.corrcoef([*draws, np.arange(20_000)])
    assert np.abs(correlations[~np.eye(5, dtype=bool)]).max() < 0.035  # 5 standard deviations


def test_generator_is_pinned() -> None:
    """Guards against another hash, byte order or order of parts: old runs could not be repeated."""
    assert generator(1, 2, "spk-0001", "speed").bit_generator.random_raw(2).tolist() == [
        9503129339043595383,
        10244328969291115434,
    ]


def test_generator_depends_on_each_part_and_nothing_else() -> None:
    """Guards against global random state, and against parts that run into each other."""

    def numbers(*key: Any) -> tuple[int, ...]:
        return tuple(generator(*key).bit_generator.random_raw(3).tolist())

    first = numbers(1, 2, "a", "speed")
    np.random.seed(7)
    torch.manual_seed(7)
    numbers(5, 5, "b", "masks")
    assert numbers(1, 2, "a", "speed") == first
    keys = [
        (1, 2, "a", "speed"),
        (2, 2, "a", "speed"),
        (1, 3, "a", "speed"),
        (1, 2, "b", "speed"),
        (1, 2, "a", "masks"),
        (12, 2, "a", "speed"),
        (1, 22, "a", "speed"),
        (1, 2, "/a", "speed"),
        (1, 2, "speed", "a"),
        (-1, 2, "a", "speed"),
    ]
    assert len({numbers(*key) for key in keys}) == len(keys)


def test_neighbours_are_independent() -> None:
    """Guards against neighbouring ids or epochs with the same or similar draws."""
    drawn = np.array(
        [[generator(1, epoch, f"u{n}", "speed").random() for n in range(100)] for epoch in range(1, 21)]
    )
    counts = np.histogram(drawn, bins=10, range=(0, 1))[0]
    assert ((counts - 200.0) ** 2 / 200).sum() < 34  # chi-squared, 9 degrees of freedom: p = 1e-4
    epochs = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    ids = np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]
    assert max(abs(epochs), abs(ids)) < 5 / math.sqrt(1900)  # five standard deviations
