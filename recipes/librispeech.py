"""LibriSpeech (OpenSLR 12) on one or more GPUs; everything but the sizes is shared with mini_librispeech.

python recipes/librispeech.py 100h [--data.root DIR] [--train.… …]
torchrun --nproc-per-node 8 recipes/librispeech.py 960h

100h learns from train-clean-100, 960h from all three training parts; the epoch is chosen on the dev parts,
and test-clean and test-other are scored once. Neither preset has been run to its end yet.
"""

from dataclasses import replace
from pathlib import Path

from mini_librispeech import CONFIG, Data, main

from asr.batching.batches import BatchConfig
from asr.cli import recipe
from asr.corpora import librispeech
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.encoder import EncoderConfig

# Features are computed on the GPU from waveforms: a cache of 960 hours at three speeds would take 330 GB.
CONFIGS = {
    "100h": (
        "train-clean-100: 100 hours, 251 speakers; one GPU",
        replace(
            CONFIG,
            data=Data(preset=librispeech.CLEAN_100),
            features=FeatureConfig(),
            model=EncoderConfig(size="medium"),
            augment=AugmentConfig(),
            batch=BatchConfig(seconds=400, cache_dir=None),
            train=replace(CONFIG.train, run_dir=Path("runs/librispeech-100h"), epochs=60),
        ),
    ),
    "960h": (
        "all training parts: 960 hours, 2,338 speakers; several GPUs",
        replace(
            CONFIG,
            data=Data(preset=librispeech.FULL_960),
            features=FeatureConfig(),
            model=EncoderConfig(size="large"),
            augment=AugmentConfig(),
            batch=BatchConfig(seconds=2400, cache_dir=None),
            train=replace(CONFIG.train, run_dir=Path("runs/librispeech-960h"), epochs=30),
        ),
    ),
}

if __name__ == "__main__":
    recipe(main, CONFIGS)
