"""The doctor: every check on a recording or transcript made for it, and silence on good ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.corpora.manifest import read_manifest
from asr.doctor.examination import examine
from asr.doctor.findings import CHECKS
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
    narrow = np.fft.rfft(speech(52))
    narrow[np.fft.rfftfreq(2 * RATE, 1 / RATE) > 3900] = 0
    corpus.add("telephone", np.fft.irfft(narrow))
    corpus.add("low", speech(53), rate=8000)
    corpus.add("short", duration=2.5)
    corpus.add("long", duration=0.9, text="a")
    corpus.add("after", offset=2.0)
    corpus.add("gone")
    corpus.add("broken")
    corpus.add("twice", speech(0), "dev")
    (corpus.folder / "gone.wav").unlink()
    (corpus.folder / "broken.wav").write_bytes(b"RIFFxxxx")
    found = corpus.checks()
    for name in ("rare", "same-text", "shared-sentence"):
        found.pop(name, None)
    assert found == {
        "missing-audio": ["gone"], "unreadable-audio": ["broken"], "after-the-end": ["after"],
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
    assert details["shared-speaker"].startswith("1 speakers of 1 utterances: train-1")


def test_lines_that_are_no_utterance(corpus: Corpus, run: Run) -> None:
    """One broken line that hides all others."""
    corpus.add("good")
    (path,) = corpus.paths()
    path.write_text('{"audio_filepath": 3}\n{"id": "good"\n' + path.read_text() * 2)
    status, out, err = run("doctor", path)
    assert status == 1
    assert "line                   3  lines that are no utterance" in out
    assert "error: 3 errors in " in err


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
    status, _, err = run("doctor", path, "--fix", tmp_path)
    assert status == 2
    assert "is the folder of the manifests. Expected another one" in err


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
