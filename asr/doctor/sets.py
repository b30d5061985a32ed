"""What is wrong with utterances together: the same audio, text or speaker twice, rates, alignment, length."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import log
from pathlib import Path

from asr.doctor.audio import AudioFacts
from asr.doctor.findings import Finding
from asr.doctor.texts import describe_character
from asr.errors import AudioError, first_few
from asr.frontend.features import FeatureConfig, frame_count
from asr.manifests.utterance import Utterance
from asr.model.encoder import EncoderConfig, step_count
from asr.model.loss.ctc import required_steps
from asr.text.normalize import normalize

__all__ = ["set_findings", "training_memory_mb"]

_LONG_S = 30.0
_SHORTEST_S = 0.3  # of audio that is compared with other audio: shorter pieces may well be alike
_OUTLIER = 6.0  # times the median deviation of the logarithm of the speaking rate
_LEAST_DEVIATION = 0.1  # of it: where all are alike, a little more is no outlier
_UNEXPLAINED_S = 1.5  # of audio that the text does not explain, or lacks: less is a pause
_TOO_FAST = 35.0  # characters a second that nobody says
_ENOUGH = 20  # utterances, to know what is usual

Facts = Sequence[AudioFacts | AudioError]


def set_findings(
    manifests: Mapping[str, Sequence[Utterance]], facts: Mapping[str, Facts], normalizer: str
) -> Iterator[Finding]:
    """What is wrong with utterances together.

    Args:
        manifests: utterances of each, by name; what is learned from comes first.
        facts: of the audio of each utterance.
        normalizer: the text rules of the training.
    """
    texts = {
        name: [normalize(one.text, normalizer) for one in utterances]
        for name, utterances in manifests.items()
    }
    yield from _rates(manifests, texts)
    yield from _alignment(manifests, texts)
    yield from _same_audio(manifests, facts)
    yield from _same_texts(manifests, texts)
    yield from _outside(manifests, texts)
    yield from _shared(manifests, texts)


def _rates(
    manifests: Mapping[str, Sequence[Utterance]], texts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Characters a second far from what is usual for texts of about the same length.

    It depends on language and corpus, and short texts have more silence around them.
    """
    spoken = [
        (name, one, len(text))
        for name, utterances in manifests.items()
        for one, text in zip(utterances, texts[name], strict=True)
        if len(text) >= 5
    ]
    if len(spoken) < _ENOUGH:
        return
    groups: dict[int, list[float]] = defaultdict(list)  # of 4 to 7 characters, 8 to 15, 16 to 31, ...
    for _, one, length in spoken:
        groups[length.bit_length()].append(length / one.duration)
    every = statistics.median(rate for rates in groups.values() for rate in rates)
    usual = {
        group: statistics.median(rates) if len(rates) >= _ENOUGH else every for group, rates in groups.items()
    }
    values = [log(length / one.duration / usual[length.bit_length()]) for _, one, length in spoken]
    spread = max(1.4826 * statistics.median(map(abs, values)), _LEAST_DEVIATION)
    for (name, one, length), value in zip(spoken, values, strict=True):
        rate, expected = length / one.duration, usual[length.bit_length()]
        unexplained_s = abs(one.duration - length / expected)
        if (abs(value) > _OUTLIER * spread and unexplained_s > _UNEXPLAINED_S) or rate > _TOO_FAST:
            detail = f"{rate:.1f} characters a second, {expected:.1f} are usual: {one.text!r:.50}"
            yield Finding(check="speaking-rate", manifest=name, id=one.id, detail=detail, value=abs(value))


def _alignment(
    manifests: Mapping[str, Sequence[Utterance]], texts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Transcripts that need more steps than there are, in training with characters and usual features."""
    features, subsampling = FeatureConfig(), EncoderConfig().subsampling
    for name, utterances in manifests.items():
        for one, text in zip(utterances, texts[name], strict=True):
            needed = required_steps([ord(character) for character in text])
            frames = frame_count(int(one.duration * features.sample_rate), features)
            steps = step_count(frames, subsampling)
            if needed > steps:
                detail = f"{len(text)} characters need {needed} steps, {one.duration:.2f} s have {steps}"
                yield Finding(
                    check="alignment", manifest=name, id=one.id, detail=detail, value=needed - steps
                )
            if one.duration > _LONG_S:
                detail = f"{one.duration:.1f} s, about {training_memory_mb(one.duration):,.0f} MB in training"
                yield Finding(check="long", manifest=name, id=one.id, detail=detail, value=one.duration)


def training_memory_mb(seconds: float) -> float:
    """Memory for the activations of one utterance in training with the default model: an estimate.

    A recurrent layer keeps, a step and a direction, its input, four gates, the cell and the output, each as
    wide as the layer, in 4 bytes.
    """
    encoder, features = EncoderConfig(), FeatureConfig()
    layers = encoder.recurrent()
    steps = step_count(frame_count(int(seconds * features.sample_rate), features), encoder.subsampling)
    return steps * layers.depth * 2 * layers.width * 8 * 4 / 1e6


def _same_audio(
    manifests: Mapping[str, Sequence[Utterance]], facts: Mapping[str, Facts]
) -> Iterator[Finding]:
    """The same samples twice; without them (headers alone) the same part of the same file."""
    first: dict[str, tuple[str, str]] = {}
    for name, utterances in manifests.items():
        for one, fact in zip(utterances, facts[name], strict=True):
            if isinstance(fact, AudioError) or one.duration < _SHORTEST_S:
                continue
            key = fact.digest or f"{one.audio_filepath.resolve()} {one.offset} {one.channel}"
            if key in first:
                other, identifier = first[key]
                check = "same-audio" if other == name else "same-audio-across"
                detail = f"as {identifier} of {Path(other).name}"
                yield Finding(check=check, manifest=name, id=one.id, detail=detail)
            else:
                first[key] = (name, one.id)


def _same_texts(
    manifests: Mapping[str, Sequence[Utterance]], texts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    for name in manifests:
        counts = Counter(text for text in texts[name] if text)
        repeated = {text: count for text, count in counts.items() if count > 1}
        if repeated:
            text, count = max(repeated.items(), key=lambda item: item[1])
            total = sum(repeated.values()) - len(repeated)
            detail = f"{total:,} of {len(texts[name]):,}; {count:,} times {text!r:.50}"
            yield Finding(check="same-text", manifest=name, detail=detail, count=total, value=total)


def _outside(
    manifests: Mapping[str, Sequence[Utterance]], texts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Characters of later manifests that the first has not: a model of characters cannot write them."""
    names = list(manifests)
    alphabet = set().union(*texts[names[0]])
    if not alphabet:
        return
    for name in names[1:]:
        for one, text in zip(manifests[name], texts[name], strict=True):
            if unknown := dict.fromkeys(character for character in text if character not in alphabet):
                detail = f"{', '.join(map(describe_character, unknown))} in {text!r:.60}"
                yield Finding(check="outside", manifest=name, id=one.id, detail=detail, value=len(unknown))


def _shared(
    manifests: Mapping[str, Sequence[Utterance]], texts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Speakers and sentences of the first manifest that a later one has, too."""
    names = list(manifests)
    train = {one.speaker for one in manifests[names[0]]} - {""}
    sentences = set(texts[names[0]]) - {""}
    for name in names[1:]:
        speakers: dict[str, int] = defaultdict(int)
        for one in manifests[name]:
            if one.speaker in train:
                speakers[one.speaker] += 1
        if speakers:
            count, spoken = len(speakers), sum(speakers.values())
            some = first_few(list(speakers))
            detail = f"{some}, who have {spoken:,} of {len(manifests[name]):,} utterances"
            yield Finding(check="shared-speaker", manifest=name, detail=detail, count=count, value=count)
        shared = [text for text in texts[name] if text in sentences]
        if shared:
            count = len(shared)
            detail = f"{count:,} of {len(texts[name]):,}, such as {shared[0]!r:.50}"
            yield Finding(check="shared-sentence", manifest=name, detail=detail, count=count, value=count)
