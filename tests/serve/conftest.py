"""A service with the tiny model that knows the language of tones."""

from collections.abc import Callable
from typing import Any

import pytest

import asr
from asr.frontend.endpointing import EndpointConfig
from asr.recognition.streaming import StreamConfig

STREAM = StreamConfig(0.16, 0.32, EndpointConfig(vad="energy"))  # tones are no speech for silero


@pytest.fixture
def make_app(tones: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes the application, with other limits."""
    pytest.importorskip("fastapi", reason="no FastAPI: pip install '.[serve]'")
    from asr.serve import app
    from asr.serve.limits import ServeLimits

    monkeypatch.setattr("asr.recognition.long_audio.find_vad", lambda name: "energy")
    model = asr.load(tones.model, device="cpu")

    def make(**limits: float) -> Any:
        return app.make_app(model, STREAM, ServeLimits(**limits), "tones")  # type: ignore[arg-type]

    return make
