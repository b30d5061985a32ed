"""The microphone: blocks of samples as they are recorded, by PortAudio (sounddevice)."""

import logging
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import SettingsError

__all__ = ["Microphone"]

log = logging.getLogger("asr")

_BLOCK_S = 0.1  # recorded at a time
_LONGEST_LAG_S = 60.0  # that recognition may lag behind; what comes then is lost


class Microphone:
    """Records at the device's own rate, one channel.

    Args:
        name: of the device, or a part of it, or its number; "" is the system's default.

    Attributes:
        sample_rate: Hz.
        name: of the device.

    Raises:
        SettingsError: sounddevice or PortAudio is not installed, or there is no such microphone.
    """

    def __init__(self, name: str = "") -> None:
        try:
            import sounddevice
        except ImportError:
            raise SettingsError(
                "the microphone needs the package sounddevice: pip install 'asr-rnn[microphone]'. Or pipe "
                "PCM: ffmpeg … -f s16le - | asr stream -"
            ) from None
        except OSError as error:  # the package is there, the library is not
            raise SettingsError(
                f"the microphone needs PortAudio: {error}. Install it (Debian: apt install libportaudio2), "
                f"or pipe PCM: ffmpeg … -f s16le - | asr stream -"
            ) from None
        self._sounddevice = sounddevice
        self._device = int(name) if name.isdigit() else name or None
        try:
            found = sounddevice.query_devices(self._device, "input")
        except (sounddevice.PortAudioError, ValueError) as error:
            which = f"--microphone {name}" if name else "the microphone"
            raise SettingsError(
                f"{which}: there is none: {error}. `python -m sounddevice` lists the devices."
            ) from None
        self.sample_rate = round(found["default_samplerate"])
        self.name: str = found["name"]
        self._blocks: queue.Queue[NDArray[np.float32]] = queue.Queue(round(_LONGEST_LAG_S / _BLOCK_S))
        self._lost = 0

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """(samples,) float32 of each tenth of a second, until the caller stops; a warning names losses."""
        try:
            stream = self._sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=round(_BLOCK_S * self.sample_rate),
                device=self._device,
                channels=1,
                dtype="float32",
                callback=self._take,
            )
        except self._sounddevice.PortAudioError as error:
            raise SettingsError(f"the microphone {self.name} cannot be opened: {error}.") from None
        with stream:
            while True:
                yield self._blocks.get()
                lost, self._lost = self._lost, 0
                if lost:
                    log.warning(
                        "%.1f s of the microphone are lost: this machine is too slow for the model.",
                        lost * _BLOCK_S,
                    )

    def _take(self, samples: NDArray[np.float32], _frames: int, _time: Any, status: Any) -> None:
        """Take a block, (samples, 1), in PortAudio's thread."""
        self._lost += bool(status.input_overflow)
        try:
            self._blocks.put_nowait(samples[:, 0].copy())
        except queue.Full:
            self._lost += 1
