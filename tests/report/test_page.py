"""The page of an evaluation: what stands on it, how large it is, and that it works in a browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.cli import main
from asr.decoding.hypothesis import Hypothesis, Word
from asr.manifests.utterance import Utterance
from asr.report.media import Media
from asr.report.page import About, build_page, select
from asr.scoring.evaluation import Evaluation
from asr.scoring.wer import score


def evaluation(count: int, reference: str = "a b c", hypothesis: str = "a x c") -> Evaluation:
    """Utterances that all have the same texts."""
    utterances = tuple(
        Utterance(
            id=f"u{number}", audio_filepath=Path("/a.wav"), duration=3.0, text=reference,
            speaker=f"s{number % 7}",
        )
        for number in range(count)
    )  # fmt: skip
    words = tuple(Word(text, 0.5 * n, 0.5 * n + 0.4, 0.9) for n, text in enumerate(hypothesis.split()))
    result = score(
        [reference] * count, [hypothesis] * count, [one.id for one in utterances],
        speakers=[one.speaker for one in utterances],
    )  # fmt: skip
    return Evaluation(result, utterances, (Hypothesis(hypothesis, words, (), (), 0.0, 0.0),) * count, {})


def page_of(found: Evaluation, media: Media | None = None, **about: Any) -> str:
    selection = select(found.score)
    fields = [{"room": "hall" if number % 2 else "car"} for number in range(len(found.utterances))]
    return build_page(found, fields, selection, [media] * len(selection.ids), About("a title", {}, **about))


def data_of(html: str) -> Any:
    """What the script of the page reads."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert block
    return json.loads(block[1])


def test_three_thousand_utterances() -> None:
    """A page that no mail takes and that opens slowly: 3,000 utterances of 20 words have room for some of
    their sounds, and say so; no utterance is lost."""
    found = evaluation(3000, " ".join(f"word{number}" for number in range(20)), "word0 x word2")
    html = page_of(found, Media(b"\0" * 80_000, b"\0" * 10_000, 30.0, (), 0.04))
    assert 10_000_000 < len(html.encode()) < 20_000_000
    data = data_of(html)
    assert len(data["utterances"]) == 3000
    assert [len(data["lists"][name]) for name in ("worst", "random")] == [100, 100]
    shown = html.count('"sound"')
    assert 80 < shown < 200
    assert re.search(rf"{len(select(found.score).ids) - shown} of those shown have no sound", html)


def test_larger_sets_list_what_is_shown() -> None:
    """A page that grows without bound, or that is silent about what is not on it."""
    html = page_of(evaluation(5001, "a", "b"))
    data = data_of(html)
    listed = len(data["utterances"])
    assert listed == len({*data["lists"]["worst"], *data["lists"]["random"]})
    assert f"{5001 - listed} further utterances are not on this page" in html


def test_selection() -> None:
    """A random hundred that changes, or is the first hundred; a worst one that has no error."""
    found = evaluation(500).score
    assert select(found) == select(found)
    assert select(found, seed=1).random != select(found).random
    assert select(found).random != tuple(f"u{number}" for number in range(100))
    assert len({*select(found).random}) == 100
    assert select(evaluation(5, "a", "a").score).worst == ()
    ids = select(found).ids
    assert len({*ids}) == len(ids)
    assert {*ids} == {*select(found).worst, *select(found).random}


def test_texts_cannot_break_out_of_the_page() -> None:
    """A transcript that ends the script, or a name that is taken for HTML; anything loaded from elsewhere."""
    found = evaluation(2, "a </script><q> c", "a </script><q> d")
    about = About("<u>", {"topic": {"key": "<s>"}})
    html = build_page(found, [{"x": "<i>"}, {"x": "<em>"}], select(found.score), [None] * 2, about)
    for tag in ("<q>", "<i>", "<em>", "<u>", "<s>"):
        assert tag not in html.lower()
    assert html.count("</script>") == 4  # the data, two utterances, the script
    assert data_of(html)["utterances"][0][3] == "a </script><q> c"
    assert not re.findall(r"https?://|@import|url\(", html)


def test_what_there_is_is_shown() -> None:
    """A section of nothing, or a field of the manifest without its table."""
    html = page_of(evaluation(20))
    assert "<th>Speaker</th>" in html
    assert "<th>room</th>" in html
    assert "Whether confidences are right" in html
    assert "How it was trained" not in html
    assert "left out" not in html.lower()
    html = page_of(evaluation(20), gradients=[("a caption", "data:image/png;base64,AA")])
    assert "How it was trained" in html
    assert "a caption" in html


@pytest.fixture(scope="module")
def page_file(tones: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of real recordings and a model, whose errors are wrong transcripts, in the folder of a run."""
    folder = tmp_path_factory.mktemp("page")
    rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
        row["speaker"] = f"s{number % 2}"
    rows[0]["text"], rows[6]["text"] = "ab a c", "b ac bca c cab"
    manifest, model = folder / "test.jsonl", folder / "model.safetensors"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model.write_bytes(tones.model.read_bytes())
    metrics = [
        {
            "event": "epoch",
            "epoch": n,
            "update": 9 * n,
            "train_loss": 3 / n,
            "dev_loss": 2 / n,
            "dev_wer": 90 / n,
        }
        for n in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    assert main(["evaluate", str(manifest), "--model", str(model), "--out", str(folder / "out")]) == 0
    return folder / "out" / "report.html"


def test_content_of_a_real_page(page_file: Path) -> None:
    """Sounds, pictures, posteriors, curves or origin that do not reach the page."""
    html = page_file.read_text()
    details = [json.loads(text) for text in re.findall(r'id="detail-\d+">(.*?)</script>', html)]
    assert len(details) == 8
    for detail in details:
        assert detail["sound"].startswith("data:audio/ogg;base64,T2dnUw")
        assert detail["picture"].startswith("data:image/png;base64,iVBOR")
        assert detail["words"][0][1] < detail["words"][0][2] <= detail["seconds"] + 0.01
        assert {token for token, _, _ in detail["runs"]} <= {"a", "b", "c", " "}
    assert html.count('<figure class="chart">') == 3  # two of the training, one of the confidences
    assert "abc1234" in html


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page in a browser; fails if a script has an error or anything is loaded from elsewhere."""
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on(
        "request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url)
    )
    tab.goto(page_file.as_uri())
    yield tab
    tab.close()
    assert problems == []


def wait_until(page: Any, condition: str) -> None:
    """Wait for a condition of JavaScript; playwright's own way is against the page's security policy."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"has not happened: {condition}")


def test_the_list_does_not_wait_for_sounds(browser: Any, page_file: Path, tmp_path: Path) -> None:
    """Megabytes of sound that are read before anything is listed; one opened too early that fails."""
    html = page_file.read_text()
    early = tmp_path / "early.html"
    early.write_text(html[: html.index('id="detail-') + 500])  # in the middle of the first one
    tab = browser.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    for state, player in (("loading", 0), ("complete", 1)):
        text = html if player else early.read_text()
        script = f"Object.defineProperty(document, 'readyState', {{ get: () => '{state}' }});"
        early.write_text(text.replace("<script>", f"<script>{script}", 1))
        tab.goto(early.as_uri())
        assert tab.locator(".utterance").count() == 2
        tab.keyboard.press("j")
        assert tab.locator(".utterance[aria-expanded=true] .aligned").count() == 1
        assert tab.locator(".player").count() == player
    tab.close()
    assert problems == []


def test_keyboard(page: Any) -> None:
    """Keys that do nothing, or two utterances that are open at once; a sound that does not play."""
    opened = page.locator(".utterance[aria-expanded=true]")
    assert page.locator(".utterance").count() == 2  # those with errors
    page.keyboard.press("j")
    assert opened.locator(".facts").inner_text().startswith("1 of 3 wrong")
    page.keyboard.press("ArrowDown")
    assert opened.count() == 1
    assert "t6" in opened.locator(".facts").inner_text()
    page.keyboard.press("k")
    page.keyboard.press("Space")
    wait_until(page, "playing.audio.currentTime > 0")
    assert opened.locator(".player").inner_text().startswith("❚❚ Pause")
    page.keyboard.press(" ")
    wait_until(page, "document.querySelector('.utterance[aria-expanded=true] .player').innerText[0] == '▶'")
    page.keyboard.press("Escape")
    assert opened.count() == 0


def test_an_open_utterance(page: Any) -> None:
    """An alignment under the wrong words, a picture that does not load, posteriors that are not drawn."""
    page.locator(".utterance .head").first.click()
    box = page.locator(".detail")
    columns = box.locator(".aligned > span:not(.labels)").evaluate_all(
        "spans => spans.map((span) => [span.className, ...[...span.children].map((i) => i.textContent)])"
    )
    assert columns == [["C", "ab", "ab"], ["D", "a", ""], ["C", "c", "c"]]
    wait_until(page, "document.querySelector('.track img').naturalWidth > 20")
    pixels = "canvas => canvas.getContext('2d').getImageData(0, 20, canvas.width, 60).data.some(Boolean)"
    assert box.locator("canvas").evaluate(pixels)
    assert box.locator(".words button").all_inner_texts() == ["ab", "c"]
    box.locator(".words button").nth(1).click()
    wait_until(page, "playing.audio.currentTime > 0.3")


def test_lists_and_search(page: Any) -> None:
    """A search that misses a word, or a list that shows another one's utterances."""
    page.get_by_role("button", name="All 8").click()
    assert page.locator(".utterance").count() == 8
    page.keyboard.press("/")
    page.keyboard.type("bca")
    assert page.locator("#found").inner_text() == "1 found"
    page.keyboard.press("Escape")
    page.locator("[data-find=cab]").first.click()
    assert page.locator(".utterance").count() == 2
    page.locator("th", has_text="%WER").first.click()
    speakers = page.locator("tbody").first.locator("tr td:first-child").all_inner_texts()
    assert speakers == ["s0", "s1"]
    page.locator("th", has_text="%WER").first.click()
    assert page.locator("tbody").first.locator("tr td:first-child").all_inner_texts() == ["s1", "s0"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(browser: Any, page_file: Path, scheme: Any) -> None:
    """A page that has to be moved sideways on a phone, or whose text is as dark as its background."""
    tab = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    tab.goto(page_file.as_uri())
    tab.locator(".utterance .head").first.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    colours = tab.evaluate(
        "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
    assert abs(light[0] - light[1]) > 150
    assert (light[1] > 128) == (scheme == "light")
    tab.close()


def test_scripts_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """Characters of a script without spaces as one wrong word; Hebrew whose columns run from the left."""
    file, page = tmp_path / "page.html", browser.new_page()
    file.write_text(page_of(evaluation(2, "今天天气", "今夫天")), encoding="utf-8")
    page.goto(file.as_uri())
    row = page.locator(".utterance").first
    assert row.locator(".facts b").inner_text() == "2 of 4 wrong"
    assert row.locator(".text").inner_text() == "今天夫天气"
    assert row.locator("del").all_inner_texts() == ["天", "气"]
    assert row.locator(".text").get_attribute("dir") == "ltr"
    file.write_text(page_of(evaluation(2, "שלום עולם", "שלום אולם")), encoding="utf-8")
    page.goto(file.as_uri())
    row = page.locator(".utterance").first
    assert row.locator(".facts b").inner_text() == "1 of 2 wrong"
    assert row.locator(".text").get_attribute("dir") == "rtl"
    row.locator(".head").click()
    assert row.locator(".aligned").get_attribute("dir") == "rtl"
    page.close()
