"""Model selection by words: some of the dev set is decoded with a language model at each validation.

The greedy output of a model of phones has no words, and under CTC-CRF it gets worse while the decoded text
gets better. What is decoded is the same at each validation: utterances spread over the dev set.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asr.batching.batches import Batch
from asr.batching.examples import Examples
from asr.decoding.config import BeamConfig, DecoderSettings, GivenDecodingWeights
from asr.decoding.decoder import build_decoder
from asr.errors import SettingsError, check_number
from asr.files import file_digest
from asr.model.acoustic import AcousticModel
from asr.model.encoder import step_count
from asr.text.normalize import normalize

__all__ = ["DevDecoder", "DevDecodingConfig", "DevOutput"]


@dataclass(frozen=True, kw_only=True)
class DevDecodingConfig:
    """The language model by which the best model is chosen."""

    # A language model, as --lm of asr evaluate takes it: at each validation a part of the dev set is decoded
    # with it, and the best model is the one with the lowest WER there, not by its greedy output.
    dev_lm: Path | None = None
    # The vocabulary of that search, as --lexicon of asr evaluate takes it; without one, the words of the
    # language model, with the model's own pronunciations.
    dev_lexicon: Path | None = None
    dev_utterances: int = 200  # decoded with --dev-lm, the same at each validation; 0: all of the dev set
    dev_beam_size: int = 50  # prefixes that the search keeps after each step
    dev_lm_weight: float = 1.0  # of the language model; 1 is what CTC-CRF is trained for

    def __post_init__(self) -> None:
        check_number("--dev-utterances", self.dev_utterances, least=0)
        check_number("--dev-beam-size", self.dev_beam_size, least=1)
        check_number("--dev-lm-weight", self.dev_lm_weight, least=0, below=math.inf)
        if self.dev_lexicon and not self.dev_lm:
            raise SettingsError(
                f"--dev-lexicon {self.dev_lexicon} is given, but no language model. Add --dev-lm FILE."
            )

    def digest(self) -> str:
        """SHA-256 of the files, by content."""
        return " ".join(filter(None, map(file_digest, (self.dev_lm, self.dev_lexicon))))


@dataclass(frozen=True)
class DevOutput:
    """The model's output for the utterances of a batch that are decoded."""

    ids: tuple[str, ...]
    log_probs: Tensor  # (rows, steps, vocab), on the model's device at first
    step_lengths: Tensor  # (rows,) int64


class DevDecoder:
    """Decodes a part of the dev set with a language model.

    Args:
        config: names the language model.
        model: on its device; it has no tuned weights.
        examples: the dev set.

    Raises:
        AsrError: a file cannot be used, or does not fit the model.
    """

    def __init__(self, config: DevDecodingConfig, model: AcousticModel, examples: Examples) -> None:
        settings = model.settings
        by_id = sorted(examples.utterances(), key=lambda utterance: utterance.id)
        count = min(config.dev_utterances or len(by_id), len(by_id))
        chosen = [by_id[number * len(by_id) // count] for number in range(count)]
        self.references: Mapping[str, str] = {
            utterance.id: normalize(utterance.text, settings.text_normalizer) for utterance in chosen
        }
        beam = BeamConfig(beam_size=config.dev_beam_size, threads=torch.get_num_threads())
        self.decoder = build_decoder(
            DecoderSettings(
                decoder="beam",
                lm=config.dev_lm,
                lexicon=config.dev_lexicon,
                weights=GivenDecodingWeights(lm_weight=config.dev_lm_weight),
                beam=beam,
            ),
            model,
        )
        self.step_s, self.subsampling = model.step_s, settings.encoder.subsampling

    def select(self, batch: Batch, log_probs: Tensor) -> DevOutput | None:
        """What is to be decoded of a batch; None if there is nothing.

        Args:
            batch: in the host's memory.
            log_probs: (batch, steps, vocab) of all its utterances.
        """
        rows = [row for row, name in enumerate(batch.ids) if name in self.references]
        if not rows:
            return None
        index = torch.tensor(rows)
        part = log_probs.index_select(0, index.to(log_probs.device, non_blocking=True))
        return DevOutput(
            tuple(batch.ids[row] for row in rows),
            part,
            step_count(batch.frame_lengths[index], self.subsampling),
        )

    def decode(self, output: DevOutput) -> list[tuple[str, str, str]]:
        """The id, reference and best text of each utterance."""
        found = self.decoder.decode(output.log_probs, output.step_lengths, self.step_s)
        texts = [hypotheses[0].text for hypotheses in found]
        return [(name, self.references[name], text) for name, text in zip(output.ids, texts, strict=True)]
