"""Sound-to-spelling: letters for phones that are no word of the lexicon; letter-to-sound turned round.

The joint n-gram gives letters together with phones a probability, so that the same model that pronounces a
word spells one: the most likely sequence of graphones with these phones, found by a beam search. Letters
without a phone ("k" of "knee") are tried between phones, a few in a row at most.

Source: Bisani, Ney, "Open vocabulary speech recognition with flat hybrid models", Interspeech 2005
(graphones that spell what the vocabulary lacks).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.compiled import kernel
from asr.text.pronunciation.joint_ngram import GraphoneNgram, JointNgram, advance
from asr.text.pronunciation.letter_alignment import Floats, Ints, chunk_of, count_chunks

__all__ = ["SoundToSpelling", "Spelled"]

_BEAM_SIZE = 32
_MAX_SILENT = 3  # letters without a phone in a row ("ugh" of "though")


@dataclass(frozen=True)
class Spelled:
    """One way to spell a sequence of phones."""

    letters: str
    log_prob: float  # nats: of the letters together with the phones


class SoundToSpelling:
    """Spellings of phones.

    Args:
        joint: learned from a lexicon with these phones.
    """

    def __init__(self, joint: JointNgram) -> None:
        self._joint = joint
        self._phone_ids = {phone: number for number, phone in enumerate(joint.phones)}
        count = count_chunks(len(joint.phones))
        chunks = joint.kinds % count
        self._graphones = np.argsort(chunks, kind="stable").astype(np.int64)
        self._bounds = np.searchsorted(chunks[self._graphones], np.arange(count + 1)).astype(np.int64)
        self._letter_of = (joint.kinds // count).tolist()
        self._most = int(np.diff(self._bounds).max())

    def search(self, phones: Sequence[str], count: int = 1) -> list[Spelled]:
        """At most `count` spellings of phones, best first; none if a phone is not in the lexicon.

        A spelling's probability is the sum over the graphone sequences that the beam has found.
        """
        if not phones or any(phone not in self._phone_ids for phone in phones):
            return []
        joint, beam_size = self._joint, max(_BEAM_SIZE, 2 * count)
        numbers = np.array([self._phone_ids[phone] for phone in phones], dtype=np.int64)
        # Each prefix of a level's beam is expanded once, those with silent letters before that, too.
        room = 1 + (len(phones) + 1) * beam_size * (_MAX_SILENT + 2) * self._most
        paths, scores = np.zeros((4, room), dtype=np.int64), np.zeros(room)
        beams = np.zeros((len(phones) + 1, beam_size), dtype=np.int64)
        kept = _search(
            joint.ngram, joint.start, joint.end, numbers, len(joint.phones), self._graphones, self._bounds,
            paths, scores, beams, np.zeros(len(phones) + 1, dtype=np.int64),
        )  # fmt: skip
        sums: dict[str, float] = {}
        for number in beams[-1, :kept].tolist():
            letters, log_prob = [], float(scores[number])
            while number:
                letters.append(joint.letters[self._letter_of[paths[1, number]]])
                number = int(paths[0, number])
            spelling = "".join(reversed(letters))
            sums[spelling] = float(np.logaddexp(sums.get(spelling, -np.inf), log_prob))
        ranked = sorted((-log_prob, spelling) for spelling, log_prob in sums.items())
        return [Spelled(spelling, -cost) for cost, spelling in ranked[:count]]


@kernel
def _search(
    ngram: GraphoneNgram, start: int, end: int, phones: Ints, phone_count: int, graphones: Ints, bounds: Ints,
    paths: Ints, scores: Floats, beams: Ints, sizes: Ints,
) -> int:  # fmt: skip
    """Find the most likely graphones of phones; those of chunk c are graphones[bounds[c]] and the following.

    A prefix is a row of `paths`; prefixes that have used as many phones are of one level.

    Args:
        ngram: over graphones.
        start: the node of a word's beginning.
        end: the token of a word's end.
        phones: (phones,) numbers.
        phone_count: number of different phones.
        graphones: (graphones,) by chunk.
        bounds: (chunks + 1,) where each chunk begins in `graphones`.
        paths: (4, room) scratch; afterwards, of each prefix: the prefix that it continues, its last graphone,
            its node, and how many letters without a phone it ends with. Prefix 0 is empty.
        scores: (room,) scratch; afterwards the log-probability of each prefix; ends included for the last
            level.
        beams: (phones + 1, beam) scratch; afterwards the prefixes of each level.
        sizes: (phones + 1,) 0: how many prefixes each level has.

    Returns:
        The number of prefixes of the last level.
    """
    paths[2, 0], sizes[0], made = start, 1, 1
    for level in range(len(phones) + 1):
        for silent in range(_MAX_SILENT):
            for index in range(sizes[level]):
                number = beams[level, index]
                # Among the prefixes that come later in this round none has so few silent letters.
                if paths[3, number] == silent:
                    made = _extend(
                        ngram, number, 0, level, graphones, bounds, paths, scores, beams, sizes, made
                    )
        for taken in range(1, min(2, len(phones) - level) + 1):
            chunk = chunk_of(phones, level, taken, phone_count)
            for index in range(sizes[level]):
                made = _extend(
                    ngram, beams[level, index], chunk, level + taken, graphones, bounds, paths, scores, beams,
                    sizes, made,
                )  # fmt: skip
    for index in range(sizes[-1]):
        number = beams[-1, index]
        scores[number] += advance(ngram, paths[2, number], end)[0]
    return int(sizes[-1])


@kernel
def _extend(
    ngram: GraphoneNgram, number: int, chunk: int, level: int, graphones: Ints, bounds: Ints, paths: Ints,
    scores: Floats, beams: Ints, sizes: Ints, made: int,
) -> int:  # fmt: skip
    """Add to `level` prefix `number` with each graphone of a chunk; a full level keeps the best.

    `made` is how many prefixes `paths` holds, and the result how many it holds then; the other arguments are
    those of `_search`.
    """
    beam_size = beams.shape[1]
    for position in range(bounds[chunk], bounds[chunk + 1]):
        log_prob, node = advance(ngram, paths[2, number], graphones[position])
        score = scores[number] + log_prob
        at = sizes[level]
        if at == beam_size:  # in place of the least likely one
            at = 0
            for index in range(1, beam_size):
                if scores[beams[level, index]] < scores[beams[level, at]]:
                    at = index
            if scores[beams[level, at]] >= score:
                continue
        else:
            sizes[level] += 1
        paths[0, made], paths[1, made], paths[2, made] = number, graphones[position], node
        paths[3, made] = paths[3, number] + 1 if chunk == 0 else 0
        scores[made] = score
        beams[level, at] = made
        made += 1
    return made
