import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from asr.errors import Interrupted, SettingsError
from asr.model.saved import load_model, save_model
from asr.text.characters import CharTokenizer
from asr.text.phones import PhoneTokenizer
from asr.training.finetuning import copy_matching_weights, freeze
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.trainer import Trainer
from tests.training.conftest import ENCODER, StopAfter, same_tree

Make = Callable[..., Trainer]


def net(hidden: int = 4, symbols: int = 3) -> nn.ModuleDict:
    return nn.ModuleDict({"front": nn.Linear(2, hidden), "output": nn.Linear(hidden, symbols)})


def test_what_fits_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Guards a warm start: what fits is copied, the rest is as it was, and both are logged."""
    caplog.set_level(logging.INFO, "asr")
    ours, theirs = net(), net(symbols=5)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    source_weights = {**theirs.state_dict(), "output.bias": None, "more": torch.ones(1)}
    copy_matching_weights(ours, source_weights, "other.safetensors")
    after = ours.state_dict()
    assert torch.equal(after["front.weight"], theirs["front"].weight)
    assert torch.equal(after["front.bias"], theirs["front"].bias)
    assert torch.equal(after["output.weight"], before["output.weight"])
    assert torch.equal(after["output.bias"], before["output.bias"])
    assert caplog.messages == [
        "warm start from other.safetensors: 2 of 4 tensors copied; not copied: output.weight (5 x 4 there, "
        "3 x 4 here), output.bias (other symbols)"
    ]


def test_nothing_fits() -> None:
    """Guards against a run that its user takes for a warm start, and that begins from nothing."""
    with pytest.raises(SettingsError, match=r"train\.warm-start x: none of its .* front\.weight \(not"):
        copy_matching_weights(net(), {"encoder.weight": torch.ones(1)}, "x")


def test_frozen_parts_do_not_learn() -> None:
    """Guards the choice of parts."""
    module = net()
    freeze(dict(module), ["front"])
    assert [weight.requires_grad for weight in module.parameters()] == [False, False, True, True]


def test_wrong_parts() -> None:
    """Guards a slip in --train.freeze, and a run without a weight to train."""
    with pytest.raises(
        SettingsError, match=r"^--train\.freeze frnt: no such part.*some of: front, output\.$"
    ):
        freeze(dict(net()), ["front", "frnt"])
    with pytest.raises(SettingsError, match=r"no weight is left to train"):
        freeze(dict(net()), ["front", "output"])


def test_frozen_parts(make_trainer: Make) -> None:
    """Guards --train.freeze in the loop: frozen weights keep every bit, and the optimiser knows nothing of
    them."""
    trainer = make_trainer(encoder=replace(ENCODER, depth=2), epochs=1, freeze=("front", "recurrent.0"))
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.fit(StopRequest())
    changed = {
        name for name, value in trainer.task.net.state_dict().items() if not torch.equal(value, before[name])
    }
    learning = {name for name, weight in trainer.task.net.named_parameters() if weight.requires_grad}
    assert changed == learning
    assert {name.removeprefix("encoder.").split(".")[0] for name in changed} == {"recurrent", "output"}
    assert not any(name.startswith("encoder.recurrent.layers.0") for name in changed)
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(learning)
    with pytest.raises(
        SettingsError, match=r"no such part.*: front, recurrent, recurrent\.0, recurrent\.1, output"
    ):
        make_trainer(encoder=replace(ENCODER, depth=2), freeze=("recurrent.2",))


def test_warm_start(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the first weights and averages of a warm start: those of the other model."""
    make_trainer("old", epochs=1).fit(StopRequest())
    trainer = make_trainer("new", seed=2, ema=0.9)
    trainer.warm_start(tmp_path / "old" / "last.safetensors")
    old = load_file(tmp_path / "old" / "last.safetensors")
    assert same_tree(dict(trainer.task.net.state_dict()), old)
    assert all(
        torch.equal(value, old[name]) for name, value in trainer.selection.moving_average.state().items()
    )


def test_warm_start_of_a_wider_model(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the widening: the wider model starts with the outputs of the narrower one."""
    narrow = make_trainer("old", epochs=1)
    narrow.fit(StopRequest())
    assert ENCODER.width is not None
    wide = make_trainer("new", seed=2, encoder=replace(ENCODER, width=2 * ENCODER.width))
    wide.warm_start(tmp_path / "old" / "last.safetensors")
    x, lengths = torch.randn(2, 60, narrow.task.net.settings.features.n_mels), torch.tensor([60, 41])
    before, after = (trainer.task.net.eval().encoder(x, lengths)[0] for trainer in (narrow, wide))
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=1e-5)


def test_warm_start_with_another_alphabet(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the output layer: of equal shape, it still means other characters, and is not copied."""
    caplog.set_level(logging.INFO, "asr")
    model = load_model(save_other_alphabet(make_trainer("old"), tmp_path / "other.safetensors"))
    trainer = make_trainer("new", seed=2)
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.warm_start(tmp_path / "other.safetensors")
    after, other = trainer.task.net.state_dict(), model.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if "output" in name else other[name]), name
    assert (
        "not copied: encoder.output.weight (other symbols), encoder.output.bias (other symbols)"
        in caplog.text
    )


def save_other_alphabet(trainer: Trainer, path: Path) -> Path:
    model = trainer.task.net
    model.settings = replace(model.settings, tokenizer=CharTokenizer(tuple("wxyz")))
    save_model(path, model, {})
    return path


def test_copied_weights_learn_more_slowly(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.warm-start-rate: the first update of Adam moves a weight by the learning rate, and one
    that was copied by its fraction; the new output layer learns at the full rate."""
    source = save_other_alphabet(make_trainer("old"), tmp_path / "other.safetensors")
    trainer = make_trainer(
        "new", warm_start=source, warm_start_rate=0.1, updates=1, warmup=0, schedule="constant",
        learning_rate=1e-3, weight_decay=0,
    )  # fmt: skip
    trainer.warm_start(source)
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.fit(StopRequest())
    for name, weight in trainer.task.net.named_parameters():
        step = (weight.detach() - before[name]).abs().max().item()
        assert step == pytest.approx(1e-3 if "output" in name else 1e-4, rel=0.05), name


def test_resumed_with_a_rate_of_copied_weights(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the rate of copied weights over a resume, which does not read the source again: every bit."""
    source = save_other_alphabet(make_trainer("old"), tmp_path / "other.safetensors")
    more = {"warm_start": source, "warm_start_rate": 0.1, "epochs": 2, "learning_rate": 1e-2}
    whole, parts = (make_trainer(name, **more) for name in ("whole", "parts"))
    for trainer in (whole, parts):
        trainer.warm_start(source)
    whole.fit(StopRequest())
    with pytest.raises(Interrupted):
        parts.fit(StopAfter(3))
    source.unlink()
    resumed = make_trainer("parts", **more)
    state, _, state_dicts = load_checkpoint(tmp_path / "parts" / CHECKPOINT, torch.device("cpu"))
    resumed.restore(state, state_dicts)
    resumed.fit(StopRequest())
    last = [load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts")]
    assert same_tree(*last)


def test_other_units_are_said(make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the one line that says that the output layer was replaced."""
    caplog.set_level(logging.INFO, "asr")
    source = save_other_alphabet(make_trainer("old"), tmp_path / "other.safetensors")
    caplog.clear()
    make_trainer("new").warm_start(source)
    assert f"the output layer is new: 4 characters here, 4 characters in {source}" in caplog.text
    caplog.clear()
    make_trainer("old").task.save(
        tmp_path / "same.safetensors", make_trainer("old").task.net.state_dict(), {}
    )
    make_trainer("again").warm_start(tmp_path / "same.safetensors")
    assert "output layer" not in caplog.text


def test_output_layer_of_the_same_phones(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the output layer of phones: copied, although the tokenizers know the words of other texts."""
    source, trainer = make_trainer("old", epochs=1), make_trainer("new", seed=2)
    for part, text in ((source, "one brouhahas"), (trainer, "two flibbertigibbets")):
        net = part.task.net
        tokenizer = PhoneTokenizer.from_texts([text])
        net.settings = replace(net.settings, tokenizer=tokenizer)
        net.encoder.output = nn.Linear(net.encoder.output.in_features, tokenizer.vocab_size)
    source.task.save(tmp_path / "phones.safetensors", source.task.net.state_dict(), {})
    caplog.set_level(logging.INFO, "asr")
    trainer.warm_start(tmp_path / "phones.safetensors")
    assert torch.equal(trainer.task.net.encoder.output.weight, source.task.net.encoder.output.weight)
    assert "output layer" not in caplog.text
