"""Recordings of any length: cut at pauses, recognised in batches, and put together again.

A recording that is not longer than a segment is recognised as a whole, as `recognise` does it; where its
words are few, it has to hold speech.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from statistics import fmean

import torch
from torch import Tensor

from asr.decoding.decoder import Decoder
from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import AudioError
from asr.frontend.audio import audio_blocks
from asr.frontend.recordings import open_recording
from asr.frontend.segmentation import SegmentationConfig, Segmenter, SpeechSegment
from asr.frontend.voice_activity import VadName, find_vad, open_vad
from asr.model.acoustic import AcousticModel
from asr.recognition.joining import Joined
from asr.recognition.recognise import Recognised, Segment, recognise

__all__ = ["Progress", "are_doubtful", "recognise_recordings"]

log = logging.getLogger("asr")

Progress = Callable[[Segment, tuple[Word, ...]], None]
"""Gets the next words of a long recording, which do not change any more, with their times in it."""

# What a model makes of a part that is no speech: a few words that it does not believe. It makes more of
# speech that it does not understand.
_DOUBTFUL = 0.5  # mean confidence
_SPARSE = 0.5  # words a second

# Of a recording that is not cut, so few words are believed only where there is speech. Usual are 2 to 4 words
# a second.
_FEW = 1.5  # words a second
_LEAST_S = 3.0


def are_doubtful(words: Sequence[Word], duration_s: float) -> bool:
    """Whether words of so many seconds are what a model makes of noise or music without speech."""
    sparse = 0 < len(words) < _SPARSE * duration_s
    return sparse and fmean(word.confidence for word in words) < _DOUBTFUL


@dataclass
class _Recording:
    """A recording and what is known of it so far.

    Attributes:
        segment: as it was asked for.
        joined: what was found in its parts; None where no part has its result.
        duration_s: 0 until it was read to its end.
        empty: whether it was read to its end, and no speech was found.
        doubtful: words that were left out, since they are not to be believed.
    """

    segment: Segment
    joined: Joined | None = None
    duration_s: float = 0.0
    empty: bool = False
    doubtful: int = 0

    def add(self, part: SpeechSegment, result: Recognised, step_s: float) -> tuple[Word, ...]:
        """Append what was found in the next part, and return the words that will not change any more."""
        found = result.nbest
        words = found[0].words
        if are_doubtful(words, result.duration_s):
            self.doubtful += len(words)
            found = (replace(found[0], text="", words=(), tokens=(), steps=()),)
        if self.joined is None:
            self.joined = Joined(step_s)
        return self.joined.add(found, part.start_s, result.duration_s, part.overlap_s)


@dataclass(frozen=True)
class _Part(Segment):
    """A part of a recording that is cut, as `recognise` takes it."""

    cut: SpeechSegment = field(kw_only=True, compare=False)


def recognise_recordings(
    model: AcousticModel,
    recordings: Sequence[Segment],
    batch_s: float,
    decoder: Decoder,
    config: SegmentationConfig,
    progress: Progress | None = None,
) -> Iterator[Recognised]:
    """Recognise recordings of any length; memory does not grow with their length.

    Args:
        model: on its device.
        recordings: what to recognise.
        batch_s: seconds of audio in a batch, padding included.
        decoder: what decodes.
        config: how long recordings are cut.
        progress: is called with the words of long recordings as they are found.

    Yields:
        One result per recording, in order. The hypotheses of one that was cut are joined rank by rank, and
        their scores are sums.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory, or the
            detector of speech is not installed.
    """
    states = [_Recording(segment) for segment in recordings]
    cutter = _Cutter(config, model.settings.features.sample_rate)
    done = 0
    for result in recognise(model, cutter.parts(states), batch_s, decoder, len(states)):
        while states[done].empty:
            yield _empty(states[done])
            done += 1
        part, state = result.segment, states[done]
        if isinstance(part, _Part) and not isinstance(result.outcome, AudioError):
            words = state.add(part.cut, result, model.step_s)
            if progress is not None and words:
                progress(state.segment, words)
            if part.goes_on:
                continue
            result = _whole(state)
            state.joined = None  # the text of many recordings is not kept
        elif _has_few_words(result) and not cutter.has_speech(state, part):
            result = _empty(state)
        done += 1
        yield replace(result, segment=state.segment)
    yield from map(_empty, states[done:])


def _has_few_words(result: Recognised) -> bool:
    """Whether a recording that was not cut may be noise or music: the words are few for its length.

    A detector of speech needs some seconds, and misses single words.
    """
    words = () if isinstance(result.outcome, AudioError) else result.outcome.words
    return bool(words) and result.duration_s >= _LEAST_S and len(words) < _FEW * result.duration_s


def _whole(state: _Recording) -> Recognised:
    """The result of a recording whose parts are all there."""
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
    """

    def __init__(self, config: SegmentationConfig, sample_rate: int) -> None:
        self._config = config
        self._rate = sample_rate
        # What `auto` is, is chosen, and logged, when the first long recording comes.
        self._vad: VadName | None = None if config.vad == "auto" else find_vad(config.vad)

    def parts(self, recordings: Sequence[_Recording]) -> Iterator[Segment]:
        """The segments of all recordings, in order."""
        for recording in recordings:
            segment = recording.segment
            if self._is_short(segment):
                yield segment
            else:
                yield from self._parts(recording)

    def has_speech(self, recording: _Recording, segment: Segment) -> bool:
        """Whether a detector finds any speech in a recording that was not cut."""
        try:
            return any(True for _ in self._cut(recording, self._blocks(segment)))
        except AudioError:  # it was read once, so the file has changed meanwhile, which is reported
            return True

    def _is_short(self, segment: Segment) -> bool:
        """Whether it is known, without decoding it, that a recording is not to be cut."""
        longest_s = self._config.max_segment_s
        if segment.waveform is not None:
            return len(segment.waveform) <= longest_s * self._rate
        if segment.duration_s is not None:
            return segment.duration_s <= longest_s
        if not segment.path.is_file():  # a pipe cannot be opened twice
            return False
        try:
            with open_recording(segment.path, partial=segment.partial) as recording:
                seconds = (recording.samples or math.inf) / recording.sample_rate
                return seconds - segment.offset_s <= longest_s
        except AudioError:
            return False  # it is raised again where it is read

    def _parts(self, recording: _Recording) -> Iterator[Segment]:
        """The segments of a recording: each is held back until it is known whether it is the last one."""
        segment = recording.segment
        held: SpeechSegment | None = None
        try:
            blocks = self._blocks(segment)
            start = list(islice(blocks, 2))
            if len(start) == 1:
                yield replace(segment, waveform=start[0])
                return
            for cut in self._cut(recording, chain(start, blocks)):
                if held is not None:
                    yield _part(segment, held, goes_on=True)
                held = cut
        except AudioError as error:
            yield replace(segment, error=error)
            return
        if held is None:
            recording.empty = True
        else:
            yield _part(segment, held, goes_on=False)

    def _blocks(self, segment: Segment) -> Iterator[Tensor]:
        longest_s = self._config.max_segment_s
        if segment.waveform is not None:
            return iter(torch.split(segment.waveform, round(longest_s * self._rate)))
        return audio_blocks(
            segment.path,
            self._rate,
            whole_s=longest_s,
            offset_s=segment.offset_s,
            duration_s=segment.duration_s,
            channel=segment.channel,
            partial=segment.partial,
        )

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


def _part(segment: Segment, cut: SpeechSegment, goes_on: bool) -> _Part:
    return _Part(segment.path, waveform=cut.waveform, goes_on=goes_on, cut=cut)
