"""Limits of the service: size, length and number of what it takes, and who may ask for it."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException, WebSocket
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import check_number, option_name

__all__ = ["LOOPBACK", "Guard", "ServeLimits"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")

_MEGABYTE = 1_000_000
_FORM_BYTES = 10_000  # of a form around its file


@dataclass(frozen=True)
class ServeLimits:
    """What the service refuses."""

    max_upload_mb: float = 200.0  # megabytes of a recording; a larger one is refused (413)
    max_duration_s: float = 3600.0  # seconds of a recording or of a stream; a longer one is refused (413)
    max_jobs: int = 4  # recordings and streams at the same time; another one is refused (429)

    def __post_init__(self) -> None:
        for name in ("max_upload_mb", "max_duration_s", "max_jobs"):
            check_number(option_name("limits", name), getattr(self, name), above=0)

    @property
    def max_upload_bytes(self) -> int:
        """The largest request, the form around its file included."""
        return round(self.max_upload_mb * _MEGABYTE) + _FORM_BYTES


class Guard:
    """Refuses requests of other sites' pages, of other names for this machine, too large ones and too many.

    A page of another site may send requests to a service on the visitor's own machine: its Origin tells. A
    name that another site has pointed at this machine (DNS rebinding) is in Host; where only loopback is
    served, it has to be a name of loopback.

    Args:
        app: what is guarded.
        limits: of the service.
        jobs: paths of what counts as a job.
        loopback_only: whether nothing but loopback is served.
    """

    def __init__(
        self, app: ASGIApp, limits: ServeLimits, jobs: Collection[str], *, loopback_only: bool
    ) -> None:
        self._app, self._limits, self._jobs, self._loopback_only = app, limits, jobs, loopback_only
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        is_job = scope["path"] in self._jobs
        problem = self._problem(Headers(scope=scope), is_job)
        if problem is not None:
            return await _refuse(scope, receive, send, *problem)
        self._running += is_job
        try:
            await self._app(scope, self._limited(receive), send)
        finally:
            self._running -= is_job

    def _problem(self, headers: Headers, is_job: bool) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._loopback_only and _hostname(host) not in LOOPBACK:
            return 403, f"{host}: not a name of this service, which serves loopback only (see --host)."
        if origin is not None and origin.partition("://")[2] != host:
            return 403, f"a page of {origin} may not use this service."
        if int(headers.get("content-length") or 0) > self._limits.max_upload_bytes:
            return 413, self._too_large()
        if is_job and self._running >= self._limits.max_jobs:
            return 429, f"{self._running} jobs are running, as many as are taken here. Try again later."
        return None

    def _limited(self, receive: Receive) -> Receive:
        """The same, but an error where a body has more bytes than may be, whatever its header says."""
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
            if taken > self._limits.max_upload_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited

    def _too_large(self) -> str:
        return f"the recording is larger than {self._limits.max_upload_mb:g} MB, the limit here."


def _hostname(host: str) -> str | None:
    """The name in a Host header, without its port; None where it is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, line: str) -> None:
    if scope["type"] == "http":
        return await JSONResponse({"error": line}, status)(scope, receive, send)
    socket = WebSocket(scope, receive, send)
    if status == 403:  # other sites learn nothing
        return await socket.close(1008, line)
    await socket.accept()
    await socket.send_json({"error": line})
    await socket.close(1013, line)
