"""Training examples: utterances with their tokens; those that cannot be trained on are reported.

CTC needs at least one encoder step for each token and one more between equal neighbours. An utterance with
fewer has an infinite loss; it is reported before training starts, not after hours.

Of millions of utterances only numbers are kept: a transcript is normalised and tokenised to be counted, and
again when a batch needs it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from asr.errors import FEW, DataError, SettingsError, check_choice, check_number, first_few
from asr.frontend.features import FeatureConfig, frame_count
from asr.manifests.arrow import ArrowManifest, columns, durations, id_hashes, tar_numbers
from asr.manifests.utterance import Utterance
from asr.model.encoder import step_count
from asr.model.loss.ctc import required_steps, required_steps_of_all
from asr.model.sequence.pronouncer import read_pronouncer
from asr.progress import Progress
from asr.text.bpe import BpeTokenizer
from asr.text.characters import CharTokenizer
from asr.text.lexicon import read_lexicon
from asr.text.normalize import in_language, normalize
from asr.text.phones import PhoneTokenizer, report_guesses
from asr.text.token_lists import TokenLists
from asr.text.tokenizer import Tokenizer, Units

log = logging.getLogger("asr")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How transcripts are normalised and tokenised, and what happens to those that cannot be used."""

    # Text rules that transcripts go through: verbatim, lower, english, or words for other languages.
    normalizer: str = "english"
    # The language of the transcripts, such as tr: its casing and marks are applied by the rules lower and
    # words, and words takes the place of english. Models and scores name both: words:tr.
    language: str = ""
    # The output units: characters; bpe, pieces of words that are learned from the training transcripts (pip
    # install '.[bpe]'); or phones, which need a lexicon in decoding to give words.
    units: Units = "characters"
    # Classes of the output with --text.units bpe, the CTC blank among them.
    bpe_size: int = 500
    # With --text.units phones: a file with a word and its phones a line, such as Kaldi's lexicon.txt, which
    # is preferred to CMUdict. Other words are pronounced by letter-to-sound, and reported.
    lexicon: Path | None = None
    # With --text.units phones: a network of `asr lexicon train` that pronounces the words of the training
    # transcripts that are in no lexicon, instead of the joint n-gram.
    pronouncer: Path | None = None
    # With --model.criterion crf: text files, one sentence a line, that count for the denominator as training
    # transcripts do.
    denominator_text: tuple[Path, ...] = ()
    # Characters of dev transcripts that no training transcript has: error, or drop and count them.
    unknown: Literal["error", "drop"] = "error"
    # Utterances with too few encoder steps for their transcript: drop and count them, or fail.
    too_long: Literal["drop", "fail"] = "drop"

    def __post_init__(self) -> None:
        check_choice("--text.unknown", self.unknown, ("error", "drop"))
        check_choice("--text.too-long", self.too_long, ("drop", "fail"))
        in_language(self.normalizer, self.language)  # raises for an unknown name
        check_choice("--text.units", self.units, get_args(Units))
        check_number("--text.bpe-size", self.bpe_size, least=3)
        for name in ("lexicon", "pronouncer"):
            path = getattr(self, name)
            if path is not None and self.units != "phones":
                raise SettingsError(
                    f"--text.{name} {path} is for phones, but --text.units is {self.units}. Add "
                    f"--text.units phones, or leave the {name} out."
                )

    @property
    def rules(self) -> str:
        """Name of the text rules with the language, as `normalize` takes it and the model stores it."""
        return in_language(self.normalizer, self.language)


@dataclass(frozen=True)
class Example:
    """An utterance that can be trained on."""

    utterance: Utterance
    text: str  # normalised; with phones, their names: the target
    tokens: tuple[int, ...]
    top_speed: float = 1.0  # the fastest of the configured speeds that leaves enough steps for the tokens
    min_samples: int = 0  # with fewer, too few steps would be left for the tokens


@dataclass(frozen=True)
class ExampleColumns:
    """What plans of batches need to know of all examples, as arrays."""

    hashes: NDArray[np.uint64]  # (examples,) of their ids
    seconds: NDArray[np.float64]  # (examples,) durations
    token_counts: NDArray[np.int32]  # (examples,)
    top_speeds: NDArray[np.float64]  # (examples,)
    tars: NDArray[np.int32] | None = None  # (examples,) number of the tar file of each, -1 for none


class Examples:
    """The examples of `make_examples`: each is made when it is indexed.

    Args:
        utterances: of a manifest.
        rows: (examples,) int32 indices of the utterances that are used.
        columns: what is known of all examples.
        make: the example of an utterance with a top speed.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        rows: NDArray[np.int32],
        columns: ExampleColumns,
        make: Callable[[Utterance, float], Example],
    ) -> None:
        self._utterances, self._rows, self.columns, self._make = utterances, rows, columns, make

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        utterance = self._utterances[int(self._rows[index])]
        return self._make(utterance, float(self.columns.top_speeds[index]))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def utterances(self) -> list[Utterance]:
        """The utterance of each example, without its tokens being made."""
        return [self._utterances[row] for row in self._rows.tolist()]


def learn_tokenizer(utterances: Sequence[Utterance], config: TextConfig) -> Tokenizer:
    """A tokenizer of the normalised training transcripts; their order does not matter.

    Raises:
        DataError: the transcripts are empty, or the lexicon cannot be read.
        ModelError: the pronouncer cannot be read, or does not pronounce.
        SettingsError: sentencepiece is missing, or cannot learn that many pieces.
    """
    texts = chain.from_iterable(_texts(utterances, config.rules))
    if config.units == "bpe":
        return BpeTokenizer.from_texts(texts, config.bpe_size)
    if config.units == "phones":
        lexicon = read_lexicon(config.lexicon) if config.lexicon else None
        return PhoneTokenizer.from_texts(
            texts, lexicon, read_pronouncer(config.pronouncer) if config.pronouncer else None
        )
    return CharTokenizer.from_texts(texts)


def make_examples(
    utterances: Sequence[Utterance],
    tokenizer: Tokenizer,
    config: TextConfig,
    features: FeatureConfig,
    subsampling: int,
    speeds: Sequence[float] = (1.0,),
    kind: str = "training",
) -> Examples:
    """Turn utterances into examples; those that cannot be used are left out and reported.

    Args:
        utterances: of a manifest.
        tokenizer: the model's.
        config: what to do with unknown characters and over-long transcripts.
        features: determines the frames per second.
        subsampling: frames an encoder step.
        speeds: of the speed perturbation.
        kind: training or dev, for messages.

    Returns:
        The usable examples, in the same order.

    Raises:
        DataError: a transcript has unknown characters, or too many for its audio, and the settings do not
            allow it; two utterances share an id; or no example is left.
    """
    hashes = _hash_ids(utterances, kind)
    seconds = durations(utterances)
    samples = (seconds * features.sample_rate).astype(np.int64)
    counts, needed, unknown = _count_tokens(utterances, tokenizer, config)
    top_speeds = _top_speeds(samples, needed, speeds, features, subsampling)
    rows = np.flatnonzero(top_speeds > 0).astype(np.int32)
    report_guesses(tokenizer, chain.from_iterable(_texts(utterances, config.rules)), kind)
    _warn_about_texts(unknown, int((counts[rows] == 0).sum()), config, kind)
    if slowed := int((top_speeds[rows] < max(speeds)).sum()):
        log.info(
            "%d %s utterances are spoken too fast for the highest speed and are used at lower ones only",
            slowed, kind,
        )  # fmt: skip
    if len(rows) < len(utterances):
        dropped, steps = np.flatnonzero(top_speeds == 0), _steps(samples, features, subsampling)
        named = [
            f"{utterances[row].id} ({counts[row]} tokens need {needed[row]} steps, "
            f"its audio has {steps[row]})"
            for row in dropped[:FEW].tolist()
        ]
        listed = first_few(named, separator="; ", total=len(dropped))
        _report_dropped(listed, len(dropped), len(utterances), config, kind)
    if not len(rows):
        raise DataError(f"none of {len(utterances)} {kind} utterances can be used. Correct the manifest.")
    tars = tar_numbers(utterances)
    example_columns = ExampleColumns(
        hashes[rows], seconds[rows], counts[rows], top_speeds[rows], None if tars is None else tars[rows]
    )
    shortest = partial(_shortest, features=features, subsampling=subsampling)
    return Examples(utterances, rows, example_columns, partial(_example, tokenizer, config, shortest))


def _example(
    tokenizer: Tokenizer,
    config: TextConfig,
    shortest: Callable[[int], int],
    utterance: Utterance,
    top_speed: float,
) -> Example:
    """An utterance with its tokens."""
    text = normalize(utterance.text, config.rules)
    tokens = tuple(tokenizer.encode(text, utterance=utterance.id, unknown=config.unknown))
    target = text if tokenizer.pieces else tokenizer.decode(tokens)
    return Example(utterance, target, tokens, top_speed, shortest(required_steps(tokens)))


def _shortest(steps: int, features: FeatureConfig, subsampling: int) -> int:
    """The fewest samples that make this many encoder steps."""
    return max((steps - 1) * subsampling * features.hop_length, features.win_length)


def _texts(utterances: Sequence[Utterance], rules: str) -> Iterator[list[str]]:
    """Normalised transcripts, some thousand at a time."""
    normalised = isinstance(utterances, ArrowManifest) and utterances.normalizer == rules
    for (texts,) in columns(utterances, "text"):
        yield texts if normalised else [normalize(text, rules) for text in texts]


def _count_tokens(
    utterances: Sequence[Utterance], tokenizer: Tokenizer, config: TextConfig
) -> tuple[NDArray[np.int32], NDArray[np.int32], Counter[str]]:
    """The tokens of each transcript, the steps that CTC needs for them, and the characters that are left out.

    Returns:
        (utterances,), (utterances,), and how often each unknown character occurs.

    Raises:
        DataError: a character is unknown and that is an error.
    """
    counts, needed = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    unknown: Counter[str] = Counter()
    first = 0
    progress = Progress("transcripts", len(utterances))
    for texts in _texts(utterances, config.rules):
        tokens = tokenizer.encode_all(texts)
        if tokens is None:
            lists = []
            for number, text in enumerate(texts, start=first):
                unknown += tokenizer.unknown_characters(text)
                name = utterances[number].id
                lists.append(tokenizer.encode(text, utterance=name, unknown=config.unknown))
            tokens = TokenLists.of(lists)
        counts.append(tokens.counts.astype(np.int32))
        needed.append(required_steps_of_all(tokens).astype(np.int32))
        first += len(texts)
        progress.report(first, f"{first} of {len(utterances)} counted")
    return np.concatenate(counts), np.concatenate(needed), unknown


def _steps(samples: NDArray[np.int64], features: FeatureConfig, subsampling: int) -> NDArray[np.int64]:
    """Encoder steps of numbers of samples; 0 for less than one window, which has no features."""
    frames = frame_count(torch.from_numpy(samples), features)
    steps: NDArray[np.int64] = step_count(frames, subsampling).numpy()
    return np.where(samples < features.win_length, 0, steps)


def _top_speeds(
    samples: NDArray[np.int64],
    needed: NDArray[np.int32],
    speeds: Sequence[float],
    features: FeatureConfig,
    subsampling: int,
) -> NDArray[np.float64]:
    """(utterances,) the fastest of the speeds that leaves enough steps for the tokens; 0 where none does."""
    top_speeds = np.zeros(len(samples))
    for speed in sorted(speeds):
        steps = _steps((samples / speed).astype(np.int64), features, subsampling)
        top_speeds[steps >= np.maximum(needed, 1)] = speed
    return top_speeds


def _hash_ids(utterances: Sequence[Utterance], kind: str) -> NDArray[np.uint64]:
    """(utterances,) hashes of their ids, of which none may occur twice."""
    hashes = id_hashes(utterances)
    # In most cases none does; names are compared where hashes are equal. np.unique takes 60 times as long.
    ordered = np.sort(hashes)
    if (ordered[1:] != ordered[:-1]).all():
        return hashes
    names = Counter(name for (part,) in columns(utterances, "id") for name in part)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{len(repeated)} ids name more than one {kind} utterance: {first_few(repeated)}. "
            f"Expected every id once over all {kind} manifests. Rename them, or leave out a manifest that "
            f"repeats another."
        )
    return hashes


def _warn_about_texts(unknown: Counter[str], empty: int, config: TextConfig, kind: str) -> None:
    """Warn of characters that were left out, and of transcripts of which nothing is left."""
    if unknown:
        log.warning(
            "%d characters of %s transcripts are not in the alphabet and were left out: %s",
            unknown.total(), kind,
            ", ".join(f"{character!r} {count} x" for character, count in sorted(unknown.items())),
        )  # fmt: skip
    if empty:
        log.warning(
            "the %s rules leave nothing of %d %s transcripts: they are trained on as silence",
            config.rules, empty, kind,
        )  # fmt: skip


def _report_dropped(named: str, dropped: int, total: int, config: TextConfig, kind: str) -> None:
    message = (
        f"{dropped} of {total} {kind} utterances are too short for their transcripts: {named}. CTC needs one "
        f"encoder step per token and one more between equal neighbours."
    )
    if config.too_long == "fail":
        raise DataError(
            f"{message} Correct the transcripts, lower --model.subsampling, or use --text.too-long drop."
        )
    log.warning("%s They are left out. Correct the transcripts, or lower --model.subsampling.", message)
