"""`asr compare`: two results in, a sentence out; whatever form the results have."""

import json
from pathlib import Path
from typing import Any

import pytest

from asr.scoring.results import result_json, write_results
from asr.scoring.wer import Score, score

REFERENCES = ["a b c", "d e f", "g"]


def result(*hypotheses: str) -> Score:
    return score(REFERENCES[: len(hypotheses)], list(hypotheses), ["u1", "u2", "u3"][: len(hypotheses)])


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """The same two results as files of each kind."""
    found: dict[str, tuple[Path, Path]] = {"json": (tmp_path / "a.json", tmp_path / "b.json")}
    found["folder"] = tmp_path / "a.results", tmp_path / "b.results"
    found["trn"] = tmp_path / "a.trn", tmp_path / "b.trn"
    found["text"] = tmp_path / "a.txt", tmp_path / "b.txt"
    for number, texts in enumerate((["a x c", "d e", "g"], ["a b c", "d e f", "h"])):
        found["json"][number].write_text(result_json(result(*texts), {}))
        write_results(found["folder"][number] / "results.jsonl", result(*texts))
        lines = [f"{text} (u{index})\n" for index, text in enumerate(texts, 1)]
        found["trn"][number].write_text("".join(lines))
        found["text"][number].write_text("".join(f"u{index} {text}\n" for index, text in enumerate(texts, 1)))
    (tmp_path / "ref.trn").write_text("a b c (u1)\nd e f (u2)\ng (u3)\n")
    (tmp_path / "ref.txt").write_text("u1 a b c\nu2 d e f\nu3 g\n")
    return found


def test_all_forms_agree(forms: Any, tmp_path: Path, run: Any) -> None:
    """A form of result that is read wrongly: ids as words, another normaliser, A and B exchanged."""
    more = {"trn": ["--reference", tmp_path / "ref.trn"]}
    more["text"] = ["--reference", tmp_path / "ref.txt", "--ids"]
    texts = []
    for kind, (first, second) in forms.items():
        status, out, err = run("compare", first, second, *more.get(kind, []))
        assert (status, err) == (0, ""), kind
        assert out.startswith(
            f"A is {first}, B is {second}.\nB makes 50% fewer errors than A (1 instead of 2);"
        )
        texts.append(out.partition("\n")[2])
    assert len({*texts}) == 1
    mixed = run("compare", forms["json"][0], forms["trn"][1], *more["trn"])
    assert mixed[1].partition("\n")[2] == texts[0]


def test_common(tmp_path: Path, run: Any) -> None:
    """The intersection of two sets that is compared without a word, or not at all."""
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    whole.write_text(result_json(result("a b c", "d e f", "h"), {}))
    part.write_text(result_json(result("a b x", "d e f"), {}))
    status, out, err = run("compare", whole, part)
    assert (status, out) == (2, "")
    assert "A has 3 utterances, B 2: 1 only in A (u3)" in err
    status, out, err = run("compare", whole, part, "--common")
    assert status == 0
    assert "A makes no error, B makes 1" in out
    assert "the 2 utterances that both have, of 3 in A and 2 in B" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist. Expected a result of `asr evaluate`"),
        ('{"results": [', "broken JSON: Expecting value. Expected a result"),
        ('{"results": [{"reference": "a", "hypothesis": "a"}]}', "an utterance has no id"),
        ('{"results": []}', "there is no utterance to score"),
        ('{"id": "u1", "text": "a"}', "hypotheses without references"),
        ("[1, 2]", "hypotheses without references"),
    ],
)
def test_wrong_files(content: str | None, message: str, forms: Any, tmp_path: Path, run: Any) -> None:
    """A traceback for a file that is something else."""
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    status, out, err = run("compare", path, forms["json"][0])
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_empty_folder(forms: Any, tmp_path: Path, run: Any) -> None:
    """A folder of something else that is taken for a result."""
    status, _, err = run("compare", tmp_path, forms["json"][0])
    assert status == 2
    assert f"{tmp_path}: there is no results.jsonl in it." in err


def test_score_json_is_a_result(forms: Any, tmp_path: Path, run: Any) -> None:
    """What `asr score --json` prints, which compare cannot read."""
    paths = []
    for number in (0, 1):
        status, out, _ = run("score", tmp_path / "ref.trn", forms["trn"][number], "--json")
        assert status == 0
        assert json.loads(out)["errors"] == (2, 1)[number]
        paths.append(tmp_path / f"score{number}.json")
        paths[-1].write_text(out)
    assert "B makes 50% fewer errors" in run("compare", *paths)[1]
