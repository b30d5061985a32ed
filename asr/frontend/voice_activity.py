"""Voice activity: how likely each 32 ms of a waveform, which comes in blocks, holds speech.

silero    a small network that knows speech from music, hum and noise
energy    loudness above the noise that lies under it; takes music for speech
none      everything is speech
"""

import importlib.util
import logging
import warnings
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from asr.errors import SettingsError
from asr.frontend.audio import StreamResampler

__all__ = ["FRAME_S", "VadName", "VoiceActivity", "find_vad"]

log = logging.getLogger("asr")

VadName = Literal["auto", "silero", "energy", "none"]

FRAME_S = 0.032  # seconds of a frame of every detector

_SILERO_RATE = 16_000  # Hz
_SILERO_FRAME, _SILERO_CONTEXT = 512, 64  # samples, and those before a frame that the network sees again
_SILERO_BLOCK = 1024  # frames that are computed at a time

_HISTORY_S = 60.0  # from which the energy detector takes the level of noise and of speech
_LEAST_DB = -80.0  # of full scale: what is below it is no speech
_STATIONARY_DB = 8.0  # noise and hum vary by less from frame to frame, speech by more
_DECISION_DB = 1.0  # how soft the energy detector decides


class VoiceActivity(Protocol):
    """A detector, for one recording."""

    def accept(self, waveform: Tensor) -> Tensor:
        """Take the next samples, (samples,): (frames,) probabilities of those that are complete."""

    def finish(self) -> Tensor:
        """The probabilities of the last frames, the last one incomplete."""


def find_vad(name: VadName) -> VadName:
    """The detector to use: `auto` is silero where it is installed, and energy elsewhere, which is logged.

    Raises:
        SettingsError: silero was asked for, and is not installed.
    """
    if name in ("energy", "none"):
        return name
    if _silero_file() is not None:
        return "silero"
    if name == "silero":
        raise SettingsError(
            "--vad silero: the package silero-vad is not installed. Install it (pip install silero-vad), "
            "or use --vad energy."
        )
    log.info(
        "voice activity by loudness (--vad energy), which takes music for speech: pip install silero-vad "
        "adds a better detector"
    )
    return "energy"


def open_vad(name: VadName, sample_rate: int) -> VoiceActivity:
    """A detector of `find_vad` for one recording.

    Args:
        name: silero, energy or none.
        sample_rate: of the recording, Hz.
    """
    if name == "silero":
        return _SileroVad(sample_rate)
    return _EnergyVad(sample_rate) if name == "energy" else _NoVad(sample_rate)


class _Frames:
    """Samples in, complete frames of `FRAME_S` out; their borders are rounded to samples.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._frame = FRAME_S * sample_rate  # not whole at some rates
        self._samples = torch.zeros(0)  # of frames that are not complete
        self._count = 0  # frames returned

    def accept(self, waveform: Tensor) -> list[Tensor]:
        """(samples,) of each frame that is complete now."""
        samples = torch.cat([self._samples, waveform])
        start = round(self._count * self._frame)
        count = self._count
        while round((count + 1) * self._frame) - start <= len(samples):
            count += 1
        borders = [round(n * self._frame) - start for n in range(self._count, count + 1)]
        self._samples, self._count = samples[borders[-1] :], count
        return [samples[begin:end] for begin, end in pairwise(borders)]

    def finish(self) -> list[Tensor]:
        """The last frame, incomplete, if samples are left."""
        rest, self._samples = self._samples, torch.zeros(0)
        return [rest] if len(rest) else []


class _NoVad:
    def __init__(self, sample_rate: int) -> None:
        self._frames = _Frames(sample_rate)

    def accept(self, waveform: Tensor) -> Tensor:
        return torch.ones(len(self._frames.accept(waveform)))

    def finish(self) -> Tensor:
        return torch.ones(len(self._frames.finish()))


class _EnergyVad:
    """Frames that are louder than the noise under them, by a part of the range between noise and speech.

    Where levels hardly vary (silence, noise, hum) nothing is speech.
    """

    def __init__(self, sample_rate: int) -> None:
        self._frames = _Frames(sample_rate)
        self._history = torch.zeros(0)  # dB, of the last frames

    def accept(self, waveform: Tensor) -> Tensor:
        return self._decide(self._frames.accept(waveform))

    def finish(self) -> Tensor:
        return self._decide(self._frames.finish())

    def _decide(self, frames: list[Tensor]) -> Tensor:
        if not frames:
            return torch.zeros(0)
        # The difference of neighbours weighs hum and rumble less than speech.
        powers = torch.stack(
            [frame.diff().square().mean() if len(frame) > 1 else frame.new_zeros(()) for frame in frames]
        )
        levels = 10 * (powers + 1e-12).log10()
        self._history = torch.cat([self._history, levels])[-round(_HISTORY_S / FRAME_S) :]
        low, high = self._history.quantile(torch.tensor([0.1, 0.95])).tolist()
        low = max(low, _LEAST_DB - 10)
        if high - low < _STATIONARY_DB:
            return torch.zeros(len(levels))
        threshold = max(low + min(max(0.3 * (high - low), 5.0), 12.0), _LEAST_DB)
        return torch.sigmoid((levels - threshold) / _DECISION_DB)


class _SileroVad:
    """The network of silero-vad over many frames at a time, which its own code takes one by one."""

    def __init__(self, sample_rate: int) -> None:
        self._net = _silero()
        self._resampler = StreamResampler(sample_rate, _SILERO_RATE)
        # The context of the next frame, and what is not yet a frame.
        self._samples = torch.zeros(_SILERO_CONTEXT)
        self._state: tuple[Tensor, Tensor] | None = None

    def accept(self, waveform: Tensor) -> Tensor:
        return self._run(self._resampler.accept(waveform))

    def finish(self) -> Tensor:
        rest = self._resampler.finish()
        left = (len(self._samples) + len(rest) - _SILERO_CONTEXT) % _SILERO_FRAME
        return self._run(torch.cat([rest, torch.zeros(-left % _SILERO_FRAME)]))

    @torch.inference_mode()
    def _run(self, waveform: Tensor) -> Tensor:
        samples = torch.cat([self._samples, waveform])
        size = _SILERO_CONTEXT + _SILERO_FRAME
        if len(samples) < size:
            self._samples = samples
            return torch.zeros(0)
        frames = samples.unfold(0, size, _SILERO_FRAME)
        self._samples = samples[len(frames) * _SILERO_FRAME :].clone()
        found = []
        for block in torch.split(frames, _SILERO_BLOCK):
            probs, self._state = self._net(block, self._state)
            found.append(probs)
        return torch.cat(found)


class _SileroNet(nn.Module):
    """The network of silero-vad for 16 kHz: a short magnitude spectrum, convolutions, an LSTM over frames.

    Source: silero-vad 6, whose probabilities it equals within 1e-5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, outputs, 3, stride=stride, padding=1)
            for inputs, outputs, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        )
        self.lstm = nn.LSTM(128, 128)
        self.output = nn.Conv1d(128, 1, 1)

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(frames, samples) with the LSTM's state before them -> (frames,) probabilities, the state after."""
        x = self.spectrum(nn.functional.pad(frames.unsqueeze(1), (0, _SILERO_CONTEXT), "reflect"))
        x = (x[:, :129].square() + x[:, 129:].square()).sqrt()
        for convolution in self.convolutions:
            x = convolution(x).relu()
        hidden, state = self.lstm(x.transpose(1, 2), state)
        probs: Tensor = self.output(hidden.relu().transpose(1, 2)).sigmoid()
        return probs.flatten(), state


def _silero_file() -> Path | None:
    """The file of silero-vad's network; its package is not imported, which would need more than this file."""
    package = importlib.util.find_spec("silero_vad")
    file = Path(package.origin).parent / "data" / "silero_vad.jit" if package and package.origin else None
    return file if file is not None and file.is_file() else None


@lru_cache(maxsize=1)
def _silero() -> _SileroNet:
    file = _silero_file()
    if file is None:
        raise SettingsError("--vad silero: the package silero-vad is not installed. Use --vad energy.")
    with warnings.catch_warnings():
        # The format is deprecated; silero-vad's other files are older networks.
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    weights = network.state_dict()
    net = _SileroNet()
    names = {"spectrum.weight": "stft.forward_basis_buffer"}
    names |= {f"output.{kind}": f"decoder.decoder.2.{kind}" for kind in ("weight", "bias")}
    for name, _ in net.lstm.named_parameters():
        names[f"lstm.{name}"] = f"decoder.rnn.{name.removesuffix('_l0')}"
    for index in range(4):
        for kind in ("weight", "bias"):
            names[f"convolutions.{index}.{kind}"] = f"encoder.{index}.reparam_conv.{kind}"
    net.load_state_dict({ours: weights[f"_model.{theirs}"] for ours, theirs in names.items()})
    return net.eval()
