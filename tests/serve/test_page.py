"""The page in a real browser, with a microphone that plays a file."""

import socket
import threading
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.browser import chromium

uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn: pip install '.[serve]'")


@pytest.fixture
def address(make_app: Callable[..., Any]) -> Iterator[str]:
    """A running service."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(max_upload_mb=1), log_config=None, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def spoken(tones: Any, tmp_path: Path) -> Path:
    """What the microphone plays: an utterance, after the time that a busy machine needs to begin."""
    rate = 48_000
    noise = 1e-3 * np.random.default_rng(9).standard_normal(4 * rate).astype(np.float32)
    samples = np.concatenate([noise, tones.sound("ab c a b", rate), noise])
    soundfile.write(tmp_path / "spoken.wav", samples, rate, subtype="PCM_16")
    return tmp_path / "spoken.wav"


@pytest.fixture
def page(spoken: Path) -> Iterator[Any]:
    """A page of headless Chromium, which may use the microphone."""
    microphone = f"--use-file-for-fake-audio-capture={spoken}%noloop"
    devices = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", microphone)
    with chromium(*devices) as browser:
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda line: problems.append(line.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        assert problems == []


def test_recordings_and_speech(address: str, page: Any, tones: Any, tmp_path: Path) -> None:
    """The page as a person uses it: files, an error, the microphone, a word that is heard, subtitles."""
    page.goto(address)
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(1_100_000))
    notes = tmp_path / "notes.txt"
    notes.write_text("no sound")
    page.wait_for_selector("text=Model: tones")
    page.set_input_files("#files", [tones.files[0], str(notes), str(large)])
    page.wait_for_selector("article:nth-child(3) .srt:visible")
    page.wait_for_selector("article:nth-child(2) .wrong:has-text('notes.txt: not a readable audio file')")
    page.wait_for_selector("article:nth-child(1) .wrong:has-text('Larger than 1 MB')")
    first = page.locator("article:nth-child(3)")
    assert " ".join(first.locator(".word").all_inner_texts()) == tones.texts["t0.wav"]

    page.click("#speak")
    page.wait_for_selector("#level:visible")
    page.wait_for_selector("article:first-child .partial")  # text appears while it is spoken
    page.wait_for_selector("article:first-child .word")  # the end-point makes it final
    page.click("#speak")
    speech = page.locator("article:first-child")
    speech.locator(".srt:visible").wait_for()
    letters = "".join(speech.locator(".word").all_inner_texts())
    # The tiny model may lose a letter after the browser's gain control, with silence around.
    assert SequenceMatcher(None, letters, "abcab").ratio() > 0.5, letters
    speech.locator(".play:visible").wait_for()
    speech.locator(".word").first.press("Enter")
    page.wait_for_selector("article:first-child .word.playing")
    with page.expect_download() as download:
        speech.locator(".srt").click()
    assert "-->" in Path(download.value.path()).read_text()
