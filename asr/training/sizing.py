"""Settings of a training by its hours of speech, for data that has no recipe of its own."""

from asr.batching.batches import BatchConfig
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings

__all__ = ["settings_for_hours"]

_TINY = Settings(
    features=FeatureConfig(n_mels=40),
    model=EncoderConfig(width=96, depth=2, dropout=0.3, channels=16, layers=LayerConfig(cell="ligru")),
    augment=AugmentConfig(mel_mask_bands=8, masks_from_epoch=10),
    batch=BatchConfig(seconds=20),
    train=TrainConfig(epochs=45, learning_rate=3e-3),
)
_SMALL = Settings(
    features=FeatureConfig(n_mels=40),
    model=EncoderConfig(width=224, depth=4, dropout=0.25, layers=LayerConfig(cell="ligru")),
    augment=AugmentConfig(time_masks_per_s=0.4, mel_mask_bands=8, masks_from_epoch=4, mel_warp=(0.87, 1.13)),
    batch=BatchConfig(seconds=50),
    train=TrainConfig(epochs=40, schedule="linear", learning_rate=2e-3, warmup=0.03, ema=0.998),
)
_MEDIUM = Settings(
    model=EncoderConfig(size="medium"),
    batch=BatchConfig(seconds=400, cache_dir=None),
    train=TrainConfig(epochs=60),
)
_LARGE = Settings(
    model=EncoderConfig(size="large"),
    batch=BatchConfig(seconds=2400, cache_dir=None),
    train=TrainConfig(epochs=30),
)


def settings_for_hours(hours: float) -> Settings:
    """Settings for so much speech: they suit no corpus in particular.

    Args:
        hours: of the training set. Up to 3 take minutes on a CPU, up to 60 hours; up to 500 need a GPU, more
            several.
    """
    return _TINY if hours <= 3 else _SMALL if hours <= 60 else _MEDIUM if hours <= 500 else _LARGE
