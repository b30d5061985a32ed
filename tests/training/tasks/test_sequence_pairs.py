"""Networks from symbols to symbols through the training loop: they learn, resume, and count what is wrong."""

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.errors import DataError, Interrupted, SettingsError
from asr.microscope.page import ROWS
from asr.model.attention import AttentionKind
from asr.model.recurrent.layers import LayerConfig
from asr.model.sequence.ctc import SequenceCtcConfig
from asr.model.sequence.encoder_decoder import EncoderDecoderConfig
from asr.model.sequence.model import SequenceConfig, load_sequence_model, make_sequence_model
from asr.training.config import TrainConfig
from asr.training.context import TrainingContext
from asr.training.distributed import Process
from asr.training.run.checkpoint import CHECKPOINT, TrainingState, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.tasks.sequence_pairs import PairBatch, PairConfig, SequencePair, SequencePairTask
from asr.training.trainer import Trainer
from tests.fake_gpu import fake_gpu
from tests.training.conftest import StopAfter

CPU = torch.device("cpu")
LAYERS = LayerConfig(cell="gru", layer_norm=False)
ENCODER_DECODER = EncoderDecoderConfig(width=24, embedding=8, dropout=0.1, attention="dot", layers=LAYERS)
CTC = SequenceCtcConfig(width=24, depth=1, embedding=8, dropout=0.1, layers=LAYERS)

# Each symbol is answered by another one, and "2" by two.
WORDS = [word for length in (1, 2, 3, 4) for word in itertools.product((1, 2, 3), repeat=length)]


def pair(word: tuple[int, ...]) -> SequencePair:
    target = tuple(symbol for letter in word for symbol in {1: (2,), 2: (1, 3), 3: (2,)}[letter])
    return SequencePair("".join(map(str, word)), word, (target,))


PAIRS = [pair(word) for word in WORDS]


def task(config: SequenceConfig = ENCODER_DECODER, rank: int = 0, world_size: int = 1) -> SequencePairTask:
    torch.manual_seed(1)
    net = make_sequence_model(("a", "b", "c"), ("X", "Y", "Z"), config)
    process = Process(rank, world_size, CPU)
    return SequencePairTask(net, PAIRS[:100], PAIRS[100:], PairConfig(symbols=60), process, seed=1)


def train(
    run_dir: Path, config: SequenceConfig, stop: StopRequest, *, resume: bool = False, **changes: Any
) -> tuple[TrainingState, SequencePairTask]:
    plan = TrainConfig(
        run_dir=run_dir, resume=resume, device="cpu", precision="float32", log_every_s=0,
        **{"epochs": 2, "learning_rate": 0.01, **changes},
    )  # fmt: skip
    run_dir.mkdir(exist_ok=True)
    made = task(config)
    trainer = Trainer(TrainingContext(made, plan, made.process, {}, torch.float32))
    if resume:
        state, _, state_dicts = load_checkpoint(run_dir / CHECKPOINT, CPU)
        trainer.restore(state, state_dicts)
    with stop:
        return trainer.fit(stop), made


@pytest.mark.parametrize(
    ("config", "epochs"),
    [
        (replace(ENCODER_DECODER, attention="none"), 40),
        (replace(ENCODER_DECODER, attention="additive"), 40),
        (CTC, 15),
    ],
    ids=["none", "additive", "ctc"],
)
def test_learns(config: SequenceConfig, epochs: int, tmp_path: Path) -> None:
    """Guards the task as a whole: words that were held out are written without a mistake, and the model that
    was saved is the one that was scored."""
    state, _ = train(tmp_path / "run", config, StopRequest(), epochs=epochs, learning_rate=0.02)
    assert state.best_score == 0
    net = load_sequence_model(tmp_path / "run" / "model.safetensors")
    source = torch.tensor([PAIRS[110].source])
    assert net.greedy(source, torch.tensor([source.shape[1]])) == [PAIRS[110].targets[0]]


@pytest.mark.parametrize("stops", [(1,), (3, 5)])
@pytest.mark.parametrize("config", [ENCODER_DECODER, CTC], ids=["dot", "ctc"])
def test_resumed_equals_never_stopped(config: SequenceConfig, stops: tuple[int, ...], tmp_path: Path) -> None:
    """Guards every bit of the weights, with dropout on."""
    train(tmp_path / "whole", config, StopRequest())
    for number, updates in enumerate(stops):
        with pytest.raises(Interrupted):
            train(tmp_path / "parts", config, StopAfter(updates), resume=number > 0)
    train(tmp_path / "parts", config, StopRequest(), resume=True)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_any_listed_target_is_right() -> None:
    """Guards the score: a sequence is wrong only if none of its targets was written."""
    made = task()
    made.net.eval()
    written = made.net.greedy(torch.tensor([[1, 2]]), torch.tensor([2]))[0]
    other = (*written, 1)
    for targets, wrong in (((written,), 0), ((other, written), 0), ((other,), 100)):
        made.dev = [SequencePair("ab", (1, 2), targets)]
        assert made.validate(made.process, torch.float32).score == wrong
    made.dev = [SequencePair("ab", (1, 2), (written,)), SequencePair("ab", (1, 2), (other,))] * 3
    assert made.validate(made.process, torch.float32).score == 50
    assert made.net.training


def test_every_pair_once_an_epoch_in_another_order() -> None:
    """Guards the plan: nothing is lost or repeated, batches are within their size, epochs differ, and a part
    of a plan is the same when it is asked for again."""
    made = task()
    orders = []
    for epoch in (1, 2):
        batches = list(made.load(made.plan(epoch)))
        names = [name for batch in batches for name in batch.ids]
        assert sorted(names) == sorted(one.name for one in PAIRS[:100])
        assert all(batch.padded_size <= 60 for batch in batches)
        assert [batch.global_tokens for batch in batches] == [
            int((batch.target_lengths + 1).sum()) for batch in batches
        ]
        again = next(made.load(made.plan(epoch)[3:4]))
        assert again.ids == batches[3].ids
        orders.append(names)
    assert orders[0] != orders[1]


def test_processes_share_the_pairs() -> None:
    """Two processes together train on what one trains on, with the same token counts."""
    parts = [task(rank=rank, world_size=2) for rank in (0, 1)]
    batches = [list(part.load(part.plan(1))) for part in parts]
    assert len(batches[0]) == len(batches[1])
    names = [name for one in batches for batch in one for name in batch.ids]
    assert sorted(names) == sorted(one.name for one in PAIRS[:100])
    for left, right in zip(*batches, strict=True):
        tokens = sum(int((one.target_lengths + 1).sum()) for one in (left, right))
        assert left.global_tokens == right.global_tokens == tokens


def test_halves_are_the_whole() -> None:
    """A batch that does not fit is split: its losses must stay those of the same pairs."""
    made = task(replace(ENCODER_DECODER, dropout=0.0))
    batch = next(made.load(made.plan(1)))
    halves = batch.split()
    assert halves is not None
    whole = made.forward(batch, torch.float32).losses
    parts = torch.cat([made.forward(half, torch.float32).losses for half in halves])
    torch.testing.assert_close(parts, whole)


def test_pairs_that_do_not_fit_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """CTC cannot write three symbols for one letter; such a pair would make every loss infinite."""
    net = make_sequence_model(("a",), ("X",), CTC)
    long = SequencePair("a", (1,), ((1,), (1, 1)))
    with caplog.at_level(logging.WARNING, "asr"):
        made = SequencePairTask(net, [long], [long], PairConfig(), Process(0, 1, CPU), seed=1)
    assert "1 of 2 pairs are left out of training" in caplog.text
    assert made.train == [("a", (1,), (1,))]
    with pytest.raises(DataError, match="0 sequences to learn from and 1 to choose by"):
        SequencePairTask(
            net, [SequencePair("a", (1,), ((1, 1),))], [long], PairConfig(), Process(0, 1, CPU), seed=1
        )
    with pytest.raises(SettingsError, match=r"--pairs\.symbols must be at least 1. Got 0"):
        PairConfig(symbols=0)


def test_warm_start_of_other_symbols(tmp_path: Path) -> None:
    """Embeddings and output of other symbols must not be taken over under the ids of ours."""
    made = task()
    made.save(tmp_path / "net.safetensors", made.net.state_dict(), {})
    assert None not in made.source_weights(tmp_path / "net.safetensors").values()
    made.net.targets = ("Z", "Y", "X")
    weights = made.source_weights(tmp_path / "net.safetensors")
    nothing = {name for name, weight in weights.items() if weight is None}
    assert nothing == {"target_embedding.weight", "output.weight", "output.bias"}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_microscope(attention: AttentionKind, tmp_path: Path) -> None:
    """The gradient microscope measures each direction of encoder and decoder once, of another cell too, also
    where the decoder runs step by step; and it changes nothing."""
    config = replace(ENCODER_DECODER, attention=attention, decoder_cell="lstm")
    train(tmp_path / "plain", config, StopRequest(), epochs=1)
    train(tmp_path / "watched", config, StopRequest(), epochs=1, diagnose_every=5)
    rows = (tmp_path / "watched" / "diagnostics" / ROWS).read_text().splitlines()
    layers = [(layer["layer"], layer["direction"]) for layer in json.loads(rows[0])["layers"]]
    assert layers == [(1, "forwards"), (1, "backwards"), (2, "forwards")]
    plain, watched = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


@pytest.mark.parametrize(
    "config", [CTC, *(replace(ENCODER_DECODER, attention=one) for one in ("none", "additive", "dot"))]
)
def test_no_operation_mixes_devices(config: SequenceConfig) -> None:
    """Guards a training step on a GPU without one: forward on fake CUDA tensors, forward and backward on
    "meta"; a batch comes from the host's memory."""

    def batch() -> PairBatch:
        lengths = torch.tensor([4, 2])
        ids = torch.ones(2, 4, dtype=torch.int64)
        return PairBatch(("a", "b"), ids, lengths, ids, lengths, global_tokens=8, global_size=2.0)

    with fake_gpu():
        with torch.device("cuda", 0):
            made = task(config)
        losses = made.forward(batch(), torch.float32).losses
        assert losses.device == torch.device("cuda", 0)
        assert losses.shape == (2,)
    if config == CTC:  # whose loss torch cannot compute there
        return
    with torch.device("meta"):
        made = task(config)
    made.forward(batch(), torch.float32).losses.sum().backward()
    assert all(weight.grad is not None for weight in made.net.parameters())
