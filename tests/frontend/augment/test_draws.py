import hashlib

import numpy as np

from asr.frontend.augment.config import AugmentConfig, draw_speeds
from asr.frontend.augment.draws import hash_ids, uniform


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
    """Guards the draws' quality: each epoch, seed and purpose has numbers of its own, evenly spread, and
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


def test_speeds() -> None:
    """Guards the shares of the speeds, those too fast for a transcript, and the order in the setting."""
    config, hashes = AugmentConfig(speeds=(1.1, 0.9, 1.0)), hash_ids(names(3000))
    top_speeds = np.repeat(np.array([1.1, 1.0, 0.5], dtype=np.float32), 1000)
    drawn = draw_speeds(config, top_speeds, hashes, 1, 1)
    assert set(drawn[:1000].tolist()) == {0.9, 1.0, 1.1}
    assert set(drawn[1000:2000].tolist()) == {0.9, 1.0}
    assert set(drawn[2000:].tolist()) == {1.0}
    counts = [(drawn[:1000] == speed).sum() for speed in (0.9, 1.0, 1.1)]
    assert min(counts) > 250
    again = draw_speeds(AugmentConfig(speeds=(0.9, 1.0, 1.1)), top_speeds, hashes, 1, 1)
    assert np.array_equal(again, drawn)
    one = draw_speeds(config, top_speeds[5:6], hashes[5:6], 1, 1)
    assert one[0] == drawn[5]
