"""`asr tune`: weights found on a dev set, stored with the model, and reported."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.decoding.config import BeamConfig, DecoderSettings
from asr.decoding.rescoring import TwoPassDecoder
from asr.decoding.resources import DecodingResources
from asr.errors import DataError
from asr.files import file_digest
from asr.manifests.manifest import read_manifest
from asr.model.saved import load_model
from asr.recognition.emissions import compute_emissions
from asr.scoring.tuning import tune as tune_weights
from asr.scoring.weight_search import Grid
from asr.scoring.wer import count_errors
from asr.text.tokenizer import BLANK

Run = Callable[..., tuple[int, str, str]]


RIGHT = ["ab c", "cab", "a b c a b c", "bb", "c a", "abcabc", "b ac bca c", "cc aa"]
GRID = ["--grid.lm-weights", "0.2", "1", "--grid.word-bonuses", "-1", "0", "1", "--grid.refinements", "1"]


@pytest.fixture
def lm(tmp_path: Path, run: Run) -> Path:
    """A language model of the recordings' texts."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(RIGHT * 3) + "\n")
    path = tmp_path / "words.bin"
    assert run("lm", "train", text, "--order", 2, "-o", path)[0] == 0
    return path


def tune(run: Run, tones: Any, model: Path, *options: object) -> tuple[int, str, str]:
    return run("tune", tones.manifest, "--model", model, "--search-beam", 8, *options)


def advised(run: Run, tones: Any, *search: object) -> list[str]:
    """The options of the `asr tune` that `asr evaluate` advises where its weights are not tuned."""
    _, _, err = run("evaluate", tones.manifest, *search)
    advice = re.search(r"`asr tune DEV (.*)` on other", err)
    assert advice is not None, err
    return shlex.split(advice[1])


def test_weights_are_found_stored_and_used(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """Weights that are printed and not stored, stored and not found again, or a model that tuning changes."""
    before = load_model(model)
    status, out, err = tune(run, tones, model, "--lm", lm, *GRID, "--out", model.parent / "out")
    assert status == 0, err
    assert "best weights                %WER 0.00 [ 0 / 19, 0 ins, 0 del, 0 sub ]" in out
    assert "greedy                      %WER 0.00" in out
    assert "oracle of the 50 best       0.00% [ 0 / 19 ]" in out
    assert "perplexity " in out
    assert "words outside vocabulary    0.00%" in out
    after = load_model(model)
    (tuning,) = after.settings.tunings
    assert (tuning.errors, tuning.words, tuning.utterances) == (0, 19, 8)
    assert sum(tuning.priors) == pytest.approx(1.0, abs=1e-5)
    assert after.settings.provenance == before.settings.provenance
    assert load_file(model).keys() == load_file(tones.model).keys()
    for name, tensor in load_file(tones.model).items():
        assert torch.equal(load_file(model)[name], tensor)
    rows = [json.loads(line) for line in (model.parent / "out" / "points.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"grid", "line", "check", "refine"}
    assert sum(row["phase"] == "grid" for row in rows) == 6
    assert [row["errors"] for row in rows] == sorted(row["errors"] for row in rows)
    assert (model.parent / "out" / "surface.png").stat().st_size > 1000
    _, out, err = run("evaluate", tones.manifest, "--model", model, "--lm", lm)
    assert f"tuned on {tones.manifest} (8 utterances, 0.00% there with a beam of 100)" in out
    assert "warning: the weights were tuned on these utterances" in err


def test_the_best_point_is_stored(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """Any other point stored, such as the worst: on noisy output they differ."""
    network = load_model(model)
    utterances = read_manifest(tones.manifest)
    clear = compute_emissions(network, utterances, 120.0)
    noise = torch.Generator().manual_seed(1)
    rows = tuple(
        (row + 3.0 * torch.randn(row.shape, generator=noise)).log_softmax(1) for row in clear.log_probs
    )
    emissions = replace(clear, log_probs=rows)
    settings = DecoderSettings(lm=lm, beam=BeamConfig(beam_size=30))
    resources = DecodingResources.read(settings, network)
    decoder = TwoPassDecoder(network.settings.tokenizer, settings.beam, resources)
    grid = Grid(lm_weights=(0.2, 1.0), word_bonuses=(-4.0, 0.0, 2.0), refinements=1)
    tuned = tune_weights(network, utterances, emissions, decoder, grid, search_beam=8)
    errors = [point.errors for point in tuned.points]
    assert tuned.tuning.errors == tuned.best.words.errors == errors[0] == min(errors[:5]) < max(errors)
    assert tuned.tuning.weights == tuned.points[0].weights
    stored = decoder.with_config(
        replace(settings.beam, weights=tuned.tuning.weights, priors=tuned.tuning.priors)
    )
    texts = [found[0].text for found in emissions.decode(stored)]
    assert sum(count_errors(RIGHT, texts)) == tuned.tuning.errors
    assert tuned.oracle <= tuned.tuning.errors
    assert tuned.tuning.priors == tuple(emissions.mean_posteriors().tolist())


@pytest.mark.usefixtures("no_pages")
def test_two_language_models(tones: Any, model: Path, lm: Path, tmp_path: Path, run: Run) -> None:
    """A second language model whose weight is not tuned, not stored, or used for another pair."""
    text, second = tmp_path / "right.txt", tmp_path / "characters.bin"
    text.write_text("\n".join(RIGHT * 3) + "\n")
    assert run("lm", "train", text, "--order", 3, "--unit", "character", "-o", second)[0] == 0
    ask = ("evaluate", tones.manifest, "--model", model, "--lm", lm)
    options = advised(run, tones, *ask[2:], "--rescore-lm", second)
    status, _, err = tune(run, tones, model, *options, *GRID)
    assert status == 0, err
    (tuning,) = load_model(model).settings.tunings
    assert tuning.key.rescore_lm == file_digest(second)
    folder = model.parent / "model.words.characters.rescores.tuning"
    rows = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    assert len({row["rescore_weight"] for row in rows}) >= 5
    assert rows[0]["rescore_weight"] == tuning.weights.rescore_weight
    assert ": tuned on" in run(*ask, "--rescore-lm", second)[1]
    assert f"rescore-weight {tuning.weights.rescore_weight:g}" in run(*ask, "--rescore-lm", second)[1]
    assert "defaults, not tuned" in run(*ask)[1]


@pytest.mark.usefixtures("no_pages")
def test_hot_words_have_weights_of_their_own(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """Weights that were tuned with other hot words or none, used without a word about it."""
    ask = ("evaluate", tones.manifest, "--model", model, "--lm", lm)
    options = advised(run, tones, *ask[2:], "--hotwords", "cab:2")
    assert tune(run, tones, model, *options, *GRID)[0] == 0
    assert ": tuned on" in run(*ask, "--hotwords", "cab:2")[1]
    assert ": tuned, with other hot words on" in run(*ask, "--hotwords", "cab:1")[1]
    assert ": tuned, with other hot words on" in run(*ask)[1]
    assert tune(run, tones, model, "--lm", lm, *GRID)[0] == 0
    assert ": tuned on" in run(*ask)[1]
    assert len(load_model(model).settings.tunings) == 2


@pytest.mark.usefixtures("no_pages")
def test_tuning_again_gives_the_same(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """A search that depends on threads or on an order: nobody could repeat a table."""
    found = []
    for _ in range(2):
        assert tune(run, tones, model, "--lm", lm, *GRID)[0] == 0
        (tuning,) = load_model(model).settings.tunings
        weights = tuning.weights
        found.append((weights.lm_weight, weights.word_bonus, weights.prior_weight, weights.blank_scale))
    assert found[0] == found[1]


def test_rescoring_and_search_are_tuned_apart(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """Weights of a fused search used for rescoring, or its surface drawn over."""
    assert tune(run, tones, model, "--lm", lm, "--rescore", *GRID)[0] == 0
    assert (model.parent / "model.words.rescore.tuning" / "surface.png").is_file()
    assert [tuning.key.rescore for tuning in load_model(model).settings.tunings] == [True]
    _, out, _ = run("evaluate", tones.manifest, "--model", model, "--lm", lm, "--rescore")
    assert ": tuned on" in out
    _, out, _ = run("evaluate", tones.manifest, "--model", model, "--lm", lm)
    assert "defaults, not tuned" in out


def test_a_model_of_blanks_is_refused_before_the_search(tones: Any, lm: Path) -> None:
    """Minutes of search, after a training that was too short, for weights that change nothing."""
    model, utterances = load_model(tones.model), read_manifest(tones.manifest)
    resources = DecodingResources.read(DecoderSettings(lm=lm), model)
    decoder = TwoPassDecoder(model.settings.tokenizer, BeamConfig(), resources)
    emissions = compute_emissions(model, utterances, 120.0)
    blank = [torch.zeros_like(rows) for rows in emissions.log_probs]
    for rows in blank:
        rows[:, BLANK] = 1.0
    log_probs = tuple(rows.log_softmax(1) for rows in blank)
    expected = "dev.jsonl: the model writes no text, .* at every step of all 8 utterances.*Train it longer"
    with pytest.raises(DataError, match=expected):
        tune_weights(
            model, utterances, replace(emissions, log_probs=log_probs), decoder, Grid(), manifest="dev.jsonl"
        )


@pytest.mark.usefixtures("no_pages")
def test_a_useless_language_model_is_said_to_be_one(
    tones: Any, model: Path, tmp_path: Path, run: Run
) -> None:
    """A language model that makes things worse, hidden by the best of bad weights; an edge."""
    text = tmp_path / "wrong.txt"
    text.write_text("c b a\nb b b b\n" * 5)
    assert run("lm", "train", text, "--order", 2, "-o", tmp_path / "wrong.bin")[0] == 0
    status, _, err = tune(
        run, tones, model, "--lm", tmp_path / "wrong.bin", "--grid.lm-weights", 6, 9,
        "--grid.word-bonuses", 0, "--grid.prior-weights", 0, "--grid.blank-scales", 1,
        "--grid.acoustic-scales", 1,
    )  # fmt: skip
    assert status == 0
    assert "warning: the language model does not help: " in err
    assert "warning: the best lm-weight, " in err
    assert "is the smallest that was tried. Widen: --grid.lm-weights" in err


@pytest.mark.usefixtures("no_pages")
def test_the_stored_score_is_that_of_evaluate(
    tones: Any, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score that was made with another search than the one that transcribes and evaluates."""
    asked: list[tuple[int, int]] = []
    call = TwoPassDecoder.decode

    def watched(self: TwoPassDecoder, *arguments: Any) -> Any:
        asked.append((self.config.beam_size, self.config.nbest))
        return call(self, *arguments)

    monkeypatch.setattr(TwoPassDecoder, "decode", watched)
    words = tmp_path / "words.txt"
    words.write_text("cab\nab\n")
    options = ["--lexicon", words, "--beam.beam-size", 30, "--grid.points", 1]
    status, out, _ = tune(run, tones, model, *options)
    assert status == 0
    assert "oracle of the 30 best       " in out
    best = re.search(r"best weights +(%WER .*)", out)
    _, out, _ = run("evaluate", tones.manifest, "--model", model, "--lexicon", words, "--beam.beam-size", 30)
    assert best is not None
    assert best[1] in out
    assert asked.count((30, 50)) == 1  # the best weights: their score and the oracle's
    assert asked.count((30, 1)) == 2  # without language model, by evaluate


@pytest.mark.usefixtures("no_pages")
def test_what_is_given_is_not_searched(tones: Any, model: Path, lm: Path, run: Run) -> None:
    """A weight that the user fixes and the search moves; a budget of points that is passed."""
    out = model.parent / "out"
    options = ["--lm", lm, "--word-bonus", 0.5, "--grid.points", 4, "--out", out]
    assert tune(run, tones, model, *options)[0] == 0
    rows = [json.loads(line) for line in (out / "points.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert {row["word_bonus"] for row in rows} == {0.5}


def test_what_cannot_be_tuned(tones: Any, model: Path, lm: Path, tmp_path: Path, run: Run) -> None:
    """A traceback, or an hour of work before the complaint."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    before = model.read_bytes()
    for arguments, complaint in (
        ([empty, "--model", model, "--lm", lm], "empty.jsonl"),
        (
            [tones.manifest, "--model", model, "--decoder", "greedy"],
            "--decoder greedy has no weights to tune",
        ),
        ([tones.manifest, "--model", model, "--grid.lm-weights", 1, 1], "--grid.lm-weights is (1.0, 1.0)."),
        (
            [tones.manifest, "--model", model, "--grid.lm-weights", 1, "nan"],
            "--grid.lm-weights must be in 0..100. Got nan.",
        ),
        (
            [tones.manifest, "--model", model, "--grid.prior-weights", -1],
            "grid.prior-weights must be in 0..100. Got -1.",
        ),
        (
            [tones.manifest, "--model", model, "--grid.acoustic-scales", 0, 1],
            "--grid.acoustic-scales must be in (0, 100]. Got 0.",
        ),
        (
            [tones.manifest, "--model", model, "--grid.word-bonuses", "inf"],
            "--grid.word-bonuses must be in -100..100. Got inf.",
        ),
        (
            [tones.manifest, "--model", model, "--grid.minutes", -1],
            "--grid.minutes must be at least 0. Got -1.",
        ),
        ([tones.manifest, "--model", model, "--search-beam", 0], "--search-beam must be at least 1. Got 0."),
        ([tones.manifest, "--model", model, "--lm", tmp_path / "no.bin"], "no.bin"),
        ([tmp_path / "no.jsonl", "--model", model], "no.jsonl"),
        ([tones.manifest, "--model", tmp_path / "no.safetensors"], "no such model file"),
    ):
        status, out, err = run("tune", *arguments)
        assert (status, out) == (2, ""), arguments
        (line,) = [line for line in err.splitlines() if line.startswith(("error", "Traceback"))]
        assert complaint in line
    assert model.read_bytes() == before
