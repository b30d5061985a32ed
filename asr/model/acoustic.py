"""The acoustic model: normalisation, encoder and attention decoder, if any, with settings and tokenizer."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asr.frontend.augment import Masks, apply_masks
from asr.frontend.features import FeatureConfig, FeatureNormalizer, frame_count, log_mel, require_one_window
from asr.model.attention_decoder import make_attention_decoder
from asr.model.decoding_weights import Tuning
from asr.model.encoder import Encoder, EncoderConfig
from asr.model.loss.denominator import DenominatorLm
from asr.model.modes import evaluating
from asr.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelSettings:
    """All that is needed to build a model and to use it: saved with its weights."""

    features: FeatureConfig
    encoder: EncoderConfig
    tokenizer: Tokenizer
    text_normalizer: str  # name of the text normalizer of its transcripts
    provenance: dict[str, Any] = field(default_factory=dict)  # its origin: data, seed, commit, scores
    tunings: tuple[Tuning, ...] = ()  # decoding weights that `asr tune` has found for it


class AcousticModel(nn.Module):
    """Log-mel frames -> log-probabilities of the tokens.

    Args:
        settings: features, encoder and tokenizer.

    Raises:
        SettingsError: the denominator LM of CTC-CRF would be too large.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.normalize = FeatureNormalizer(settings.features)
        vocab_size, loss = settings.tokenizer.vocab_size, settings.encoder.loss
        self.encoder = Encoder(settings.encoder, settings.features.n_mels, vocab_size)
        # Only training uses it; saved with the model, so that training can go on.
        self.denominator = (
            DenominatorLm(loss.denominator_order, vocab_size) if loss.criterion == "crf" else None
        )
        # After the encoder, whose first weights are the same with and without it.
        self.attention_decoder = make_attention_decoder(
            settings.encoder.decoder, settings.encoder.recurrent(), vocab_size
        )

    @property
    def step_s(self) -> float:
        """Seconds from one encoder step to the next."""
        return self.settings.features.frame_s * self.settings.encoder.subsampling

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.output.weight.device

    def forward(
        self, features: Tensor, lengths: Tensor, masks: Masks | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalise, mask (in training) and encode a batch.

        Args:
            features: (batch, frames, n_mels) log-mel energies.
            lengths: (batch,) int64 valid frames.
            masks: SpecAugment masks, or None.

        Returns:
            (batch, steps, vocab) float32 log-probabilities; (batch,) int64 valid steps; and for the attention
            decoder (batch, steps, size) outputs of the recurrent layers, None without one.
        """
        features = self.normalize(features, lengths)
        if masks is not None:
            means_are_zero = self.normalize.kind == "utterance" and not self.normalize.prior
            features = apply_masks(features, masks, None if means_are_zero else lengths)
        log_probs, step_lengths, encoded = self.encoder(features, lengths)
        return log_probs, step_lengths, None if self.attention_decoder is None else encoded

    @torch.inference_mode()
    def outputs(self, waveforms: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What decoding needs of waveforms, in one batch and in evaluation mode; all modules keep their mode.

        Args:
            waveforms: each (samples,) float32 at the model's sample rate.

        Returns:
            As `forward`.

        Raises:
            AudioError: a waveform is shorter than one window.
        """
        config = self.settings.features
        for waveform in waveforms:
            require_one_window(len(waveform), config)
        padded = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        samples = torch.tensor([len(waveform) for waveform in waveforms])
        if self.device.type == "cuda":  # from page-locked memory, the host does not wait for the copy
            padded, samples = padded.pin_memory(), samples.pin_memory()
        padded = padded.to(self.device, non_blocking=True)
        samples = samples.to(self.device, non_blocking=True)
        with evaluating(self):
            return self.forward(log_mel(padded, config), frame_count(samples, config))
