"""Recordings of any length: cut at pauses, recognised in batches, and put together again.

A recording that is not longer than a segment is recognised as a whole, as `recognise` does it. Speech is
looked for where recordings are cut, and afterwards in those whose words are few.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from statistics import fmean

from torch import Tensor

from asr.decoding.hypothesis import Hypothesis, Word
from asr.decoding.interface import Decoder
from asr.errors import AudioError
from asr.frontend.segmentation import SegmentationConfig, Segmenter, SpeechSegment
from asr.frontend.voice_activity import VadName, find_vad, open_vad
from asr.model.acoustic import AcousticModel
from asr.recognition.joining import Joined
from asr.recognition.recognise import Recognised, Segment, recognise
from asr.recognition.recording_progress import Position, RecordingProgress

__all__ = ["OnWords", "are_doubtful", "recognise_recordings"]

log = logging.getLogger("asr")

OnWords = Callable[[Segment, tuple[Word, ...]], None]
"""Gets the next words of a long recording, which do not change any more, with their times in it."""

# What a model makes of a segment that is no speech: a few words that it does not believe. It makes more of
# speech that it does not understand.
_LOW_CONFIDENCE = 0.5  # mean of the words
_SPARSE_WORDS_PER_S = 0.5

# Of a recording that is not cut, so few words are believed only where there is speech. Usual are 2 to 4 words
# a second.
_FEW_WORDS_PER_S = 1.5
_LEAST_CHECKED_S = 3.0


def are_doubtful(words: Sequence[Word], duration_s: float) -> bool:
    """Whether words look like what a model makes of noise or music: few for the duration, and unsure."""
    sparse = 0 < len(words) < _SPARSE_WORDS_PER_S * duration_s
    return sparse and fmean(word.confidence for word in words) < _LOW_CONFIDENCE


@dataclass(frozen=True)
class _CutSegment(Segment):
    """A segment that was cut out of a recording.

    Attributes:
        start_s: of its first sample, seconds from the start of the recording.
        overlap_s: seconds at its end that the next segment begins with.
    """

    start_s: float = field(kw_only=True)
    overlap_s: float = field(kw_only=True)

    def end_s(self, sample_rate: int) -> float:
        """Seconds from the start of the recording; sample_rate: of the waveform, Hz."""
        return self.start_s + (0 if self.waveform is None else len(self.waveform)) / sample_rate


@dataclass
class _Recording:
    """A recording and what is known of it so far.

    Attributes:
        segment: what was asked for.
        joined: what was found in its segments; None where none has its result.
        duration_s: 0 until it was read to its end.
        empty: whether it was read to its end, and no speech was found.
        doubtful: words that were left out, since they are not to be believed.
    """

    segment: Segment
    joined: Joined | None = None
    duration_s: float = 0.0
    empty: bool = False
    doubtful: int = 0

    def add(self, segment: _CutSegment, result: Recognised, step_s: float) -> tuple[Word, ...]:
        """Append what was found in the next segment; return the words that will not change any more."""
        found = result.nbest
        words = found[0].words
        if are_doubtful(words, result.duration_s):
            self.doubtful += len(words)
            found = (replace(found[0], text="", words=(), tokens=(), steps=()),)
        if self.joined is None:
            self.joined = Joined(step_s)
        return self.joined.add(found, segment.start_s, result.duration_s, segment.overlap_s)


def recognise_recordings(
    model: AcousticModel,
    recordings: Sequence[Segment],
    batch_s: float,
    decoder: Decoder,
    config: SegmentationConfig,
    on_words: OnWords | None = None,
) -> Iterator[Recognised]:
    """Recognise recordings of any length; memory does not grow with their length.

    Args:
        model: on its device.
        recordings: what to recognise.
        batch_s: seconds of audio in a batch, padding included.
        decoder: what decodes.
        config: how long recordings are cut.
        on_words: is called with the words of long recordings as they are found.

    Yields:
        One result per recording, in order. The hypotheses of one that was cut are joined rank by rank, and
        their scores are sums.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory, or the
            detector of speech is not installed.
    """
    states = [_Recording(segment) for segment in recordings]
    progress = RecordingProgress(len(states))
    cutter = _Cutter(config, model.settings.features.sample_rate, progress)
    done = 0
    for result in recognise(model, cutter.segments(states), batch_s, decoder, progress):
        while states[done].empty:
            yield _empty(states[done])
            done += 1
        segment, state = result.segment, states[done]
        if isinstance(segment, _CutSegment) and not isinstance(result.outcome, AudioError):
            words = state.add(segment, result, model.step_s)
            if on_words is not None and words:
                on_words(state.segment, words)
            if segment.goes_on:
                continue
            result = _whole(state)
            state.joined = None  # the text of many recordings is not kept
        elif _has_few_words(result) and not cutter.finds_speech(state, segment):
            result = _empty(state)
        done += 1
        yield replace(result, segment=state.segment)  # without its samples
    yield from map(_empty, states[done:])


def _has_few_words(result: Recognised) -> bool:
    """Whether a recording that was not cut may be noise or music: the words are few for its length.

    Only then a detector looks for speech: it costs time, needs some seconds, and misses single words.
    """
    words = () if isinstance(result.outcome, AudioError) else result.outcome.words
    return (
        bool(words)
        and result.duration_s >= _LEAST_CHECKED_S
        and len(words) < _FEW_WORDS_PER_S * result.duration_s
    )


def _whole(state: _Recording) -> Recognised:
    """The result of a recording whose segments all have theirs."""
    nbest = state.joined.hypotheses() if state.joined else ()
    if state.doubtful:
        log.info(
            "%s: %d words left out: few and of low confidence, as in noise or music without speech",
            state.segment.path, state.doubtful,
        )  # fmt: skip
    return Recognised(state.segment, state.duration_s, nbest[0], nbest)


def _empty(state: _Recording) -> Recognised:
    log.warning("%s: no speech found in %.0f s. Check the recording.", state.segment.path, state.duration_s)
    nothing = Hypothesis("", (), (), (), 0.0, 0.0)
    return Recognised(state.segment, state.duration_s, nothing, (nothing,))


# ---------------------------------------------------------------------------------------------------- cutting


class _Cutter:
    """Recordings in, segments for `recognise` out, one by one.

    Args:
        config: the settings.
        sample_rate: the model's, Hz.
        progress: gets the recordings without segments.
    """

    def __init__(self, config: SegmentationConfig, sample_rate: int, progress: RecordingProgress) -> None:
        self._config = config
        self._rate = sample_rate
        self._progress = progress
        # What `auto` is, is chosen, and logged, when the first long recording comes.
        self._vad: VadName | None = None if config.vad == "auto" else find_vad(config.vad)

    def segments(self, recordings: Sequence[_Recording]) -> Iterator[Segment]:
        """The segments of all recordings, in order."""
        for recording in recordings:
            # Whether it is known, without decoding it, that a recording is not to be cut.
            expected_s = recording.segment.expected_s(self._rate)
            if expected_s is not None and expected_s <= self._config.max_segment_s:
                yield recording.segment
            else:
                yield from self._segments_of(recording, Position(expected_s))

    def finds_speech(self, recording: _Recording, segment: Segment) -> bool:
        """Whether there is any speech in a recording that was read as one segment."""
        return any(True for _ in self._cut(recording, [segment.read(self._rate)]))

    def _segments_of(self, recording: _Recording, position: Position) -> Iterator[Segment]:
        """The segments of a recording: each is held back until it is known whether it is the last one."""
        whole = recording.segment
        held: _CutSegment | None = None
        try:
            blocks = whole.blocks(self._rate, self._config.max_segment_s)
            start = list(islice(blocks, 2))
            if len(start) == 1:
                yield replace(whole, waveform=start[0])
                return
            for cut in self._cut(recording, chain(start, blocks)):
                if held is not None:
                    seconds, share = position.advance(held.end_s(self._rate), last=False)
                    yield replace(held, goes_on=True, advance_s=seconds, share=share)
                held = _CutSegment(
                    whole.path, waveform=cut.waveform, start_s=cut.start_s, overlap_s=cut.overlap_s
                )
        except AudioError as error:
            yield replace(whole, error=error)
            return
        if held is None:
            recording.empty = True
            self._progress.without_speech(recording.duration_s)
        else:
            seconds, share = position.advance(recording.duration_s, last=True)
            yield replace(held, advance_s=seconds, share=share)

    def _cut(self, recording: _Recording, blocks: Iterable[Tensor]) -> Iterator[SpeechSegment]:
        if self._vad is None:
            self._vad = find_vad(self._config.vad)
        segmenter = Segmenter(self._config, open_vad(self._vad, self._rate), self._rate)
        samples = 0
        for block in blocks:
            samples += len(block)
            yield from segmenter.accept(block)
        recording.duration_s = samples / self._rate
        yield from segmenter.finish()
