"""The application: a page, POST /transcribe for recordings, the WebSocket /stream for microphones."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Query, Request, UploadFile, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from asr.errors import AsrError
from asr.files import json_line
from asr.pages.render import COLOURS
from asr.recognition.streaming import StreamConfig, StreamResult
from asr.recognition.transcription import Model
from asr.serve.limits import Guard, ServeLimits
from asr.serve.service import Service, ServiceStream, TooLongError
from asr.transcripts.formats import FORMATS
from asr.transcripts.json_rows import result_row
from asr.transcripts.record import RecordingTranscript

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"
_FILES = {name: _PAGE / name for name in ("app.css", "app.js", "recorder.js")} | {COLOURS.name: COLOURS}
_TYPES = {
    "json": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "txt": "text/plain",
    "html": "text/html",
    "events": "application/x-ndjson",
}
# The page loads nothing from elsewhere, and no other page shows it in a frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_PIECE_BYTES = 1 << 20  # of an upload that is written at a time
_IDLE_S = 30.0  # without samples: then a stream is closed


def make_app(
    model: Model, stream: StreamConfig, limits: ServeLimits, name: str, *, loopback_only: bool = True
) -> FastAPI:
    """The application.

    Args:
        model: loaded once.
        stream: chunks and end-pointing.
        limits: of size, length and number.
        name: of the model, for the page.
        loopback_only: whether nothing but loopback is served.
    """
    service = Service(model, stream, limits.max_duration_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.stop()

    # FastAPI's pages of documentation load scripts from elsewhere.
    app = FastAPI(title="asr", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, limits=limits, jobs=("/transcribe", "/stream"), loopback_only=loopback_only)
    _add_errors(app)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers=_HEADERS)

    @app.get("/{file}", include_in_schema=False)
    async def page_file(file: str) -> FileResponse:
        if file not in _FILES:
            raise HTTPException(404, f"/{file}: there is nothing here.")
        return FileResponse(_FILES[file], headers=_HEADERS)

    @app.get("/about/limits")
    async def about() -> dict[str, Any]:
        """The model, and the limits of size and length."""
        return {"model": name, "max_upload_mb": limits.max_upload_mb, "max_duration_s": limits.max_duration_s}

    @app.post("/transcribe")
    async def transcribe(
        file: Annotated[UploadFile, File()],
        format: Annotated[Literal["json", "srt", "vtt", "txt", "html", "events"], Query()] = "json",
    ) -> Response:
        """Transcribe a recording; `events`: an object of JSON a line, as soon as words are known."""
        folder = tempfile.TemporaryDirectory(prefix="asr-")
        path = Path(folder.name) / "upload"
        with path.open("wb") as copy:
            while piece := await file.read(_PIECE_BYTES):
                copy.write(piece)
        results = service.transcribe(path, file.filename or "the recording")
        media_type = f"{_TYPES[format]}; charset=utf-8"
        if format == "events":
            return StreamingResponse(_events(results, folder), media_type=media_type)
        with folder:
            async for result in results:
                if isinstance(result, RecordingTranscript):
                    return Response(FORMATS[format].write(result), media_type=media_type)
        raise HTTPException(503, "the service is stopping.")

    @app.websocket("/stream")
    async def microphone(socket: WebSocket, rate: int = 16_000) -> None:
        """16-bit PCM in binary messages, `end` as the last one; objects of JSON come back."""
        await socket.accept()
        try:
            running = await service.open_stream(rate)
            await _take(socket, running)
        except AsrError as error:
            await socket.send_json({"error": str(error)})
            await socket.close(1008)

    return app


def _add_errors(app: FastAPI) -> None:
    """Each error is an object of JSON with one line."""

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def refuse_form(_: Request, error: RequestValidationError) -> JSONResponse:
        what = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        return JSONResponse({"error": f"the request cannot be used: {what}."}, 422)

    @app.exception_handler(AsrError)
    async def refuse_audio(_: Request, error: AsrError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, TooLongError) else 422)


async def _events(
    results: AsyncIterator[StreamResult | RecordingTranscript], folder: "tempfile.TemporaryDirectory[str]"
) -> AsyncIterator[str]:
    """Lines of JSON: words as they settle, then the transcript, or an error."""
    settled = False
    with folder:
        try:
            async for result in results:
                if isinstance(result, StreamResult):
                    settled = True
                    yield json_line(result_row(result))
                    continue
                if not settled and result.words:
                    whole = StreamResult(
                        result.text, result.text, 0.0, result.duration_s or 0.0, True, result.words
                    )
                    yield json_line(result_row(whole))
                yield json_line(_done(result))
        except AsrError as error:
            yield json_line({"error": str(error)})


async def _take(socket: WebSocket, running: ServiceStream) -> None:
    """Recognise what a socket sends, until it ends."""
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), _IDLE_S)
        except TimeoutError:
            await socket.send_json({"error": f"no samples came for {_IDLE_S:g} s: the stream is closed."})
            return await socket.close(1008)
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        results = await (running.finish() if data is None else running.accept(data))
        for result in results:
            await socket.send_json(result_row(result))
        if data is None:
            await socket.send_json(_done(running.transcript()))
            return await socket.close()


def _done(transcript: RecordingTranscript) -> dict[str, object]:
    """The last object: the transcript as text, as subtitles, and as a document."""
    return {
        "done": True,
        "duration": round(transcript.duration_s or 0.0, 3),
        "text": transcript.text,
        **{name: FORMATS[name].write(transcript) for name in ("srt", "html")},
    }
