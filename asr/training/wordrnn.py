"""Train a word RNN on text: all its settings, and the function that the command calls."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr.errors import DataError
from asr.lm.wordrnn import RESERVED, UNKNOWN, Vocabulary, WordRnn, WordRnnConfig
from asr.training.config import TrainConfig
from asr.training.run.provenance import provenance
from asr.training.run.start import open_run, settings_record
from asr.training.tasks.wordrnn import SentenceConfig, Sentences, WordRnnTask
from asr.training.texts import HELD_OUT_EVERY, text_digest

__all__ = ["WordRnnSettings", "held_out", "make_vocabulary", "train_wordrnn"]


@dataclass(frozen=True)
class WordRnnSettings:
    """All settings of the training of a word RNN."""

    model: WordRnnConfig = field(default_factory=WordRnnConfig)
    text: SentenceConfig = field(default_factory=SentenceConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            run_dir=Path("runs/wordlm"), epochs=3, learning_rate=2.5e-3, schedule="linear"
        )
    )


def train_wordrnn(lines: Sequence[str], dev: Sequence[str], settings: WordRnnSettings) -> Path:
    """Train a word RNN; under torchrun every process calls this, and they train together.

    Args:
        lines: the training text, a sentence or an utterance each; its words are the vocabulary.
        dev: lines to choose the best epoch by.
        settings: all settings.

    Returns:
        The best model's file.

    Raises:
        DataError: no word to learn.
        AsrError: the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    vocabulary = make_vocabulary(lines, settings.model.vocabulary)
    with open_run(settings.train, "--text.words") as run:
        process = run.process
        record = settings_record(settings, text_digest(lines, dev))
        resumed = run.should_resume(record, settings_record(WordRnnSettings(), ""))
        run.seed()
        net = WordRnn(vocabulary, settings.model).to(process.device)
        learned, held = (Sentences.from_lines(part, net.ids, settings.text.longest) for part in (lines, dev))
        task = WordRnnTask(net, learned, held, settings.text, process, settings.train.seed)
        record |= provenance(process.device, settings.train.precision)
        unknown = (held.words == UNKNOWN).sum() / max(len(held.words) - len(dev), 1)
        data = (
            f"{len(lines):,} sentences, {(len(learned.words) - len(lines)) / 1e6:.2f} M words; {unknown:.2%} "
            f"of the dev text's words are outside the vocabulary of {len(vocabulary.words):,}"
        )
        return run.start(task, record, data, resumed=resumed)


def held_out(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split lines into a training text and a dev text, every 100th line.

    Raises:
        DataError: there is only one line.
    """
    if len(lines) < 2:
        raise DataError("one line of text. Two were expected, or a dev text (--dev).")
    return [line for number, line in enumerate(lines) if number % HELD_OUT_EVERY], [*lines[::HELD_OUT_EVERY]]


def make_vocabulary(lines: Sequence[str], size: int) -> Vocabulary:
    """The most frequent words of a text; of equally frequent ones, the first by alphabet.

    Raises:
        DataError: the text has no word, or has one that the network keeps for itself.
    """
    counts = Counter(word for line in lines for word in line.split())
    if not counts:
        raise DataError("the text has no word. Expected lines of words with spaces between them.")
    reserved = [word for word in RESERVED if word in counts]
    if reserved:
        raise DataError(
            f"the text has {' and '.join(reserved)} as words, which the network keeps for itself. Replace "
            f"them, for example by --normalizer english."
        )
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary(tuple(ranked[:size]), max(len(ranked) - size, 1))
