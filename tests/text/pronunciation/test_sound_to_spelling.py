"""Sound-to-spelling: its search against exhaustive search in a small language."""

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from asr.text.pronunciation.joint_ngram import JointNgram, advance, learn_joint_ngram
from asr.text.pronunciation.letter_alignment import count_chunks, phones_of
from asr.text.pronunciation.sound_to_spelling import SoundToSpelling

# "x" is two sounds, a final "e" is none, and so is the "h" after "t".
SOUNDS = {"x": ("K", "S"), "a": ("A",), "o": ("O",), "t": ("T",), "s": ("S",), "h": (), "e": ()}


def sounds_of(word: str) -> tuple[str, ...]:
    return tuple(phone for letter in word for phone in SOUNDS[letter])


@pytest.fixture(scope="module")
def joint() -> JointNgram:
    draw = random.Random(0)
    parts = [[draw.choice(["x", "t", "th", "s"]) + draw.choice("ao") for _ in range(3)] for _ in range(200)]
    words = ["".join(part) + draw.choice(["", "te", "s"]) for part in parts]
    return learn_joint_ngram((word, sounds_of(word)) for word in words)


def exhaustive(joint: JointNgram, phones: tuple[str, ...]) -> dict[str, float]:
    """Each spelling of phones with the log of the sum over its graphone sequences."""
    count = count_chunks(len(joint.phones))
    graphones = [
        (number, joint.letters[kind // count], phones_of(kind % count, joint.phones))
        for number, kind in enumerate(joint.kinds.tolist())
    ]

    def extend(node: int, rest: tuple[str, ...], silent: int) -> Iterator[tuple[str, float]]:
        if not rest:
            yield "", advance(joint.ngram, node, joint.end)[0]
        for number, letter, chunk in graphones:
            if rest[: len(chunk)] == chunk and (chunk or silent < 3):
                log_prob, after = advance(joint.ngram, node, number)
                for letters, more in extend(after, rest[len(chunk) :], 0 if chunk else silent + 1):
                    yield letter + letters, log_prob + more

    sums: dict[str, float] = {}
    for letters, log_prob in extend(joint.start, phones, 0):
        sums[letters] = float(np.logaddexp(sums.get(letters, -math.inf), log_prob))
    return sums


@pytest.mark.parametrize("phones", ["T A", "K S O", "T O S", "A"])
def test_the_search_finds_the_best(joint: JointNgram, phones: str) -> None:
    """Guards the beam, letters without a phone at the beginning, within and at the end, two phones of one
    letter, and the end of the word: the best spellings and their probabilities are those of all."""
    expected = sorted(exhaustive(joint, tuple(phones.split())).items(), key=lambda one: -one[1])
    found = SoundToSpelling(joint).search(phones.split(), 3)
    assert [one.letters for one in found] == [letters for letters, _ in expected[:3]]
    assert [one.log_prob for one in found] == pytest.approx(
        [log_prob for _, log_prob in expected[:3]], abs=1e-3
    )


def test_a_regular_language_is_spelled(joint: JointNgram) -> None:
    """Guards the way back: what is spelled sounds as it should, for long words, too."""
    spelling = SoundToSpelling(joint)
    for word in ("xatosax", "tatasote", "x" * 40):
        (best,) = spelling.search(sounds_of(word))
        assert sounds_of(best.letters) == sounds_of(word)


def test_nothing_to_spell(joint: JointNgram) -> None:
    """Guards phones that no word has, and none at all: an empty list, not an unknown word of no letters."""
    spelling = SoundToSpelling(joint)
    assert spelling.search(["T", "ZH"]) == spelling.search([]) == []
