"""Utterances -> batches: what a batch holds, and how it is made; `sampler` says what goes together."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from asr.cores import usable_cores
from asr.corpora.manifest import Utterance
from asr.errors import AsrError, DataError, SettingsError
from asr.frontend.augment import AS_RECORDED, AugmentConfig, Augmenter, Conditions, Masks
from asr.frontend.augment.draws import generator
from asr.frontend.augment.mel_warp import warp_mel
from asr.frontend.augment.specaugment import draw_masks
from asr.frontend.features import FeatureConfig, frame_count, log_mel
from asr.training.cache import FeatureCache, open_cache, read_features, read_waveform
from asr.training.cores import one_thread
from asr.training.examples import Example
from asr.training.failures import loader_killed
from asr.training.sampler import Plan, Planned, Sampler

CPU = torch.device("cpu")
_SIGNAL_S = 0.2  # within which the system tells of a process that has ended


@dataclass(frozen=True)
class BatchConfig:
    """How utterances become batches."""

    seconds: float = 100.0  # of audio in a batch, padding included, over all processes
    # Features are kept here; None computes them every time. Those of rooms, noise and gain are never kept.
    cache_dir: Path | None = Path("data/features")
    # Equal parts of a batch, one or more for each process; None: as many as processes. Set it to go on with a
    # run of more processes.
    shards: int | None = None
    # In so many first epochs, short utterances come before long ones (SortaGrad): a steadier beginning.
    shortest_first_epochs: int = 0
    # Processes that make batches; None: 0 on a CPU or where a cache has all features, else up to 8.
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise SettingsError(f"batch.seconds must be above 0. Got {self.seconds:g}.")
        if self.shards is not None and self.shards < 1:
            raise SettingsError(f"batch.shards must be at least 1. Got {self.shards}.")
        if self.shortest_first_epochs < 0:
            raise SettingsError(
                f"batch.shortest-first-epochs must not be negative. Got {self.shortest_first_epochs}."
            )
        if self.workers is not None and self.workers < 0:
            raise SettingsError(f"batch.workers must not be negative. Got {self.workers}.")


@dataclass(frozen=True)
class Batch:
    """Padded utterances."""

    ids: tuple[str, ...]
    audio: Tensor  # (batch, frames, n_mels) features, or (batch, samples) of which the device makes them
    frame_lengths: Tensor  # (batch,) int64
    tokens: Tensor  # (batch, longest) int64
    token_lengths: Tensor  # (batch,) int64
    masks: Masks | None
    global_tokens: int  # tokens of all processes' parts of this batch
    global_seconds: float  # of audio in all processes' parts, without padding
    warps: Tensor | None = None  # (batch,) float64 factors of the mel bands' frequencies; None: all 1

    @property
    def global_amount(self) -> float:
        """Seconds of audio: what training's pace is told in."""
        return self.global_seconds

    def split(self) -> "tuple[Batch, Batch] | None":
        """The first and the second half of the utterances; None for a single one."""
        half = len(self.ids) // 2
        if half == 0:
            return None
        return self._rows(slice(None, half)), self._rows(slice(half, None))

    def features(self, config: FeatureConfig) -> Tensor:
        """(batch, frames, n_mels) log-mel frames as training hears them, on the batch's device."""
        plain = self.audio if self.audio.dim() == 3 else log_mel(self.audio, config)
        return plain if self.warps is None else warp_mel(plain, self.warps, config)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which copies to a GPU overlap with its work."""
        return self._map(torch.Tensor.pin_memory)

    def _rows(self, rows: slice) -> "Batch":
        """Some of the utterances; padding of features that none of them needs is cut off."""
        part = replace(self._map(lambda tensor: tensor[rows]), ids=self.ids[rows])
        if part.audio.dim() == 3:
            part = replace(part, audio=part.audio[:, : int(part.frame_lengths.max())])
        return part

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            audio=change(self.audio),
            frame_lengths=change(self.frame_lengths),
            tokens=change(self.tokens),
            token_lengths=change(self.token_lengths),
            masks=None if self.masks is None else Masks(change(self.masks.time), change(self.masks.mel)),
            warps=None if self.warps is None else change(self.warps),
        )


class Batches:
    """The batches of a set of examples, for every epoch.

    Args:
        examples: utterances with their tokens.
        features: how features are computed.
        config: batch size, cache and workers.
        augment: None for plain utterances in a fixed order (dev and test sets).
        seed: of the shuffling and the augmentation.
        rank: which process's part to give.
        world_size: processes that share every batch.
        device: where batches go.

    Raises:
        AudioError: an utterance's audio cannot be read.
        DataError: the cache cannot be written, or there are fewer training utterances than processes.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        features: FeatureConfig,
        config: BatchConfig,
        augment: AugmentConfig | None,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device = CPU,
    ) -> None:
        shards = config.shards or world_size
        if shards % world_size:
            raise SettingsError(
                f"batch.shards is {shards} for {world_size} processes. Expected a multiple, so that all "
                f"get the same number of parts. Change --batch.shards or the number of processes."
            )
        if augment and len(examples) < shards:
            raise DataError(
                f"{len(examples)} training utterances for batches of {shards} parts. Expected at least "
                f"one for each part. Start fewer processes, or lower --batch.shards."
            )
        self.examples = examples
        self.pin = device.type == "cuda"
        # A CPU that trains has no core to spare, and reading a cache is no work.
        works = config.cache_dir is None or (augment is not None and augment.changes_waveform)
        spare = min(8, max(1, usable_cores() - 1)) if self.pin and works else 0
        self.workers = spare if config.workers is None else config.workers
        utterances = [example.utterance for example in examples]
        # A missing folder of noise is told of before hours of computing features.
        augmenter = None if augment is None else Augmenter(augment, seed)
        caches = {}
        if config.cache_dir is not None:
            # Global statistics are taken at the recordings' own speed.
            speeds = set(augment.speeds) if augment else {1.0}
            if features.normalize == "global":
                speeds.add(1.0)
            caches = {
                speed: open_cache(config.cache_dir, utterances, features, speed) for speed in sorted(speeds)
            }
        self.dataset = _Collated(examples, features, augmenter, caches)
        self.sampler = Sampler(
            [utterance.id for utterance in utterances],
            np.array([utterance.duration for utterance in utterances]),
            np.array([len(example.tokens) for example in examples], dtype=np.int32),
            config.seconds,
            augment,
            top_speeds=np.array([example.top_speed for example in examples], dtype=np.float32),
            seed=seed, shortest_first_epochs=config.shortest_first_epochs,
            shards=shards, rank=rank, world_size=world_size,
        )  # fmt: skip

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, counted from 1; epoch 0 is unaugmented and sorted.

        Without augmentation, batches of which this process has no part are left out.
        """
        return self.sampler.plan(epoch)

    def load(self, plan: Sequence[Planned]) -> Iterator[Batch]:
        """The planned batches, one after the other.

        Raises:
            AudioError: an utterance's audio cannot be read.
            TrainingError: a loader process was killed.
        """
        loader: DataLoader[Batch | AsrError] = DataLoader(
            self.dataset,
            sampler=plan,
            batch_size=None,  # the data set makes whole batches
            num_workers=self.workers,
            pin_memory=self.pin,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_ignore_signals,
        )
        batches = iter(loader)
        try:
            while True:
                try:
                    batch = next(batches, None)
                except (EOFError, ConnectionError, FileNotFoundError) as error:
                    # Killed while it handed a batch over; at other moments torch notices (`plain_failures`).
                    # Now, too, by a signal: better here than on the way out, where nothing expects it.
                    time.sleep(_SIGNAL_S)
                    raise loader_killed(error) from error
                if batch is None:
                    return
                if isinstance(batch, AsrError):
                    raise batch
                yield batch
        finally:
            # An error holds this frame. The loader processes must not live as long: they do not heed SIGTERM,
            # with which Python would end them at its own exit, and would wait for them for ever.
            del batches


class _Collated(Dataset[Batch | AsrError]):
    """Makes the batch that a plan asks for."""

    def __init__(
        self,
        examples: Sequence[Example],
        features: FeatureConfig,
        augmenter: Augmenter | None,
        caches: dict[float, FeatureCache],
    ) -> None:
        self.examples, self.features, self.augmenter, self.caches = examples, features, augmenter, caches

    def conditions(self, example: Example, epoch: int) -> Conditions:
        """The conditions under which an utterance is heard in an epoch."""
        if not epoch or self.augmenter is None:
            return AS_RECORDED
        return self.augmenter.conditions(epoch, example.utterance.id, example.top_speed)

    def __getitem__(self, planned: Planned) -> Batch | AsrError:
        # Handed over as it is: raised in a loader process, an error would arrive wrapped in its traceback.
        try:
            return self._make(planned)
        except AsrError as error:
            return error

    def _make(self, planned: Planned) -> Batch:
        chosen = [self.examples[index] for index in planned.indices]
        heard = [self.conditions(example, planned.epoch) for example in chosen]
        with one_thread():
            parts = [self._read(example.utterance, how) for example, how in zip(chosen, heard, strict=True)]
        lengths = [len(part) if self.caches else frame_count(len(part), self.features) for part in parts]
        tokens = [torch.tensor(example.tokens, dtype=torch.int64) for example in chosen]
        warps = [how.mel_warp for how in heard]
        return Batch(
            ids=tuple(example.utterance.id for example in chosen),
            audio=pad_sequence(parts, batch_first=True),
            frame_lengths=torch.tensor(lengths),
            tokens=pad_sequence(tokens, batch_first=True),
            token_lengths=torch.tensor([len(row) for row in tokens]),
            masks=self._masks(chosen, lengths, planned.epoch),
            global_tokens=planned.global_tokens,
            global_seconds=planned.global_seconds,
            warps=torch.tensor(warps, dtype=torch.float64) if set(warps) != {1.0} else None,
        )

    def _read(self, utterance: Utterance, how: Conditions) -> Tensor:
        """(frames, n_mels) features where there is a cache, or (samples,) for the device to make them."""
        if not self.caches:
            return read_waveform(utterance, self.features.sample_rate, how)
        if how.only_speed:
            return self.caches[how.speed].read(utterance.id)
        return read_features(utterance, self.features, how)

    def _masks(self, chosen: Sequence[Example], lengths: Sequence[int], epoch: int) -> Masks | None:
        if self.augmenter is None or epoch < max(self.augmenter.config.masks_from_epoch, 1):
            return None
        drawn = []
        for example, frames in zip(chosen, lengths, strict=True):
            rng = generator(self.augmenter.seed, epoch, example.utterance.id, "masks")
            drawn.append(draw_masks(frames, self.features.n_mels, self.augmenter.config, rng))
        # A missing mask is an empty one: padding with zeros gives width 0.
        time, mel = zip(*drawn, strict=True)
        return Masks(pad_sequence(list(time), batch_first=True), pad_sequence(list(mel), batch_first=True))


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach loader processes too, but the trainer decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
