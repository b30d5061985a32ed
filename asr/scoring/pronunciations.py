"""Scores of pronunciations and pronouncers: words wrong with their interval, phone errors, words a second."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.files import json_line, write_text
from asr.model.sequence.pronouncer import NetworkPronouncer, read_pronouncer
from asr.scoring.significance import Interval, bootstrap_interval
from asr.scoring.wer import count_errors
from asr.text.lexicon import Lexicon, Spelling
from asr.text.pronunciation.letter_to_sound import LetterToSound
from asr.text.pronunciation.lexicon_split import SplitConfig
from asr.text.pronunciation.pronouncer import Candidates, CombinedPronouncer, Pronouncer

__all__ = ["PronunciationScore", "score_pronouncers", "score_pronunciations"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class PronunciationScore:
    """How many words of a test set are pronounced wrong.

    Attributes:
        wrong: (words,) whether none of the right pronunciations was given.
        phone_errors: substitutions, deletions and insertions, against the closest right pronunciation.
        phones: of the closest right pronunciations.
    """

    wrong: tuple[bool, ...]
    phone_errors: int
    phones: int

    @property
    def words_wrong(self) -> float:
        """Percent."""
        return 100 * sum(self.wrong) / len(self.wrong)

    @property
    def phone_error_rate(self) -> float:
        """Percent."""
        return 100 * self.phone_errors / self.phones

    def interval(self) -> Interval:
        """The 95% interval of `words_wrong`, by a bootstrap over words."""
        return bootstrap_interval([int(wrong) for wrong in self.wrong], [1] * len(self.wrong))


def score_pronunciations(
    given: Sequence[Spelling], references: Sequence[Sequence[Spelling]]
) -> PronunciationScore:
    """Score one pronunciation of each word.

    Args:
        given: (words,) phones; may be empty.
        references: (words,) the right pronunciations of each, at least one.
    """
    # Each word's pronunciation against each of the right ones.
    right_texts = [" ".join(phones) for right in references for phones in right]
    given_texts = [" ".join(phones) for phones, right in zip(given, references, strict=True) for _ in right]
    errors = iter(count_errors(right_texts, given_texts))
    closest = [
        min(((next(errors), len(phones)) for phones in right), key=lambda pair: pair[0] / pair[1])
        for right in references
    ]
    return PronunciationScore(
        wrong=tuple(phones not in right for phones, right in zip(given, references, strict=True)),
        phone_errors=sum(count for count, _ in closest),
        phones=sum(length for _, length in closest),
    )


@dataclass(frozen=True)
class _SystemScore:
    """One line of the table."""

    name: str
    given: tuple[Spelling, ...]  # for each test word
    score: PronunciationScore
    words_per_s: float  # of the search
    learned_s: float | None  # seconds of training; None where it is not known

    def line(self) -> str:
        """`name  %wrong  interval  %PER  words/s  seconds of training`."""
        interval, learned = self.score.interval(), "-" if self.learned_s is None else f"{self.learned_s:.0f}"
        return (
            f"{self.name:<40} {self.score.words_wrong:6.2f}  [{interval.low:.2f}, {interval.high:.2f}]  "
            f"{self.score.phone_error_rate:6.2f}  {self.words_per_s:8.0f}  {learned:>8}"
        )


def score_pronouncers(
    models: Sequence[Path],
    lexicon: Lexicon,
    config: SplitConfig,
    *,
    nbest: int = 5,
    results: Path | None = None,
) -> str:
    """Score the joint n-gram, each network, and their combination on the test words of a lexicon.

    Args:
        models: networks of `asr lexicon train`.
        lexicon: that of their training.
        config: its split, as in their training.
        nbest: beam of the networks, and what each model brings into the combination; at least 2.
        results: JSONL file for word, right pronunciations and those of each system, a line a word.

    Returns:
        The table to print.

    Raises:
        AsrError: a file cannot be read or written, or a part of the lexicon would be empty.
    """
    split = config.apply(lexicon)
    networks = {name: read_pronouncer(path) for name, path in zip(_names(models), models, strict=True)}
    for name, network in networks.items():
        _check_split(name, network, config, lexicon)
    began = time.perf_counter()
    ngram = LetterToSound(split.train.pairs())
    learned = {name: network.net.provenance.get("training_s") for name, network in networks.items()}
    learned["joint n-gram"] = time.perf_counter() - began
    pronouncers: dict[str, Pronouncer] = {**networks, "joint n-gram": ngram}
    known = set.intersection(*(set(pronouncer.letters) for pronouncer in pronouncers.values()))
    test = {word: right for word, right in split.test.entries.items() if set(word) <= known}
    dev = {word: right for word, right in split.dev.entries.items() if set(word) <= known}
    left_out = len(split.test.entries) - len(test)
    systems = [
        _score_system(name, pronouncer, test, learned[name], nbest if name in networks else 1)
        for name, pronouncer in pronouncers.items()
    ]
    notes = [split.summary()]
    if left_out:
        notes.append(f"{left_out} test words have letters that training has not; they are not scored")
    if networks:
        found = Candidates.of(list(pronouncers.values()), list(dev), nbest)
        weights, dev_wrong = found.tune(list(dev.values()))
        combined = CombinedPronouncer(list(pronouncers.values()), weights, nbest)
        systems.append(_score_system("all together", combined, test, None, 1))
        typed = " ".join(f"{weight:.3f}" for weight in weights)
        notes.append(f"tuned on dev ({dev_wrong:.2f}% wrong): --ngram --weights {typed}")
    if results is not None:
        _write_results(results, test, systems)
    head = f"{'':<40} %wrong  95% interval      %PER   words/s  trained, s"
    return "\n".join([head, *(system.line() for system in systems), *notes])


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each network: its folder's, or the part of the path by which it differs from the others."""
    if len(paths) == 1:
        return [paths[0].absolute().parent.name]
    parts = [path.with_suffix("").parts for path in paths]
    while all(len(one) > 1 for one in parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    names = [one[-1] if one else "network" for one in parts]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _score_system(
    name: str,
    pronouncer: Pronouncer,
    test: dict[str, tuple[Spelling, ...]],
    learned_s: float | None,
    beam: int,
) -> _SystemScore:
    began = time.perf_counter()
    given: list[Spelling] = []
    words = list(test)
    for begin in range(0, len(words), 500):
        found = pronouncer.search(words[begin : begin + 500], beam)
        given += [row[0].phones if row else () for row in found]
    seconds = time.perf_counter() - began
    log.info("%s: %d words in %.1f s", name, len(test), seconds)
    score = score_pronunciations(given, list(test.values()))
    return _SystemScore(name, tuple(given), score, len(test) / seconds, learned_s)


def _check_split(name: str, network: NetworkPronouncer, config: SplitConfig, lexicon: Lexicon) -> None:
    """Warn if a network was trained on another split, so that test words may be among its training words."""
    trained = network.net.provenance.get("settings", {})
    wanted = {
        **{f"split.{field}": value for field, value in asdict(config).items()},
        "digest of the training and dev data": lexicon.digest,
    }  # fmt: skip
    changed = [setting for setting, value in wanted.items() if trained.get(setting) != value]
    if changed:
        log.warning(
            "%s was trained with another %s: test words may be among its training words, and its figure too "
            "good. Give the settings of its training.", name, " and ".join(changed),
        )  # fmt: skip


def _write_results(
    path: Path, test: dict[str, tuple[Spelling, ...]], systems: Sequence[_SystemScore]
) -> None:
    rows = (
        {
            "word": word,
            "right": [" ".join(one) for one in right],
            "given": {system.name: " ".join(system.given[number]) for system in systems},
        }
        for number, (word, right) in enumerate(test.items())
    )
    write_text(path, map(json_line, rows))
