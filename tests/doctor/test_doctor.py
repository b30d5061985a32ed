"""The doctor: every check on a recording or transcript made for it, and silence on good ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.doctor.examination import examine
from asr.doctor.findings import CHECKS
from asr.doctor.report import report
from asr.manifests.manifest import read_manifest
from tests.browser import chromium
from tests.conftest import Tones

Run = Callable[..., tuple[int, str, str]]
Samples = NDArray[np.float64]

RATE = 16_000


def speech(seed: int, seconds: float = 2.0) -> Samples:
    """Noise with the slope of speech, in syllables."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(RATE * seconds)) / RATE
    noise = np.cumsum(rng.standard_normal(len(time))) * 0.1
    noise = noise - np.convolve(noise, np.ones(200) / 200, "same") + 0.05 * rng.standard_normal(len(time))
    return np.asarray(0.1 * noise / noise.std() * (0.6 + 0.4 * np.sin(8 * np.pi * time)))


class Corpus:
    """A folder with manifests, of which every line can be good or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}

    def add(self, name: str, samples: Samples | None = None, split: str = "train", rate: int = RATE,
            **fields: Any) -> None:  # fmt: skip
        """An utterance with its audio, and fields that are not what they should be."""
        number = sum(map(len, self.rows.values()))
        audio = speech(number) if samples is None else samples
        soundfile.write(self.folder / f"{name}.wav", audio, rate, subtype="PCM_16")
        row = {"id": name, "audio_filepath": f"{name}.wav", "duration": len(audio) / rate,
               "text": f"this is sentence {'abcdefghij'[number % 10]} and {'klmnop'[number % 6]}",
               "speaker": f"{split}-{number % 3}"}  # fmt: skip
        self.rows[split].append(row | fields)

    def paths(self) -> list[Path]:
        for split, rows in self.rows.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        return [self.folder / f"{split}.jsonl" for split, rows in self.rows.items() if rows]

    def checks(self, *, quick: bool = False) -> dict[str, list[str]]:
        """What is found: check -> ids."""
        found: dict[str, list[str]] = {}
        examination = examine(self.paths(), normalizer="english", workers=2, quick=quick)
        for one in examination.findings:
            found.setdefault(one.check, []).append(one.id)
        return found


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def test_good_corpus(corpus: Corpus) -> None:
    """False alarms, which make people ignore the true ones."""
    for number in range(20):
        corpus.add(f"u{number}", split="dev" if number > 16 else "train", text=f"good {number * 'x'} ok")
    assert set(corpus.checks()) <= {"rare", "speaking-rate"}


def test_audio(corpus: Corpus) -> None:
    """Every fault of a recording, and nothing else for it."""
    good = speech(99)
    corpus.add("good")
    corpus.add("clipped", np.clip(8 * good, -0.9, 0.9))
    corpus.add("silent", np.zeros(RATE))
    corpus.add("quiet", 0.02 * good)
    corpus.add("dc", good + 0.1)
    corpus.add("inverted", np.stack([good, -good], 1))
    corpus.add("stereo", np.stack([speech(50), 0.5 * speech(51)], 1))
    narrow = np.fft.rfft(speech(52, 4.0))
    narrow[np.fft.rfftfreq(4 * RATE, 1 / RATE) > 3900] = 0
    corpus.add("telephone", np.fft.irfft(narrow))
    corpus.add("low", speech(53), rate=8000)
    corpus.add("short", duration=2.5)
    corpus.add("long", duration=0.9, text="a")
    corpus.add("after", offset=2.0)
    corpus.add("gone")
    corpus.add("broken")
    corpus.add("infinite")
    corpus.add("twice", speech(0), "dev")
    (corpus.folder / "gone.wav").unlink()
    (corpus.folder / "broken.wav").write_bytes(b"RIFFxxxx")
    soundfile.write(corpus.folder / "infinite.wav", np.append(np.inf, good), RATE, subtype="FLOAT")
    found = corpus.checks()
    for name in ("rare", "same-text", "shared-sentence"):
        found.pop(name, None)
    assert found == {
        "missing-audio": ["gone"], "unreadable-audio": ["broken", "infinite"], "after-the-end": ["after"],
        "duration": ["short"], "silence": ["silent"], "same-audio-across": ["twice"],
        "unused-audio": ["long"], "antiphase": ["inverted"], "clipping": ["clipped"], "quiet": ["quiet"],
        "dc": ["dc"], "bandwidth": ["telephone"], "low-rate": ["low"], "channels": ["inverted", "stereo"],
        "rates": [""],
    }  # fmt: skip


def test_headers_alone(corpus: Corpus) -> None:
    """Recordings that are decoded although only headers were asked for; faults that headers do show."""
    corpus.add("silent", np.zeros(RATE))
    corpus.add("short", duration=2.5)
    corpus.add("gone")
    (corpus.folder / "gone.wav").unlink()
    assert corpus.checks(quick=True) == {"missing-audio": ["gone"], "duration": ["short"]}


def test_texts(corpus: Corpus) -> None:
    """What becomes a token without anybody wanting it."""
    for number in range(60):
        corpus.add(f"u{number}", speech(number, 4.0), text="the usual words of a sentence of some length")
    corpus.add("empty", text=" … ")
    corpus.add("digits", text="call 112 now and do not wait for help")
    corpus.add("symbol", text="It costs five € and not one cent more")
    corpus.add("turkish", text="İstanbul".lower() + " is a large city of that country")
    corpus.add("control", text="a control\ue000 character in this sentence")
    corpus.add("letter", text="the garçon is no english word here")
    corpus.add("fast", text="far too many words for so short a recording of two seconds, " * 2)
    found = corpus.checks()
    rare = found.pop("rare")
    assert {*found} >= {"empty-text", "digits", "symbol", "mark", "control", "alignment", "same-text", "case"}
    assert [found[name] for name in ("empty-text", "digits", "symbol", "mark", "control", "alignment")] == [
        ["empty"], ["digits"], ["symbol"], ["turkish"], ["control"], ["fast"],
    ]  # fmt: skip
    assert "letter" in rare
    assert found["speaking-rate"][:1] == ["fast"]


def test_manifests_together(corpus: Corpus) -> None:
    """Test sets that are not held out."""
    for number in range(6):
        corpus.add(f"u{number}", text=f"sentence {'abcdef'[number]}")
    corpus.add("again", speech(0), text="sentence g")
    corpus.add("same words", split="dev", text="Sentence A!")
    corpus.add("same person", split="dev", speaker="train-1", text="new words")
    examination = examine(corpus.paths(), normalizer="english", workers=1)
    details = {one.check: one.detail for one in examination.findings}
    assert details["same-audio"] == "as u0 of train.jsonl"
    assert details["shared-sentence"].startswith("1 of 2, such as 'sentence a'")
    assert details["shared-speaker"] == "train-1, who have 1 of 2 utterances"
    assert "shared-sentence        1  sentences of" in report(examination)


def test_characters_that_train_lacks(corpus: Corpus) -> None:
    """A verdict of "ready" for manifests at which `asr train` stops."""
    corpus.add("u0", text="one sentence in small letters of it")
    corpus.add("u1", split="dev", text="letters of train, sent on")
    corpus.add("u2", split="dev", text="version 2.0 of a sentence")
    examination = examine(corpus.paths(), normalizer="english", workers=1)
    found = [(one.id, one.detail) for one in examination.findings if one.check == "outside"]
    assert found == [("u2", "'v', '2', '.', '0' in 'version 2.0 of a sentence'")]
    assert "--text.unknown drop" in report(examination)


def test_the_screen_counts_what_its_titles_name(corpus: Corpus) -> None:
    """One speaker, or one sentence, for the hundreds that a manifest shares with training."""
    for number in range(12):
        split = "dev" if number > 5 else "train"
        corpus.add(f"u{number}", split=split, text=f"word {'abcdef'[number % 6]}", speaker=f"s{number % 6}")
    printed = report(examine(corpus.paths(), normalizer="english", workers=1))
    assert "shared-speaker         6  speakers of train" in printed
    assert "s0, s1, s2, s3, s4 and 1 more, who have 6 of 6 utterances" in printed
    assert "shared-sentence        6  sentences of dev or test" in printed
    assert "ready to train: 0 errors, 1 warning, 1 note." in printed


def test_short_words_and_coarse_steps_are_no_faults(corpus: Corpus) -> None:
    """A "no", which has nothing above 4 kHz, as a telephone; eight bits as clipping; a short word's pause."""
    narrow = np.fft.rfft(speech(52, 1.0))
    narrow[np.fft.rfftfreq(RATE, 1 / RATE) > 3900] = 0
    no = np.fft.irfft(narrow)
    corpus.add("no", no, speaker="a", text="no")
    for number in range(3):
        corpus.add(f"phone{number}", np.roll(no, 50 * number + 50), speaker="b", text="no")
        corpus.add(f"yes{number}", speech(60 + number, 1.0), speaker="a", text="yes")
    steep = np.fft.rfft(speech(53, 4.0))
    corpus.add(
        "steep", np.fft.irfft(steep / (1 + (np.fft.rfftfreq(4 * RATE, 1 / RATE) / 1000) ** 5)), text="a"
    )
    corpus.add("coarse", np.round(speech(70, 0.1) * 40) / 128, text="a")
    for number in range(25):
        corpus.add(f"u{number}", speech(number, 1.0), text="right", duration=0.72 if number == 7 else 1.0)
    found = corpus.checks()
    assert found["bandwidth"] == ["phone0", "phone1", "phone2"]
    assert "clipping" not in found
    assert "speaking-rate" not in found


def test_speaking_rates_of_texts_of_a_length(corpus: Corpus) -> None:
    """A sentence that most of a recording lacks, among words that have as many characters a second."""
    for number in range(25):
        corpus.add(f"word{number}", speech(number, 2.0), text="letters")
        corpus.add(f"long{number}", speech(100 + number, 2.0), text="the usual words of a longer sentence")
    corpus.add("lacks", speech(200, 9.0), text="the usual words of a longer sentence")
    assert corpus.checks()["speaking-rate"] == ["lacks"]


def test_lines_that_are_no_utterance(corpus: Corpus, run: Run) -> None:
    """One broken line that hides all others."""
    corpus.add("good")
    (path,) = corpus.paths()
    path.write_text('{"audio_filepath": 3}\n{"id": "good"\n' + path.read_text() * 2)
    status, out, err = run("doctor", path)
    assert status == 1
    assert "line                   3  lines that are no utterance" in out
    assert "error: 3 errors in " in err


def test_manifest_without_an_utterance(run: Run, tmp_path: Path) -> None:
    """An empty file that is ready to train; UTF-16, of which each line is an error of its own."""
    (tmp_path / "a.jsonl").write_text("\n")
    status, out, err = run("doctor", tmp_path / "a.jsonl", "--json")
    assert (status, json.loads(out)["check"]) == (1, "no-utterance")
    assert "1 error in" in err
    (tmp_path / "a.jsonl").write_bytes('{"id": "a"}\n{"id": "b"}\n'.encode("utf-16"))
    status, out, err = run("doctor", tmp_path / "a.jsonl")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is UTF-16. Expected UTF-8 text. Convert it: iconv -f UTF-16" in err


def test_command(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    """Exit status, JSON that cannot be read, and a fixed manifest that still has faults."""
    corpus.add("good")
    corpus.add("short", duration=2.5)
    corpus.add("unused", duration=0.9, text="a")
    corpus.add("silent", np.zeros(RATE))
    path, *_ = corpus.paths()
    status, out, _ = run("doctor", path)
    assert status == 1
    assert "verdict: not ready: 2 errors, " in out
    assert "alphabet: " in out
    status, out, _ = run("doctor", path, "--json", "--fix", tmp_path / "fixed")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert {row["check"]: row["id"] for row in rows if row["severity"] == "error"} == {
        "duration": "short", "silence": "silent",
    }  # fmt: skip
    fixed = read_manifest(tmp_path / "fixed/train.jsonl")
    assert [(one.id, one.duration) for one in fixed] == [("good", 2.0), ("short", 2.0), ("unused", 2.0)]
    status, out, err = run("doctor", tmp_path / "fixed/train.jsonl")
    assert (status, err) == (0, "")
    assert "verdict: ready to train" in out
    status, _, err = run("doctor", path, "--fix", path)
    assert (status, "--fix: " in err, "is a file. Expected a folder" in err) == (2, True, True)
    status, _, err = run("doctor", path, "--fix", tmp_path)
    assert status == 2
    assert "is the folder of the manifests. Expected another one" in err


def test_page(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    """A page without some findings, or that runs what a transcript says; a manifest that it overwrites."""
    for number in range(310):
        corpus.rows["train"].append({"id": f"<b>{number}", "audio_filepath": "gone.wav", "duration": 9.0,
                                     "text": "a <script>alert(1)</script> 7"})  # fmt: skip
    path, *_ = corpus.paths()
    status, out, _ = run("doctor", path, "--quick", "--report", tmp_path / "doctor.html")
    assert (status, f"report: {tmp_path / 'doctor.html'}" in out) == (1, True)
    html = (tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert "verdict: not ready: 310 errors, " in html
    assert "&lt;b&gt;0</td>" in html
    assert "&lt;b&gt;305</td>" not in html
    assert "<script>alert" not in html
    assert "and 10 more: asr doctor --json prints all" in html
    assert 'class="odd" title="digit seven"' in html
    status, _, err = run("doctor", path, "--report", path)
    assert (status, "would overwrite what is read" in err) == (2, True)


def test_page_in_a_browser(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    """A script that stops, findings that a search loses, a page wider than a telephone."""
    corpus.add("short", duration=2.5)
    corpus.add("silent", np.zeros(RATE))
    path, *_ = corpus.paths()
    run("doctor", path, "--report", tmp_path / "doctor.html")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"file://{tmp_path / 'doctor.html'}")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator(".check[open]").count() == 0
        page.keyboard.press("/")
        page.keyboard.type("silent")
        assert page.locator("#found").inner_text() == "1 found"
        (opened,) = page.locator(".check:visible").all()
        assert "silence with a transcript" in opened.inner_text()
        assert "peak -180 dB" in opened.inner_text()
        assert said == []


def test_model_finds_a_wrong_transcript(tones: Tones, run: Run, tmp_path: Path) -> None:
    """Transcripts of other recordings, which no other check sees."""
    rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
    rows[5]["text"] = "cba a"
    path = tmp_path / "tones.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = run("doctor", path, "--json", "--model", tones.model, "--normalizer", "verbatim")
    found = [json.loads(line) for line in out.splitlines()]
    (one,) = (row for row in found if row["check"] == "disagreement")
    assert one["id"] == rows[5]["id"]
    assert "the model hears 'abcabc'" in one["detail"]


def test_every_check_is_tested() -> None:
    """A check that was added and never fired."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in CHECKS if f'"{name}"' not in text and name not in ("line", "long")] == []


def test_scripts_of_many_characters(corpus: Corpus) -> None:
    """Thousands of warnings about a Chinese text, each of whose characters is rare; a strange letter hidden
    among them; the dot of a Turkish capital with the right rules.
    """
    for number in range(30):
        text = "".join(chr(0x4E00 + 80 * number + index) for index in range(80))
        corpus.add(f"u{number}", text=f"{text}〇 가{'Ж' if number == 7 else ''}", duration=2.0)
    found = examine(corpus.paths(), normalizer="words", workers=1).findings
    assert [one.id for one in found if one.check == "rare"] == ["u7"]
    assert not [one for one in found if one.check == "digits"]
    corpus.rows["train"] = []
    corpus.add("turkish", text="İyi IŞIK")
    rules = {"words": ["mark"], "words:tr": []}
    for name, expected in rules.items():
        found = examine(corpus.paths(), normalizer=name, workers=1).findings
        assert [one.check for one in found if one.check == "mark"] == expected
