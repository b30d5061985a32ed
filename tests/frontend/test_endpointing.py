"""End-pointing: where utterances of a stream begin and end."""

import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend.endpointing import EndpointConfig, Endpointer
from asr.frontend.voice_activity import FRAME_S

RATE = 1000
FRAME = 32  # samples


class Scripted:
    """A detector that knows the answers: one probability a frame."""

    def __init__(self, probs: list[float]) -> None:
        self.probs, self.samples = probs, 0

    def accept(self, waveform: Tensor) -> Tensor:
        before = self.samples // FRAME
        self.samples += len(waveform)
        return torch.tensor(self.probs[before : self.samples // FRAME])

    def finish(self) -> Tensor:
        return torch.zeros(0)


def utterances(speech: str, block: int, **settings: float) -> list[tuple[int, list[int]]]:
    """(first frame, its samples) of each utterance in a script: one letter a frame, s for speech."""
    probs = [0.9 if letter == "s" else 0.1 for letter in speech]
    endpointer = Endpointer(EndpointConfig(**settings), Scripted(probs), RATE)  # type: ignore[arg-type]
    waveform = torch.arange(FRAME * len(speech)).float()
    parts = [part for samples in torch.split(waveform, block) for part in endpointer.accept(samples)]
    parts += endpointer.finish()
    found: list[tuple[int, list[int]]] = []
    ended = True
    for part in parts:
        if ended:
            found.append((round(part.start_s / FRAME_S), []))
        found[-1][1].extend(part.waveform.int().tolist())
        ended = part.ends
    assert ended
    return found


@pytest.mark.parametrize("block", [1, 31, 500, 10_000])
def test_two_utterances(block: int) -> None:
    """Guards where utterances begin and end, samples doubled or lost, and the size of blocks."""
    speech = "-" * 20 + "s" * 10 + "-" * 40 + "s" * 5 + "-" * 3
    first, second = utterances(speech, block, endpoint_s=0.32)
    assert first[0] == 11  # 0.3 s before the speech
    assert first[1] == list(range(11 * FRAME, 40 * FRAME))
    assert second[0] == 61
    assert second[1] == list(range(61 * FRAME, len(speech) * FRAME))


def test_a_short_pause_is_inside_an_utterance() -> None:
    """Guards words against an end-point between them."""
    assert len(utterances("s" * 5 + "-" * 9 + "s" * 5 + "-" * 20, 100, endpoint_s=0.32)) == 1


def test_the_next_utterance_does_not_begin_in_the_last_one() -> None:
    """Guards samples against belonging to two utterances, where the pause between them is short."""
    first, second = utterances("s" * 5 + "-" * 4 + "s" * 5, 100, endpoint_s=0.1)
    assert first[1][-1] + 1 == second[1][0]


def test_a_long_utterance_ends_at_a_short_pause_else_it_is_cut() -> None:
    """Guards memory: an utterance without pauses that never ends."""
    found = utterances("s" * 40 + "---" + "s" * 60, 100, max_utterance_s=1.0)
    lengths = [len(samples) // FRAME for _, samples in found]
    assert lengths == [43, 47, 13]  # the short pause; then one and a half times the longest, without one
    assert sum(lengths) == 103


def test_silence_costs_no_memory() -> None:
    """Guards a stream of hours without speech."""
    endpointer = Endpointer(EndpointConfig(), Scripted([0.0] * 1000), RATE)
    for samples in torch.zeros(100, 320):
        assert list(endpointer.accept(samples)) == []
        assert len(endpointer._samples) < RATE


@pytest.mark.parametrize(("name", "value"), [("endpoint_s", 0.0), ("max_utterance_s", 0.5)])
def test_impossible_settings(name: str, value: float) -> None:
    """Guards settings with which every frame is an utterance."""
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} must be at least"):
        EndpointConfig(**{name: value})  # type: ignore[arg-type]
