"""Model selection by words: what is decoded, what the score is, and what a run records of it."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asr.cli import main
from asr.commands.evaluate import describe
from asr.decoding.config import BeamConfig, DecoderSettings, GivenDecodingWeights
from asr.decoding.decoder import build_decoder
from asr.errors import DataError, SettingsError
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from asr.model.encoder import LossConfig
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.training.recogniser import Settings, train_recogniser
from asr.training.run.checkpoint import load_checkpoint
from asr.training.tasks.dev_decoding import DevDecodingConfig
from asr.training.tasks.speech import SpeechValidation
from tests.training.conftest import changed, rows


@pytest.fixture
def utterances(manifest: Path) -> list[Utterance]:
    return read_manifest(manifest)


@pytest.fixture
def lm(utterances: list[Utterance], tmp_path: Path) -> Path:
    """A unigram of half of the transcripts, each of one word: the others are always errors."""
    words = sorted({utterance.text for utterance in utterances})[::2]
    lines = ["-99\t<s>", "-1\t</s>", "-2\t<unk>", *(f"-1\t{word}" for word in words)]
    path = tmp_path / "words.arpa"
    text = f"\\data\\\nngram 1={len(lines)}\n\n\\1-grams:\n" + "\n".join(lines) + "\n\n\\end\\\n"
    path.write_text(text)
    return path


@pytest.fixture
def phones(settings: Settings, utterances: list[Utterance], tmp_path: Path) -> Settings:
    """Words are pronounced letter by letter."""
    lexicon = tmp_path / "lexicon.txt"
    words = sorted({utterance.text for utterance in utterances})
    lexicon.write_text("".join(f"{word} {' '.join(word.upper())}\n" for word in words))
    short = changed(settings, "train", epochs=1)
    return changed(short, "text", units="phones", lexicon=lexicon)


@pytest.mark.parametrize("criterion", ["ctc", "crf"])
def test_run_with_phones(
    criterion: Any, phones: Settings, utterances: list[Utterance], lm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the whole way: the best model is chosen by the WER that asr evaluate would give for the same
    utterances and weights; log, metrics, checkpoint and model have it beside the greedy PER."""
    caplog.set_level(logging.INFO, "asr")
    selection = DevDecodingConfig(dev_lm=lm, dev_utterances=5, dev_beam_size=20)
    made = replace(changed(phones, "model", loss=LossConfig(criterion)), selection=selection)
    path = train_recogniser(utterances, utterances, made)
    run_dir = made.train.run_dir
    (row,) = rows(run_dir, "epoch")
    model = load_model(path)
    decoding = DecoderSettings(
        "beam", lm, weights=GivenDecodingWeights(lm_weight=1.0), beam=BeamConfig(beam_size=20)
    )
    chosen = [sorted(utterances, key=lambda one: one.id)[number] for number in (0, 3, 6, 9, 12)]
    score = evaluate(model, chosen, decoder=build_decoder(decoding, model))
    assert row["dev_lm_wer"] == pytest.approx(100 * score.words.rate)
    assert score.words.rate > 0
    state, settings, _ = load_checkpoint(run_dir / "checkpoint.pt", model.device)
    assert state.best_score == row["dev_lm_wer"]
    assert settings["dev_lm"] == str(lm)
    (line,) = [text for text in caplog.messages if "train loss" in text]
    assert f"dev WER {row['dev_lm_wer']:.2f}%  greedy PER {row['dev_per']:.2f}%" in line
    assert f"best dev WER {row['dev_lm_wer']:.2f}% in epoch 1" in caplog.messages
    assert any(text.startswith("dev WER is of 5 of 16 utterances, with a beam of 20, language model ")
               for text in caplog.messages)  # fmt: skip
    assert not any("without --dev-lm" in text for text in caplog.messages)
    expected = f"epoch 1, dev WER with a language model {row['dev_lm_wer']:.2f}%, dev PER"
    assert describe(model.settings.provenance).startswith(expected)


def test_lexicon_and_other_files_on_resuming(
    phones: Settings, utterances: list[Utterance], lm: Path, tmp_path: Path
) -> None:
    """Guards comparable scores: a run is not resumed with a language model of another content or name."""
    words = tmp_path / "words.txt"
    words.write_text("\n".join({utterance.text for utterance in utterances}))
    selection = DevDecodingConfig(dev_lm=lm, dev_lexicon=words, dev_utterances=0)
    made = replace(phones, selection=selection)
    train_recogniser(utterances, utterances, made)
    again = changed(made, "train", resume=True)
    with pytest.raises(SettingsError, match=r"other settings: --dev-utterances was 0 and is now 3\. Resume"):
        train_recogniser(utterances, utterances, changed(again, "selection", dev_utterances=3))
    words.write_text(words.read_text() + "\nabcabc\n")
    with pytest.raises(SettingsError, match="the digest of the dev language model and lexicon was "):
        train_recogniser(utterances, utterances, again)
    lm.unlink()
    with pytest.raises(DataError, match=r"words\.arpa: cannot be read"):
        train_recogniser(utterances, utterances, again)


def test_model_is_chosen_by_decoded_words() -> None:
    """Guards the choice where the greedy rate and that of the language model disagree."""
    greedy = SpeechValidation(wer=30.0, cer=9.0, loss=0.5, blank_share=0.8, examples=())
    assert greedy.score == 30.0
    assert greedy.headline() == "dev loss 0.500  dev WER 30.00%  CER 9.00%  blank 80%"
    decoded = replace(greedy, lm_wer=12.0)
    assert decoded.score == 12.0
    assert decoded.headline() == "dev loss 0.500  dev WER 12.00%  greedy WER 30.00%  CER 9.00%  blank 80%"
    assert decoded.row()["dev_lm_wer"] == 12.0
    assert "dev_lm_wer" not in greedy.row()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dev_utterances": -1}, "--dev-utterances must be at least 0. Got -1."),
        ({"dev_beam_size": 0}, "--dev-beam-size must be at least 1. Got 0."),
        ({"dev_lm_weight": -0.5}, "--dev-lm-weight must be at least 0. Got -0.5."),
        ({"dev_lexicon": Path("x")}, "--dev-lexicon x is given, but no language model. Add --dev-lm FILE."),
    ],
)
def test_impossible_settings(values: dict[str, Any], message: str) -> None:
    """Guards the messages, which name what a user types."""
    with pytest.raises(SettingsError) as caught:
        DevDecodingConfig(**values)
    assert str(caught.value) == message


def test_command_line(manifest: Path, lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the options' names: --dev-lm beside --dev, --model.criterion among the model's."""
    run_dir = tmp_path / "run"
    code = main([
        "train", str(manifest), "--dev", str(manifest), "--dev-lm", str(lm), "--dev-utterances", "2",
        "--model.criterion", "crf", "--model.denominator-order", "3", "--model.ctc-weight", "0.05",
        "--model.width", "8", "--model.depth", "1", "--model.channels", "4", "--features.sample-rate", "8000",
        "--features.n-mels", "20", "--batch.cache-dir", str(tmp_path / "features"), "--augment.speeds", "1.0",
        "--train.run-dir", str(run_dir), "--train.updates", "1", "--train.device", "cpu",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert load_model(run_dir / "model.safetensors").settings.encoder.loss == LossConfig("crf", 3, 0.05)
    assert "dev_lm_wer" in json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
