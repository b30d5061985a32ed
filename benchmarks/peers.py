"""The recurrent layers and batches of other toolkits that replace asr's own in the comparison of training."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

from asr.batching.batches import Batch
from asr.batching.cache import FeatureCache
from asr.batching.examples import Examples
from asr.errors import SettingsError
from asr.manifests.utterance import Utterance
from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack

BUCKETS = (60, 30, 15, 8)  # of the sampler: the more, the less padding, and the fewer batches are full

HAS_SPEECHBRAIN = find_spec("speechbrain") is not None

Layers = Callable[
    [int, RecurrentConfig], nn.Module
]  # (input size, settings) -> layers called as a RecurrentStack


TORCH: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {  # the cells that torch has layers for
    "rnn": (nn.RNN, {}),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
}


class PackedStack(nn.Module):
    """What toolkits do: all layers as one bidirectional module of torch, on packed sequences."""

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        kind, options = TORCH[config.cell]
        self.rnn = kind(
            input_size, config.width, config.depth, batch_first=True, bidirectional=True, **options
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Any]]:
        """(batch, steps, input_size) -> (batch, steps, 2 * width), and no state."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return y, []


class SpeechbrainStack(nn.Module):
    """The block of speechbrain, which packs where it is given lengths. Needs speechbrain."""

    def __init__(self, input_size: int, config: RecurrentConfig, *, packed: bool) -> None:
        from speechbrain.nnet import RNN

        super().__init__()
        kind, options = TORCH[config.cell]
        block = {nn.RNN: RNN.RNN, nn.GRU: RNN.GRU, nn.LSTM: RNN.LSTM}[kind]
        options = {"nonlinearity": "tanh", **options} if kind is nn.RNN else options
        self.block = block(
            config.width, input_size=input_size, num_layers=config.depth, bidirectional=True, **options
        )
        self.rnn, self.packed = self.block.rnn, packed

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Any]]:
        """(batch, steps, input_size) -> (batch, steps, 2 * width), and no state."""
        # Its lengths are shares of the batch's steps, and it rounds down: half a step more keeps them exact.
        shares = (lengths + 0.5) / x.shape[1] if self.packed else None
        return self.block(x, lengths=shares)[0], []


def matching(stack: RecurrentStack, rnn: nn.RNNBase) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """The parameters of asr's layers, each with the one of torch's module that means the same."""
    theirs = dict(rnn.named_parameters())
    for index, layer in enumerate(stack.layers):
        for direction, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
            for name, weight in direction.named_parameters():
                yield weight, theirs[name.replace("_l0", f"_l{index}{suffix}")]


def speechbrain_batches(
    examples: Examples, cache: FeatureCache, template: Batch, batch_s: float
) -> Iterator[Batch]:
    """Batches as speechbrain makes them, epoch after epoch: DynamicBatchSampler and PaddedBatch.

    Each is the template, a batch of asr, with other contents. In its favour incomplete batches are left out,
    and its buckets are the narrowest of a few that fill batches with at least half of the utterances.

    Raises:
        SettingsError: there are too few utterances to fill a batch.
    """
    from speechbrain.dataio.batch import PaddedBatch
    from speechbrain.dataio.sampler import DynamicBatchSampler

    dataset = _Items(examples, cache)
    durations = [example.utterance.duration for example in examples]
    for buckets in BUCKETS:
        sampler = DynamicBatchSampler(dataset, batch_s, buckets, lengths_list=durations, drop_last=True)
        if 2 * sum(len(indices) for indices in sampler) >= len(examples):
            break
    if len(sampler) == 0:
        raise SettingsError(
            f"speechbrain's sampler fills no batch of {batch_s:g} s with {len(examples)} utterances. "
            "Raise --utterances, or lower --batch-s."
        )
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=PaddedBatch)
    return (_as_batch(batch, template) for batch in chain.from_iterable(repeat(loader)))


class _Items(Dataset[dict[str, Any]]):
    def __init__(self, examples: Examples, cache: FeatureCache) -> None:
        self.examples, self.cache = examples, cache

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        utterance: Utterance = example.utterance
        return {
            "id": utterance.id,
            "features": torch.tensor(self.cache.view(index)),
            "tokens": torch.tensor(example.tokens, dtype=torch.int64),
        }


def _as_batch(batch: Any, template: Batch) -> Batch:
    features, shares = batch.features
    tokens, token_shares = batch.tokens
    frames = (shares * features.shape[1]).round().long()
    token_lengths = (token_shares * tokens.shape[1]).round().long()
    return replace(
        template,
        ids=tuple(batch.id),
        cached_features=features,
        waveforms=None,
        waveform_rows=None,
        frame_lengths=frames,
        tokens=tokens,
        token_lengths=token_lengths,
        masks=None,
        global_tokens=int(token_lengths.sum()),
    )
