"""Classification by the final hidden state, the other use of a recurrent net: which of eight words is it?

python recipes/speech_commands.py [--data.root DIR] [--epochs 12]

An example, not a product: the package's encoder gives one vector per utterance (`Encoder.final_states`), and
one linear layer classifies it. The loop below is the whole training.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.cli import recipe
from asr.corpora import speech_commands
from asr.frontend.audio import read_audio
from asr.frontend.features import FeatureConfig, FeatureNormalizer, log_mel
from asr.manifests.utterance import Utterance
from asr.model.encoder import Encoder, EncoderConfig
from asr.model.recurrent.layers import LayerConfig


@dataclass(frozen=True)
class Data:
    """Where the corpus is."""

    root: Path | None = None  # a folder that holds one folder per word; None downloads it (2.4 GB)
    dir: Path = Path("data")  # where downloads go


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    data: Data = field(default_factory=Data)
    model: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            width=64, depth=2, dropout=0.2, layers=LayerConfig(cell="gru"), channels=16
        )
    )
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(n_mels=40))
    epochs: int = 12
    learning_rate: float = 3e-3  # the peak
    batch: int = 32  # utterances
    seed: int = 1


class Classifier(nn.Module):
    """(batch, frames, n_mels) and (batch,) frames -> (batch, words) scores."""

    def __init__(self, config: Config, words: int) -> None:
        super().__init__()
        self.normalize = FeatureNormalizer(config.features)
        # Its output layer is not used.
        self.encoder = Encoder(config.model, config.features.n_mels, vocab_size=1)
        self.output = nn.Linear(config.model.recurrent().hidden_size, words)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.output(self.encoder.final_states(self.normalize(features, lengths), lengths))


def main(config: Config) -> str:
    """Train, choose the epoch on dev, test once."""
    splits = speech_commands.prepare(config.data.root, config.data.dir)
    words = sorted({utterance.text for utterance in splits.train})
    train, dev, test = (prepared(part, words, config) for part in (splits.train, splits.dev, splits.test))
    torch.manual_seed(config.seed)
    model, best, weights = Classifier(config, len(words)), -1.0, {}
    optimizer = torch.optim.AdamW(model.parameters())
    steps = config.epochs * -(-len(train[1]) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, steps)
    for epoch in range(1, config.epochs + 1):
        model.train()
        for rows in torch.randperm(len(train[1])).split(config.batch):
            loss = nn.functional.cross_entropy(model(*collated(train[0], rows)), train[1][rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        score = accuracy(model, dev)
        print(f"epoch {epoch}/{config.epochs}  loss {loss:.3f}  dev accuracy {100 * score:.1f}%")
        if score > best:
            best, weights = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    right = round(accuracy(model, test) * len(test[1]))
    return f"{right} of {len(test[1])} test recordings right: {100 * right / len(test[1]):.2f}% accuracy"


def prepared(part: list[Utterance], words: list[str], config: Config) -> tuple[list[Tensor], Tensor]:
    """Features of each utterance, (frames, n_mels), and the index of its word."""
    rate = config.features.sample_rate
    waveforms = (read_audio(utterance.audio_filepath, rate) for utterance in part)
    features = [log_mel(waveform.unsqueeze(0), config.features)[0] for waveform in waveforms]
    return features, torch.tensor([words.index(utterance.text) for utterance in part])


def collated(features: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """A padded batch and its lengths."""
    chosen = [features[row] for row in rows.tolist()]
    return pad_sequence(chosen, batch_first=True), torch.tensor([len(row) for row in chosen])


@torch.inference_mode()
def accuracy(model: Classifier, part: tuple[list[Tensor], Tensor]) -> float:
    """Fraction of recordings whose word is found."""
    model.eval()
    guesses = [model(*collated(part[0], rows)).argmax(1) for rows in torch.arange(len(part[1])).split(64)]
    return float((torch.cat(guesses) == part[1]).float().mean())


if __name__ == "__main__":
    recipe(main, Config())
