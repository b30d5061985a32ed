"""`asr lexicon apply`, `score`, `compress`: words pronounced by networks, a joint n-gram, or both."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.options import check_output
from asr.errors import AsrError, DataError, SettingsError, check_number
from asr.model.sequence.model import load_sequence_model, save_sequence_model
from asr.model.sequence.pronouncer import read_pronouncer
from asr.progress import Progress
from asr.scoring.pronunciations import score_pronouncers
from asr.text.lexicon import format_probability, lexicon_for_sounds, read_words
from asr.text.pronunciation.letter_to_sound import LetterToSound
from asr.text.pronunciation.lexicon_split import SplitConfig
from asr.text.pronunciation.pronouncer import CombinedPronouncer, Pronounced, Pronouncer, pronounce_words

__all__ = [
    "LexiconApplySettings", "LexiconCompressSettings", "LexiconScoreSettings", "run_apply", "run_compress",
    "run_score",
]  # fmt: skip

log = logging.getLogger("asr")

Networks = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]
LexiconFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class LexiconApplySettings:
    """Pronounce words: a lexicon for the words of text files, one word a line.

    Without --models the joint n-gram pronounces, which takes seconds to learn; with it the networks do, and
    with --ngram both. A letter that the training never had is left out of its word, and a remark says so.
    """

    words: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="WORDS...", help_behavior_hint="(required)"),
    ]
    # Networks of `asr lexicon train`.
    models: Networks = ()
    # The joint n-gram, too.
    ngram: bool = False
    # Of the networks and then of the n-gram, as `asr lexicon score` tunes them; none: equal ones.
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="NUMBER...")] = ()
    # What the n-gram is learned from, a word and its phones a line. Default: CMUdict.
    lexicon: LexiconFile = None
    # Pronunciations of a word, at most.
    nbest: int = 1
    # Write each pronunciation's probability between word and phones, as Kaldi's lexiconp.txt has it.
    probabilities: bool = False
    # The lexicon's file. Default: the standard output.
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None

    def __post_init__(self) -> None:
        if not self.words:
            raise SettingsError("no WORDS are given. One text file or more was expected, with a word a line.")
        check_number("--nbest", self.nbest, least=1)


def run_apply(settings: LexiconApplySettings) -> Iterator[tuple[str | None, AsrError | None]]:
    """The lines of the lexicon, and an error for each word that cannot be pronounced; the others go on.

    Raises:
        AsrError: a file cannot be read or written.
    """
    if settings.output is not None:
        check_output(settings.output, [*settings.words, *settings.models])
    words = read_words(settings.words)
    pronouncers: list[Pronouncer] = [read_pronouncer(path) for path in settings.models]
    if settings.ngram or not pronouncers:
        pronouncers.append(LetterToSound(lexicon_for_sounds(settings.lexicon).pairs()))
    weights = settings.weights or (1 / len(pronouncers),) * len(pronouncers)
    combined = CombinedPronouncer(pronouncers, weights)
    pronouncer = combined if len(pronouncers) > 1 else pronouncers[0]
    done = (_lines(one, settings) for one in _with_progress(pronouncer, words, settings.nbest))
    if settings.output is None:
        yield from done
        return
    written = 0
    with settings.output.open("w", encoding="utf-8") as file:
        for text, error in done:
            if text is not None:
                file.write(f"{text}\n")
                written += 1
            if error is not None:
                yield None, error
    yield f"{settings.output}: {written} of {len(words)} words", None


def _with_progress(pronouncer: Pronouncer, words: list[str], nbest: int) -> Iterator[Pronounced]:
    """As `pronounce_words`; a network takes minutes for a lexicon's words."""
    progress = Progress("pronunciations", len(words))
    for number, pronounced in enumerate(pronounce_words(pronouncer, words, nbest), 1):
        progress.report(number, f"{number:,} of {len(words):,} words")
        yield pronounced


def _lines(pronounced: Pronounced, settings: LexiconApplySettings) -> tuple[str | None, AsrError | None]:
    """The lines of one word, or the error if it has no pronunciation."""
    word, named = pronounced.word, ", ".join(f"{one!r} (U+{ord(one):04X})" for one in pronounced.unknown)
    if not pronounced.pronunciations:
        reason = f"no word of the training had {named}" if named else "all of its letters are silent"
        return None, DataError(
            f"no pronunciation for {word[:80]!r}: {reason}. Expected a word of the training's alphabet. "
            f"Spell it differently, or add it to the lexicon by hand."
        )
    remark = ""
    if named:
        log.warning("%r is pronounced without %s, which no word of the training had", word, named)
        remark = f"\t# without {named}"
    lines = []
    for one in pronounced.pronunciations:
        prob = f"\t{format_probability(one.log_prob)}" if settings.probabilities else ""
        lines.append(f"{word}{prob}\t{' '.join(one.phones)}{remark}")
    return "\n".join(lines), None


@dataclass(frozen=True)
class LexiconCompressSettings:
    """Round a network's weights to 8 bits: a quarter of the size, for a copy that ships."""

    # A network of `asr lexicon train`.
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    # The smaller file, .safetensors by convention.
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]


def run_compress(settings: LexiconCompressSettings) -> str:
    """Write the smaller network; the summary to print.

    Raises:
        AsrError: a file cannot be read or written.
    """
    check_output(settings.output, [settings.model])
    net = load_sequence_model(settings.model)
    save_sequence_model(settings.output, net, net.provenance, int8=True)
    before, after = (path.stat().st_size / 1e6 for path in (settings.model, settings.output))
    return f"{settings.output}: {after:.2f} MB, from {before:.2f} MB"


@dataclass(frozen=True)
class LexiconScoreSettings:
    """Words wrong and phone error rate on words that training has not seen.

    The joint n-gram, each network, and all of them together, with weights that are tuned on the dev words.
    A word is right if any of its listed pronunciations is given. The split must be that of the training.
    """

    # Networks of `asr lexicon train`.
    models: Networks = ()
    # A word and its phones a line, as in training. Default: CMUdict.
    lexicon: LexiconFile = None
    # Which words of a lexicon are for training, to choose by (dev), and to score (test).
    split: SplitConfig = field(default_factory=SplitConfig)
    # Beam of the networks, and pronunciations that each model brings into the combination.
    nbest: int = 5
    # Write word, letters, right pronunciations and those of each system to this JSONL file.
    results: LexiconFile = None

    def __post_init__(self) -> None:
        check_number("--nbest", self.nbest, least=2)  # two systems' lists are combined


def run_score(settings: LexiconScoreSettings) -> str:
    """The table of all systems.

    Raises:
        AsrError: a file cannot be read or written.
    """
    if settings.results is not None:
        inputs = [*settings.models, *([settings.lexicon] if settings.lexicon else [])]
        check_output(settings.results, inputs)
    return score_pronouncers(
        settings.models,
        lexicon_for_sounds(settings.lexicon),
        settings.split,
        nbest=settings.nbest,
        results=settings.results,
    )
