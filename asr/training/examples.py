"""Utterances -> training examples: transcripts become tokens, and what cannot be trained on is found here.

CTC needs at least one encoder step for each token and one more between equal neighbours. An utterance with fewer
has an infinite loss; it is named before training starts, not after hours.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asr.corpora.manifest import Utterance
from asr.errors import DataError, SettingsError
from asr.frontend.features import FeatureConfig, frame_count
from asr.model.ctc import required_steps
from asr.model.encoder import step_count
from asr.text.normalize import normalize
from asr.text.tokenizer import CharTokenizer

log = logging.getLogger("asr")

_NAMED = 5  # utterances spelled out in a message; the others are counted


@dataclass(frozen=True)
class TextConfig:
    """What becomes of transcripts, and of those that cannot be used."""

    normalizer: str = "english"  # text rules: verbatim, lower or english
    unknown: Literal["error", "drop"] = "error"  # characters of dev transcripts outside the alphabet: fail, or leave out and count
    too_long: Literal["drop", "fail"] = "drop"  # utterances with too few steps for their transcript: leave out and count, or fail

    def __post_init__(self) -> None:
        if self.unknown not in ("error", "drop"):
            raise SettingsError(f"text.unknown must be error or drop. Got {self.unknown!r}.")
        if self.too_long not in ("drop", "fail"):
            raise SettingsError(f"text.too-long must be drop or fail. Got {self.too_long!r}.")


@dataclass(frozen=True)
class Example:
    """An utterance that can be trained on."""

    utterance: Utterance
    text: str  # normalised
    tokens: tuple[int, ...]
    top_speed: float = 1.0  # the fastest of the configured speeds that leaves enough steps for the tokens


def learn_alphabet(utterances: Sequence[Utterance], config: TextConfig) -> CharTokenizer:
    """The alphabet of the training transcripts, after their normalisation."""
    return CharTokenizer.from_texts(normalize(utterance.text, config.normalizer) for utterance in utterances)


def make_examples(
    utterances: Sequence[Utterance],
    tokenizer: CharTokenizer,
    config: TextConfig,
    features: FeatureConfig,
    subsampling: int,
    speeds: Sequence[float] = (1.0,),
) -> list[Example]:
    """Turn utterances into examples, and report those that cannot be.

    Args:
        utterances: as a manifest holds them.
        tokenizer: the model's alphabet.
        config: what to do with unknown characters and over-long transcripts.
        features: sets the frames a second.
        subsampling: frames an encoder step.
        speeds: of the speed perturbation.

    Returns:
        The usable examples, in the same order.

    Raises:
        DataError: a transcript has unknown characters, or too many characters for its audio, and the setting says
            so; or nothing is left.
    """
    examples: list[Example] = []
    dropped: list[str] = []
    unknown: Counter[str] = Counter()
    slowed = 0
    for utterance in utterances:
        text = normalize(utterance.text, config.normalizer)
        unknown += tokenizer.unknown_characters(text)
        tokens = tuple(tokenizer.encode(text, utterance=utterance.id, unknown=config.unknown))
        needed = required_steps(tokens)
        samples = int(utterance.duration * features.sample_rate)
        fitting = [
            speed
            for speed in speeds
            if step_count(frame_count(int(samples / speed), features), subsampling) >= needed
        ]
        if fitting:
            slowed += max(fitting) < max(speeds)
            examples.append(Example(utterance, text, tokens, max(fitting)))
        else:
            steps = step_count(frame_count(samples, features), subsampling)
            dropped.append(f"{utterance.id} ({len(tokens)} tokens need {needed} steps, its audio has {steps})")
    if unknown:
        log.warning(
            "%d characters outside the alphabet were left out: %s", unknown.total(), dict(sorted(unknown.items()))
        )
    if slowed:
        log.info("%d utterances are spoken too fast for the highest speed and are only heard at lower ones", slowed)
    if dropped:
        _report(dropped, len(utterances), config)
    if not examples:
        raise DataError(f"none of {len(utterances)} utterances can be used. Correct the manifest.")
    return examples


def _report(dropped: list[str], total: int, config: TextConfig) -> None:
    names = "; ".join(dropped[:_NAMED]) + (f"; and {len(dropped) - _NAMED} more" if len(dropped) > _NAMED else "")
    message = (
        f"{len(dropped)} of {total} utterances have a transcript too long for their audio: {names}. CTC needs one "
        f"encoder step a token and one more between equal neighbours."
    )
    if config.too_long == "fail":
        raise DataError(f"{message} Correct the transcripts, lower --model.subsampling, or use --text.too-long drop.")
    log.warning("%s They are left out. Correct the transcripts, or lower --model.subsampling.", message)
