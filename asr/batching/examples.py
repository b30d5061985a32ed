"""Training examples: utterances with their tokens; those that cannot be trained on are reported.

CTC needs at least one encoder step for each token and one more between equal neighbours. An utterance with
fewer has an infinite loss; it is reported before training starts, not after hours.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from asr.corpora.manifest import Utterance
from asr.errors import DataError, SettingsError
from asr.frontend.features import FeatureConfig, frame_count
from asr.model.ctc import required_steps
from asr.model.encoder import step_count
from asr.model.pronouncer import read_pronouncer
from asr.text.bpe import BpeTokenizer
from asr.text.characters import CharTokenizer
from asr.text.lexicon import read_lexicon
from asr.text.normalize import in_language, normalize
from asr.text.phones import PhoneTokenizer, report_guesses
from asr.text.tokenizer import Tokenizer, Units

log = logging.getLogger("asr")

_MAX_NAMES = 5  # utterances named in a message; the rest is counted


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
        if self.unknown not in ("error", "drop"):
            raise SettingsError(f"--text.unknown must be error or drop. Got {self.unknown!r}.")
        if self.too_long not in ("drop", "fail"):
            raise SettingsError(f"--text.too-long must be drop or fail. Got {self.too_long!r}.")
        in_language(self.normalizer, self.language)  # raises for an unknown name
        if self.units not in get_args(Units):
            raise SettingsError(f"--text.units must be {', '.join(get_args(Units))}. Got {self.units!r}.")
        if self.bpe_size < 3:
            raise SettingsError(f"--text.bpe-size must be at least 3. Got {self.bpe_size}.")
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


def learn_tokenizer(utterances: Sequence[Utterance], config: TextConfig) -> Tokenizer:
    """A tokenizer of the normalised training transcripts; their order does not matter.

    Raises:
        DataError: the transcripts are empty, or the lexicon cannot be read.
        ModelError: the pronouncer cannot be read, or does not pronounce.
        SettingsError: sentencepiece is missing, or cannot learn that many pieces.
    """
    texts = [normalize(utterance.text, config.rules) for utterance in utterances]
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
) -> list[Example]:
    """Turn utterances into examples, and report those that cannot be used.

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
    _check_ids(utterances, kind)
    examples: list[Example] = []
    dropped: list[str] = []
    unknown: Counter[str] = Counter()
    slowed = empty = 0
    for utterance in utterances:
        text = normalize(utterance.text, config.rules)
        unknown += tokenizer.unknown_characters(text)
        tokens = tuple(tokenizer.encode(text, utterance=utterance.id, unknown=config.unknown))
        needed = required_steps(tokens)
        samples = int(utterance.duration * features.sample_rate)
        fitting = [
            speed for speed in speeds if _steps(int(samples / speed), features, subsampling) >= max(needed, 1)
        ]
        if fitting:
            slowed += max(fitting) < max(speeds)
            empty += not tokens
            target = text if tokenizer.pieces else tokenizer.decode(tokens)
            min_samples = max((needed - 1) * subsampling * features.hop_length, features.win_length)
            examples.append(Example(utterance, target, tokens, max(fitting), min_samples))
        else:
            steps = _steps(samples, features, subsampling)
            dropped.append(
                f"{utterance.id} ({len(tokens)} tokens need {needed} steps, its audio has {steps})"
            )
    report_guesses(tokenizer, (normalize(u.text, config.rules) for u in utterances), kind)
    if unknown:
        log.warning(
            "%d characters of %s transcripts are not in the alphabet and were left out: %s",
            unknown.total(),
            kind,
            ", ".join(f"{character!r} {count} x" for character, count in sorted(unknown.items())),
        )
    if empty:
        log.warning(
            "the %s rules leave nothing of %d %s transcripts: they are trained on as silence",
            config.rules,
            empty,
            kind,
        )
    if slowed:
        log.info(
            "%d %s utterances are spoken too fast for the highest speed and are used at lower ones only",
            slowed,
            kind,
        )
    if dropped:
        _report(dropped, len(utterances), config, kind)
    if not examples:
        raise DataError(f"none of {len(utterances)} {kind} utterances can be used. Correct the manifest.")
    return examples


def _steps(samples: int, features: FeatureConfig, subsampling: int) -> int:
    """Encoder steps of a number of samples; 0 for less than one window, which has no features."""
    return 0 if samples < features.win_length else step_count(frame_count(samples, features), subsampling)


def _check_ids(utterances: Sequence[Utterance], kind: str) -> None:
    repeated = [
        name for name, count in Counter(utterance.id for utterance in utterances).items() if count > 1
    ]
    if repeated:
        raise DataError(
            f"{len(repeated)} ids name more than one {kind} utterance: {', '.join(repeated[:_MAX_NAMES])}. "
            f"Expected every id once over all {kind} manifests. Rename them, or leave out a manifest that "
            f"repeats another."
        )


def _report(dropped: list[str], total: int, config: TextConfig, kind: str) -> None:
    more = f"; and {len(dropped) - _MAX_NAMES} more" if len(dropped) > _MAX_NAMES else ""
    message = (
        f"{len(dropped)} of {total} {kind} utterances are too short for their transcripts: "
        f"{'; '.join(dropped[:_MAX_NAMES])}{more}. CTC needs one encoder step per token and one more between "
        f"equal neighbours."
    )
    if config.too_long == "fail":
        raise DataError(
            f"{message} Correct the transcripts, lower --model.subsampling, or use --text.too-long drop."
        )
    log.warning("%s They are left out. Correct the transcripts, or lower --model.subsampling.", message)
