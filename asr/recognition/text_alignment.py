"""A text and the emissions of its recording -> times of words and tokens, and where the two differ."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.hypothesis import Word
from asr.decoding.word_alignment import align_words
from asr.decoding.word_graph import AlignedWord, Alignment, AlignmentCosts, WordGraph
from asr.errors import DataError, check_number, first_few
from asr.model.acoustic import AcousticModel
from asr.progress import clock
from asr.text.lexicon import Lexicon, spell
from asr.text.normalize import normalize
from asr.text.phones import PhoneTokenizer
from asr.text.scripts import join_words, split_words
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["AlignedText", "Mismatch", "TextAligner", "describe_mismatches"]

log = logging.getLogger("asr")

_LOST = 0.1  # of the words: more that are not found may be too far from where they were looked for
_WIDER = 8.0  # times as wide a search, then
_OTHER_SPEECH_S = 0.5  # shorter stretches that are not in the text are no speech
_LAST_TOKEN_S = 0.08  # that the last token of a word goes on after its steps, see docs/aligning.md
# A message names mismatches of at least this many words in a row, or seconds; shorter ones are usual in
# careless speech.
_WORTH_NAMING, _WORTH_NAMING_S = 3, 1.0


@dataclass(frozen=True)
class Mismatch:
    """A stretch in which text and recording differ.

    Attributes:
        start_s: where it begins, seconds.
        end_s: where it ends.
        first: the first word of the text in it.
        words: how many words; 0 where somebody says what is not in the text.
    """

    start_s: float
    end_s: float
    first: int
    words: int


@dataclass(frozen=True)
class AlignedText:
    """A text with its times in a recording.

    Attributes:
        words: as the text writes them, without marks that stand alone; the confidence is the mean posterior
            of a word's tokens. Words that are not in the recording have confidence 0, and share the time
            between their neighbours.
        aligned: (words,) whether each was found.
        tokens: phones, characters or pieces of the words that were found, with the word's number in `owners`.
        owners: (tokens,) the word that each token belongs to.
        duration_s: of the recording.
        mismatches: where the two differ, in order.
    """

    words: tuple[Word, ...]
    aligned: tuple[bool, ...]
    tokens: tuple[Word, ...]
    owners: tuple[int, ...]
    duration_s: float
    mismatches: tuple[Mismatch, ...]

    @property
    def score(self) -> float:
        """Mean confidence of the words, those that were not found included: 0 to 1."""
        return sum(word.confidence for word in self.words) / max(1, len(self.words))


class TextAligner:
    """Aligns texts with what a model makes of their recordings.

    Args:
        model: with its tokenizer and text normalizer.
        lexicon: pronunciations that take precedence over those of the tokenizer; None for those alone.
        min_score: confidence under which a word does not match, 0 to 1.

    Raises:
        SettingsError: min_score is out of range.
    """

    def __init__(
        self,
        model: AcousticModel,
        lexicon: Lexicon | None = None,
        min_score: float = 0.1,
    ) -> None:
        check_number("--min-score", min_score, least=0, most=1)
        self._tokenizer = model.settings.tokenizer
        self._normalizer = model.settings.text_normalizer
        self._step_s = model.step_s
        self._lexicon = lexicon
        self._min_score = min_score
        self._separator = _separator(self._tokenizer)
        self._spellings: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._words = 0  # of all texts
        self._lacking: dict[str, int] = {}  # how often each word occurs that has unknown characters
        self._guessed: dict[str, int] = {}

    def align(self, log_probs: Tensor, text: str, duration_s: float, name: str) -> AlignedText:
        """Align a text with a recording.

        Args:
            log_probs: (steps, vocab) float32 nats, on the CPU.
            text: as it is written: it is normalised word by word.
            duration_s: of the recording.
            name: of the text, in messages.

        Raises:
            DataError: the text has no words, the model cannot write any of them, or none was found.
        """
        written, spoken = self._spoken(text, name)
        owners = [number for number, words in enumerate(spoken) for _ in words]
        spelled = self._spell([word for words in spoken for word in words], name)
        emissions = log_probs.numpy()
        found = self._search(emissions, WordGraph(spelled, self._separator))
        if not any(found.words):
            raise DataError(
                f"{name}: none of its {len(written)} words was found in {duration_s:.0f} s of audio. Check "
                f"that it is the text of this recording."
            )
        return self._timed(written, owners, found, emissions, duration_s)

    def _spoken(self, text: str, name: str) -> tuple[list[str], list[list[str]]]:
        """The words of a text as they are written, each with the words that are spoken for it."""
        written, spoken = [], []
        for word in split_words(text):
            words = normalize(word, self._normalizer).split()
            if words:  # a dash that stands alone is no word
                written.append(word)
                spoken.append(words)
        if not written:
            raise DataError(f"{name}: the text is empty. Expected the words of the recording.")
        return written, spoken

    def _spell(self, words: Sequence[str], name: str) -> list[tuple[tuple[int, ...], ...]]:
        """The token ids of the pronunciations of each word; without the characters that the model lacks."""
        unknown = [word for word in dict.fromkeys(words) if word not in self._spellings]
        for word, spellings in zip(unknown, spell(unknown, self._tokenizer, self._lexicon), strict=True):
            if not spellings:
                self._lacking[word] = 0
                ids = self._tokenizer.encode(word, unknown="drop")
                spellings = (tuple(ids),) if ids else ()
            elif self._is_guess(word):
                self._guessed[word] = 0
            self._spellings[word] = spellings
        self._words += len(words)
        for word in words:
            for counts in (self._lacking, self._guessed):
                if word in counts:
                    counts[word] += 1
        if not any(self._spellings[word] for word in words):
            raise DataError(
                f"{name}: none of its words can be written in the model's {self._tokenizer.units}: "
                f"{first_few(words)}. Is the model of another language or script?"
            )
        return [self._spellings[word] for word in words]

    def _is_guess(self, word: str) -> bool:
        if not isinstance(self._tokenizer, PhoneTokenizer) or not self._tokenizer.is_guess(word):
            return False
        return self._lexicon is None or not self._lexicon.spellings(word)

    def report(self) -> None:
        """Log which words of all texts letter-to-sound pronounces, and which have unknown characters."""
        if self._guessed:
            log.info(
                "%d of %d words are not in the lexicon and are pronounced by letter-to-sound: %s",
                sum(self._guessed.values()), self._words, first_few([*self._guessed]),
            )  # fmt: skip
        if self._lacking:
            silent = sum(count for word, count in self._lacking.items() if not self._spellings[word])
            log.warning(
                "%d of %d words have characters that the model does not know (%s): they are aligned without "
                "them%s. Write numbers and signs as words.",
                sum(self._lacking.values()), self._words, first_few([*self._lacking]),
                f", {silent} not at all" if silent else "",
            )  # fmt: skip

    def _search(self, log_probs: NDArray[np.float32], graph: WordGraph) -> Alignment:
        """Align; search more widely where many words are not found."""
        found = align_words(log_probs, graph)
        if found.words.count(None) > _LOST * len(found.words) and len(graph) > 1:
            wider = align_words(log_probs, graph, AlignmentCosts().widened(_WIDER))
            if wider.score > found.score:
                return wider
        return found

    def _timed(
        self,
        written: Sequence[str],
        owners: Sequence[int],
        found: Alignment,
        log_probs: NDArray[np.float32],
        duration_s: float,
    ) -> AlignedText:
        tokens: list[list[Word]] = [[] for _ in written]
        whole = [True] * len(written)
        for owner, aligned in zip(owners, found.words, strict=True):
            if aligned is None:
                whole[owner] = False
            else:
                tokens[owner] += self._tokens(aligned, log_probs)
        _lengthen(tokens, duration_s)
        words = [
            _word_of(text, of_word) if complete else None
            for text, of_word, complete in zip(written, tokens, whole, strict=True)
        ]
        stars = [(begin * self._step_s, end * self._step_s) for begin, end in found.stars.tolist()]
        timed = _fill_gaps(words, written, duration_s)
        found_words = [number for number, word in enumerate(words) if word]
        return AlignedText(
            words=tuple(timed),
            aligned=tuple(word is not None for word in words),
            tokens=tuple(token for number in found_words for token in tokens[number]),
            owners=tuple(number for number in found_words for _ in tokens[number]),
            duration_s=duration_s,
            mismatches=tuple(_mismatches(timed, words, self._min_score, stars)),
        )  # fmt: skip

    def _tokens(self, word: AlignedWord, log_probs: NDArray[np.float32]) -> list[Word]:
        """The tokens of a word at the steps that emit them, each with the mean posterior of its steps."""
        return [
            Word(
                text=self._tokenizer.decode([token]).strip(),
                start_s=begin * self._step_s,
                end_s=end * self._step_s,
                confidence=float(np.exp(log_probs[begin:end, token]).mean()),
            )
            for token, (begin, end) in zip(word.tokens.tolist(), word.spans.tolist(), strict=True)
        ]


def describe_mismatches(name: str, text: AlignedText) -> str:
    """One line about the stretches that do not match, with their times; "" where there are none worth it.

    Args:
        name: of the recording.
        text: aligned with it.
    """
    count = sum(one.words for one in text.mismatches)
    named = [
        one
        for one in text.mismatches
        if one.words == 0 or one.words >= _WORTH_NAMING or one.end_s - one.start_s >= _WORTH_NAMING_S
    ]
    if not named:
        return ""
    parts = []
    for one in named:
        words = [word.text for word in text.words[one.first : one.first + one.words]]
        quoted = join_words(words if len(words) < 8 else [*words[:3], "…", *words[-3:]])
        what = f"{one.words} words: {quoted}" if words else "speech that is not in the text"
        parts.append(f"{clock(one.start_s)}-{clock(one.end_s)} ({what})")
    return (
        f"{name}: {count} of {len(text.words)} words do not match the audio, mean confidence "
        f"{text.score:.2f}: {first_few(parts, separator='; ')}. Check the text there."
    )


def _separator(tokenizer: Tokenizer) -> int:
    """The token that stands between words and writes nothing else; BLANK where there is none."""
    for number, piece in enumerate(tokenizer.pieces or ()):
        if piece.begins_word and not piece.text:
            return number
    return BLANK


def _lengthen(words: Sequence[list[Word]], duration_s: float) -> None:
    """Let each token last until the next one of its word begins, and the last one a little longer.

    CTC emits a token where it begins, and only for a step or two.

    Args:
        words: the tokens of each word, in order; changed.
        duration_s: of the recording.
    """
    following_s = duration_s
    for tokens in reversed(words):
        for number in reversed(range(len(tokens))):
            token = tokens[number]
            end_s = following_s
            if number == len(tokens) - 1:
                end_s = min(following_s, token.end_s + _LAST_TOKEN_S)
            tokens[number] = replace(token, end_s=max(end_s, min(token.end_s, duration_s)))
            following_s = token.start_s


def _word_of(text: str, tokens: Sequence[Word]) -> Word:
    confidence = sum(token.confidence for token in tokens) / len(tokens)
    return Word(text, tokens[0].start_s, tokens[-1].end_s, confidence)


def _fill_gaps(words: Sequence[Word | None], written: Sequence[str], duration_s: float) -> list[Word]:
    """Words that were not found share the time between their neighbours by their letters."""
    timed: list[Word] = []
    number = 0
    while number < len(words):
        word = words[number]
        if word is not None:
            timed.append(word)
            number += 1
            continue
        end = number
        while end < len(words) and words[end] is None:
            end += 1
        following = words[end] if end < len(words) else None
        start_s = timed[-1].end_s if timed else 0.0
        end_s = following.start_s if following else duration_s
        letters = np.cumsum([0, *(len(text) for text in written[number:end])])
        times = start_s + (max(end_s, start_s) - start_s) * letters / letters[-1]
        timed += [
            Word(text, float(begin), float(stop), 0.0)
            for text, begin, stop in zip(written[number:end], times, times[1:], strict=False)
        ]
        number = end
    return timed


def _mismatches(
    timed: Sequence[Word],
    words: Sequence[Word | None],
    min_score: float,
    stars: Sequence[tuple[float, float]],
) -> list[Mismatch]:
    """Runs of words that were not found or are doubtful, and stretches of speech without words."""
    found: list[Mismatch] = []
    number = 0
    while number < len(timed):
        end = number
        while end < len(timed) and (words[end] is None or timed[end].confidence < min_score):
            end += 1
        if end > number:
            found.append(Mismatch(timed[number].start_s, timed[end - 1].end_s, number, end - number))
        number = max(end, number + 1)
    for start_s, end_s in stars:
        covered = any(one.start_s <= start_s and end_s <= one.end_s for one in found)
        if not covered and end_s - start_s >= _OTHER_SPEECH_S:
            first = sum(word.end_s <= start_s for word in timed)
            found.append(Mismatch(start_s, end_s, first, 0))
    return sorted(found, key=lambda one: (one.start_s, one.first))
