from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.batching.examples import ExampleColumns
from asr.batching.sampler import Groups, Sampler, Sharding, group_by_length
from asr.corpora.librispeech import prepare
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.draws import hash_ids

Lengths = NDArray[np.float64]
PLAIN = AugmentConfig(speeds=(1.0,))


def lengths_like_librispeech(count: int) -> Lengths:
    """Log-normal, cut at LibriSpeech's limits."""
    rng = np.random.default_rng(0)
    return np.clip(rng.lognormal(np.log(12.5), 0.45, count), 1.3, 24.5)


def columns_of(
    seconds: Lengths, tokens: NDArray[np.int32] | None = None, tars: NDArray[np.int32] | None = None
) -> ExampleColumns:
    """Utterances named by their numbers, of one token unless others are given."""
    count = len(seconds)
    hashes = hash_ids([str(number) for number in range(count)])
    tokens = np.ones(count, np.int32) if tokens is None else tokens
    return ExampleColumns(hashes, seconds, tokens, np.full(count, np.inf), tars)


def parts_of(groups: Groups) -> list[list[NDArray[np.int32]]]:
    return [groups.shards_of(number) for number in range(len(groups))]


def padded(part: NDArray[np.int32], seconds: Lengths) -> float:
    return len(part) * float(seconds[part].max()) if len(part) else 0.0


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize(
    "seconds", [lengths_like_librispeech(1500), np.full(500, 0.5), np.geomspace(0.01, 90.0, 333)]
)
@pytest.mark.parametrize("shuffled", [True, False])
def test_every_utterance_once_within_the_limit(seconds: Lengths, shuffled: bool, shards: int) -> None:
    """Guards against lost or repeated utterances, parts without one, and parts that outgrow the memory."""
    groups = group_by_length(seconds, 100.0 * shards, np.random.default_rng(1) if shuffled else None, shards)
    parts = [part for batch in parts_of(groups) for part in batch]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(seconds)))
    assert len(parts) == shards * len(groups)
    assert all(len(part) for part in parts)
    assert max(padded(part, seconds) for part in parts) <= 100.0
    assert seconds[groups.batch(0)].max() >= seconds.max() / 1.0202  # the longest class comes first


@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 8, 13, 14, 15, 20, 21, 22, 40, 77])
@pytest.mark.parametrize("batch_s", [1.0, 40.0, 70.0, 1000.0])
def test_last_batch(count: int, batch_s: float) -> None:
    """Guards sets that do not fill the last batch: every part has an utterance if there are enough, no more
    than two where one is over the limit already, and nothing is lost."""
    seconds = np.linspace(12.0, 4.0, count)
    groups = group_by_length(seconds, batch_s, None, 7)
    parts = [part for batch in parts_of(groups) for part in batch]
    assert sorted(index for part in parts for index in part.tolist()) == list(range(count))
    assert len(groups) == 0 if count == 0 else len(groups) >= 1
    assert sum(not len(part) for part in parts) == (max(0, 7 - count) if count else 0)
    for part in parts:
        assert padded(part, seconds) <= batch_s / 7 or len(part) <= 2


def test_batch_of_many_short_ones() -> None:
    """Guards the limit where one class of lengths fills several batches and the longest may be last in
    it."""
    seconds = np.random.default_rng(0).uniform(0.500, 0.504, 1000)
    groups = group_by_length(seconds, 100.0, np.random.default_rng(1))
    assert len(groups) > 3
    assert max(padded(groups.batch(number), seconds) for number in range(len(groups))) <= 100.0


def test_long_one_is_alone() -> None:
    """Guards an utterance above the limit: it is trained on, alone."""
    groups = group_by_length(np.array([5.0, 300.0, 5.0]), 100.0, None)
    assert [groups.batch(number).tolist() for number in range(2)] == [[1], [0, 2]]


def padding_share(seconds: Lengths, shards: int) -> float:
    groups = group_by_length(seconds, 100.0 * shards, np.random.default_rng(1), shards)
    total = sum(padded(part, seconds) for batch in parts_of(groups) for part in batch)
    return 1 - float(seconds.sum()) / total


@pytest.mark.parametrize("shards", [1, 4])
def test_little_padding(shards: int) -> None:
    """Guards the use of grouping by length: at most 5% padding on lengths like LibriSpeech's."""
    assert padding_share(lengths_like_librispeech(1500), shards) < 0.05


@pytest.mark.parametrize("shards", [1, 4])
def test_little_padding_on_real_lengths(shards: int, speech: Path) -> None:
    """Guards the same on the real durations of train-clean-5."""
    folder = speech / "LibriSpeech" / "train-clean-5"
    if not folder.is_dir():
        pytest.skip("no LibriSpeech/train-clean-5 in the real speech")
    splits = prepare(speech / "LibriSpeech", Path("unused"))
    assert padding_share(np.array([utterance.duration for utterance in splits.train]), shards) < 0.05


@pytest.mark.parametrize("shards", [2, 8, 64])
def test_processes_finish_together(shards: int) -> None:
    """Guards the balance: a batch takes as long as its longest part, for which the other processes wait."""
    seconds = lengths_like_librispeech(20_000)
    groups = group_by_length(seconds, 100.0 * shards, np.random.default_rng(1), shards)
    costs = np.array([[padded(part, seconds) for part in batch] for batch in parts_of(groups)])
    assert 1 - costs.mean(axis=1).sum() / costs.max(axis=1).sum() < 0.04


def test_plan_is_made_lazily_and_can_be_cut() -> None:
    """Guards resuming in the middle of an epoch, and the totals, against the batches themselves."""
    seconds = lengths_like_librispeech(500)
    tokens = np.arange(500, dtype=np.int32) % 7
    plan = Sampler(columns_of(seconds, tokens), 100.0, PLAIN).plan(3)
    whole = list(plan)
    assert len(whole) == len(plan)
    assert list(plan[5:]) == whole[5:]
    assert list(plan[5:][2:4]) == whole[7:9]
    assert plan[-1] == whole[-1]
    with pytest.raises(IndexError):
        plan[len(plan)]
    for planned in whole:
        chosen = list(planned.indices)
        assert planned.epoch == 3
        assert planned.global_tokens == tokens[chosen].sum()
        assert planned.global_seconds == pytest.approx(seconds[chosen].sum())


def test_batches_depend_on_the_parts_and_not_on_the_processes() -> None:
    """Guards a run of four processes that goes on with two, or with one: the same batches."""
    columns = columns_of(lengths_like_librispeech(500))

    def batches(world_size: int) -> list[list[int]]:
        ranks = [
            Sampler(columns, 400.0, PLAIN, sharding=Sharding(rank, world_size, shards=4)).plan(1)
            for rank in range(world_size)
        ]
        return [[index for part in shared for index in part.indices] for shared in zip(*ranks, strict=True)]

    assert batches(1) == batches(2) == batches(4)


def test_shortest_first() -> None:
    """Guards SortaGrad: batches in order of length, with other neighbours in every epoch, nothing lost."""
    seconds = lengths_like_librispeech(500)
    sampler = Sampler(columns_of(seconds), 100.0, PLAIN, shortest_first_epochs=2)

    def plan(epoch: int) -> list[list[int]]:
        return [list(batch.indices) for batch in sampler.plan(epoch)]

    first, second, third = plan(1), plan(2), plan(3)
    assert sorted(index for batch in first for index in batch) == list(range(500))
    means = [float(seconds[batch].mean()) for batch in first]
    assert all(
        after > 0.98 * before for before, after in pairwise(means)
    )  # lengths are sorted by classes of 2%
    assert first != second
    assert len(third[0]) < len(first[0])  # the longest first again, and then as they come
    assert len(first[0]) > len(first[-1])


def tar_sampler(rank: int = 0, world_size: int = 1, shards: int = 2) -> Sampler:
    """Of 3,000 utterances in 20 tar files, of which 4 are read together, and some in none."""
    seconds = lengths_like_librispeech(3000)
    tars = np.repeat(np.arange(20, dtype=np.int32), 150)
    tars[np.random.default_rng(1).permutation(3000)[:50]] = -1
    sharding = Sharding(rank, world_size, shards)
    return Sampler(columns_of(seconds, tars=tars), 200.0, PLAIN, sharding=sharding, open_tars=4)


def test_tar_files_are_read_a_few_at_a_time() -> None:
    """Guards the disk against reading a bit of every file for every batch, and utterances against getting
    lost."""
    sampler = tar_sampler()
    plan = sampler.plan(1)
    seconds, tars = sampler.columns.seconds, sampler.columns.tars
    assert tars is not None
    files = [{*tars[list(batch.indices)].tolist()} for batch in plan]
    assert sorted(index for batch in plan for index in batch.indices) == list(range(3000))
    turns = []  # the files of consecutive batches that share them
    for of_batch in files[1:]:  # the first one is the longest of all
        if turns and (of_batch & turns[-1]) - {-1}:
            turns[-1] |= of_batch
        else:
            turns.append(set(of_batch))
    assert all(len(turn - {-1}) <= 4 for turn in turns)
    assert 5 <= len(turns) <= 6
    assert seconds[list(plan[0].indices)].max() >= seconds.max() / 1.0202
    padded_s = sum(padded(part, seconds) for batch in parts_of(plan.groups) for part in batch)
    assert 1 - float(seconds.sum()) / padded_s < 0.05
    assert max(padded(part, seconds) for batch in parts_of(plan.groups) for part in batch) <= 100.0


def test_order_of_tar_files_is_drawn_for_the_epoch() -> None:
    """Guards resuming, and processes that agree on the order; epochs differ."""
    plans = [[batch.indices for batch in tar_sampler().plan(epoch)] for epoch in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {*plans[0]} != {*plans[2]}
    ranks = [tar_sampler(rank, 2).plan(1) for rank in range(2)]
    together = [(*first.indices, *second.indices) for first, second in zip(*ranks, strict=True)]
    assert together == plans[0]


def test_few_utterances_in_tar_files() -> None:
    """Guards turns with fewer utterances than shards: every part of every batch has one."""
    tars = np.arange(9, dtype=np.int32)
    columns = columns_of(np.linspace(1.0, 2.0, 9), tars=tars)
    sampler = Sampler(columns, 8.0, PLAIN, sharding=Sharding(shards=4), open_tars=4)
    plan = sampler.plan(1)
    assert sorted(index for batch in plan for index in batch.indices) == list(range(9))
    assert all(len(part) for batch in parts_of(plan.groups) for part in batch)
