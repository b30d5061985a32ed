"""What the service does: recordings are transcribed one after the other, streams in turns, block by block."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TypeVar

from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import AsrError, AudioError
from asr.frontend.audio import audio_info, check_rate
from asr.frontend.pcm import PcmFormat, decode_pcm
from asr.frontend.segmentation import SegmentationConfig
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.recognise import Segment
from asr.recognition.streaming import RecognitionStream, StreamConfig, StreamResult
from asr.recognition.transcription import Model
from asr.text.scripts import join_words
from asr.transcripts.record import RecordingTranscript

__all__ = ["Service", "TooLongError"]

_BATCH_S = 60.0  # of a recording that is computed at a time: so soon it can be stopped

_Result = TypeVar("_Result")


class TooLongError(AsrError):
    """A recording or a stream is longer than the service takes."""


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


class Service:
    """The model, loaded once, with a thread for recordings and one for streams.

    Args:
        model: what recognises.
        stream: chunks and end-pointing.
        max_duration_s: of a recording or a stream.
    """

    def __init__(self, model: Model, stream: StreamConfig, max_duration_s: float) -> None:
        self._model, self._stream, self._max_duration_s = model, stream, max_duration_s
        self._stop = Event()
        self._recordings, self._streams = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def stop(self) -> None:
        """End what runs, as soon as its next piece is done."""
        self._stop.set()
        for pool in (self._recordings, self._streams):
            pool.shutdown(wait=False, cancel_futures=True)

    async def transcribe(self, path: Path, name: str) -> AsyncIterator[StreamResult | RecordingTranscript]:
        """Transcribe a file, after those that came before.

        Args:
            path: of the file.
            name: that its sender gave it.

        Yields:
            The next words of a long recording, which will not change any more; at the end the transcript.

        Raises:
            AsrError: it cannot be read, or is too long.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[StreamResult | None] = asyncio.Queue()
        unwanted = Event()

        def settled(_: Segment, words: Sequence[Word]) -> None:
            if unwanted.is_set() or self._stop.is_set():
                raise _StoppedError
            loop.call_soon_threadsafe(found.put_nowait, _settled(words))

        running = loop.run_in_executor(self._recordings, self._transcribe, path, name, settled)

        def ended(future: "asyncio.Future[RecordingTranscript]") -> None:
            if not future.cancelled():
                future.exception()  # is read, also where nobody waits for it any more
            found.put_nowait(None)

        running.add_done_callback(ended)
        try:
            while (result := await found.get()) is not None:
                yield result
            yield await running
        finally:
            unwanted.set()

    def _transcribe(
        self, path: Path, name: str, settled: Callable[[Segment, Sequence[Word]], None]
    ) -> RecordingTranscript:
        try:
            seconds = audio_info(path).duration_s
            self._check_length(seconds, name)
            model = self._model
            segments = [Segment(path, partial=True)]
            [result] = recognise_recordings(
                model.acoustic, segments, _BATCH_S, model.decoder, SegmentationConfig(), settled
            )
            if not isinstance(result.outcome, Hypothesis):
                raise result.outcome
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
        return RecordingTranscript(
            id=Path(name).stem or name,
            text=result.outcome.text,
            words=result.outcome.words,
            duration_s=result.duration_s,
            audio_filepath=name,
            hypotheses=result.nbest,
        )

    async def open_stream(self, sample_rate: int) -> "ServiceStream":
        """A new stream of PCM.

        Args:
            sample_rate: Hz.

        Raises:
            AsrError: the rate is impossible.
        """
        check_rate(sample_rate)
        model = self._model
        recognition = await self.in_streams(
            lambda: RecognitionStream(model.acoustic, model.decoder, self._stream, sample_rate)
        )
        return ServiceStream(self, recognition, PcmFormat("s16le", sample_rate))

    async def in_streams(self, work: Callable[[], _Result]) -> _Result:
        """Run it in the thread of streams."""
        return await asyncio.get_running_loop().run_in_executor(self._streams, work)

    def _check_length(self, seconds: float, name: str) -> None:
        if seconds > self._max_duration_s:
            raise TooLongError(
                f"{name} is longer than {self._max_duration_s:g} s, the limit here. Cut it, or use `asr "
                f"transcribe`."
            )


class ServiceStream:
    """One stream of 16-bit PCM; `Service.open_stream` makes one.

    Args:
        service: whose thread it uses.
        recognition: of it.
        form: of its samples.

    Attributes:
        words: all that are final.
        duration_s: what was taken.
    """

    def __init__(self, service: Service, recognition: RecognitionStream, form: PcmFormat) -> None:
        self._service, self._recognition, self._form = service, recognition, form
        self.words: list[Word] = []
        self._bytes = 0

    @property
    def duration_s(self) -> float:
        """Seconds that were taken."""
        return self._bytes / self._form.frame_bytes / self._form.rate

    async def accept(self, data: bytes) -> list[StreamResult]:
        """Take the next samples.

        Raises:
            AudioError: a sample is cut in the middle.
            TooLongError: the stream is too long.
        """
        if len(data) % self._form.frame_bytes:
            raise AudioError(f"a message of {len(data)} bytes. Expected whole samples of 16 bits.")
        self._bytes += len(data)
        self._service._check_length(self.duration_s, "the stream")
        samples = decode_pcm(data, self._form)
        return self._keep(await self._service.in_streams(lambda: self._recognition.accept(samples)))

    async def finish(self) -> list[StreamResult]:
        """The last results."""
        return self._keep(await self._service.in_streams(self._recognition.finish))

    def transcript(self) -> RecordingTranscript:
        """All of it so far."""
        text = join_words(word.text for word in self.words)
        return RecordingTranscript(
            id="stream", text=text, words=tuple(self.words), duration_s=self.duration_s
        )

    def _keep(self, results: list[StreamResult]) -> list[StreamResult]:
        for result in results:
            self.words += result.words
        return results


def _settled(words: Sequence[Word]) -> StreamResult:
    """Words of a recording that will not change any more."""
    text = join_words(word.text for word in words)
    return StreamResult(text, text, words[0].start_s, words[-1].end_s, True, tuple(words))
