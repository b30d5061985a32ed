"""`asr serve`: a web page and an HTTP and WebSocket service on this machine."""

import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from asr.commands.common_options import Device, ModelName, Threads
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.device import choose_device, limit_cores, usable_cores
from asr.errors import SettingsError, check_number
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.recognition.streaming import StreamConfig, warm_up
from asr.recognition.transcription import Model

try:
    from asr.serve.limits import LOOPBACK, ServeLimits
except ImportError:
    raise SettingsError("asr serve needs FastAPI and uvicorn: pip install 'asr-rnn[serve]'") from None

__all__ = ["ServeSettings", "run"]

log = logging.getLogger("asr")

_LARGEST_MESSAGE = 1 << 20  # bytes of a WebSocket
_GRACE_S = 5  # that open connections get after Ctrl-C


@dataclass(frozen=True)
class ServeSettings:
    """Serve a page that transcribes recordings and speech, and the same for programs.

    Only this machine reaches it, unless --host is given: there is no password and no encryption. Ctrl-C ends
    it.
    """

    model: ModelName = DEFAULT_MODEL
    host: str = "127.0.0.1"  # the address that is served; 0.0.0.0 for all of this machine
    port: int = 8000  # 0 takes a free one
    limits: ServeLimits = field(default_factory=ServeLimits)
    stream: Annotated[StreamConfig, tyro.conf.arg(name="")] = field(default_factory=StreamConfig)
    device: Device = "auto"
    # of recordings and of streams, each
    threads: Annotated[Threads, tyro.conf.arg(help_behavior_hint="(default: half the cores)")] = None
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: ServeSettings) -> None:
    """Serve until Ctrl-C.

    Raises:
        AsrError: a setting, the model or the address cannot be used.
    """
    import uvicorn

    from asr.serve.app import make_app

    threads = max(1, usable_cores() // 2) if settings.threads is None else settings.threads
    with limit_cores(threads), _listen(settings.host, settings.port) as listening:
        files = find_model(settings.model)
        acoustic = load_model(files.path, choose_device(settings.device))
        model = Model(acoustic, build_decoder(settings.decoding.with_defaults_of(files), acoustic))
        warm_up(model.acoustic, model.decoder)
        loopback_only = settings.host in LOOPBACK
        name = files.name or files.path.stem
        app = make_app(model, settings.stream, settings.limits, name, loopback_only=loopback_only)
        host, port = listening.getsockname()[:2]
        shown = "localhost" if loopback_only else f"[{host}]" if ":" in host else host
        log.info("serving %s at http://%s:%d; Ctrl-C ends it", name, shown, port)
        if not loopback_only:
            log.warning(
                "--host %s: whoever reaches this address can use the service; there is no password and no "
                "encryption. Browsers allow the microphone only on localhost and over https.",
                settings.host,
            )
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, server_header=False,
            ws_max_size=_LARGEST_MESSAGE, timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # uvicorn has ended its connections then
            uvicorn.Server(config).run([listening])
        log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    check_number("--port", port, least=0, most=65535)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise SettingsError(
            f"--host {host} --port {port}: cannot be served: {reason}. Choose another port, or 0 for a free "
            f"one."
        ) from None
