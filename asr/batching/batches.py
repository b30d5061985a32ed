"""Padded batches of utterances: what a batch contains, and how it is made of audio or cached features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from asr.batching.cache import FeatureCache, open_cache, read_waveform
from asr.batching.examples import Example, Examples
from asr.batching.loader import Loader, loader_processes
from asr.batching.sampler import Plan, PlannedBatch, Sampler, Sharding
from asr.device import one_thread
from asr.errors import AsrError, DataError, SettingsError, check_number
from asr.frontend.augment import AS_RECORDED, AugmentConfig, Augmenter, Conditions, Masks
from asr.frontend.augment.draws import generator
from asr.frontend.augment.mel_warp import warp_mel
from asr.frontend.augment.specaugment import draw_masks
from asr.frontend.features import FeatureConfig, frame_count, log_mel, require_one_window

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How utterances become batches."""

    seconds: float = 100.0  # of audio in a batch, padding included, over all processes
    # The feature cache; None computes features every time. It holds those of changed speed, but none
    # of rooms, noise, volume, silence, telephone or codec.
    cache_dir: Path | None = Path("data/features")
    # Equal parts of a batch, one or more for each process; None: as many as processes. Set it to resume a run
    # with another number of processes.
    shards: int | None = None
    # Recordings in tar files are read so many files at a time, and batches are made of their utterances. More
    # mix better, and have to fit into the memory that the system has free.
    open_tars: int = 8
    # In this many first epochs, short utterances come before long ones (SortaGrad), which is more stable.
    shortest_first_epochs: int = 0
    # Processes that make batches; None: 0 on a CPU; on a GPU up to 8, or 4 where a cache has all features.
    workers: int | None = None
    # Processes that compute features for the cache; None: one for each usable core.
    cache_workers: int | None = None

    def __post_init__(self) -> None:
        check_number("--batch.seconds", self.seconds, above=0)
        check_number("--batch.shards", self.shards, least=1)
        check_number("--batch.open-tars", self.open_tars, least=1)
        check_number("--batch.shortest-first-epochs", self.shortest_first_epochs, least=0)
        check_number("--batch.workers", self.workers, least=0)
        check_number("--batch.cache-workers", self.cache_workers, least=1)


@dataclass(frozen=True)
class Batch:
    """Padded utterances, with features or with the waveforms that the device computes them from.

    With a cache, `cached_features` has a row for each utterance. The rows of utterances that are augmented by
    more than their speed are zeros: their features are computed from `waveforms`, and `waveform_rows` says
    which rows these are. Without a cache, `waveforms` has all utterances, and the other two are None.
    """

    ids: tuple[str, ...]
    cached_features: Tensor | None  # (batch, frames, n_mels)
    frame_lengths: Tensor  # (batch,) int64
    tokens: Tensor  # (batch, longest) int64
    token_lengths: Tensor  # (batch,) int64
    masks: Masks | None
    global_tokens: int  # tokens of all processes' parts of this batch
    global_seconds: float  # of audio in all processes' parts, without padding
    warps: Tensor | None = None  # (batch,) float64 factors of the mel bands' frequencies; None: all 1
    waveforms: Tensor | None = None  # (uncached, samples)
    waveform_rows: Tensor | None = None  # (uncached,) int64 rows of `cached_features`
    # Weight of a loss that compares two views of each utterance, and the masks of the second one.
    consistency_weight: float = 0.0
    second_masks: Masks | None = None

    @staticmethod
    def from_fields(fields: Mapping[str, Any]) -> "Batch":
        """A batch from the fields that `dataclasses.asdict` gives, as a file bad_update_N.pt keeps them."""
        masks = {name: Masks(**fields[name]) if fields[name] else None for name in ("masks", "second_masks")}
        return Batch(**{**fields, **masks})

    @property
    def global_size(self) -> float:
        """Seconds of audio, in which the speed of training is reported."""
        return self.global_seconds

    @property
    def padded_size(self) -> int:
        """Utterances times frames (or, without a cache, samples) of the longest."""
        return self._padded.shape[0] * self._padded.shape[1]

    @property
    def _padded(self) -> Tensor:
        """The tensor that has all utterances: features, or waveforms without a cache."""
        padded = self.waveforms if self.cached_features is None else self.cached_features
        if padded is None:
            raise ValueError("a batch of neither features nor waveforms")
        return padded

    def split(self) -> "tuple[Batch, Batch] | None":
        """The first and the second half of the utterances; None for a single one."""
        half = len(self.ids) // 2
        if half == 0:
            return None
        return self._rows(0, half), self._rows(half, len(self.ids))

    def both_views(self) -> "Batch":
        """A batch of the first view of each utterance, and after them the second one of each."""
        size = len(self.ids)
        both = self._map(lambda tensor: tensor.repeat(2, *[1] * (tensor.dim() - 1)))
        if self.waveform_rows is not None:
            both = replace(both, waveform_rows=torch.cat((self.waveform_rows, self.waveform_rows + size)))
        if self.masks is not None and self.second_masks is not None:
            first, second = self.masks, self.second_masks
            masks = Masks(torch.cat((first.time, second.time)), torch.cat((first.mel, second.mel)))
            both = replace(both, masks=masks)
        return replace(both, ids=2 * self.ids, second_masks=None)

    def features(self, config: FeatureConfig) -> Tensor:
        """(batch, frames, n_mels) log-mel frames; those that are not cached are computed on the device."""
        if self.cached_features is None:
            features = log_mel(self._padded, config)
        elif self.waveforms is None or self.waveform_rows is None:
            features = self.cached_features
        else:
            frames = self.cached_features.shape[1]
            computed = log_mel(self.waveforms, config)[:, :frames]
            computed = nn.functional.pad(computed, (0, 0, 0, frames - computed.shape[1]))
            features = self.cached_features.index_copy(0, self.waveform_rows, computed)
        return features if self.warps is None else warp_mel(features, self.warps, config)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which copies to a GPU overlap with its work."""
        return self._map(torch.Tensor.pin_memory)

    def _rows(self, first: int, end: int) -> "Batch":
        """The utterances first to end - 1, without padding of features that none of them needs."""
        all_rows = self if self.cached_features is None else replace(self, waveforms=None, waveform_rows=None)
        part = replace(all_rows._map(lambda tensor: tensor[first:end]), ids=self.ids[first:end])
        if part.cached_features is None:
            return part
        longest = int(part.frame_lengths.max())
        part = replace(part, cached_features=part.cached_features[:, :longest])
        if self.waveforms is not None and self.waveform_rows is not None:
            inside = (self.waveform_rows >= first) & (self.waveform_rows < end)
            if inside.any():
                rows = self.waveform_rows[inside] - first
                part = replace(part, waveforms=self.waveforms[inside], waveform_rows=rows)
        return part

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        def changed_masks(masks: Masks | None) -> Masks | None:
            return None if masks is None else Masks(change(masks.time), change(masks.mel))

        return replace(
            self,
            cached_features=changed(self.cached_features),
            frame_lengths=change(self.frame_lengths),
            tokens=change(self.tokens),
            token_lengths=change(self.token_lengths),
            masks=changed_masks(self.masks),
            second_masks=changed_masks(self.second_masks),
            warps=changed(self.warps),
            waveforms=changed(self.waveforms),
            waveform_rows=changed(self.waveform_rows),
        )


class Batches:
    """The batches of a set of examples, for every epoch.

    Args:
        examples: utterances with their tokens.
        features: how features are computed.
        config: batch size, cache and workers.
        augment: None for plain utterances in a fixed order (dev and test sets).
        seed: of the shuffling and the augmentation.
        rank: of the process whose shards are returned.
        world_size: processes that share every batch.
        device: where batches go.

    Raises:
        AudioError: an utterance's audio cannot be read.
        DataError: the cache cannot be written, or there are fewer training utterances than shards.
    """

    def __init__(
        self,
        examples: Examples,
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
                f"--batch.shards is {shards} for {world_size} processes. Expected a multiple, so that all "
                f"get the same number of shards. Change --batch.shards or the number of processes."
            )
        if augment and len(examples) < shards:
            raise DataError(
                f"{len(examples)} training utterances for batches of {shards} shards. Expected at least "
                f"one for each. Start fewer processes, or lower --batch.shards."
            )
        self.examples = examples
        on_gpu = device.type == "cuda"
        # A CPU that trains has no core to spare.
        self.workers = 0 if config.workers is None else config.workers
        if on_gpu and config.workers is None:
            cached = config.cache_dir is not None and not (augment and augment.changes_waveform)
            batch_s = config.seconds / world_size
            frame_bytes = features.n_mels * 4 if config.cache_dir else features.hop_length * 4
            self.workers = loader_processes(cached, round(batch_s / features.frame_s) * frame_bytes)
        # Before the cache: a missing folder of noise is reported before hours of computing features.
        augmenter = None if augment is None else Augmenter(augment, seed)
        cache = None
        if config.cache_dir is not None:
            # The training set's statistics are taken at speed 1.
            speeds = set(augment.speeds) if augment else {1.0}
            if features.needs_statistics:
                speeds.add(1.0)
            cache = open_cache(
                config.cache_dir, examples.utterances(), features, sorted(speeds), config.cache_workers
            )
        self.dataset = _BatchDataset(examples, features, augmenter, cache)
        self.loader: Loader[Batch] = Loader(self.dataset, self.workers, pin_memory=on_gpu)
        self.sampler = Sampler(
            examples.columns, config.seconds, augment,
            seed=seed, shortest_first_epochs=config.shortest_first_epochs,
            sharding=Sharding(rank, world_size, shards), open_tars=config.open_tars,
        )  # fmt: skip

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, counted from 1; epoch 0 is unaugmented and sorted.

        Without augmentation, batches of which this process has no shard are left out.
        """
        return self.sampler.plan(epoch)

    def load(self, plan: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """The planned batches, one after the other.

        Raises:
            AudioError: an utterance's audio cannot be read.
            TrainingError: a loader process was killed.
        """
        return self.loader.load(plan)


class _BatchDataset(Dataset[Batch | AsrError]):
    """Makes the batches of a plan."""

    def __init__(
        self,
        examples: Examples,
        features: FeatureConfig,
        augmenter: Augmenter | None,
        cache: FeatureCache | None,
    ) -> None:
        self.examples, self.features, self.augmenter, self.cache = examples, features, augmenter, cache

    def conditions(self, examples: Sequence[Example], epoch: int) -> list[Conditions]:
        """The conditions under which training reads some utterances in an epoch; each as if alone."""
        if not epoch or self.augmenter is None:
            return [AS_RECORDED] * len(examples)
        ids = [example.utterance.id for example in examples]
        return self.augmenter.batch_conditions(epoch, ids, [example.top_speed for example in examples])

    def __getitem__(self, planned: PlannedBatch) -> Batch | AsrError:
        # Returned, not raised: an error from a loader process would arrive wrapped in its traceback.
        try:
            return self._make(planned)
        except AsrError as error:
            return error

    def _make(self, planned: PlannedBatch) -> Batch:
        chosen = [self.examples[index] for index in planned.indices]
        conditions = self.conditions(chosen, planned.epoch)
        lengths, audio = self._audio(planned.indices, chosen, conditions)
        warps = [condition.mel_warp for condition in conditions]
        consistency_weight = self.augmenter.config.consistency_weight if self.augmenter else 0.0
        token_lengths = [len(example.tokens) for example in chosen]
        tokens = np.zeros((len(chosen), max(token_lengths)), dtype=np.int64)
        for row, example in zip(tokens, chosen, strict=True):
            row[: len(example.tokens)] = example.tokens
        return Batch(
            ids=tuple(example.utterance.id for example in chosen),
            cached_features=audio.get("cached_features"),
            waveforms=audio.get("waveforms"),
            waveform_rows=audio.get("waveform_rows"),
            frame_lengths=torch.tensor(lengths),
            tokens=torch.from_numpy(tokens),
            token_lengths=torch.tensor(token_lengths),
            masks=self._masks(chosen, lengths, planned.epoch, "masks"),
            consistency_weight=consistency_weight,
            second_masks=(
                self._masks(chosen, lengths, planned.epoch, "second masks") if consistency_weight else None
            ),
            global_tokens=planned.global_tokens,
            global_seconds=planned.global_seconds,
            warps=torch.tensor(warps, dtype=torch.float64) if set(warps) != {1.0} else None,
        )

    def _audio(
        self, indices: Sequence[int], chosen: Sequence[Example], conditions: Sequence[Conditions]
    ) -> tuple[list[int], dict[str, Tensor]]:
        """The frame count of each utterance, and the fields of `Batch` for features or waveforms."""
        cache, n_mels = self.cache, self.features.n_mels
        # The utterances whose features are not cached: the device computes them from waveforms.
        rows = [row for row, condition in enumerate(conditions) if cache is None or not condition.only_speed]
        with one_thread():
            waveforms = [self._read(chosen[row], conditions[row]) for row in rows]
        computed = [frame_count(len(waveform), self.features) for waveform in waveforms]
        if cache is None:
            return computed, {"waveforms": pad_sequence(waveforms, batch_first=True)}
        views: list[NDArray[np.float32]] = [
            cache.view(index, condition.speed)
            if condition.only_speed
            else np.zeros((0, n_mels), dtype=np.float32)
            for index, condition in zip(indices, conditions, strict=True)
        ]
        lengths = [len(view) for view in views]
        for row, frames in zip(rows, computed, strict=True):
            lengths[row] = frames
        # Copied once, from the file's pages into the batch: `pad_sequence` would copy twice.
        features = torch.empty(len(views), max(lengths), n_mels)
        for target, view in zip(features.numpy(), views, strict=True):
            target[: len(view)] = view
            target[len(view) :] = 0.0
        if not rows:
            return lengths, {"cached_features": features}
        padded = pad_sequence(waveforms, batch_first=True)
        return lengths, {
            "cached_features": features,
            "waveforms": padded,
            "waveform_rows": torch.tensor(rows),
        }

    def _read(self, example: Example, conditions: Conditions) -> Tensor:
        """(samples,) waveform of an utterance, augmented by its conditions."""
        utterance, sample_rate = example.utterance, self.features.sample_rate
        waveform = read_waveform(utterance, sample_rate, conditions)
        if len(waveform) < example.min_samples and conditions != conditions.untrimmed:
            waveform = read_waveform(utterance, sample_rate, conditions.untrimmed)
        name = f"{utterance.audio_filepath}, utterance {utterance.id}"
        require_one_window(len(waveform), self.features, name)
        return waveform

    def _masks(
        self, chosen: Sequence[Example], lengths: Sequence[int], epoch: int, purpose: str
    ) -> Masks | None:
        if self.augmenter is None or epoch < max(self.augmenter.config.masks_from_epoch, 1):
            return None
        drawn = []
        for example, frames in zip(chosen, lengths, strict=True):
            rng = generator(self.augmenter.seed, epoch, example.utterance.id, purpose)
            drawn.append(draw_masks(frames, self.features.n_mels, self.augmenter.config, rng))
        # Padding with zeros gives masks of width 0.
        time, mel = zip(*drawn, strict=True)
        return Masks(pad_sequence(list(time), batch_first=True), pad_sequence(list(mel), batch_first=True))
