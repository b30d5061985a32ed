"""Trainings with CTC-CRF: where the denominator comes from, where it is kept, resuming, warm starts."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.errors import Interrupted, SettingsError
from asr.manifests.manifest import read_manifest
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig, LossConfig
from asr.model.loss.denominator import count_ngrams, witten_bell
from asr.model.saved import load_model
from asr.training import recogniser
from asr.training.recogniser import Settings, train_recogniser
from asr.training.tasks.denominator import estimate_denominator
from asr.training.tasks.speech import replay
from tests.training.conftest import assert_same_weights, changed, rows, weights_of


def with_crf(settings: Settings, order: int = 2) -> Settings:
    loss = LossConfig("crf", order)  # type: ignore[arg-type]
    return changed(settings, "model", loss=loss)


@pytest.fixture
def model(manifest: Path, settings: Settings) -> AcousticModel:
    tokenizer = learn_tokenizer(read_manifest(manifest), settings.text)
    shape = with_crf(settings, 3).model
    return AcousticModel(ModelSettings(settings.features, shape, tokenizer, "english"))


def test_run(manifest: Path, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Guards what a run leaves: the settings and the table of its transcripts are in the model, the log has
    the denominator, the loss and one warning that its score misleads."""
    caplog.set_level(logging.INFO, "asr")
    utterances = read_manifest(manifest)
    path = train_recogniser(utterances, utterances, with_crf(settings, 3))
    model = load_model(path)
    assert model.settings.encoder.loss == LossConfig("crf", 3)
    tokens = [tuple(model.settings.tokenizer.encode(utterance.text)) for utterance in utterances]
    expected = witten_bell(count_ngrams(tokens, 3, 4))
    assert model.denominator is not None
    torch.testing.assert_close(model.denominator.probs, torch.from_numpy(expected).float())
    (line,) = [text for text in caplog.messages if text.startswith("CRF denominator")]
    assert line.startswith("CRF denominator: a trigram of 3 characters, from 16 transcripts; perplexity of")
    assert 1 < float(line.split()[-3]) < 4
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    (warning,) = [text for text in warnings if "criterion crf" in text]
    assert "chosen by its greedy WER, which may get worse" in warning
    assert "--dev-lm FILE" in warning
    losses = [row["dev_loss"] for row in rows(settings.train.run_dir, "epoch")]
    assert losses[1] < losses[0]
    # It recognises as any other model does.
    log_probs, steps, _ = model.outputs([torch.zeros(4000)])
    assert log_probs.shape == (1, int(steps), 4)


def test_resumed_equals_never_stopped(manifest: Path, settings: Settings, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Guards resuming, bit for bit; the table comes from the checkpoint, not from the files of today."""
    text = tmp_path / "text.txt"
    text.write_text("abc\ncab\n")
    crf = changed(with_crf(settings), "text", denominator_text=(text,))
    utterances = read_manifest(manifest)
    whole = train_recogniser(utterances, utterances, changed(crf, "train", run_dir=tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train_recogniser(utterances, utterances, changed(crf, "train", max_hours=1e-6))
    text.write_text("aaaa\n" * 50)
    monkeypatch.setattr(recogniser, "estimate_denominator", lambda *parts: pytest.fail("estimated again"))
    resumed = train_recogniser(utterances, utterances, changed(crf, "train", resume=True))
    assert_same_weights(whole, resumed)
    assert "denominator.probs" in weights_of(resumed)


def test_warm_starts(
    manifest: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the way that CRF is meant to be used, from a CTC model, and both ways of going on from a CRF
    model: the table is always that of the run's own transcripts."""
    caplog.set_level(logging.INFO, "asr")
    utterances = read_manifest(manifest)
    short = changed(settings, "train", epochs=1, learning_rate=1e-9)

    def start(made: Settings, name: str, source: Path | None, count: int = 16) -> Path:
        made = changed(made, "train", run_dir=tmp_path / name, warm_start=source)
        return train_recogniser(utterances[:count], utterances[:count], made)

    ctc = start(short, "ctc", None)
    crf = start(with_crf(short), "crf", ctc)
    assert "denominator.probs" not in weights_of(ctc)
    tensors = len(weights_of(crf))
    assert any(f": {tensors} of {tensors} tensors copied; not copied: none" in m for m in caplog.messages)
    assert_same_weights(ctc, start(short, "ctc-again", crf), 1e-4)
    other = start(with_crf(short), "crf-again", crf, count=8)
    tables = [weights_of(path)["denominator.probs"] for path in (crf, other)]
    assert not torch.equal(*tables)


def test_text(model: AcousticModel, manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards further text: normalised as transcripts are, added to them, and what is left out is counted."""
    caplog.set_level(logging.INFO, "asr")
    path = tmp_path / "text.txt"
    path.write_text("AB, ca\n\nabz\nbb\n", encoding="utf-8")
    config = TextConfig(denominator_text=(path,))
    utterances = read_manifest(manifest)
    # A space is no token of these transcripts.
    examples = make_examples(utterances, model.settings.tokenizer, config, model.settings.features, 4)
    estimate_denominator(model, examples, config)
    assert model.denominator is not None
    tokens = [example.tokens for example in examples] + [(2, 2)]
    expected = witten_bell(count_ngrams(tokens, 3, 4))
    torch.testing.assert_close(model.denominator.probs, torch.from_numpy(expected).float())
    assert "16 transcripts and text of 3 tokens; perplexity" in caplog.text
    assert "text.denominator-text: 2 of 3 sentences have characters outside the alphabet" in caplog.text


def test_text_without_crf(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    """Guards a setting that would do nothing."""
    given = changed(settings, "text", denominator_text=(tmp_path / "text.txt",))
    utterances = read_manifest(manifest)
    with pytest.raises(
        SettingsError, match=r"--text\.denominator-text is for CTC-CRF, but --model\.criterion is "
    ):
        train_recogniser(utterances, utterances, given)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criterion": "mmi"}, "--model.criterion must be one of ctc, crf. Got 'mmi'."),
        ({"denominator_order": 4}, "--model.denominator-order must be in 2..3. Got 4."),
        ({"ctc_weight": -1.0}, "--model.ctc-weight must be at least 0. Got -1."),
        ({"ctc_weight": math.inf}, "--model.ctc-weight must be at least 0. Got inf."),
    ],
)
def test_impossible_settings(values: dict[str, object], message: str) -> None:
    """Guards the messages, which name what a user types."""
    with pytest.raises(SettingsError) as caught:
        replace(EncoderConfig(), loss=LossConfig(**values))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_bad_update_is_repeated_with_its_loss(manifest: Path, settings: Settings, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Guards the record of a bad update: repeated, it has the losses of CRF, not those of CTC."""
    utterances = read_manifest(manifest)
    stopped = changed(with_crf(settings), "train", max_bad_updates=1)
    monkeypatch.setattr("asr.training.trainer.nn.utils.clip_grad_norm_",
                        lambda *parts: torch.tensor(math.nan))  # fmt: skip
    with pytest.raises(Exception, match="not finite"):
        train_recogniser(utterances, utterances, stopped)
    monkeypatch.undo()
    (path,) = settings.train.run_dir.glob("bad_update_*.pt")
    record = torch.load(path, weights_only=True)
    losses = replay(path)
    assert [losses[name] for name in record["ids"]] == pytest.approx(record["losses"].tolist(), rel=1e-4)
