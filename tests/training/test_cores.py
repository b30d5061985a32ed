import logging
import os

import pytest
import torch

from asr.cores import usable_cores
from asr.training.cores import share_cores


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine of four cores; the numbers that torch is given."""
    given: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    return given


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_threads_and_workers_fit(
    workers: int, four_cores: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against more threads and loader processes than cores."""
    assert share_cores(None, workers) == 4 - workers
    assert four_cores == [4 - workers]
    assert not caplog.messages


def test_omp_num_threads_is_honoured(four_cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a user's OMP_NUM_THREADS=2, which torch has read already."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert share_cores(None, 0) == 2


@pytest.mark.parametrize(("threads", "workers"), [(8, 0), (3, 2), (None, 4)])
def test_too_many_is_said(
    threads: int | None, workers: int, four_cores: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards that a wish which outnumbers the cores is granted, but not in silence."""
    assert share_cores(threads, workers) == (threads or 1)
    with caplog.at_level(logging.WARNING, "asr"):
        share_cores(threads, workers)
    assert "for 4 usable cores: this is often many times slower" in caplog.text
    assert "--batch.workers" in caplog.text


def test_neighbours_under_torchrun(four_cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against two processes that each take all cores."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert usable_cores() == 2
    assert share_cores(None, 1) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert usable_cores() == 1
