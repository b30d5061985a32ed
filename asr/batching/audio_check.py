"""Utterances whose audio cannot be used, found before training starts and not in the middle of it."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from asr.batching.cache import read_waveform
from asr.device import usable_cores
from asr.errors import AudioError
from asr.frontend.features import FeatureConfig, require_one_window
from asr.manifests.utterance import Utterance

__all__ = ["unusable_audio"]

log = logging.getLogger("asr")

_LOG_EVERY_S = 1.0


def unusable_audio(utterances: Sequence[Utterance], config: FeatureConfig) -> dict[str, str]:
    """Decode every utterance; returns why one cannot be used, by its id.

    Args:
        utterances: of a manifest.
        config: of the features, which need one window.
    """

    def reason(utterance: Utterance) -> str:
        try:
            samples = len(read_waveform(utterance, config.sample_rate))
            require_one_window(samples, config, str(utterance.audio_filepath))
        except AudioError as error:
            return str(error)
        return ""

    found: dict[str, str] = {}
    began = logged = time.monotonic()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for number, (utterance, why) in enumerate(zip(utterances, pool.map(reason, utterances), strict=True)):
            if why:
                found[utterance.id] = why
            if (now := time.monotonic()) > logged + _LOG_EVERY_S:
                logged, left = now, (now - began) * (len(utterances) - number) / (number + 1)
                log.info(
                    "audio: %d of %d utterances checked, %.0f s left", number + 1, len(utterances), left,
                    extra={"transient": True},
                )  # fmt: skip
    return found
