"""The denominator LM of a CTC-CRF training: estimated from its transcripts, and from further text."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.batching.examples import Examples, TextConfig
from asr.errors import DataError, SettingsError
from asr.lm.text_files import read_blocks
from asr.model.acoustic import AcousticModel
from asr.model.loss.denominator import count_ngrams, witten_bell
from asr.text.normalize import normalize
from asr.text.tokenizer import Tokenizer

__all__ = ["check_denominator_text", "estimate_denominator"]

log = logging.getLogger("asr")

_NAMES = {2: "bigram", 3: "trigram"}


def check_denominator_text(criterion: str, config: TextConfig) -> None:
    """Refuse text for a denominator LM that there is not.

    Raises:
        SettingsError: there is text, and the criterion is not crf.
    """
    if config.denominator_text and criterion != "crf":
        raise SettingsError(
            f"--text.denominator-text is for CTC-CRF, but --model.criterion is {criterion}. Add "
            f"--model.criterion crf, or leave the text out."
        )


def estimate_denominator(model: AcousticModel, examples: Examples, config: TextConfig) -> None:
    """Estimate a model's denominator LM, if it has one, and log how well it predicts the transcripts.

    Args:
        model: its table is set.
        examples: the training set.
        config: has the further text.

    Raises:
        DataError: a file of text cannot be read.
    """
    denominator, tokenizer = model.denominator, model.settings.tokenizer
    if denominator is None:
        return
    transcripts = (example.tokens for example in examples)
    counts = transcript_counts = count_ngrams(transcripts, denominator.order, tokenizer.vocab_size)
    if config.denominator_text:
        sentences = _sentences(config.denominator_text, tokenizer, config.rules)
        counts = transcript_counts + count_ngrams(sentences, denominator.order, tokenizer.vocab_size)
    denominator.set_probs(witten_bell(counts))
    log.info(
        "CRF denominator: a %s of %d %s, from %d transcripts%s; perplexity of the transcripts %.2f a token",
        _NAMES[denominator.order], len(tokenizer.symbols), tokenizer.units, len(examples),
        f" and text of {counts.sum() - transcript_counts.sum()} tokens" if config.denominator_text else "",
        denominator.perplexity(transcript_counts),
    )  # fmt: skip


def _sentences(paths: Sequence[Path], tokenizer: Tokenizer, normalizer: str) -> Iterator[list[int]]:
    """The tokens of each line of text files; lines that cannot be written in tokens are counted."""
    left_out = total = 0
    for block, _, _ in read_blocks(paths):
        for line in block.decode().splitlines():
            text = normalize(line, normalizer)
            if not text:
                continue
            total += 1
            try:
                yield tokenizer.encode(text)
            except DataError:
                left_out += 1
    if left_out:
        log.warning(
            "--text.denominator-text: %d of %d sentences have characters outside the alphabet, or words "
            "without pronunciation, and are left out",
            left_out,
            total,
        )
