"""The task of a word RNN: sentences side by side, each for itself."""

import numpy as np
import pytest
import torch

from asr.errors import DataError
from asr.lm.wordrnn import END_OF_SENTENCE, Vocabulary, WordRnn, WordRnnModel
from asr.training.distributed import Process
from asr.training.tasks.wordrnn import SentenceBatch, SentenceConfig, Sentences, WordRnnTask
from tests.shapes import wordrnn_config

CPU = torch.device("cpu")
WORDS = ("a", "b", "c", "d")
LINES = ["a b", "c", "a b c d a", "d", "b zebra", "a a a", "", "c d"]


def task(words: int = 8, rank: int = 0, world_size: int = 1, longest: int = 80) -> WordRnnTask:
    torch.manual_seed(1)
    net = WordRnn(Vocabulary(WORDS, 1), wordrnn_config(width=16, embedding=3, cutoffs=(3,), dropout=0.0))
    sentences = Sentences.from_lines(LINES, net.ids, longest)
    process = Process(rank, world_size, CPU)
    return WordRnnTask(net, sentences, sentences, SentenceConfig(words=words), process, seed=1)


def total_loss(made: WordRnnTask, batch: SentenceBatch) -> float:
    return sum(made.forward(batch, torch.float32).losses.tolist())


def test_every_sentence_is_learned_once_and_batches_are_full() -> None:
    """A sentence that is left out is lost, one that is there twice weighs twice; and short sentences must
    not be padded to the longest."""
    made = task()
    for epoch in (1, 2):
        plan = made.plan(epoch)
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(LINES)))
        assert all(len(rows) == 1 or len(rows) * made.train.lengths[rows].max() <= 8 for rows in plan)
    assert len(plan) < len(LINES)
    assert [rows.tolist() for rows in made.plan(2)] == [rows.tolist() for rows in plan]
    assert [rows.tolist() for rows in made.plan(1)] != [rows.tolist() for rows in plan]


def test_losses_are_those_of_the_sentences_alone() -> None:
    """Neighbours and padding must change nothing, and the end is predicted, too."""
    made = task(words=1000)
    made.net.eval()
    [batch] = made.load(made.plan(1))
    losses = made.forward(batch, torch.float32).losses
    model = WordRnnModel(made.net)
    expected = [-model.log_probs(LINES[int(name.split()[1])]).sum() for name in batch.ids]
    assert losses.tolist() == pytest.approx(expected, abs=1e-4)
    assert batch.global_tokens == sum(len(line.split()) + 1 for line in LINES)
    assert made.validate(made.process, torch.float32).loss == pytest.approx(
        sum(expected) / batch.global_tokens, abs=1e-5
    )


def test_long_sentences_are_cut() -> None:
    """What is cut has no end that could be learned."""
    sentences = Sentences.from_lines(["a b c d", "a"], {"a": 2, "b": 3, "c": 4, "d": 5}, longest=3)
    words, lengths = sentences.padded(np.array([0, 1]))
    assert words.tolist() == [[1, 2, 3, 4], [1, 2, 1, 1]]
    assert lengths.tolist() == [3, 2]
    assert END_OF_SENTENCE == 1


def test_processes_share_the_sentences() -> None:
    """Two processes together learn what one learns, also by their counts; one without a sentence of its own
    adds nothing."""
    whole, parts = task(words=3), [task(words=3, rank=rank, world_size=2) for rank in (0, 1)]
    alone = 0
    for index in range(len(whole.plan(1))):
        [batch] = whole.load(whole.plan(1)[index : index + 1])
        shards = [next(iter(part.load(part.plan(1)[index : index + 1]))) for part in parts]
        together = sum(total_loss(part, shard) for part, shard in zip(parts, shards, strict=True))
        assert together == pytest.approx(total_loss(whole, batch), abs=1e-4)
        assert {shard.global_tokens for shard in shards} == {batch.global_tokens}
        alone += not shards[1].lengths.any()
    assert alone  # the case did occur


def test_half_a_batch() -> None:
    """Where memory is short, two halves have the losses of the whole."""
    made = task(words=1000)
    [batch] = made.load(made.plan(1))
    halves = batch.split()
    assert halves is not None
    losses = [loss for half in halves for loss in made.forward(half, torch.float32).losses.tolist()]
    assert losses == pytest.approx(made.forward(batch, torch.float32).losses.tolist(), abs=1e-5)
    while len(halves[0].ids) > 1:
        halves = halves[0].split() or ()
    assert halves[0].split() is None


def test_no_text() -> None:
    """One clear line, before anything is trained."""
    made = task()
    nothing = Sentences.from_lines([], {}, 80)
    with pytest.raises(DataError, match="no sentence to learn from"):
        WordRnnTask(made.net, nothing, made.dev, made.config, made.process, seed=1)
