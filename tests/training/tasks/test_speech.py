from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.model.acoustic import AcousticModel
from asr.model.saved import save_model
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer
from asr.training.tasks.speech import SpeechTask, validate
from asr.training.trainer import Trainer
from tests.training.conftest import ALONE, same_tree

Make = Callable[..., Trainer]


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
