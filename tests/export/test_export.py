"""`asr export`, and what is exported in place of the model: the same transcripts and scores."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import asr
from asr.cli import main


@pytest.fixture(scope="module")
def graph(tones: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("graph") / "tones.onnx"
    assert main(["export", str(tones.model), "-o", str(path), "--check", str(tones.manifest)]) == 0
    return path


def test_says_how_far_it_is_from_torch(
    tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph that nobody has compared with its model; 8 bits that are larger than 32."""
    sizes = []
    for options in ([], ["--int8"]):
        path = tmp_path / "tones.onnx"
        arguments = ["export", str(tones.model), "-o", str(path), "--check", str(tones.manifest), *options]
        assert main(arguments) == 0
        out = capsys.readouterr().out
        found = re.search(r"at most ([\d.e-]+); .* same in ([\d.]+)% of the steps", out)
        assert found
        assert float(found[1]) < (1 if options else 1e-3)
        assert "0.00% with torch, 0.00% with the graph (+0.00 points)" in out
        sizes.append(path.stat().st_size)
        onnx.checker.check_model(onnx.load(path))
    assert sizes[1] < sizes[0]


def test_a_graph_that_computes_otherwise_is_not_written(
    tones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph without a part of its model, as one was that had no prior of the normalisation."""
    monkeypatch.setattr("asr.export.model._add_normalizer", lambda graph, normalizer, x, lengths: x)
    assert main(["export", str(tones.model), "-o", str(tmp_path / "tones.onnx")]) == 2
    assert "differ from torch's by up to" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_transcribes_and_scores(tones: Any, graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A graph whose settings or tokenizer were left behind; an engine that is parsed and not used."""
    engines = ["--engine", "onnx"], ["--engine", "onnx-int8"]
    for model, options in ((graph, []), *((tones.model, options) for options in engines)):
        assert main(["transcribe", *tones.files, "--model", str(model), *options]) == 0
        assert capsys.readouterr().out.splitlines() == list(tones.texts.values())
    out = graph.parent / "score"
    assert main(["evaluate", str(tones.manifest), "--model", str(graph), "--out", str(out)]) == 0
    assert "%WER 0.00" in capsys.readouterr().out


def test_no_line_twice(tones: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime logs while it rounds weights: without a handler of the root, that installs one."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    assert main(["transcribe", tones.files[0], "--model", str(tones.model), "--engine", "onnx-int8"]) == 0
    assert root.handlers == []


def test_from_python(tones: Any, graph: Path) -> None:
    """`asr.load` that takes a graph for a damaged model, or does not know the engine."""
    assert asr.load(graph).transcribe(tones.files[0]).text == next(iter(tones.texts.values()))
    model = asr.load(tones.model, engine="onnx")
    assert type(model.acoustic).__name__ == "OnnxModel"
    with pytest.raises(asr.AsrError, match="is a graph"):
        asr.load(graph, engine="torch")
    with pytest.raises(asr.AsrError, match=r"reads whole utterances. For a stream, name"):
        model.stream()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "torch", "--model", "GRAPH"], "is a graph"),
        (["--engine", "onnx", "--device", "cuda", "--model", "GRAPH"], "used on the CPU"),
        (["--model", "missing.onnx"], "missing.onnx: cannot be read"),
        (["--model", "BROKEN"], "broken.onnx: not a readable ONNX graph"),
    ],
)
def test_bad_graphs(
    arguments: list[str], message: str, tones: Any, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or torch where onnxruntime was asked for."""
    broken = graph.with_name("broken.onnx")
    broken.write_bytes(graph.read_bytes()[:1000])
    places = {"GRAPH": str(graph), "BROKEN": str(broken)}
    assert main(["transcribe", tones.files[0], *(places.get(word, word) for word in arguments)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "tones.bin"], "ends in .onnx"),
        (["-o", "tones.onnx", "--streaming"], "no-bidirectional"),
        (["-o", "tones.onnx", "--streaming", "--check", "dev.jsonl"], "--check"),
        (["-o", "missing/tones.onnx"], "missing"),
    ],
)
def test_bad_settings(
    arguments: list[str],
    message: str,
    tones: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph that is written and cannot be used, or an hour of work before the refusal."""
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tones.model), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_the_packages(
    tones: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback for those who did not install the extra."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(tones.model), "-o", "tones.onnx"]) == 2
    assert "pip install 'asr-rnn[onnx]'" in capsys.readouterr().err
