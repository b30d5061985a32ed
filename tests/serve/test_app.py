"""The service without a browser: what it answers, and what it refuses."""

import asyncio
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

pytest.importorskip("fastapi", reason="no FastAPI: pip install '.[serve]'")

from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import asr
import asr.serve
from asr.frontend.segmentation import SegmentationConfig
from asr.recognition.streaming import StreamConfig
from asr.serve import app, service

MakeApp = Callable[..., Any]


@pytest.fixture
def client(make_app: MakeApp) -> Iterator[TestClient]:
    with TestClient(make_app(), base_url="http://localhost:8000") as found:
        yield found


def small(make_app: MakeApp, **limits: float) -> TestClient:
    return TestClient(make_app(**limits), base_url="http://localhost:8000")


def wav(samples: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def pcm(samples: NDArray[np.float32]) -> bytes:
    return (32767 * samples).astype("<i2").tobytes()


def letters(text: str) -> str:
    return text.replace(" ", "").replace("\n", "")


def test_each_format(client: TestClient, tones: Any) -> None:
    """Guards the formats for programs: the text of the file, its name, and nothing of where it was kept."""
    name, text = next(iter(tones.texts.items()))
    files = {"file": (name, (tones.folder / name).read_bytes())}
    row = client.post("/transcribe", files=files).json()
    assert (row["audio_filepath"], row["text"]) == (name, text)
    assert row["words"][0].keys() == {"word", "start", "end", "confidence"}
    kinds = ("txt", "srt", "vtt", "html")
    answers = {kind: client.post(f"/transcribe?format={kind}", files=files) for kind in kinds}
    assert answers["txt"].text == f"{text}\n"
    assert answers["srt"].text.startswith("1\n00:00:00,")
    assert answers["vtt"].text.startswith("WEBVTT")
    assert answers["vtt"].headers["content-type"] == "text/vtt; charset=utf-8"
    assert answers["html"].text.startswith("<!doctype html>")
    assert answers["html"].headers["content-type"] == "text/html; charset=utf-8"


def test_events_of_a_short_and_of_a_long_recording(client: TestClient, tones: Any) -> None:
    """Guards words that appear while a long recording is transcribed: each once, in order."""
    pause = 1e-3 * np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    sentence = np.concatenate([tones.sound("ab c a b c a b c"), pause])
    for samples, several in ((tones.sound("ab c"), False), (np.concatenate([sentence] * 14), True)):
        answer = client.post("/transcribe?format=events", files={"file": ("a.wav", wav(samples))})
        *rows, done = [json.loads(line) for line in answer.text.splitlines()]
        assert (len(rows) > 1) == several
        assert all(row["final"] for row in rows)
        words = [word for row in rows for word in row["words"]]
        assert " ".join(word["word"] for word in words) == done["text"]
        assert [word["start"] for word in words] == sorted(word["start"] for word in words)
        assert done["done"]
        assert done["duration"] == pytest.approx(len(samples) / 16_000, abs=0.01)
        assert "-->" in done["srt"]
        assert done["html"].startswith("<!doctype html>")


def test_recordings_that_cannot_be_used(client: TestClient) -> None:
    """Guards the one line of an error, which names the sender's file, and its status."""
    for name, data, message in (
        ("notes.txt", b"no sound", "notes.txt: not a readable audio file"),
        ("a.wav", b"", "a.wav: the file is empty"),
        ("../../a.wav", wav(np.zeros(10, np.float32)), "shorter than one window"),
    ):
        answer = client.post("/transcribe", files={"file": (name, data)})
        assert answer.status_code == 422
        assert message in answer.json()["error"]
        assert "tmp" not in answer.json()["error"]
        events = client.post("/transcribe?format=events", files={"file": (name, data)})
        assert message in json.loads(events.text)["error"]
    assert client.post("/transcribe").json() == {"error": "the request cannot be used: file: Field required."}
    assert client.get("/secret").json() == {"error": "/secret: there is nothing here."}
    assert client.post("/transcribe?format=doc", files={"file": b"x"}).status_code == 422


def test_too_large_and_too_long(make_app: MakeApp, tones: Any) -> None:
    """Guards memory and disk: by the header, without one, and by the length of the sound."""
    client = small(make_app, max_upload_mb=0.1, max_duration_s=1.0)
    answer = client.post("/transcribe", files={"file": ("a.wav", bytes(200_000))})
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "the recording is larger than 0.1 MB, the limit here.",
    )
    form = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    parts = iter([head, *[bytes(50_000)] * 4, b"\r\n--x--\r\n"])
    answer = client.post("/transcribe", content=parts, headers=form)
    assert answer.status_code == 413
    answer = client.post("/transcribe", files={"file": ("a.wav", wav(tones.sound("ab c a b")))})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("a.wav is longer than 1 s, the limit here.")
    with client.websocket_connect("ws://localhost:8000/stream") as socket:
        socket.send_bytes(bytes(40_000))
        assert "the stream is longer than 1 s" in socket.receive_json()["error"]


def test_too_many(make_app: MakeApp, tones: Any) -> None:
    """Guards the number of jobs, streams among them, and that one that has ended is not counted."""
    client = small(make_app, max_jobs=1)
    files = {"file": ("a.wav", wav(tones.sound("ab c")))}
    with client.websocket_connect("ws://localhost:8000/stream") as socket:
        socket.send_bytes(bytes(320))
        answer = client.post("/transcribe", files=files)
        assert answer.status_code == 429
        assert answer.json() == {"error": "1 jobs are running, as many as are taken here. Try again later."}
        with client.websocket_connect("ws://localhost:8000/stream") as second:
            assert "1 jobs are running" in second.receive_json()["error"]
        assert client.get("/about/limits").status_code == 200
    assert client.post("/transcribe", files=files).status_code == 200


def test_other_sites_and_other_names(client: TestClient, tones: Any) -> None:
    """Guards a service on one's own machine against pages of other sites, also under a name of theirs."""
    files = {"file": ("a.wav", wav(tones.sound("ab c")))}
    evil = {"origin": "http://evil.example"}
    assert client.post("/transcribe", files=files, headers=evil).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect("ws://localhost:8000/stream", headers=evil),
    ):
        pass
    assert refused.value.code == 1008
    assert client.get("/", headers={"host": "["}).status_code == 403
    assert client.post("/transcribe", files=files, headers={"origin": "null"}).status_code == 403
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    assert client.get("/", headers=rebound).status_code == 403
    own = {"origin": "http://localhost:8000"}
    assert client.post("/transcribe", files=files, headers=own).status_code == 200
    with client.websocket_connect("ws://localhost:8000/stream", headers=own) as socket:
        socket.send_text("end")
        assert socket.receive_json()["done"]


def test_stream(client: TestClient, tones: Any) -> None:
    """Guards the whole way of a microphone: partial and final results, then text and subtitles of all."""
    pause = 1e-3 * np.random.default_rng(9).standard_normal(16_000).astype(np.float32)
    samples = np.concatenate([tones.sound("ab c a b"), pause, tones.sound("cab bca", seed=1)])
    rows = []
    with client.websocket_connect("ws://localhost:8000/stream?rate=16000") as socket:
        for block in np.array_split(samples, 30):
            socket.send_bytes(pcm(block))
        socket.send_text("end")
        while not (rows and rows[-1].get("done")):
            rows.append(socket.receive_json())
    *results, done = rows
    finals = [row for row in results if row["final"]]
    assert [letters(row["text"]) for row in finals] == ["abcab", "cabbca"]
    assert len(results) > 4
    assert letters(done["text"]) == "abcabcabbca"
    assert done["duration"] == pytest.approx(len(samples) / 16_000, abs=0.01)


def test_nobody_waits_any_more(
    make_app: MakeApp, tones: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Guards the thread of recordings against hours of one whose sender has left."""
    pause = np.zeros(8_000, np.float32)
    samples = np.concatenate([part for n in range(40) for part in (tones.sound("ab c a b c", seed=n), pause)])
    (tmp_path / "a.wav").write_bytes(wav(samples))
    make_app()  # finds speech by loudness
    running = service.Service(asr.load(tones.model, device="cpu"), StreamConfig(), 3600)
    calls: list[int] = []
    left = threading.Event()
    settled = service._settled

    def waits_at_the_second(words: Any) -> Any:
        calls.append(len(words))
        if len(calls) == 2:
            left.wait()
        return settled(words)

    monkeypatch.setattr(service, "_settled", waits_at_the_second)
    monkeypatch.setattr(service, "SegmentationConfig", lambda: SegmentationConfig(max_segment_s=10))

    async def leave() -> None:
        results = running.transcribe(tmp_path / "a.wav", "a.wav")
        await anext(results)
        await results.aclose()  # type: ignore[attr-defined]
        left.set()
        await asyncio.get_running_loop().run_in_executor(running._recordings, lambda: None)

    asyncio.run(leave())
    running.stop()
    assert len(calls) <= 2  # of at least six


@pytest.mark.parametrize(
    ("address", "data", "message"),
    [
        ("ws://localhost:8000/stream?rate=16", b"", "sample_rate is 16 Hz"),
        ("ws://localhost:8000/stream", bytes(3), "a message of 3 bytes. Expected whole samples"),
    ],
)
def test_streams_that_cannot_be_used(address: str, data: bytes, message: str, client: TestClient) -> None:
    """Guards the one line of an error."""
    with client.websocket_connect(address) as socket:
        if data:
            socket.send_bytes(data)
        assert message in socket.receive_json()["error"]
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_an_idle_stream_is_closed(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a job that a sleeping browser would hold."""
    monkeypatch.setattr(app, "_IDLE_S", 0.01)
    with client.websocket_connect("ws://localhost:8000/stream") as socket:
        assert "no samples came" in socket.receive_json()["error"]


def test_page_comes_from_here_alone(client: TestClient) -> None:
    """Guards a page that loads from elsewhere, or that another page could show in a frame."""
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    for name in [name for name in named if name != "data:,"]:
        assert client.get(f"/{name}").status_code == 200
    for file in (Path(asr.serve.__file__).parent / "page").glob("*.*"):
        assert not re.search(r"https?://(?!localhost)", file.read_text(encoding="utf-8")), file


def test_page_has_its_colours(client: TestClient) -> None:
    """A colour that the page uses, and that is not in the file which it shares with the reports."""
    sheets = re.findall(r'rel="stylesheet" href="([^"]+)"', client.get("/").text)
    styles = "".join(client.get(f"/{name}").text for name in sheets)
    used = {*re.findall(r"var\((--[\w-]+)\)", styles)}
    assert len(used) > 5
    assert used <= {*re.findall(r"(--[\w-]+):", styles)}
