"""Plans of epochs: which utterances form a batch, in which order, and on which process.

A plan is a pure function of the seed and the epoch. It stores a few numbers per utterance and makes each
batch on access, so that ten million utterances are planned in seconds.

A batch consists of shards, one or more for each process. Each shard has utterances of about the same length
and about the same number of seconds, padding included, so that all processes finish at about the same
time. Batches are in random order, except that the longest is first: a batch that does not fit into memory is
found at once.

Recordings in tar files are read a few files at a time: batches are made of the utterances of these, then of
the next few, in an order that is drawn for the epoch.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from asr.batching.examples import ExampleColumns
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.silence import draw_silence
from asr.frontend.augment.speed import draw_speeds

_LENGTH_CLASS_WIDTH = 0.02  # utterances whose lengths differ by less are shuffled among themselves


@dataclass(frozen=True)
class PlannedBatch:
    """A batch of the plan: this process's shards of it, and the epoch that its augmentation depends on."""

    indices: tuple[int, ...]  # into the examples
    epoch: int  # 0 for no augmentation
    global_tokens: int  # tokens of all processes' shards of this batch, at least 1: losses are divided by it
    global_seconds: float  # of audio in all processes' shards, without padding


@dataclass(frozen=True)
class Groups:
    """Utterances in batches of shards."""

    order: NDArray[np.int32]  # (utterances,) indices of utterances, sorted by length
    cuts: NDArray[np.int64]  # (batches * shards + 1,) bounds of the shards in `order`
    shards: int  # in a batch

    def __len__(self) -> int:
        """The number of batches."""
        return (len(self.cuts) - 1) // self.shards

    def batch(self, number: int) -> NDArray[np.int32]:
        """The utterances of a batch."""
        first = number * self.shards
        return self.order[self.cuts[first] : self.cuts[first + self.shards]]

    def shards_of(self, number: int) -> list[NDArray[np.int32]]:
        """The utterances of each shard of a batch; some are empty if there are too few utterances."""
        cuts = self.cuts[number * self.shards : (number + 1) * self.shards + 1].tolist()
        return [self.order[start:end] for start, end in pairwise(cuts)]


def group_by_length(
    seconds: NDArray[np.floating], batch_s: float, rng: np.random.Generator | None, shards: int = 1
) -> Groups:
    """Group utterances of about the same length into batches of about batch_s seconds, padding included.

    Args:
        seconds: (utterances,) durations.
        batch_s: most seconds in a batch, and batch_s / shards in each of its shards. An utterance that
            is longer forms a shard alone, except that in the last batch such a shard may have two.
        rng: shuffles utterances of about the same length; None leaves them sorted.
        shards: of a batch.

    Returns:
        The batches, the longest first; every utterance is in exactly one.
    """
    count = len(seconds)
    order = np.arange(count, dtype=np.int32)
    if rng is not None:
        rng.shuffle(order)
    # The range of int16 covers lengths that differ by a factor of e^655. 16 bits are sorted in linear time.
    classes = (-np.floor(np.log(seconds) / _LENGTH_CLASS_WIDTH)).astype(np.int16)
    order = order[np.argsort(classes[order], kind="stable")]
    lengths = seconds[order]
    starts = _shard_starts(lengths, classes[order], batch_s / shards)
    return Groups(order, _whole_batches(starts, lengths, shards), shards)


def _shard_starts(
    lengths: NDArray[np.floating], classes: NDArray[np.int16], shard_s: float
) -> NDArray[np.int64]:
    """Where shards begin in utterances sorted by class."""
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(classes)) + 1])
    ends = np.append(firsts[1:], len(lengths))
    starts, start = [], 0
    for end, longest in zip(ends.tolist(), np.maximum.reduceat(lengths, firsts).tolist(), strict=True):
        if start < end:  # else the previous shard contains all of this class
            size = max(1, int(shard_s / longest))
            starts.append(np.arange(start, end, size, dtype=np.int64))
            start = int(starts[-1][-1]) + size
    return np.concatenate(starts)


def _whole_batches(
    starts: NDArray[np.int64], lengths: NDArray[np.floating], shards: int
) -> NDArray[np.int64]:
    """Where shards begin and end, changed at the end so that each batch has all its shards."""
    count, whole = len(lengths), len(starts) // shards * shards
    if whole == len(starts):
        return np.append(starts, count)
    left = count - int(starts[whole])
    needed = shards
    if left < shards and whole:
        # Too few for a batch. With those of the batch before, they may be enough for two.
        whole -= shards
        left = count - int(starts[whole])
        needed = 2 * shards if left >= 2 * shards else shards
    if left >= needed and len(starts) - whole <= needed:
        ends = _halved(np.append(starts[whole:], count).tolist(), lengths, needed)
    else:
        # One utterance for each shard, and a second for the last shards, which are the shortest; or too few.
        twice = max(0, left - needed)
        sizes = np.ones(needed, dtype=np.int64)
        sizes[needed - twice :] = 2
        sizes[left:] = 0
        ends = (int(starts[whole]) + np.concatenate([[0], np.cumsum(sizes)])).tolist()
    return np.concatenate([starts[:whole], np.array(ends, dtype=np.int64)])


def _halved(cuts: list[int], lengths: NDArray[np.floating], shards: int) -> list[int]:
    """Halve the shard with the most seconds until the number of shards is reached."""

    def entry(start: int, end: int) -> tuple[float, int, int]:
        # A shard of one utterance cannot be halved: it goes to the end of the queue.
        cost = (end - start) * float(lengths[start:end].max()) if end - start > 1 else 0.0
        return -cost, start, end

    queue = [entry(start, end) for start, end in pairwise(cuts)]
    heapq.heapify(queue)
    while len(queue) < shards:
        _, start, end = heapq.heappop(queue)
        middle = (start + end) // 2
        heapq.heappush(queue, entry(start, middle))
        heapq.heappush(queue, entry(middle, end))
    return [*sorted(start for _, start, _ in queue), cuts[-1]]


@dataclass(frozen=True)
class Sharding:
    """How the processes that train together share the shards of a batch."""

    rank: int = 0  # of the process whose shards are returned
    world_size: int = 1  # processes that share every batch
    shards: int = 1  # of a batch, a multiple of world_size


class Plan(Sequence[PlannedBatch]):
    """One process's batches of an epoch, each made when it is needed.

    Args:
        groups: all batches, in shards.
        batch_order: (batches,) int64 indices into groups.
        epoch: 0 for no augmentation.
        tokens: (batches,) of each batch.
        seconds: (batches,) of audio in each.
        sharding: which shards are this process's.
    """

    def __init__(
        self,
        groups: Groups,
        batch_order: NDArray[np.int64],
        epoch: int,
        tokens: NDArray[np.int64],
        seconds: NDArray[np.float64],
        sharding: Sharding,
    ) -> None:
        self.groups, self._batch_order, self._epoch = groups, batch_order, epoch
        self._tokens, self._seconds, self._sharding = tokens, seconds, sharding

    def __len__(self) -> int:
        return len(self._batch_order)

    def __iter__(self) -> Iterator[PlannedBatch]:
        return (self[position] for position in range(len(self)))

    @overload
    def __getitem__(self, position: int) -> PlannedBatch: ...

    @overload
    def __getitem__(self, position: slice) -> "Plan": ...

    def __getitem__(self, position: int | slice) -> "PlannedBatch | Plan":
        if isinstance(position, slice):
            batch_order = self._batch_order[position]
            return Plan(self.groups, batch_order, self._epoch, self._tokens, self._seconds, self._sharding)
        groups, number = self.groups, int(self._batch_order[position])
        count = groups.shards // self._sharding.world_size
        first = number * groups.shards + self._sharding.rank * count
        return PlannedBatch(
            indices=tuple(groups.order[groups.cuts[first] : groups.cuts[first + count]].tolist()),
            epoch=self._epoch,
            global_tokens=max(1, int(self._tokens[number])),
            global_seconds=float(self._seconds[number]),
        )


class Sampler:
    """The batches of a set of utterances, for every epoch.

    Args:
        columns: what is known of the utterances.
        batch_s: most seconds in a batch, padding included.
        augment: the speeds and silences; None for plain utterances in a fixed order (dev and test sets).
        seed: of the order, the speeds and the silences.
        shortest_first_epochs: number of first epochs in which short utterances come before long ones.
        sharding: how processes share the shards of a batch.
        open_tars: so many tar files are read together.

    Source: shortest first is SortaGrad, Amodei et al. 2016, "Deep Speech 2", section 3.4.
    """

    def __init__(
        self,
        columns: ExampleColumns,
        batch_s: float,
        augment: AugmentConfig | None,
        *,
        seed: int = 0,
        shortest_first_epochs: int = 0,
        sharding: Sharding = Sharding(),
        open_tars: int = 8,
    ) -> None:
        self.columns, self.batch_s, self.augment, self.seed = columns, batch_s, augment, seed
        self.shortest_first_epochs, self.sharding, self.open_tars = shortest_first_epochs, sharding, open_tars
        self._planned: tuple[int, Plan] | None = None

    def plan(self, epoch: int) -> Plan:
        """This process's batches of an epoch, counted from 1; epoch 0 is unaugmented and sorted.

        If there are fewer utterances than shards, some processes have no batch.
        """
        if self._planned is None or self._planned[0] != epoch:  # a training asks again for the one it is in
            self._planned = None  # frees its memory
            self._planned = epoch, self._plan(epoch)
        return self._planned[1]

    def _plan(self, epoch: int) -> Plan:
        columns, seconds, rng = self.columns, self.columns.seconds, None
        if epoch and self.augment:
            rng = np.random.default_rng([self.seed, epoch])
            augment = self.augment
            seconds = seconds / draw_speeds(
                augment.speeds, columns.top_speeds, columns.hashes, self.seed, epoch
            )
            if augment.silence_share:  # what is trimmed is not known yet
                share, range_s = augment.silence_share, augment.silence_s
                added_s = draw_silence(share, range_s, columns.hashes, self.seed, epoch).clip(min=0)
                seconds = seconds + added_s.sum(axis=1)
        shortest_first = rng is not None and epoch <= self.shortest_first_epochs
        if columns.tars is None or rng is None or shortest_first:
            groups = group_by_length(seconds, self.batch_s, rng, self.sharding.shards)
            batch_order = np.arange(len(groups))
            if shortest_first:
                batch_order = batch_order[::-1].copy()
            elif rng is not None:
                rng.shuffle(batch_order[1:])
        else:
            groups, batch_order = self._by_tars(columns.tars, seconds, rng)
        if len(groups):
            firsts = groups.cuts[: -1 : self.sharding.shards]
            tokens = np.add.reduceat(columns.token_counts[groups.order], firsts, dtype=np.int64)
            audio_s = np.add.reduceat(seconds[groups.order], firsts, dtype=np.float64)
        else:
            tokens, audio_s = np.zeros(0, dtype=np.int64), np.zeros(0)
        plan = Plan(groups, batch_order, epoch if self.augment else 0, tokens, audio_s, self.sharding)
        # Only a single batch can have empty shards.
        return plan if len(plan) != 1 or plan[0].indices else plan[:0]

    def _by_tars(
        self, tars: NDArray[np.int32], seconds: NDArray[np.floating], rng: np.random.Generator
    ) -> tuple[Groups, NDArray[np.int64]]:
        """Batches of the utterances of some tar files, then of others; and their order, the longest first."""
        # When each file is read; the last one stands for utterances in none.
        turns = rng.permutation(int(tars.max()) + 2) // self.open_tars
        turn_of = turns[tars]
        rows = np.argsort(turn_of, kind="stable").astype(np.int32)
        parts: list[NDArray[np.int32]] = []
        for part in np.split(rows, np.flatnonzero(np.diff(turn_of[rows])) + 1):
            if parts and min(len(parts[-1]), len(part)) < self.sharding.shards:  # too few for a batch
                parts[-1] = np.concatenate([parts[-1], part])
            else:
                parts.append(part)
        orders, cuts, batch_orders, begun = [], [np.zeros(1, np.int64)], [], 0
        for part in parts:
            groups = group_by_length(seconds[part], self.batch_s, rng, self.sharding.shards)
            orders.append(part[groups.order])
            cuts.append(groups.cuts[1:] + cuts[-1][-1])
            batch_orders.append(begun + rng.permutation(len(groups)))
            begun += len(groups)
        joined = Groups(np.concatenate(orders), np.concatenate(cuts), self.sharding.shards)
        batch_order = np.concatenate(batch_orders)
        firsts = joined.order[joined.cuts[: -1 : joined.shards]]  # the longest utterance of each batch
        longest = int(np.flatnonzero(batch_order == int(np.argmax(seconds[firsts])))[0])
        batch_order[: longest + 1] = np.roll(batch_order[: longest + 1], 1)
        return joined, batch_order
