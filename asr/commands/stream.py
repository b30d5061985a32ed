"""`asr stream`: a microphone or a pipe -> text while it is spoken."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
from numpy.typing import NDArray

from asr.commands.common_options import Device, ModelName, Threads
from asr.decoding.config import DecoderSettings
from asr.device import limit_cores
from asr.errors import SettingsError
from asr.export.loading import load
from asr.frontend.microphone import Microphone
from asr.frontend.pcm import PcmFormat, PcmStream
from asr.model.shipped import DEFAULT_MODEL
from asr.recognition.streaming import StreamConfig, StreamResult, warm_up
from asr.transcripts.json_rows import result_row

__all__ = ["StreamSettings", "run"]

log = logging.getLogger("asr")


@dataclass(frozen=True)
class StreamSettings:
    """Transcribe what is being spoken: a line of text on stdout for each utterance, as soon as it has ended.

    The text so far is shown on a terminal (stderr); Ctrl-C ends the stream.
    """

    # - for the standard input: raw PCM (see --pcm) or WAV; nothing for the microphone
    source: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[-]", help_behavior_hint="(default: the microphone)"),
    ] = ""
    model: ModelName = DEFAULT_MODEL
    # txt: a line for each utterance; json: an object a line, for each change of an utterance's text, too
    format: Literal["txt", "json"] = "txt"
    # name or number of the microphone; `python -m sounddevice` lists them
    microphone: Annotated[
        str, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the system's)")
    ] = ""
    pcm: PcmFormat = field(default_factory=PcmFormat)
    stream: Annotated[StreamConfig, tyro.conf.arg(name="")] = field(default_factory=StreamConfig)
    device: Device = "auto"
    # of the model on a CPU
    threads: Threads = None
    decoding: Annotated[DecoderSettings, tyro.conf.arg(name="")] = field(default_factory=DecoderSettings)


def run(settings: StreamSettings) -> Iterator[str]:
    """Transcribe a stream.

    Yields:
        What to print: the text of each utterance, or JSON.

    Raises:
        AsrError: a setting, the model or the source cannot be used.
    """
    if settings.source not in ("", "-"):
        raise SettingsError(
            f"{settings.source}: a stream comes from the microphone (nothing) or the standard input (-). A "
            f"file is for `asr transcribe`."
        )
    with limit_cores(settings.threads):
        source = (
            PcmStream(sys.stdin.buffer, settings.pcm) if settings.source else Microphone(settings.microphone)
        )
        model = load(settings.model, device=settings.device, decoding=settings.decoding)
        stream = model.stream(source.sample_rate, settings.stream)
        warm_up(model.acoustic, model.decoder)
        if isinstance(source, Microphone):
            log.info("listening to %s; Ctrl-C ends it", source.name)
        for block in _until_interrupt(source.blocks()):
            yield from _lines(stream.accept(block), settings.format)
        yield from _lines(stream.finish(), settings.format)


def _until_interrupt(blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Blocks until Ctrl-C, which ends a stream as its source does; while a block is computed, it ends all."""
    try:
        yield from blocks
    except KeyboardInterrupt:
        log.info("the stream ends")


def _lines(results: Iterable[StreamResult], kind: str) -> Iterator[str]:
    for result in results:
        if kind == "json":
            yield json.dumps(result_row(result), ensure_ascii=False)
        elif result.final and result.text:
            yield result.text
        if not (result.final and result.text):
            log.info("%s", result.text, extra={"transient": True, "live": True})
