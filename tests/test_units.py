"""Each kind of units from the manifest to the score, by the commands that users type."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.cli import main
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.recognition.recognise import Segment, recognise

RATE = 8000
HZ = {"no": 400, "one": 700, "nine": 1200, "seven": 2200}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings in which every word is a tone."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(12):
        text = " ".join(rng.choice(list(HZ), size=2 + number % 2))
        t = np.arange(round(0.4 * RATE)) / RATE
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * HZ[word] * t) for word in text.split()])
        samples += 0.003 * rng.standard_normal(len(samples))
        path = folder / f"u{number:02d}.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        utterances.append(
            Utterance(id=path.stem, audio_filepath=path, duration=len(samples) / RATE, text=text)
        )
    write_manifest(folder / "train.jsonl", utterances)
    return folder / "train.jsonl"


def train(manifest: Path, run_dir: Path, *more: str) -> int:
    return main([
        "train", str(manifest), "--dev", str(manifest), "--train.run-dir", str(run_dir),
        "--train.epochs", "1", "--train.precision", "float32", "--train.device", "cpu",
        "--features.sample-rate", str(RATE), "--features.n-mels", "20",
        "--model.width", "16", "--model.depth", "1", "--model.channels", "4",
        "--augment.speeds", "1.0", "--batch.seconds", "3", "--batch.workers", "0",
        "--batch.cache-dir", str(manifest.parent / "features"), *more,
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        (["--text.units", "characters"], "WER"),
        (["--text.units", "bpe", "--text.bpe-size", "14"], "WER"),
        (["--text.units", "phones"], "PER"),
    ],
    ids=["characters", "bpe", "phones"],
)
def test_from_manifest_to_score(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], rate: str
) -> None:
    """Guards each kind of units through training, the saved model, transcribing and scoring.

    The unit that is counted is named: words, or phones where there are no words.
    """
    pytest.importorskip("sentencepiece")
    run_dir = tmp_path / "run"
    assert train(manifest, run_dir, *options) == 0
    printed = capsys.readouterr().err
    assert f"dev {rate} " in printed
    assert f"best dev {rate} " in printed
    row = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert ("dev_wer" in row, "dev_per" in row) == (rate == "WER", rate == "PER")
    model = run_dir / "model.safetensors"
    tokenizer = load_model(model).settings.tokenizer
    assert tokenizer.units == options[1]
    assert tokenizer.vocab_size == {"characters": 8, "bpe": 14, "phones": 40}[tokenizer.units]

    assert main(["evaluate", str(manifest), "--model", str(model), "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert f"dev {rate} " in output.err
    assert output.out.startswith(f"%{rate} ")
    assert f"95% interval of the {rate}:" in output.out
    assert ("%CER" in output.out, "Counted: phones" in output.out) == (rate == "WER", rate == "PER")
    results = (run_dir / "model.train.results" / "results.jsonl").read_text().splitlines()
    expected = {"no": "N OW", "one": "W AH N", "nine": "N AY N", "seven": "S EH V AH N"}
    for line, spoken in zip(results, manifest.read_text().splitlines(), strict=True):
        text = json.loads(spoken)["text"]
        phones = " ".join(expected[word] for word in text.split())
        assert json.loads(line)["reference"] == (text if rate == "WER" else phones)

    assert (
        main(["transcribe", str(manifest.parent / "u00.wav"), "--model", str(model), "--device", "cpu"]) == 0
    )


@pytest.mark.parametrize("units", ["bpe", "phones"])
def test_a_model_that_knows_writes_words_or_phones(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], units: str
) -> None:
    """Guards the way from the output layer to the text: pieces are joined into words, phones are parted."""
    pytest.importorskip("sentencepiece")
    options = ["--text.units", units, *(["--text.bpe-size", "14"] if units == "bpe" else [])]
    assert train(manifest, tmp_path / "run", *options) == 0
    model = load_model(tmp_path / "run" / "model.safetensors")
    tokenizer = model.settings.tokenizer
    ids = tokenizer.encode("seven no")

    def forward(waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, None]:
        path = torch.tensor([number for token in ids for number in (token, 0)])
        log_probs = torch.nn.functional.one_hot(path, tokenizer.vocab_size).float().clamp_min(1e-3).log()
        return log_probs.expand(len(waveforms), -1, -1), torch.full((len(waveforms),), len(path)), None

    model.outputs = forward  # type: ignore[method-assign]
    (result,) = recognise(model, [Segment(manifest.parent / "u00.wav")], 10)
    hypothesis = result.outcome
    words = "seven no" if units == "bpe" else "S EH V AH N N OW"
    assert hypothesis.text == words
    assert [word.text for word in hypothesis.words] == words.split()


def test_phones_with_a_lexicon_of_ones_own(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards --text.lexicon: its phones are the model's, and the model needs the file no more."""
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("NO n o:\nONE v a n\nNINE n ai n\nSEVEN z E v\n")
    assert train(manifest, tmp_path / "run", "--text.units", "phones", "--text.lexicon", str(lexicon)) == 0
    lexicon.unlink()
    tokenizer = load_model(tmp_path / "run" / "model.safetensors").settings.tokenizer
    assert tokenizer.symbols == ("E", "a", "ai", "n", "o:", "v", "z")
    assert tokenizer.decode(tokenizer.encode("nine seven")) == "n ai n z E v"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text.units", "bpe", "--text.bpe-size", "999"], "--text.bpe-size must be at most"),
        (["--text.units", "phones", "--text.lexicon", "{tmp}/none.txt"], "none.txt: cannot be read"),
        (["--text.lexicon", "{tmp}/x.txt"], "x.txt is for phones, but --text.units is characters"),
        (["--text.units", "phones", "--text.pronouncer", "{tmp}/none.x"], "none.x: no such sequence model"),
        (["--text.pronouncer", "{tmp}/x"], "x is for phones, but --text.units is characters"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """Guards one clear line and exit status 2."""
    options = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert train(manifest, tmp_path / "run", *options) == 2
    assert message.replace("{tmp}", str(tmp_path)) in capsys.readouterr().err.splitlines()[-1]


def test_bpe_without_sentencepiece(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the extra: what to type, and no traceback."""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert train(manifest, tmp_path / "run", "--text.units", "bpe") == 2
    assert "Type: pip install '.[bpe]'" in capsys.readouterr().err


def test_resuming_with_other_tokens_is_refused(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards a lexicon that changes between two sessions: ids would mean other phones than the weights."""
    lexicon = tmp_path / "lexicon.txt"
    options = ["--text.units", "phones", "--text.lexicon", str(lexicon)]
    lexicon.write_text("no n o\none v a n\nnine n ai n\nseven z E v\n")
    assert train(manifest, tmp_path / "run", *options) == 0
    lexicon.write_text("no n o\none v o n\nnine n ai n\nseven z E v a\n")
    assert train(manifest, tmp_path / "run", *options, "--train.resume") == 2
    assert "the digest of the tokenizer was" in capsys.readouterr().err.splitlines()[-1]
    lexicon.write_text("no n o\none v a n\nnine n ai n\nseven z E v\n")
    assert train(manifest, tmp_path / "run", *options, "--train.resume") == 0
