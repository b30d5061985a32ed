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
        # The browser's own lines about a request that has failed are no fault of the page.
        assert [line for line in problems if not line.startswith("Failed to load resource")] == []


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

    page.locator("#speak").press("Enter")
    page.wait_for_selector("#level:visible")
    page.wait_for_selector("article:first-child .partial")  # text appears while it is spoken
    page.wait_for_selector("article:first-child .word")  # the end-point makes it final
    page.keyboard.press("Enter")  # it has kept the focus
    speech = page.locator("article:first-child")
    speech.locator(".srt:visible").wait_for()
    letters = "".join(speech.locator(".word").all_inner_texts())
    # The tiny model may lose a letter after the browser's gain control, with silence around.
    assert SequenceMatcher(None, letters, "abcab").ratio() > 0.5, letters
    speech.locator(".play:visible").wait_for()
    speech.locator(".word").first.press("Enter")
    page.wait_for_selector("article:first-child .word.playing")
    for format_name, start in (("srt", "1\n00:00:0"), ("html", "<!doctype html>")):
        with page.expect_download() as download:
            speech.locator(f".{format_name}").click()
        assert download.value.suggested_filename.endswith(f".{format_name}")
        assert Path(download.value.path()).read_text().startswith(start)


def test_words_by_keyboard(address: str, page: Any, tones: Any) -> None:
    """Every word is a stop of the tab key, so that the buttons after a long text are far away."""
    page.goto(address)
    page.set_input_files("#files", tones.files[2])
    page.wait_for_selector(".srt:visible")
    page.wait_for_selector(".play:visible")
    assert page.locator(".word").all_inner_texts() == ["a", "b", "c"] * 2

    def focused() -> int:
        found: int = page.evaluate("[...document.querySelectorAll('.word')].indexOf(document.activeElement)")
        return found

    page.locator("#speak").focus()
    page.keyboard.press("Tab")
    assert focused() == 0
    for key, index in (("ArrowRight", 1), ("End", 5), ("ArrowRight", 5), ("ArrowLeft", 4), ("Home", 0)):
        page.keyboard.press(key)
        assert focused() == index, key
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "play"
    page.keyboard.press("Shift+Tab")
    assert focused() == 1  # where it was left
    assert page.locator(".hear").inner_text() == "Click a word to hear it."


def answering(**answer: Any) -> Callable[[Any], None]:
    """What answers a request of the page in the service's place."""
    return lambda route: route.fulfill(**answer)


def test_a_service_that_fails(address: str, page: Any, tones: Any) -> None:
    """The words of an exception on the page; or "Transcribing …" for ever, after half a transcript."""
    page.goto(address)
    page.wait_for_selector("text=Model: tones")
    final = '{"final": true, "text": "ab", "words": [{"word": "ab", "start": 0, "end": 1, "confidence": 1}]}'
    answers: list[tuple[dict[str, Any], str]] = [
        ({"status": 500, "body": "Internal Server Error"}, "The service has failed (status 500). Try again."),
        (
            {"status": 200, "body": f"{final}\n"},
            "The service has stopped before the transcript was complete.",
        ),
    ]
    for answer, message in answers:
        page.route("**/transcribe*", answering(**answer))
        page.set_input_files("#files", tones.files[0])
        page.locator("article:first-child .wrong", has_text=message).wait_for()
    assert page.locator("article:first-child .word").all_inner_texts() == ["ab"]
    page.route("**/transcribe*", lambda route: route.abort())
    page.set_input_files("#files", tones.files[0])
    unreachable = "The service cannot be reached. Is it still running?"
    page.locator("article:first-child .wrong", has_text=unreachable).wait_for()
    page.route("**/about/limits", lambda route: route.abort())
    page.reload()
    page.locator("#problem", has_text=unreachable).wait_for()


def test_a_folder_among_recordings(address: str, page: Any) -> None:
    """A folder that is dropped ends as "Failed to fetch"."""
    page.goto(address)
    page.evaluate(
        """() => {
          const file = new File(["x"], "folder");
          file.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("", "NotFoundError")) });
          Object.defineProperty(document.getElementById("files"), "files", { value: [file] });
          document.getElementById("files").dispatchEvent(new Event("change"));
        }"""
    )
    page.locator(".wrong", has_text="It cannot be read: a folder, or a file that was moved.").wait_for()
