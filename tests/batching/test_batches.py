import multiprocessing
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.batching.batches import Batch, BatchConfig, Batches
from asr.batching.cache import read_waveform
from asr.batching.examples import Examples
from asr.errors import AudioError, DataError, SettingsError
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.mel_warp import warp_mel
from asr.frontend.features import log_mel
from asr.manifests.utterance import Utterance
from tests.batching.test_sampler import lengths_like_librispeech
from tests.training.conftest import FEATURES, PLAIN, examples_of, silent, write_tones

UNCACHED = BatchConfig(seconds=100.0, cache_dir=None, workers=0)
AUGMENT = AugmentConfig()


def many(count: int = 700, speeds: Sequence[float] = AUGMENT.speeds) -> Examples:
    lengths = lengths_like_librispeech(count).tolist()
    return examples_of(
        [silent(f"u{number}", seconds, tokens=1 + number % 7) for number, seconds in enumerate(lengths)],
        speeds,
    )


def plans(seed: int = 1, epoch: int = 1, rank: int = 0, world_size: int = 1) -> list[tuple[int, ...]]:
    batches = Batches(many(), FEATURES, UNCACHED, AUGMENT, seed=seed, rank=rank, world_size=world_size)
    return [planned.indices for planned in batches.plan(epoch)]


def test_plan_is_a_function_of_seed_and_epoch() -> None:
    """Guards resuming: the same epoch is planned the same again, and another epoch or seed is not."""
    assert plans() == plans()
    assert plans() != plans(epoch=2)
    assert plans() != plans(seed=2)
    assert set(plans()) != set(plans(epoch=2))  # not only in another order


def test_speed_counts_in_the_plan() -> None:
    """Guards the limit against utterances that speed perturbation makes longer."""
    batches = Batches(many(speeds=(0.5,)), FEATURES, UNCACHED, AugmentConfig(speeds=(0.5,)), seed=1)
    for planned in batches.plan(1):
        longest = max(2 * batches.examples[index].utterance.duration for index in planned.indices)
        assert len(planned.indices) * longest <= 100.0 or len(planned.indices) == 1


def test_silence_counts_in_the_plan() -> None:
    """Guards the limit against utterances that silence makes longer; the lengths of both ends are known."""
    augment = AugmentConfig(speeds=(1.0,), silence_share=0.7, silence_s=(1.0, 4.0))
    batches = Batches(many(speeds=(1.0,)), FEATURES, UNCACHED, augment, seed=1)
    silences = 0
    for planned in batches.plan(2):
        lengths = []
        for index in planned.indices:
            silence = batches.dataset.conditions([batches.examples[index]], 2)[0].silence
            added_s = silence.before_s + silence.after_s if silence else 0.0
            lengths.append(batches.examples[index].utterance.duration + added_s)
            silences += silence is not None
        assert len(lengths) * max(lengths) <= 100.0 or len(lengths) == 1
        assert planned.global_seconds == pytest.approx(sum(lengths))
    assert silences == pytest.approx(490, abs=50)


def test_trimming_leaves_enough_steps(tmp_path: Path) -> None:
    """Guards the loss against silence that is trimmed until fewer steps are left than tokens need."""
    path = tmp_path / "a.wav"
    samples = np.zeros(8000, np.float32)
    samples[3000:5000] = 0.1
    soundfile.write(path, samples, 8000)
    augment = AugmentConfig(speeds=(1.0,), silence_share=1.0, silence_s=(-0.3, -0.3))
    frames = []
    for tokens in (1, 11, 12, 26):  # a step each: 3200 samples make 11, and the whole recording 26
        utterance = replace(silent("a", 1.0, tokens), audio_filepath=path)
        batches = Batches(examples_of([utterance]), FEATURES, UNCACHED, augment, seed=1)
        (batch,) = batches.load(batches.plan(1))
        frames.append(int(batch.frame_lengths[0]))
    assert frames == [41, 41, 101, 101]


def test_speeds_are_drawn_from_those_that_fit() -> None:
    """Guards the slow-only utterances of the preflight, and that all allowed speeds occur."""
    slow = silent("u", 2.0, tokens=48)  # of 51 steps, and 46 at speed 1.1
    batches = Batches(examples_of([slow], AUGMENT.speeds), FEATURES, UNCACHED, AUGMENT, seed=1)
    drawn = Counter(
        batches.dataset.conditions([batches.examples[0]], epoch)[0].speed for epoch in range(1, 100)
    )
    assert set(drawn) == {0.9, 1.0}
    assert batches.dataset.conditions([batches.examples[0]], 0)[0].speed == 1.0


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_every_batch(world_size: int) -> None:
    """Guards more than one process: together they have the batches of one that makes as many parts."""
    config = replace(UNCACHED, shards=world_size)
    whole = Batches(many(), FEATURES, config, AUGMENT, seed=1).plan(1)
    parts = [
        Batches(many(), FEATURES, UNCACHED, AUGMENT, seed=1, rank=rank, world_size=world_size).plan(1)
        for rank in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    for single, *shared in zip(whole, *parts, strict=True):
        assert sorted(index for part in shared for index in part.indices) == sorted(single.indices)
        assert all(part.indices for part in shared)
        assert {part.global_tokens for part in shared} == {single.global_tokens}
        assert {part.global_seconds for part in shared} == {single.global_seconds}
    tokens = sum(len(item.tokens) for item in many())
    assert sum(planned.global_tokens for planned in whole) == tokens


def test_more_processes_than_utterances() -> None:
    """Guards small sets: training raises an error; in scoring, some processes have no batch."""
    with pytest.raises(DataError, match="2 training utterances for batches of 3 shards"):
        Batches(many(2), FEATURES, UNCACHED, AUGMENT, seed=1, world_size=3)
    shares = [
        [
            planned.indices
            for planned in Batches(many(2), FEATURES, UNCACHED, None, seed=1, rank=rank, world_size=3).plan(0)
        ]
        for rank in range(3)
    ]
    assert sorted(index for share in shares for indices in share for index in indices) == [0, 1]
    assert shares[2] == []


def same(left: Batch, right: Batch) -> bool:
    pairs = [
        (left.tokens, right.tokens),
        (left.frame_lengths, right.frame_lengths),
    ]
    if left.masks is not None and right.masks is not None:
        pairs += [(left.masks.time, right.masks.time), (left.masks.mel, right.masks.mel)]
    if left.warps is not None and right.warps is not None:
        pairs.append((left.warps, right.warps))
    for name in ("cached_features", "waveforms", "waveform_rows"):
        if getattr(left, name) is not None and getattr(right, name) is not None:
            pairs.append((getattr(left, name), getattr(right, name)))
    return (
        left.ids == right.ids
        and (left.masks is None) == (right.masks is None)
        and (left.warps is None) == (right.warps is None)
        and (left.waveforms is None) == (right.waveforms is None)
        and (left.cached_features is None) == (right.cached_features is None)
        and all(torch.equal(one, other) for one, other in pairs)
    )


def load(
    tones: list[Utterance], config: BatchConfig, augment: AugmentConfig | None, epoch: int
) -> list[Batch]:
    speeds = augment.speeds if augment else (1.0,)
    batches = Batches(examples_of(tones, speeds), FEATURES, config, augment, seed=3)
    return list(batches.load(batches.plan(epoch)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
@pytest.mark.parametrize("cached", [True, False])
def test_workers_change_nothing(cached: bool, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the draws against the number of loader processes."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path if cached else None, workers=0)
    alone = load(tones, config, AUGMENT, 2)
    assert len(alone) > 2
    for workers in (1, 2):
        parallel = load(tones, replace(config, workers=workers), AUGMENT, 2)
        assert all(same(left, right) for left, right in zip(alone, parallel, strict=True))


def test_cache_changes_nothing(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the features of the cache against those made of the padded batch: equal up to float32's
    rounding."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    cached = load(tones, config, AUGMENT, 2)
    plain = load(tones, replace(config, cache_dir=None), AUGMENT, 2)
    for left, right in zip(cached, plain, strict=True):
        assert left.ids == right.ids
        assert torch.equal(left.frame_lengths, right.frame_lengths)
        features = right.features(FEATURES)
        assert features.shape == left.features(FEATURES).shape
        for row, length in enumerate(left.frame_lengths.tolist()):
            # One frame less: in a padded batch the resampler's tail may reach into the last one.
            mine = left.features(FEATURES)[row, :length]
            torch.testing.assert_close(mine, features[row, :length], rtol=1e-4, atol=2e-4)


ROOMS = AugmentConfig(
    room_share=0.5,
    noise_share=0.5,
    gain_share=0.5,
    mel_warp=(0.9, 1.1),
    silence_share=0.5,
    telephone_share=0.5,
)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
@pytest.mark.parametrize("cached", [True, False])
def test_workers_change_nothing_of_rooms_and_noise(
    cached: bool, tones: list[Utterance], tmp_path: Path
) -> None:
    """Guards noise, rooms, volume and warps against the number of loader processes, on the fly or not."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path if cached else None, workers=0)
    alone = load(tones, config, ROOMS, 2)
    for workers in (0, 2):
        parallel = load(tones, replace(config, workers=workers), ROOMS, 2)
        assert all(same(left, right) for left, right in zip(alone, parallel, strict=True))


def test_cache_serves_what_is_not_changed(
    tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against clean features where noise was drawn, and against computing what the cache has."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    some = replace(
        ROOMS, room_share=0.1, noise_share=0.1, gain_share=0.1, silence_share=0.1, telephone_share=0.1
    )
    batches = Batches(examples_of(tones, some.speeds), FEATURES, config, some, seed=3)
    read: list[str] = []

    def watch(utterance: Utterance, *arguments: Any) -> torch.Tensor:
        read.append(utterance.id)
        return read_waveform(utterance, *arguments)

    monkeypatch.setattr("asr.batching.batches.read_waveform", watch)
    rows: dict[str, list[torch.Tensor]] = {}
    for batch in batches.load(batches.plan(2)):
        assert batch.warps is not None
        plain = replace(batch, warps=None)
        for part in (plain, *(plain.split() or ())):  # a batch that was too large for memory is halved
            features = part.features(FEATURES)
            for name, row, length in zip(part.ids, features, part.frame_lengths.tolist(), strict=True):
                rows.setdefault(name, []).append(row[:length])
    changed = 0
    for item in batches.examples:
        how = batches.dataset.conditions([item], 2)[0]
        changed += not how.only_speed
        waveform = read_waveform(item.utterance, FEATURES.sample_rate, how)
        expected = log_mel(waveform.unsqueeze(0), FEATURES)[0]
        for found in rows[item.utterance.id]:
            torch.testing.assert_close(found, expected)
        assert (item.utterance.id in read) == (not how.only_speed)
    assert 0 < changed < len(tones)


MASKED = replace(PLAIN, time_masks_per_s=3.0, mel_masks=2, masks_from_epoch=2, consistency_weight=0.2)


def test_second_view(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the second view: the same sound under other masks, drawn for each utterance by itself; in halves
    of a batch, too; and the first view's masks are those of a run with one view."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    some = replace(ROOMS, time_masks_per_s=3.0, mel_masks=2)
    one = load(tones, config, some, 2)
    for single, batch in zip(one, load(tones, config, replace(some, consistency_weight=0.2), 2), strict=True):
        assert same(single, batch)
        assert single.second_masks is None
        assert not torch.equal(batch.masks.time, batch.second_masks.time)
        for part in (batch, *(batch.split() or ())):
            both, size = part.both_views(), len(part.ids)
            assert both.ids == part.ids + part.ids
            first, second = both.features(FEATURES).chunk(2)
            torch.testing.assert_close(first, part.features(FEATURES))
            torch.testing.assert_close(second, first)
            assert torch.equal(both.masks.time[:size], part.masks.time)
            assert torch.equal(both.masks.mel[size:], part.second_masks.mel)
            assert torch.equal(both.tokens[size:], part.tokens)


def test_second_view_before_masks_begin(tones: list[Utterance]) -> None:
    """Guards the first epochs: without masks there is nothing to tell the views apart but dropout."""
    [batch] = load(tones, UNCACHED, MASKED, 1)
    assert batch.both_views().masks is None
    [batch] = load(tones, UNCACHED, MASKED, 2)
    assert batch.both_views().masks is not None


def test_warps_follow_their_utterances(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards mel warping: a factor for each utterance, also on features that the device computes."""
    config = BatchConfig(seconds=3.0, cache_dir=None, workers=0)
    warped = AugmentConfig(speeds=(1.0,), mel_warp=(0.88, 1.12))
    batches = Batches(examples_of(tones), FEATURES, config, warped, seed=3)
    by_id = {item.utterance.id: item for item in batches.examples}
    for batch in batches.load(batches.plan(1)):
        for row, name in enumerate(batch.ids):
            factor = torch.tensor(
                [batches.dataset.conditions([by_id[name]], 1)[0].mel_warp], dtype=torch.float64
            )
            plain = log_mel(batch.waveforms[row : row + 1], FEATURES)
            assert torch.equal(batch.features(FEATURES)[row], warp_mel(plain, factor, FEATURES)[0])
            assert not torch.equal(batch.features(FEATURES)[row], plain[0])


def test_masks_only_from_their_epoch_on(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the unmasked first epochs, which shorten the blank plateau."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    augment = AugmentConfig(masks_from_epoch=3)
    assert all(batch.masks is None for epoch in (1, 2) for batch in load(tones, config, augment, epoch))
    masked = load(tones, config, augment, 3)
    assert any(batch.masks is not None and batch.masks.mel[..., 1].any() for batch in masked)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_dev_is_never_augmented(epoch: int, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the dev score: the same plain recordings, in the same order, in every epoch."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    batches = load(tones, config, None, epoch)
    assert all(batch.masks is None for batch in batches)
    assert all(same(left, right) for left, right in zip(batches, load(tones, config, None, 0), strict=True))
    durations = {utterance.id: utterance.duration for utterance in tones}
    for batch in batches:
        seconds = [durations[name] for name in batch.ids]
        assert batch.frame_lengths.tolist() == [1 + round(s * 8000) // 80 for s in seconds]
        assert seconds == sorted(seconds, reverse=True) or max(seconds) / min(seconds) < 1.03


def test_unaugmented_epoch_of_a_training_set(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards global statistics, taken at speed 1, even where training never uses it."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=0)
    features = replace(FEATURES, normalize="global")
    batches = Batches(examples_of(tones), features, config, AugmentConfig(speeds=(0.9, 1.1)), seed=1)
    assert sum(len(batch.ids) for batch in batches.load(batches.plan(0))) == len(tones)


def test_batch_of_empty_transcripts_only() -> None:
    """Guards the loss a token against a division by zero tokens."""
    batches = Batches(examples_of([silent("u", 2.0, tokens=0)]), FEATURES, UNCACHED, PLAIN, seed=1)
    assert [planned.global_tokens for planned in batches.plan(1)] == [1]


def test_workers_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tones: list[Utterance]) -> None:
    """Guards a CPU's cores: no loader process takes one away unless it is asked for. A GPU has some."""
    config = BatchConfig(cache_dir=None)
    assert Batches(many(3), FEATURES, config, None, seed=1).workers == 0
    cuda = torch.device("cuda")
    monkeypatch.setattr("asr.batching.loader.usable_cores", lambda: 4)
    monkeypatch.setattr("asr.batching.loader._SHARED_MEMORY", str(tmp_path / "none"))
    assert Batches(many(3), FEATURES, config, None, seed=1, device=cuda).workers == 3
    assert Batches(many(3), FEATURES, UNCACHED, None, seed=1, device=cuda).workers == 0
    cached = BatchConfig(cache_dir=tmp_path)
    assert Batches(examples_of(tones), FEATURES, cached, None, seed=1, device=cuda).workers == 3
    monkeypatch.setattr("asr.batching.loader.usable_cores", lambda: 64)
    assert Batches(examples_of(tones), FEATURES, cached, None, seed=1, device=cuda).workers == 4
    assert Batches(examples_of(tones), FEATURES, cached, ROOMS, seed=1, device=cuda).workers == 8


@pytest.mark.parametrize(("free", "expected"), [(10**12, 4), (64_000_000, 2), (9_000_000, 0)])
def test_workers_fit_into_shared_memory(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch, tones: list[Utterance], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Guards containers with 64 MB of shared memory, where one batch too many kills a loader process."""
    monkeypatch.setattr("asr.batching.loader.usable_cores", lambda: 64)
    monkeypatch.setattr("asr.batching.loader.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    config = BatchConfig(seconds=600.0, cache_dir=tmp_path)  # 20 bands: 4.8 MB a batch
    batches = Batches(examples_of(tones), FEATURES, config, None, seed=1, device=torch.device("cuda"))
    assert batches.workers == expected
    assert ("--shm-size" in caplog.text) == (expected < 4)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
def test_loader_processes_outlive_an_epoch(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards short epochs: loader processes that are started for each take longer than the epoch."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path, workers=2)
    batches = Batches(examples_of(tones), FEATURES, config, PLAIN, seed=3)
    alone = Batches(examples_of(tones), FEATURES, replace(config, workers=0), PLAIN, seed=3)
    pids = set()
    for epoch in (1, 2, 3):
        pairs = zip(batches.load(batches.plan(epoch)), alone.load(alone.plan(epoch)), strict=True)
        assert all(same(left, right) for left, right in pairs)
        pids.add(tuple(sorted(child.pid for child in multiprocessing.active_children())))
    assert len(pids) == 1
    assert len(pids.pop()) == 2
    # One that is still being read does not disturb another, and one that is left takes its processes along.
    first = batches.load(batches.plan(1))
    next(first)
    assert len(list(batches.load(batches.plan(2)))) == len(batches.plan(2))
    first.close()
    batches.loader.close()
    assert not multiprocessing.active_children()


def test_idle_loader_processes_end_with_the_program(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the end of every training: Python waits forever for loader processes that ignore SIGTERM."""
    script = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from torch.utils.data import Dataset\n"
        "from asr.batching.loader import Loader\n"
        "class Numbers(Dataset):\n"
        "    def __getitem__(self, number): return number + 1\n"
        "loader = Loader(Numbers(), 1)\n"
        "print(list(loader.load([1, 2])), list(loader.load([3])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2, 3] [4]\n", "")


def test_settings() -> None:
    """Guards the ranges, by the names that the user types."""
    with pytest.raises(SettingsError, match=r"batch\.seconds must be above 0. Got 0"):
        BatchConfig(seconds=0)
    with pytest.raises(SettingsError, match=r"batch\.workers must be at least 0. Got -1"):
        BatchConfig(workers=-1)
    with pytest.raises(SettingsError, match=r"batch\.cache-workers must be at least 1. Got 0"):
        BatchConfig(cache_workers=0)
    with pytest.raises(SettingsError, match=r"batch\.shards must be at least 1. Got 0"):
        BatchConfig(shards=0)
    with pytest.raises(SettingsError, match=r"batch\.shards is 3 for 2 processes. Expected a multiple"):
        Batches(many(4), FEATURES, BatchConfig(cache_dir=None, shards=3), AUGMENT, seed=1, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_audio_is_one_clear_line(workers: int, tmp_path: Path) -> None:
    """Guards the message from a loader process, which torch wraps in twenty lines of traceback."""
    utterances = write_tones(tmp_path, ["ab", "ba"])
    batches = Batches(
        examples_of(utterances), FEATURES, BatchConfig(cache_dir=None, workers=workers), PLAIN, seed=1
    )
    utterances[1].audio_filepath.unlink()
    with pytest.raises(AudioError, match=r"u01\.wav: no such file\.$"):
        list(batches.load(batches.plan(1)))
    assert not multiprocessing.active_children(), (
        "a process that ignores SIGTERM keeps the command from ending"
    )


@pytest.mark.parametrize("cached", [True, False])
def test_batches_that_were_kept(cached: bool, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards bad_update_N.pt, which keeps the fields of a batch as plain values."""
    config = BatchConfig(seconds=3.0, cache_dir=tmp_path if cached else None, workers=0)
    for batch in load(tones, config, AUGMENT, 2):
        assert same(Batch.from_fields(asdict(batch)), batch)
