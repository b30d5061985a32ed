"""A network from letters to phones as a pronouncer of words."""

from collections.abc import Sequence
from pathlib import Path

from asr.errors import ModelError
from asr.model.sequence.model import Ids, SequenceModel, load_sequence_model, score, search
from asr.model.sequence.search import SearchConfig
from asr.text.pronunciation.pronouncer import Pronunciation, Spelling

__all__ = ["NetworkPronouncer", "read_pronouncer"]


def read_pronouncer(path: Path) -> "NetworkPronouncer":
    """A pronouncer from a file of `asr lexicon train`.

    Raises:
        ModelError: the file cannot be read, or its network does not read letters.
    """
    return NetworkPronouncer(load_sequence_model(path))


class NetworkPronouncer:
    """A trained network; an `asr.text.pronunciation.pronouncer.Pronouncer`.

    Args:
        net: on its device; it is put into evaluation mode.

    Raises:
        ModelError: the network's input symbols are not single letters.
    """

    def __init__(self, net: SequenceModel) -> None:
        if long := [symbol for symbol in net.sources if len(symbol) != 1]:
            raise ModelError(
                f"the network reads symbols such as {long[0]!r}, not letters. Expected one that "
                f"`asr lexicon train` has trained to pronounce words."
            )
        self.net = net.eval()
        self._letters = {letter: number for number, letter in enumerate(net.sources, start=1)}
        self._phones = {phone: number for number, phone in enumerate(net.targets, start=1)}

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the words that it was trained on."""
        return self.net.sources

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        """At most `count` pronunciations of each word; of a network for CTC, one."""
        found = search(self.net, self._sources(words), SearchConfig(beam_size=count))
        return [
            [
                Pronunciation(tuple(self.net.targets[number - 1] for number in ids), log_prob)
                for ids, log_prob in outputs
                if ids
            ]
            for outputs in found
        ]

    def score(self, words: Sequence[str], phones: Sequence[Spelling]) -> list[float]:
        """Log-probability of a pronunciation for each word, in nats; -inf for one with other phones."""
        strange = [any(phone not in self._phones for phone in one) for one in phones]
        targets = [tuple(self._phones.get(phone, 1) for phone in one) for one in phones]
        log_probs = score(self.net, self._sources(words), targets)
        return [float("-inf") if other else value for other, value in zip(strange, log_probs, strict=True)]

    def _sources(self, words: Sequence[str]) -> list[Ids]:
        return [tuple(self._letters[letter] for letter in word) for word in words]
