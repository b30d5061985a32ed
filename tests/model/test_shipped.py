"""The models that ship with the package: found by name, complete, small, and right without a network."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from safetensors import safe_open

from asr.decoding.config import BeamConfig, DecoderSettings
from asr.errors import ModelError
from asr.files import file_digest
from asr.model import shipped
from asr.model.decoding_weights import TuningKey, closest_tuning
from asr.model.saved import load_model
from asr.model.shipped import SHIPPED_MODELS, ModelFiles, find_model
from asr.training.tasks.speech import SpeechTask

Run = Callable[..., tuple[int, str, str]]

FOLDER = Path(shipped.__file__).parent.parent / "models"
RECORDING = Path(__file__).parents[1] / "recordings" / "652-129742-0018.opus"
TEXT = "this dressing should stand in the ice box four or five hours to become seasoned"


def test_names_and_paths() -> None:
    """A name that is taken for a path, or a path for a name."""
    files = find_model(Path("english"))
    assert files.name == "english"
    assert all(path and path.is_file() for path in (files.path, files.lm, files.lexicon))
    fast = find_model(Path("english-fast"))
    assert fast.path == files.path
    assert fast.width.beam_size < files.width.beam_size
    assert fast.width.beam_threshold < files.width.beam_threshold < BeamConfig().width.beam_threshold
    for path in (Path("runs/english"), Path("model.safetensors"), Path("/english")):
        assert find_model(path) == ModelFiles(path)


def test_an_unknown_name_names_the_others(run: Run, tmp_path: Path) -> None:
    """A misspelt name that ends as a missing file."""
    with pytest.raises(ModelError, match="Did you mean english"):
        find_model(Path("englsh"))
    status, _, said = run("transcribe", tmp_path / "a.wav", "--model", "klingon")
    assert status == 2
    assert said.startswith("error: klingon: no such model. Expected english, english-fast, or the path")
    assert said.count("\n") == 1


def test_what_ships_is_used_where_nothing_else_is_asked_for() -> None:
    """The user's own language model, lexicon or beam that is passed over for those that ship."""
    files, mine = find_model(Path("english-fast")), Path("mine")
    plain = DecoderSettings().with_defaults_of(files)
    assert (plain.lm, plain.lexicon, plain.beam.width) == (files.lm, files.lexicon, files.width)
    own = DecoderSettings(lm=mine).with_defaults_of(files)
    assert (own.lm, own.lexicon) == (mine, None)
    own = DecoderSettings(lexicon=mine, beam=BeamConfig(beam_size=7)).with_defaults_of(files)
    assert (own.lm, own.lexicon, own.beam.width) == (files.lm, mine, replace(files.width, beam_size=7))
    default = BeamConfig(**asdict(BeamConfig().width))
    assert DecoderSettings(beam=default).with_defaults_of(files).beam == default
    for settings in (DecoderSettings(decoder="greedy"), DecoderSettings(lm=mine)):
        assert settings.with_defaults_of(ModelFiles(mine)) == settings
    assert DecoderSettings(decoder="greedy").with_defaults_of(files).lm is None


def test_a_second_language_model_ships_or_not(tmp_path: Path) -> None:
    """A folder of `asr adapt`, which has none, that is searched with one; a language model of the user's, or
    one that only rescores, that is rescored by that of another."""
    assert ModelFiles.of_folder(tmp_path).rescore_lm is None
    second = tmp_path / "rescoring.safetensors"
    second.write_bytes(b"")
    files = ModelFiles.of_folder(tmp_path)
    assert DecoderSettings().with_defaults_of(files).rescore_lm == second
    assert DecoderSettings(rescore_lm=Path("mine")).with_defaults_of(files).rescore_lm == Path("mine")
    for settings in (DecoderSettings(lm=Path("mine")), DecoderSettings(rescore=True)):
        assert settings.with_defaults_of(files).rescore_lm is None
    assert find_model(Path("english-fast")).rescore_lm is None


def test_files_are_small_and_belong_together() -> None:
    """A wheel that nobody wants to download; weights that were tuned for another language model."""
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 40_000_000
    for files in SHIPPED_MODELS.values():
        key = TuningKey(
            lm=file_digest(files.lm),
            lexicon=file_digest(files.lexicon),
            rescore_lm=file_digest(files.rescore_lm),
        )
        tuning, difference = closest_tuning(load_model(files.path).settings.tunings, key)
        assert tuning is not None
        assert not difference
        assert (files.path.parent / "README.md").is_file()


def test_provenance_names_no_folder_of_a_machine() -> None:
    """Paths of whoever trained it, in a file that everybody gets."""
    for files in SHIPPED_MODELS.values():
        with safe_open(files.path, framework="pt") as file:
            record = json.loads(file.metadata()["asr-acoustic-model"])
        texts = json.dumps([record["provenance"], [tuning["manifest"] for tuning in record["tunings"]]])
        assert not re.search(r"(?<![\w.])[~/]\w|\\\\|\.\./", texts)


def test_a_real_recording_word_for_word(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first thing that a new user does: no model named, nothing downloaded, the right words."""
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("ASR_CACHE_DIR", str(tmp_path))
    for model in ((), ("--model", "english-fast")):
        status, text, said = run("transcribe", RECORDING, *model)
        assert (status, text) == (0, TEXT + "\n")
        name = model[-1] if model else "english"
        assert f"model: {name}, which ships with asr" in said
    assert len(list(tmp_path.iterdir())) == 2  # the words of the lexicon and the vocabulary, each once


@pytest.fixture
def small(tones: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of seconds in the place of the one that ships; the working folder is empty."""
    monkeypatch.setitem(SHIPPED_MODELS, "english", ModelFiles(model, "english"))
    (model.parent / "work").mkdir()
    monkeypatch.chdir(model.parent / "work")
    return model


def test_evaluate_knows_names(tones: Any, small: Path, run: Run) -> None:
    """Results in the package's own folder."""
    status, text, said = run("evaluate", tones.manifest, "--model", "english")
    assert (status, "%WER 0.00" in text) == (0, True), said
    assert Path("english.tones.results", "results.jsonl").is_file()


def test_tune_stores_in_a_copy(tones: Any, small: Path, run: Run, tmp_path: Path) -> None:
    """A package whose files change, or weights that are found and lost."""
    before = small.read_bytes()
    words = tmp_path / "words.txt"
    words.write_text("ab\nc\ncab\n")
    grid = ("--grid.word-bonuses", 0, "--grid.points", 3)
    status, text, said = run("tune", tones.manifest, "--model", "english", "--lexicon", words, *grid)
    assert status == 0, said
    copy = Path("english.beam.words.tuning", "english.safetensors")
    assert f"Stored in {copy}" in text
    assert len(load_model(copy).settings.tunings) == 1
    assert small.read_bytes() == before


def test_warm_start_knows_names(small: Path) -> None:
    """`--train.warm-start english`."""
    task = SimpleNamespace(net=load_model(small))
    donor = SpeechTask.source_weights(cast(SpeechTask, task), Path("english"))
    assert donor.keys() == task.net.state_dict().keys()


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the network was used")
