"""The task of a character RNN: streams, and states that are carried from block to block."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from asr.errors import DataError, SettingsError
from asr.lm.charrnn import CharRnn
from asr.training.distributed import Process
from asr.training.tasks.charrnn import CharRnnTask, TextStreamConfig
from tests.shapes import charrnn_config

CPU = torch.device("cpu")


def task(
    streams: int = 3, block: int = 5, rank: int = 0, world_size: int = 1, length: int = 50
) -> CharRnnTask:
    net = CharRnn(("a", "b"), charrnn_config(width=4, depth=1, embedding=2))
    ids = np.arange(length, dtype=np.uint16) % 3
    config = TextStreamConfig(streams=streams, block=block)
    return CharRnnTask(net, ids, ids, config, Process(rank, world_size, CPU), seed=1)


def test_blocks_of_a_stream_follow_each_other_without_gap() -> None:
    """The last target of a block is the first input of the next; a gap or an overlap would teach a text that
    nobody wrote. Every position is learned once."""
    made = task()
    blocks = list(made.load(made.plan(2)))
    assert [block.first for block in blocks] == [True] + [False] * (len(blocks) - 1)
    rows = torch.cat([block.symbols[:, :-1] for block in blocks], dim=1)
    for earlier, later in pairwise(blocks):
        assert torch.equal(earlier.symbols[:, -1], later.symbols[:, 0])
    assert rows.shape == (3, 50 // 3 - 1)
    # the text is 0 1 2 0 1 2 …, also where it wraps around (50 = 2 mod 3: once "1 0" in place of "1 2 0")
    assert ((rows[:, 1:] - rows[:, :-1]) % 3 == 1).sum() >= rows[:, 1:].numel() - 1


def test_epochs_begin_elsewhere_but_always_the_same() -> None:
    """Resuming asks for a part of the same plan: it must be the same data."""
    made = task()
    first = next(made.load(made.plan(1)[1:2])).symbols
    assert torch.equal(first, list(made.load(made.plan(1)))[1].symbols)
    begins = {tuple(next(made.load(made.plan(epoch)[:1])).symbols[0].tolist()) for epoch in range(1, 20)}
    assert len(begins) > 1


def test_processes_share_the_streams() -> None:
    """Two processes together read what one reads, also by their token counts."""
    whole = next(task(streams=4).load([(1, 0)]))
    parts = [next(task(streams=4, rank=rank, world_size=2).load([(1, 0)])) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.symbols for part in parts]), whole.symbols[[0, 2, 1, 3]])
    assert {part.global_tokens for part in parts} == {whole.global_tokens}


def test_too_little_text() -> None:
    """One clear line, before anything is trained."""
    with pytest.raises(DataError, match=r"characters to learn from .* lower --text\.streams"):
        task(streams=30)


def test_hidden_states_stay_with_their_processes() -> None:
    """With another number of processes or streams, states would meet other streams, or crash midway."""
    made = task(streams=4, world_size=2)
    made.forward(next(made.load([(1, 0)])), torch.float32)
    state = made.state()
    task(streams=4, rank=1, world_size=2).restore(state)
    for other in (task(streams=4), task(streams=3, world_size=2)):
        with pytest.raises(SettingsError, match=r"by 2 process\(es\) with 4 streams.*as many processes"):
            other.restore(state)
