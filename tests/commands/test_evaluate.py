"""`asr evaluate`: the score of a model on a manifest, and nothing left out of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.batching.cache import open_cache
from asr.cli import main
from asr.commands.evaluate import describe
from asr.decoding.greedy import GreedyDecoder
from asr.frontend.audio import read_audio
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.recognition.emissions import compute_emissions
from tests.conftest import no_space


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def manifest(tones: Any, tmp_path: Path) -> Any:
    """Writes a manifest of the recordings with other transcripts: {number: text}."""

    def write(texts: dict[int, str]) -> str:
        rows = rows_of(tones.manifest)
        for number, text in texts.items():
            rows[number]["text"] = text
        for row in rows:
            row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
        path = tmp_path / "other.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def evaluate(capsys: pytest.CaptureFixture[str], tones: Any, *arguments: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of the command."""
    status = main(["evaluate", *arguments, "--model", str(tones.model)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_score_and_files(
    tones: Any, manifest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong count, a normaliser that is not named, or results that are not those of the score."""
    out = tmp_path / "deep" / "out"
    path = manifest({0: "ab a c", 7: "cc"})
    status, text, err = evaluate(capsys, tones, path, "-o", str(out))
    assert status == 0
    lines = text.splitlines()
    assert lines[0] == "%WER 10.53 [ 2 / 19, 1 ins, 1 del, 0 sub ]"
    assert lines[1].startswith("%CER ")
    assert "Normalizer: english" in lines
    assert lines[-1] == f"Per utterance: {out / 'results.jsonl'}, {out / 'alignments.txt'}"
    rows = rows_of(out / "results.jsonl")
    assert [row["id"] for row in rows] == [f"t{number}" for number in range(8)]
    assert [row["hypothesis"] for row in rows] == list(tones.texts.values())
    assert [row["errors"] for row in rows] == [1, 0, 0, 0, 0, 0, 0, 1]
    assert "HYP:  ab * c" in (out / "alignments.txt").read_text(encoding="utf-8")
    assert "warning" not in err


def test_one_line_tells_where_the_model_comes_from(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A score of the wrong model that nobody notices."""
    _, _, err = evaluate(capsys, tones, str(tones.manifest))
    where = "epoch 7, dev WER 12.50%, trained 2026-01-02T03:04:05+00:00, commit abc1234"
    assert err.splitlines()[0] == f"{tones.model}: {where}"
    assert describe({}) == "a model of unknown origin"
    assert describe({"commit": "", "epoch": 3}) == "epoch 3"


def test_default_folder_belongs_to_model_and_manifest(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two models scored on one manifest, where the second overwrites the first's results."""
    status, text, _ = evaluate(capsys, tones, str(tones.manifest))
    assert status == 0
    out = tones.model.with_name("tones.tones.results")
    assert str(out) in text
    assert len(rows_of(out / "results.jsonl")) == 8
    assert text.startswith("%WER 0.00 [ 0 / 19, 0 ins, 0 del, 0 sub ]")


def test_normalizer_can_be_chosen(
    tones: Any, manifest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that is parsed and ignored, or a hypothesis compared by other rules than its reference."""
    path = manifest({0: "AB c", 1: "Cab."})
    for rules, count in (("english", 0), ("lower", 1), ("verbatim", 2)):
        out = tmp_path / rules
        status, text, _ = evaluate(capsys, tones, path, "--normalizer", rules, "--out", str(out))
        assert status == 0
        assert f"[ {count} / 19," in text.splitlines()[0]
        assert f"Normalizer: {rules}" in text
    status, text, err = evaluate(capsys, tones, path, "--normalizer", "none", "--out", str(tmp_path))
    assert (status, text) == (2, "")
    assert "error: normalizer must be one of verbatim, lower, english, words. Got 'none'." in err


def test_characters_that_the_model_cannot_write_are_counted(
    tones: Any, manifest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model in one case, transcripts in the other or with digits: a WER of 100 that explains nothing."""
    out = ["--out", str(tmp_path / "out")]
    _, _, err = evaluate(capsys, tones, manifest({0: "AB c", 1: "b 11"}), "--normalizer", "verbatim", *out)
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert (
        "4 characters in 2 of 8 references are ones that the model cannot write: '1' x 2, 'A' x 1," in warning
    )
    assert warning.endswith("choose other rules: --normalizer lower compares without case.")
    _, _, err = evaluate(capsys, tones, manifest({0: "AB c", 1: "b 11"}), *out)
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert "2 characters in 1 of 8 references are ones that the model cannot write: '1' x 2." in warning


def test_empty_references_count(
    tones: Any, manifest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recordings of noise, in which a good model writes nothing, refused or left out of the score."""
    path = manifest({3: ""})
    status, text, _ = evaluate(capsys, tones, path, "--out", str(tmp_path / "out"))
    assert status == 0
    assert text.startswith("%WER 5.56 [ 1 / 18, 1 ins, 0 del, 0 sub ]")
    assert "Empty references: 1" in text


def test_batch_s_changes_no_score(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hypotheses of one batch that are given to another, or a limit that is not checked."""
    for batch_s in ("0.5", "500"):
        arguments = [str(tones.manifest), "--batch-s", batch_s, "--out", str(tmp_path)]
        assert evaluate(capsys, tones, *arguments)[1].startswith("%WER 0.00 [ 0 / 19")
    status, _, err = evaluate(capsys, tones, str(tones.manifest), "--batch-s", "0", "--out", str(tmp_path))
    assert status == 2
    assert "error: --batch-s must be above 0 seconds. Got 0." in err


def test_device_must_exist(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is silently replaced by another one."""
    status, text, err = evaluate(capsys, tones, str(tones.manifest), "--device", "gpu")
    assert (status, text) == (2, "")
    assert "device must be auto, cpu, cuda or cuda:N. Got 'gpu'." in err


def test_results_that_cannot_be_written_are_found_before_the_work(
    tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of recognition whose results cannot be written."""
    (tmp_path / "file").touch()
    status, text, err = evaluate(capsys, tones, str(tones.manifest), "--out", str(tmp_path / "file" / "x"))
    assert (status, text) == (2, "")
    assert err == f"error: {tmp_path / 'file' / 'x'}: Not a directory. Choose another file or folder.\n"

    def read_only(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    status, text, err = evaluate(capsys, tones, str(tones.manifest), "--out", str(tmp_path))
    assert (status, text) == (2, "")
    assert err == f"error: {tmp_path}: Read-only file system. Choose another file or folder.\n"


def test_full_disk_does_not_cost_the_score(
    tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of recognition without a result, because the disk became full meanwhile."""

    monkeypatch.setattr("os.fsync", no_space)
    status, text, err = evaluate(capsys, tones, str(tones.manifest), "--out", str(tmp_path / "out"))
    assert (status, text) == (2, "")
    assert "%WER 0.00 [ 0 / 19, 0 ins, 0 del, 0 sub ]" in err
    assert f"error: {tmp_path / 'out' / 'score.json'} cannot be written: No space left on device." in err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_speaker_a_channel(tones: Any, tmp_path: Path, run: Any) -> None:
    """Both speakers of a call in each transcript: `channel` chooses one, also in emissions, in the features
    of training and in what `asr augment` writes, whose files have one channel."""
    texts = ["ab c", "bb a"]
    call, manifest = tmp_path / "call.wav", tmp_path / "call.jsonl"
    soundfile.write(call, np.stack([tones.sound(text) for text in texts], axis=1), 16_000)
    utterances = [
        Utterance(id=text, audio_filepath=call, duration=0.64, text=text, channel=channel)
        for channel, text in enumerate(texts)
    ]
    write_manifest(manifest, utterances)
    status, out, _ = run("evaluate", manifest, "--model", tones.model, "--out", tmp_path / "out")
    assert (status, out.splitlines()[0]) == (0, "%WER 0.00 [ 0 / 4, 0 ins, 0 del, 0 sub ]")

    model = load_model(tones.model)
    emissions = compute_emissions(model, utterances, 60.0)
    found = emissions.decode(GreedyDecoder(model.settings.tokenizer))
    assert [hypotheses[0].text for hypotheses in found] == texts

    config = model.settings.features
    first, second = (
        open_cache(tmp_path / "cache", [replace(utterances[0], channel=channel)], config)
        for channel in (0, 1)
    )
    assert not np.array_equal(first.view(0), second.view(0))

    run("augment", manifest, "--out", tmp_path / "copy", "--augment.speeds", "1")
    copy = read_manifest(tmp_path / "copy" / "manifest.jsonl")
    assert [utterance.channel for utterance in copy] == [None, None]
    assert torch.equal(read_audio(copy[1].audio_filepath, 16_000), read_audio(call, 16_000, channel=1))


def test_interval_over_speakers(tones: Any, tmp_path: Path, run: Any) -> None:
    """Guards the way of the manifest's speakers to the interval, on the screen and in score.json."""
    rows = rows_of(tones.manifest)
    for number, row in enumerate(rows):
        row |= {"audio_filepath": str(tones.folder / row["audio_filepath"]), "speaker": f"s{number % 6}"}
    manifest = tmp_path / "speakers.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, out, _ = run("evaluate", manifest, "--model", tones.model, "--out", tmp_path / "out")
    assert "95% interval of the WER: 0.00 to 0.00 (bootstrap over speakers: 6)" in out.splitlines()
    interval = json.loads((tmp_path / "out" / "score.json").read_text())["interval"]
    assert (interval["low"], interval["resampled"], interval["count"]) == (0, "speakers", 6)
    lines = (tmp_path / "out" / "speakers.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines[2:8]] == [f"s{number}" for number in range(6)]


def test_json_and_sclite_files(tones: Any, manifest: Any, tmp_path: Path, run: Any) -> None:
    """A JSON object with something else around it, or without the utterances; trn files that another tool
    scores otherwise; a ctm without the times of the words."""
    out = tmp_path / "out"
    path = manifest({0: "ab a c", 7: "cc"})
    status, text, err = run("evaluate", path, "--model", tones.model, "--out", out, "--json")
    assert status == 0
    found = json.loads(text)
    assert (found["errors"], found["words"], found["left_out"]) == (2, 19, {})
    assert [row["errors"] for row in found["results"]] == [1, 0, 0, 0, 0, 0, 0, 1]
    assert found["settings"]["Evaluation"]["decoder"] == "greedy"
    assert found["settings"]["Origin of the model"]["commit"] == "abc1234"
    assert "%WER 10.53" in err
    scored = run("score", out / "reference.trn", out / "hypothesis.trn")[1]
    assert scored.startswith("%WER 10.53 [ 2 / 19, 1 ins, 1 del, 0 sub ]")
    scored = run("score", out / "reference.trn", out / "hypothesis.ctm")[1]
    assert scored.startswith("%WER 10.53 [ 2 / 19, 1 ins, 1 del, 0 sub ]")
    assert (out / "hypothesis.ctm").read_text().splitlines()[0].startswith("t0 1 0.0")


@pytest.fixture
def bad_manifest(tones: Any, tmp_path: Path) -> Path:
    """A manifest with a cut recording, one that does not exist, a broken line, and a control character."""
    rows = rows_of(tones.manifest)
    for row in rows:
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
    cut = tmp_path / "cut.wav"
    cut.write_bytes(Path(rows[0]["audio_filepath"]).read_bytes()[:2000])
    rows[0]["audio_filepath"] = str(cut)
    rows[1]["audio_filepath"] = "missing.wav"
    rows[2]["text"] = "a\x00 b"
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([*lines, "{broken"]) + "\n")
    return path


def test_what_cannot_be_used_can_be_left_out(
    tones: Any, bad_manifest: Path, tmp_path: Path, run: Any
) -> None:
    """One bad file that ends an evaluation; one that is left out and not counted, or not named."""
    command = ["evaluate", bad_manifest, "--model", tones.model, "--out", tmp_path / "out"]
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert "line 3: the transcript has the control character U+0000 at position 2." in err
    status, out, err = run(*command, "--on-error", "skip")
    assert status == 0
    assert out.startswith("%WER 0.00 [ 0 / 10, ")
    assert "Left out, because they cannot be used: 4" in out.splitlines()
    assert "3 of 9 lines of" in err
    assert "line 3: the transcript has the control character" in err
    assert "1 of 6 utterances cannot be used and are left out: t0: " in err
    left_out = json.loads(run(*command, "--on-error", "skip", "--json")[1])["left_out"]
    assert sorted(left_out) == ["line 3", "line 9", "t0", "t1"]
    assert "missing.wav does not exist" in (tmp_path / "out" / "report.html").read_text()
    lines = bad_manifest.read_text().splitlines()
    bad_manifest.write_text(lines[0] + "\n")
    status, _, err = run(*command, "--on-error", "skip")
    assert status == 2
    assert "none of 1 utterances can be used. The first one: " in err


def test_page_elsewhere(tones: Any, tmp_path: Path, run: Any) -> None:
    """A page that is written elsewhere than it says, or over the manifest; found out after the work."""
    command = ["evaluate", tones.manifest, "--model", tones.model, "--out", tmp_path / "out", "--report"]
    status, out, _ = run(*command, tmp_path / "page.html")
    assert status == 0
    assert f"Report: {tmp_path / 'page.html'}" in out.splitlines()
    assert "<title>tones on tones.jsonl: 0.00% WER</title>" in (tmp_path / "page.html").read_text()
    for path, message in (
        (tmp_path / "no" / "page.html", "does not exist"),
        (tmp_path, "is a folder"),
        (tones.manifest, "would overwrite what is read"),
    ):
        status, out, err = run(*command, path)
        assert (status, out) == (2, "")
        assert f"--report {path}" in err
        assert message in err
