"""The recipes, run as a user runs them: on look-alikes for a few updates, and YesNo for real."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.cli import main
from asr.corpora import digits, fsdd
from asr.errors import DataError
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Splits
from asr.model.saved import load_model

ROOT = Path(__file__).resolve().parents[1]

WAV = "flite-slt_9-0-4-1-2.wav"

TINY = [
    "--model.width", "8", "--model.depth", "1", "--model.channels", "2", "--train.epochs", "1",
    "--augment.speeds", "1.0",
]  # fmt: skip


RunRecipe = Callable[..., subprocess.CompletedProcess[str]]


def run_process(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe as its own process, which takes seconds to load torch."""
    command = [sys.executable, str(ROOT / "recipes" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL, check=False
    )


def look_alike(part: Path, speaker: int) -> None:
    """A part of LibriSpeech with one speaker, two utterances of one second of noise."""
    chapter = part / str(speaker) / "7"
    chapter.mkdir(parents=True)
    rng = np.random.default_rng(speaker)
    lines = []
    for number in range(2):
        name = f"{speaker}-7-{number:04d}"
        soundfile.write(chapter / f"{name}.flac", 0.1 * rng.standard_normal(16_000), 16_000)
        lines.append(f"{name} GO DO YOU\n")
    (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))


def word_model(folder: Path) -> Path:
    """A small language model of words."""
    text = folder / "text.txt"
    text.write_text("go do you\nyou go\ndo go you\n")
    out = folder / "word.arpa"
    assert main(["lm", "train", str(text), "--order", "2", "-o", str(out)]) == 0
    return out


def test_mini_librispeech_tunes_and_scores_with_a_language_model(
    run_recipe: RunRecipe, tmp_path: Path
) -> None:
    """Guards the final figures: tuned on the 8 speakers, stored with the model, scored on the others, with an
    attention decoder as second opinion, and by it alone; a second run neither trains nor tunes."""
    for speaker in range(1, 12):
        look_alike(tmp_path / "LibriSpeech" / "dev-clean-2", speaker)
    look_alike(tmp_path / "LibriSpeech" / "train-clean-5", 20)
    arguments = [
        "--data.root", tmp_path, "--train.run-dir", tmp_path / "run", "--batch.cache-dir", "None",
        "--text.units", "phones", "--model.cell", "ligru", "--lm", word_model(tmp_path),
        "--grid.points", "2", "--beam.beam-size", "4", "--model.attention-decoder", "dot",
        "--model.decoder-width", "8", *TINY,
    ]  # fmt: skip
    done = run_recipe("mini_librispeech", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^%PER ", done.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^%WER \d+\.\d+ \[ \d+ / 18, ", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^Weights: .* tuned on .*dev\.jsonl \(16 utterances", done.stdout, re.MULTILINE)
    assert re.search(r"^Weights: .*attention-weight \S+, .* tuned \(except ", done.stdout, re.MULTILINE)
    assert "\nDecoder: attention decoder, beam of 1\n" in done.stdout
    again = run_recipe("mini_librispeech", *arguments, "--train.resume", cwd=tmp_path)
    assert again.stdout == done.stdout


def english_look_alike(root: Path) -> None:
    """The folders of the English recipe: three kinds of speech in dev, one speaker each."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    speakers = [
        ("train", "LibriSpeech/dev-other", "1"), ("train", "speechocean762/WAVE", "so0011"),
        ("train", "speechocean762/WAVE", "so0012"), ("dev", "LibriSpeech/dev-clean", "84"),
        ("dev", "common_voice/clips", "cv1"),
    ]  # fmt: skip
    for part, folder, speaker in speakers:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            path = root / folder / f"{speaker}-{number}.wav"
            soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
            rows[part].append(
                {"id": path.stem, "audio_filepath": f"../{folder}/{path.name}", "duration": 1.0,
                 "text": "go do you", "speaker": speaker}
            )  # fmt: skip
    (root / "english").mkdir()
    for part, lines in rows.items():
        (root / "english" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (root / "speechocean762" / "test").mkdir(parents=True)
    (root / "speechocean762" / "test" / "utt2spk").write_text("a 0012\nb 0011\nc 0012\n")


def test_english_goes_from_speech_to_a_model_that_ships(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards every stage of the recipe, their order and resuming; and that the model names no folder."""
    pytest.importorskip("av", reason="the codec needs PyAV")
    english_look_alike(tmp_path / "speech")
    arguments = [
        "--quick", "--data.root", tmp_path / "speech", "--train.run-dir", tmp_path / "run",
        "--batch.cache-dir", tmp_path / "features", "--lm", word_model(tmp_path),
    ]  # fmt: skip
    first = run_recipe("english", *arguments, "--stages", "data", "trunk", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert len((tmp_path / "run" / "dev.jsonl").read_text().splitlines()) == 9
    done = run_recipe("english", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warm start from" in done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    conditions = ["as recorded", "telephone", "noise at 10 dB", "Opus at 12 kbit/s", "0.5 s of silence"]
    assert [row[0] for row in rows[1::4]] == conditions
    assert [row[1] for row in rows[1:5]] == ["all", "LibriSpeech", "Common Voice", "accented"]
    assert [re.search(r"/ (\d+),", row[2])[1] for row in rows[1:5]] == ["27", "9", "9", "9"]
    model = load_model(tmp_path / "run" / "acoustic.safetensors")
    assert model.settings.provenance["data"]["train"] == "6 utterances, 0.00 h, 2 speakers"
    assert model.settings.provenance["settings"]["branch"]["train.schedule"] == "linear"
    assert model.settings.tunings[0].manifest == "dev.jsonl"
    assert str(tmp_path).encode() not in (tmp_path / "run" / "acoustic.safetensors").read_bytes()
    again = run_recipe("english", *arguments, "--stages", "score", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == done.stdout.splitlines()[:-1]


def test_librispeech_preset_runs_on_a_look_alike(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the presets of the big recipe, which no test can afford to run on the corpus itself: parsing, a
    few updates without a feature cache, and one score for each test part."""
    for speaker, part in enumerate(["train-clean-100", "dev-clean", "test-clean", "test-other"], start=1):
        look_alike(tmp_path / "LibriSpeech" / part, speaker)
    done = run_recipe(
        "librispeech",
        "100h",
        "--data.root",
        tmp_path,
        "--train.run-dir",
        tmp_path / "run",
        *TINY,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(test-\w+), 1 speakers:$", done.stdout, re.MULTILINE) == ["test-clean", "test-other"]
    assert len(re.findall(r"^%WER \d+\.\d+ \[ \d+ / 6, ", done.stdout, re.MULTILINE)) == 2
    assert (tmp_path / "run" / "test-other" / "alignments.txt").is_file()
    assert not (tmp_path / "data").exists(), (
        "an existing folder was given: nothing is to be downloaded or cached"
    )


def test_any_corpus_from_a_folder_to_a_report(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the recipe of every corpus: prepared, trained, tuned with a model of its words, scored; and
    that settings which were never run say so."""
    corpus = tmp_path / "LJSpeech-1.1"
    (corpus / "wavs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(10):
        soundfile.write(corpus / "wavs" / f"LJ1-{number}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    (corpus / "metadata.csv").write_text("".join(f"LJ1-{number}|1|Go, do you.\n" for number in range(10)))
    arguments = ["--data.root", tmp_path, "--batch.cache-dir", "None", "--grid.points", "2", *TINY]
    done = run_recipe("corpus", "ljspeech", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ljspeech: these settings were never run on this corpus" in done.stderr
    assert len(re.findall(r"^%WER \d+\.\d+ \[ \d+ / 3, ", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^Weights: .* tuned on .*dev\.jsonl \(1 utterances", done.stdout, re.MULTILINE)
    assert len(read_manifest(tmp_path / "runs" / "ljspeech" / "train.jsonl")) == 8
    unknown = run_recipe("corpus", "ljspeach", cwd=tmp_path)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: unknown preset 'ljspeach'. Expected one of: yesno, ")


def own_folder(folder: Path, text: str) -> Path:
    """Twelve recordings of a second each with a table of transcripts."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    (folder / "transcripts.tsv").write_text("".join(f"{number}.wav\t{text}\n" for number in range(12)))
    return folder


def test_own_data_from_a_folder_to_a_score(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the way from recordings to a model and a tuned language model in one command."""
    root = own_folder(tmp_path / "mine", "Geh dorthin!")
    arguments = ["--data.root", root, "--from-scratch", "--batch.cache-dir", "None", "--grid.points", "2"]
    done = run_recipe("own_data", *arguments, *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "split by utterance: no speaker is named" in done.stderr
    assert len(re.findall(r"^%WER \d+\.\d+ \[ \d+ / 2, ", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^Weights: .* tuned on .*dev\.jsonl \(1 utterances", done.stdout, re.MULTILINE)
    assert len(read_manifest(tmp_path / "runs" / "own_data" / "train.jsonl")) == 10
    inside = run_recipe("own_data", "--data.root", ".", "--from-scratch", cwd=root)
    assert (inside.returncode, "--train.run-dir runs/own_data: is inside ." in inside.stderr) == (2, True)
    missing = run_recipe("own_data", "--data.root", tmp_path / "nowhere", cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr == (
        f"error: {tmp_path / 'nowhere'}: no such folder. Expected a folder of recordings with transcripts. "
        "Correct it.\n"
    )


@pytest.fixture
def own_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe, as a module."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    module = importlib.import_module("own_data")
    for name in ("own_data", "corpus"):
        monkeypatch.delitem(sys.modules, name)
    return module


def test_own_data_without_a_set(own_data: Any, tmp_path: Path) -> None:
    """Guards a folder with a test set alone, which became a traceback for want of a training set."""
    root = own_folder(tmp_path / "mine", "word")
    (root / "transcripts.tsv").rename(root / "test.tsv")
    with pytest.raises(DataError, match=r"mine: no train set\. Expected ten recordings, or three sets\."):
        own_data.read(root)


def test_own_data_is_never_worse_for_fine_tuning(
    own_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that has forgotten more than it has learned."""
    rates = {"before.safetensors": 0.2, "model.safetensors": 0.3}
    monkeypatch.setattr(own_data, "load_model", lambda path, _: path)
    monkeypatch.setattr(own_data, "evaluate", lambda path, _: SimpleNamespace(wer=rates[path.name]))
    tuned = tmp_path / "model.safetensors"
    assert own_data.better(tuned, [], "cpu") == tmp_path / "before.safetensors"
    assert (tmp_path / "before.safetensors").is_file()
    rates["model.safetensors"] = 0.1
    assert own_data.better(tuned, [], "cpu") == tuned


def test_own_data_starts_from_the_model_that_ships(own_data: Any, tmp_path: Path) -> None:
    """English that learns from nothing, and another language that starts from English phones."""
    english, german = own_folder(tmp_path / "en", "Go there!"), own_folder(tmp_path / "de", "Geh dorthin!")
    found = own_data.settings_for(["--data.root", str(english)])
    assert (found.train.warm_start, found.text.units) == (Path("english"), "phones")
    for arguments in (["--data.root", str(german)], ["--data.root", str(english), "--from-scratch"]):
        found = own_data.settings_for(arguments)
        assert (found.train.warm_start, found.text.units) == (None, "characters")
        assert found.model.width == 96  # for seconds of speech


def test_librispeech_preset_must_be_named(tmp_path: Path) -> None:
    """A preset that is not there gets one clear message and exit status 2, not a download."""
    done = run_process("librispeech", "50h", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown preset '50h'. Expected one of: 100h, 960h.\n"


def fsdd_look_alike(root: Path) -> None:
    """The Free Spoken Digit Dataset with each digit once a person, half a second of noise."""
    (root / "recordings").mkdir()
    rng = np.random.default_rng(0)
    for speaker in fsdd.SPEAKERS:
        for digit in range(10):
            path = root / "recordings" / f"{digit}_{speaker}_0.wav"
            soundfile.write(path, 0.1 * rng.standard_normal(4000), 8000)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """What the recipes get for the corpus of synthetic voices: every tenth utterance of all its voices."""
    every = digits.prepare()
    few = Splits(train=every.train[::10], dev=every.dev[::10], test=every.test[::10])
    monkeypatch.setattr(digits, "prepare", lambda: few)
    return few


def test_digits_scores_and_says_where_the_results_are(
    run_recipe: RunRecipe, few_digits: Splits, tmp_path: Path
) -> None:
    """Guards the demo's last lines, which new users see first; --train.resume knows a finished run."""
    fsdd_look_alike(tmp_path)
    folders = ["--train.run-dir", tmp_path / "run", "--batch.cache-dir", tmp_path / "features"]
    arguments = ["--data.root", tmp_path, *folders, *TINY, "--train.updates", "15"]
    done = run_recipe("digits", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = sum(len(utterance.text.split()) for utterance in few_digits.test)
    for line in (
        r"a person, george, not in the training data:",
        r"%WER \d+\.\d\d \[ \d+ / 10, \d+ ins, \d+ del, \d+ sub \]",
        r"synthetic voices, not in the training data:",
        rf"%WER \d+\.\d\d \[ \d+ / {words}, \d+ ins, \d+ del, \d+ sub \]",
        r"Per utterance: .*results\.jsonl, .*alignments\.txt",
        r"Try: .*model\.safetensors",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), line
    rows = (tmp_path / "run" / "voices" / "results.jsonl").read_text().splitlines()
    assert {json.loads(row)["id"] for row in rows} == {utterance.id for utterance in few_digits.test}
    written = {word for row in rows for word in json.loads(row)["hypothesis"].split()}
    assert written <= set(digits.WORDS), "the vocabulary is the ten words"
    again = run_recipe("digits", *arguments, "--train.resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    suggested = done.stdout.splitlines()[-1].removeprefix("Try:   asr ").replace("*.wav", WAV)
    assert main(suggested.split()) == 0


def test_fsdd_takes_each_speaker_in_turn(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the split of the real digits: every speaker is tested once, in a separate run folder."""
    fsdd_look_alike(tmp_path)
    done = run_recipe(
        "digits", "--data.corpus", "fsdd", "--data.root", tmp_path, "--train.run-dir", tmp_path / "run",
        "--data.no-synthetic", "--data.no-children", "--batch.cache-dir", "None", *TINY, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\w+) +%WER .* / 10, .*  95% interval ", done.stdout, re.MULTILINE)
    assert found == list(fsdd.SPEAKERS)
    assert re.search(r"^together  \d+ errors in 60 words: ", done.stdout, re.MULTILINE)
    names = sorted(path.name for path in tmp_path.glob("run-*"))
    assert names == [f"run-fsdd-{name}" for name in fsdd.SPEAKERS]
    assert "40 utterances" in (tmp_path / "run-fsdd-theo" / "train.log").read_text()


def test_digits_from_the_model_that_ships(
    run_recipe: RunRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the preset that starts from the model that ships: every weight is copied."""
    every = fsdd.prepare(None, "theo")
    few = Splits(train=every.train[::10], dev=every.dev[::10], test=every.test[::5])
    monkeypatch.setattr(fsdd, "prepare", lambda root, speaker: few)
    done = run_recipe(
        "digits", "english", "--data.corpus", "fsdd", "--data.speakers", "theo",
        "--train.updates", "1", "--train.run-dir", tmp_path / "run", "--features.prior-frames", "0",
        "--batch.seconds", "20", "--batch.cache-dir", tmp_path / "features", "--augment.speeds", "1.0",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"warm start from english: (\d+) of \1 tensors copied; not copied: none", done.stderr)
    errors = re.search(r"^together  (\d+) errors in 100 words: ", done.stdout, re.MULTILINE)
    assert errors, done.stdout
    assert int(errors[1]) < 50, "it knows digits, more or less, before it has learned any"


def test_recordings_of_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the demo's first part: a dozen people, and a model that understands most of what they read."""
    manifest = ROOT / "data" / "recordings" / "manifest.jsonl"
    people = [utterance.speaker for utterance in read_manifest(manifest)]
    assert len(set(people)) == len(people) == 12
    assert main(["evaluate", str(manifest), "--model", "english", "--out", str(tmp_path)]) == 0
    errors = re.search(r"^%WER \S+ \[ (\d+) / 125,", capsys.readouterr().out, re.MULTILINE)
    assert errors
    assert int(errors[1]) < 60


def test_people_of_the_demo_are_not_in_the_training_data(speech: Path) -> None:
    """Guards a demo that shows recordings of people whom the model has learned from."""
    manifest = ROOT / "data" / "recordings" / "manifest.jsonl"
    train = {utterance.speaker for utterance in read_manifest(speech / "english" / "train.jsonl")}
    assert not train & {utterance.speaker for utterance in read_manifest(manifest)}


@pytest.mark.usefixtures("few_digits")
def test_cells_are_compared_with_equal_numbers_of_weights(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the comparison: every kind of net and seed is trained and scored, as large as the others, and
    the same command goes on with what is there instead of failing on its own run folders."""
    arguments = [
        "--cells", "rnn", "lstm", "--seeds", "1", "--train.run-dir", tmp_path / "digits",
        "--batch.cache-dir", tmp_path / "features", *TINY, "--model.width", "64", "--train.updates", "2",
    ]  # fmt: skip
    done = run_recipe("compare_cells", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if "way" in line]
    assert [row[0] for row in rows] == [
        "| rnn one way",
        "| lstm one way",
        "| rnn both ways",
        "| lstm both ways",
    ]
    weights = [float(row[6].split()[0]) for row in rows]
    assert max(weights) < 1.05 * min(weights)
    assert (tmp_path / "digits-cells" / "figure.png").stat().st_size > 5000
    again = run_recipe("compare_cells", *arguments, cwd=tmp_path)
    assert again.stdout == done.stdout


def test_speech_commands_trains_and_tests(run_recipe: RunRecipe, tmp_path: Path) -> None:
    """Guards the example of the encoder's final states: it runs, and prints its accuracy."""
    for word in ("down", "go", "left", "no", "right", "stop", "up", "yes"):
        (tmp_path / word).mkdir()
        for number in range(30):
            noise = 0.1 * np.random.default_rng(number).standard_normal(8000)
            soundfile.write(tmp_path / word / f"{number:08x}_nohash_0.wav", noise, 16_000)
    done = run_recipe(
        "speech_commands", "--data.root", tmp_path, "--epochs", "1", "--model.width", "8", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+ of \d+ test recordings right: \d+\.\d\d% accuracy$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_yesno_learns_to_tell_yes_from_no(tmp_path: Path, speech: Path) -> None:
    """The whole pipeline on real speech: whatever breaks learning anywhere shows here. The bound is loose
    and yet far below what a broken pipeline reaches; recipes/README.md has the results."""
    done = run_process(
        "yesno", "--data.root", speech / "waves_yesno", "--train.run-dir", tmp_path / "run",
        "--batch.cache-dir", tmp_path / "features", "--train.epochs", "30", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    errors = re.search(r"^%WER \S+ \[ (\d+) / 240,", done.stdout, re.MULTILINE)
    assert errors, done.stdout
    assert int(errors[1]) <= 12


def test_decoders_are_compared_and_not_twice(run_recipe: RunRecipe, tmp_path: Path, tones: Any) -> None:
    """Guards the comparison of decoders: every system has its line, a second run finds all of them done."""
    for speaker in range(1, 10):
        look_alike(tmp_path / "LibriSpeech" / "dev-clean-2", speaker)
    text = tmp_path / "text.txt"
    text.write_text("ab c\ncab\na b\n")
    for order, unit in (("2", "word"), ("3", "character")):
        out = str(tmp_path / f"{unit}.arpa")
        assert main(["lm", "train", str(text), "--order", order, "--unit", unit, "-o", out]) == 0
    arguments = [
        "--model", tones.model, "--lms", "word.arpa", "character.arpa", "--run-dir", "run",
        "--data.root", ".", "--grid.points", 2, "--search-beam", 4, "--beam.beam-size", 8,
    ]  # fmt: skip
    done = run_recipe("compare_decoders", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    names = ["greedy", "beam", "beam + word", "beam + word, no other words", "beam + character"]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == names
    assert all(re.fullmatch(r"\d+ / 6", row[3]) for row in rows[2:])
    assert "perplexity a word" in rows[0]
    for name in ("dev.safetensors", "beam + word/surface.png", "table.md", "systems.png"):
        assert (tmp_path / "run" / name).is_file()
    again = run_recipe("compare_decoders", *arguments, cwd=tmp_path)
    assert again.stdout == done.stdout
    assert again.stderr.count("done before") == len(names)
    assert again.stderr.count("computed before") == 2
