"""Volume perturbation: an utterance made louder or quieter."""

from torch import Tensor


def change_volume(waveform: Tensor, gain_db: float) -> Tensor:
    """Make a waveform louder or quieter.

    Args:
        waveform: (samples,) float32.
        gain_db: change of the amplitude, dB; 20 is ten times the amplitude.

    Returns:
        (samples,) float32; may exceed [-1, 1], which the features allow.
    """
    return waveform * 10 ** (gain_db / 20)
