import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.decoding.attention_decoder import token_log_probs
from asr.errors import Interrupted
from asr.model.acoustic import AcousticModel
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.loss.consistency import consistency_loss
from asr.model.loss.ctc import ctc_loss
from asr.model.saved import save_model
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.tasks.speech import SpeechTask, validate
from asr.training.trainer import Trainer
from tests.training.conftest import ALONE, ENCODER, FEATURES, PLAIN, StopAfter, rows, same_tree

Make = Callable[..., Trainer]
MASKED = replace(PLAIN, time_masks_per_s=5.0, mel_masks=2, masks_from_epoch=1, consistency_weight=0.3)


def test_consistency(make_trainer: Make) -> None:
    """Guards the loss of two views: the mean of what each has alone, and the weighted divergence."""
    trainer = make_trainer(encoder=replace(ENCODER, dropout=0.0), augment=MASKED)
    net = trainer.task.net
    [batch] = trainer.task.load(trainer.task.plan(1)[:1])
    losses = trainer.task.forward(batch, torch.float32).losses
    views = [replace(batch, masks=masks) for masks in (batch.masks, batch.second_masks)]
    log_probs, alone = [], []
    for view in views:
        output, steps, _ = net(view.features(FEATURES), view.frame_lengths, view.masks)
        log_probs.append(output)
        alone.append(ctc_loss(output, steps, view.tokens, view.token_lengths))
    divergence = consistency_loss(torch.cat(log_probs), steps)
    assert (divergence > 0).all()
    torch.testing.assert_close(losses, sum(alone) / 2 + 0.3 * divergence)


def test_dev_loss_has_no_consistency(make_trainer: Make) -> None:
    """Guards the dev loss: it is that of the criterion, which can be compared between trainings."""
    trainers = make_trainer("one"), make_trainer("other", augment=MASKED)
    scores = [validate(trainer.task.net, trainer.task.dev_batches, ALONE) for trainer in trainers]
    assert scores[0] == scores[1]


def test_results_are_read_one_batch_late(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a GPU against standing still: each batch's results are waited for when the next one has been
    started; and the scores are those of a device that is read at once."""
    trainer = make_trainer()
    model, dev = trainer.task.net, trainer.task.train_batches  # three batches or more
    expected = validate(model, dev, ALONE)
    started: list[int] = []
    waited: list[tuple[int, int]] = []

    class Event:
        def __init__(self, device: torch.device) -> None:
            started.append(len(started))
            self.number = started[-1]

        def synchronize(self) -> None:
            waited.append((self.number, len(started)))

    monkeypatch.setattr("asr.device._record_event", Event)
    read: list[str] = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        original = getattr(torch.Tensor, name)

        def spy(tensor: Any, *, name: str = name, original: Any = original) -> Any:
            if tensor.dtype is torch.float64:  # the sums
                read.append(name)
            return original(tensor)

        monkeypatch.setattr(torch.Tensor, name, spy)
    actual = validate(model, dev, ALONE)
    assert actual == expected
    batches = len(started)
    assert batches > 2
    assert waited == [(number, min(number + 2, batches)) for number in range(batches)]
    assert same_tree(read, ["tolist"] * batches)


def test_warm_start_from_phones_of_other_transcripts(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the output layer of a model of phones: it means the same whatever words were guessed."""
    trainer = make_trainer()
    lexicon = Lexicon({"a": (("A",),)}, "test")
    tokenizers = [PhoneTokenizer(("A", "B"), lexicon, {word: ("B",)}, "nothing") for word in ("b", "c")]
    assert tokenizers[0] != tokenizers[1]
    for tokenizer in (*tokenizers, CharTokenizer(("A", "B"))):
        settings = replace(trainer.task.net.settings, tokenizer=tokenizer)
        save_model(tmp_path / "other.safetensors", AcousticModel(settings), {})
        own = AcousticModel(replace(settings, tokenizer=tokenizers[0]))
        task = SpeechTask(own, trainer.task.train_batches, trainer.task.dev_batches)
        output = task.source_weights(tmp_path / "other.safetensors")["encoder.output.weight"]
        assert (output is None) == isinstance(tokenizer, CharTokenizer)


ATTENTION = replace(ENCODER, decoder=AttentionDecoderConfig("dot", decoder_width=12, decoder_embedding=8))


def test_joint_loss(make_trainer: Make) -> None:
    """Guards the shares of CTC's loss and the decoder's, in training and on dev."""
    task = make_trainer(encoder=replace(ATTENTION, dropout=0.0)).task
    model = task.net.eval()
    [batch, *_] = task.load(task.plan(1))
    with torch.no_grad():
        together = task.forward(batch, torch.float32).losses
        log_probs, steps, encoded = model(batch.features(FEATURES), batch.frame_lengths)
        ctc = ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths)
        expected = [
            0.3 * ctc[row]
            - 0.7
            * token_log_probs(model.attention_decoder, encoded[row, :length], [tuple(tokens[:count])])[0]
            for row, (length, tokens, count) in enumerate(
                zip(steps, batch.tokens.tolist(), batch.token_lengths, strict=True)
            )
        ]
    torch.testing.assert_close(together, torch.stack(expected))
    result = task.validate(ALONE, torch.float32)
    assert 0 < result.attention_loss < 10
    assert f"attention loss {result.attention_loss:.3f}" in result.headline()
    assert result.row()["dev_attention_loss"] == result.attention_loss
    assert make_trainer("plain").task.validate(ALONE, torch.float32).attention_loss is None


def test_decoder_on_a_frozen_encoder(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the cheap way: the encoder of another model keeps every bit, the decoder learns, and the best
    epoch is the one with the lowest loss, since the greedy error rate does not change."""
    make_trainer("old", epochs=1).fit(StopRequest())
    source = tmp_path / "old" / "last.safetensors"
    frozen = {"warm_start": source, "freeze": ("front", "recurrent", "output"), "learning_rate": 1e-2}
    trainer = make_trainer("new", encoder=ATTENTION, **frozen)
    trainer.warm_start(source)
    first = trainer.task.validate(ALONE, torch.float32)
    best = trainer.fit(StopRequest()).best_loss
    old, new = load_file(source), load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    assert {name.split(".")[0] for name in new.keys() - old.keys()} == {"attention_decoder"}
    epochs = rows(tmp_path / "new", "epoch")
    assert best == min(row["dev_loss"] for row in epochs) < first.loss
    assert {row["dev_wer"] for row in epochs} == {first.wer}


def test_resumed_with_a_decoder(make_trainer: Make, tmp_path: Path) -> None:
    """Guards every bit of a joint training that is stopped and resumed."""
    make_trainer("whole", encoder=ATTENTION, epochs=2).fit(StopRequest())
    with pytest.raises(Interrupted):
        make_trainer("parts", encoder=ATTENTION, epochs=2).fit(StopAfter(3))
    resumed = make_trainer("parts", encoder=ATTENTION, epochs=2)
    position, _, states = load_checkpoint(tmp_path / "parts" / CHECKPOINT, torch.device("cpu"))
    resumed.restore(position, states)
    resumed.fit(StopRequest())
    last = [load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts")]
    assert same_tree(*last)


def test_half_precision(make_trainer: Make) -> None:
    """Guards the decoder under autocast: the losses are float32 and close to those in float32."""
    task = make_trainer(encoder=replace(ATTENTION, dropout=0.0)).task
    task.net.eval()
    [batch, *_] = task.load(task.plan(1))
    full, half = (task.forward(batch, precision).losses for precision in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)


def test_microscope_sees_the_decoder(make_trainer: Make, tmp_path: Path) -> None:
    """Guards gradients through the decoder: its layer is measured after those of a frozen encoder."""
    frozen = ("front", "recurrent", "output")
    trainer = make_trainer(encoder=ATTENTION, epochs=1, diagnose_every=100, freeze=frozen)
    trainer.fit(StopRequest())
    row = json.loads((tmp_path / "run" / "diagnostics" / "diagnostics.jsonl").read_text().splitlines()[0])
    layers = [(one["layer"], one["direction"]) for one in row["layers"]]
    assert layers == [(1, "forwards"), (1, "backwards"), (2, "forwards")]
    assert all(one["h"][0] > 0 for one in row["layers"])
