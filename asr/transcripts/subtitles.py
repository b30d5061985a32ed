"""Timed words -> subtitles: at most two lines of 42 characters, broken at pauses and between phrases.

Of all ways to cut the words into subtitles the cheapest is found by dynamic programming, the one into lines
by trying each.

Source: the limits are those of the Netflix Timed Text Style Guide (42 characters a line, two lines, at most 7
seconds) and of the BBC's subtitle guidelines (when a line should break).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from asr.decoding.hypothesis import Word
from asr.text.scripts import join_words
from asr.transcripts.record import ordered_words

__all__ = ["LINE_LENGTH", "LONGEST_S", "SHORTEST_S", "Subtitle", "make_subtitles"]

LINE_LENGTH = 42  # characters
LONGEST_S = 7.0  # that a subtitle is shown
SHORTEST_S = 1.0  # likewise, where there is room

_READING_SPEED = 17.0  # characters a second that a reader follows
_PAUSE_S = 1.0  # always ends a subtitle

# English words that end a line badly, since they belong to what follows; a line may well begin with one.
# Other languages are broken at pauses and by length.
_LEANS_FORWARD = frozenset(
    """a an the my your his her its our their this that these those some any no every each
    of to in on at by for from with about into over under after before between through during without
    toward towards upon onto within among beneath behind above below near until since though whether
    against and or but nor so because if when while although as than that which who whose where
    i you he she it we they is are was were be been am has have had do does did will would can could shall
    should may might must not very more most mr mrs miss dr""".split()  # noqa: SIM905 (easier to read)
)
_ENDS_SENTENCE, _ENDS_CLAUSE = (".", "?", "!", "…"), (",", ";", ":")


@dataclass(frozen=True)
class Subtitle:
    """What is shown together."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]  # one or two

    @property
    def text(self) -> str:
        """The lines as one."""
        return join_words(self.lines)


def make_subtitles(words: Sequence[Word], duration_s: float | None = None) -> list[Subtitle]:
    """Cut words into subtitles.

    A subtitle begins with its first word. It stays as long as it takes to read, at least a second and at most
    seven, but never after the next one begins. Where that leaves less than a second, it begins earlier, if
    there is room. A word of more than 42 characters is cut.

    Args:
        words: with their times.
        duration_s: of the recording, after which nothing is shown; None where it is unknown.

    Returns:
        The subtitles in order. Their texts, joined by spaces, are the words.
    """
    pieces = [piece for word in ordered_words(words) for piece in _cut_long(word)]
    groups = _cut(pieces)
    subtitles: list[Subtitle] = []
    shown_until = 0.0  # end of the last word, before which the next subtitle must not begin
    for index, group in enumerate(groups):
        lines = _break_lines(group)
        first, last = group[0].start_s, group[-1].end_s
        limit = groups[index + 1][0].start_s if index + 1 < len(groups) else duration_s
        wanted_s = min(max(SHORTEST_S, sum(map(len, lines)) / _READING_SPEED), LONGEST_S)
        end = max(last, first + wanted_s)
        end = min(end, max(last, limit if limit is not None else end), first + LONGEST_S)
        start = max(shown_until, min(first, end - SHORTEST_S))
        if subtitles and subtitles[-1].end_s > start:  # shown longer than spoken: until this one begins
            start = max(start, min(first, subtitles[-1].start_s + SHORTEST_S))
            subtitles[-1] = replace(subtitles[-1], end_s=min(subtitles[-1].end_s, start))
        subtitles.append(Subtitle(start, end, lines))
        shown_until = last
    return subtitles


def _cut_long(word: Word) -> list[Word]:
    """The word, or parts of it of at most a line, each with its share of the time."""
    length = len(word.text)
    if length <= LINE_LENGTH:
        return [word]
    second = (word.end_s - word.start_s) / length  # of a character
    return [
        replace(
            word,
            text=word.text[begin : begin + LINE_LENGTH],
            start_s=word.start_s + begin * second,
            end_s=word.start_s + min(begin + LINE_LENGTH, length) * second,
        )
        for begin in range(0, length, LINE_LENGTH)
    ]


def _cut(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each subtitle: the cheapest cut of those that fit."""
    cost = [0.0] + [float("inf")] * len(words)  # of the best cut of the first words
    cut_at = [0] * (len(words) + 1)  # where the last subtitle of that cut begins
    for end in range(1, len(words) + 1):
        after_s = words[end].start_s - words[end - 1].end_s if end < len(words) else _PAUSE_S
        boundary = _boundary_cost(words[end - 1].text, after_s)
        characters = -1
        for begin in reversed(range(end)):
            characters += len(words[begin].text) + 1
            pause_s = words[begin + 1].start_s - words[begin].end_s if begin + 1 < end else 0.0
            seconds = words[end - 1].end_s - words[begin].start_s
            alone = begin == end - 1  # a word is a subtitle at least, however long it takes
            if not alone and (pause_s >= _PAUSE_S or seconds > LONGEST_S or characters > 2 * LINE_LENGTH + 1):
                break
            group = words[begin:end]
            if characters > LINE_LENGTH and not _line_breaks(group):
                continue
            total = cost[begin] + boundary + _shape_cost(characters, seconds, after_s)
            if total < cost[end]:
                cost[end], cut_at[end] = total, begin
    groups: list[list[Word]] = []
    end = len(words)
    while end:
        groups.append(list(words[cut_at[end] : end]))
        end = cut_at[end]
    return groups[::-1]


def _boundary_cost(word: str, pause_s: float) -> float:
    """How bad it is to end after a word that a pause follows: 0 after a sentence or a long pause."""
    if word.endswith(_ENDS_SENTENCE):
        return 0.0
    cost = 1.5 - 1.5 * min(max(pause_s, 0.0), 0.5) / 0.5
    if word.endswith(_ENDS_CLAUSE):
        return 0.5 * cost
    return cost + (1.5 if word.lower() in _LEANS_FORWARD else 0.0)


def _shape_cost(characters: int, seconds: float, after_s: float) -> float:
    """How bad a subtitle of this size is: each costs something, and too short ones more."""
    cost = 1.0
    shown_s = seconds + max(after_s, 0.0)
    if shown_s < SHORTEST_S:
        cost += 3.0 * (SHORTEST_S - shown_s)
    if characters < 15:
        cost += (15 - characters) / 15
    return cost


def _line_breaks(words: Sequence[Word]) -> list[int]:
    """After how many words a line may end, so that both lines fit."""
    total = sum(len(word.text) + 1 for word in words) - 1
    found, first = [], -1
    for index, word in enumerate(words[:-1], start=1):
        first += len(word.text) + 1
        if first <= LINE_LENGTH and total - first - 1 <= LINE_LENGTH:
            found.append(index)
    return found


def _break_lines(words: Sequence[Word]) -> tuple[str, ...]:
    """One line where it fits; else two, broken at a pause or between phrases and of similar length."""
    text = join_words(word.text for word in words)
    if len(text) <= LINE_LENGTH:
        return (text,)

    def cost(index: int) -> float:
        first = len(join_words(word.text for word in words[:index]))
        uneven = abs(2 * first - len(text)) / len(text)
        pause_s = words[index].start_s - words[index - 1].end_s
        return _boundary_cost(words[index - 1].text, pause_s) + 2 * uneven

    best = min(_line_breaks(words), key=cost)
    return join_words(word.text for word in words[:best]), join_words(word.text for word in words[best:])
