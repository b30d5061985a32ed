"""A score as text and files.

Alignments that line up, summaries that name what they are, and files that hold every utterance.
"""

import json
import os
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.manifests.utterance import Utterance
from asr.scoring.results import (
    alignment_text,
    summary,
    table_by_part,
    write_alignments,
    write_results,
    write_score,
    write_score_folder,
)
from asr.scoring.wer import Score, score


def scored(*pairs: tuple[str, str]) -> Score:
    """The score of (reference, hypothesis) pairs, verbatim."""
    references, hypotheses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return score(references, hypotheses, [f"u{number}" for number in range(len(pairs))], "verbatim")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "lines"),
    [
        (
            "the cat sat",
            "the bat down sat",
            ["REF:  the *** cat  sat", "HYP:  the bat down sat", "EVAL:     I   S"],
        ),
        ("a bc d", "a d", ["REF:  a bc d", "HYP:  a ** d", "EVAL:   D"]),
        ("yes", "yes", ["REF:  yes", "HYP:  yes", "EVAL:"]),
        ("", "oh no", ["REF:  ** **", "HYP:  oh no", "EVAL: I  I"]),
        ("oh no", "", ["REF:  oh no", "HYP:  ** **", "EVAL: D  D"]),
        ("", "", ["REF:", "HYP:", "EVAL:"]),
        ("日本 e\u0301t x", "日 et x", ["REF:  日本 \u00e9t x", "HYP:  日   et x", "EVAL: S    S"]),
    ],
)
def test_alignment_text(reference: str, hypothesis: str, lines: list[str]) -> None:
    """Guards columns that drift apart: after gaps, beside wide characters, and at an empty side."""
    assert alignment_text(scored((reference, hypothesis)).utterances[0]).split("\n") == lines


def test_summary() -> None:
    """Guards the lines that people copy: counts, interval, share of right utterances, and the normaliser."""
    pairs = [("a b", "a b"), ("a b", "a c"), ("c", "c"), ("", "")]
    lines = summary(scored(*pairs)).split("\n")
    interval = scored(*pairs).interval()
    assert lines == [
        "%WER 20.00 [ 1 / 5, 0 ins, 0 del, 1 sub ]",
        "%CER 14.29 [ 1 / 7, 0 ins, 0 del, 1 sub ]",
        f"95% interval of the WER: {interval.low:.2f} to {interval.high:.2f} (bootstrap over utterances: 4)",
        "Without any error: 75.00% of the utterances [ 3 / 4 ]",
        "Normalizer: verbatim",
        "Empty references: 1 (each hypothesis word there counts as an insertion)",
    ]
    assert "Empty" not in summary(scored(("a", "a")))


def test_speakers_are_resampled_and_named(tmp_path: Path) -> None:
    """Guards the way of the speakers from the score to the summary and both files."""
    ids = [f"u{number}" for number in range(10)]
    speakers = [f"s{number // 2}" for number in range(10)]
    result = score(["a b"] * 10, ["a b"] * 9 + ["x y"], ids, "verbatim", speakers=speakers)
    interval = result.interval()
    assert f"95% interval of the WER: 0.00 to {interval.high:.2f} (bootstrap over speakers: 5)" in summary(
        result
    )
    write_score(tmp_path / "score.json", result)
    counts = {"errors": 2, "substitutions": 2, "deletions": 0, "insertions": 0}
    assert json.loads((tmp_path / "score.json").read_text()) == {
        "rate": "WER",
        "percent": 10.0,
        "words": 20,
        **counts,
        "characters": {"characters": 30, **counts},
        "utterances": 10,
        "normalizer": "verbatim",
        "interval": {
            "low": 0.0,
            "high": interval.high,
            "level": 0.95,
            "resampled": "speakers",
            "count": 5,
            "note": "",
        },
    }
    write_results(tmp_path / "results.jsonl", result)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["speaker"] for row in rows] == speakers


def test_score_of_empty_references_is_json(tmp_path: Path) -> None:
    """Guards parsers that are not Python's: JSON has no infinity."""
    write_score(tmp_path / "score.json", scored(("", "a")))
    row = json.loads((tmp_path / "score.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (row["percent"], row["interval"]["low"], row["interval"]["high"]) == (None, None, None)


def test_results_hold_every_utterance(tmp_path: Path) -> None:
    """Guards against rows that are dropped, reordered, or do not add up to the corpus."""
    result = scored(("a é", "a b"), ("", "x"), ("q", ""), ("I", "I"))
    write_results(tmp_path / "new" / "results.jsonl", result)
    text = (tmp_path / "new" / "results.jsonl").read_text(encoding="utf-8")
    assert "é" in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0] == {
        "id": "u0",
        "reference": "a é",
        "hypothesis": "a b",
        "errors": 1,
        "words": 2,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
    }
    assert [row["id"] for row in rows] == ["u0", "u1", "u2", "u3"]
    assert sum(row["errors"] for row in rows) == result.words.errors == 3
    assert sum(row["words"] for row in rows) == result.words.reference_length == 4
    assert os.listdir(tmp_path / "new") == ["results.jsonl"]  # no temporary file is left


def test_alignments_are_worst_first_and_complete(tmp_path: Path) -> None:
    """Guards the reading order, and against utterances without an error that are left out."""
    result = scored(("a", "a"), ("a b", "a c"), ("a b", "x y"), ("z", ""))
    write_alignments(tmp_path / "alignments.txt", result)
    text = (tmp_path / "alignments.txt").read_text(encoding="utf-8")
    assert text.startswith(summary(result) + "\n\n")
    heads = [line.split()[0] for line in text.splitlines() if line.startswith("u")]
    assert heads == ["u2", "u1", "u3", "u0"]
    assert "u2  [ 2 / 2, 0 ins, 0 del, 2 sub ]\nREF:  a b\nHYP:  x y\nEVAL: S S\n" in text


def test_phones_are_called_phones(tmp_path: Path) -> None:
    """Guards against a phone error rate that passes for a word error rate, in summary and files."""
    result = score(["HH AH L OW", ""], ["HH EH L", "T"], ["u0", "u1"], "english", "phones")
    lines = summary(result).splitlines()
    assert lines[0] == "%PER 75.00 [ 3 / 4, 1 ins, 1 del, 1 sub ]"
    assert lines[1].startswith("95% interval of the PER: ")
    assert not [line for line in lines if "WER" in line or "CER" in line]
    assert "Empty references: 1 (each hypothesis phone there counts as an insertion)" in lines
    assert any(line.startswith("Counted: phones") for line in lines)
    assert result.utterances[0].reference == "HH AH L OW"  # no rule for texts makes it "hh ah l ow"
    write_results(tmp_path / "results.jsonl", result)
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    assert row["phones"] == 4
    assert "words" not in row


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    """Guards against a crash at the end of a long evaluation, over a character that UTF-8 cannot hold."""
    result = scored(("a \ud800", "a"))
    write_results(tmp_path / "results.jsonl", result)
    write_alignments(tmp_path / "alignments.txt", result)
    row = json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8"))
    assert row["reference"] == "a \ud800"


def test_unwritable_places(tmp_path: Path) -> None:
    """Guards against a traceback where one line with the path is due."""
    with pytest.raises(DataError, match="cannot be written"):
        write_results(tmp_path, scored(("a", "a")))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/x\.jsonl cannot be written"):
        write_results(tmp_path / "file" / "x.jsonl", scored(("a", "a")))


def test_a_device_is_written_to_and_not_replaced() -> None:
    """Guards /dev/null and /dev/stdout against being renamed over."""
    write_results(Path(os.devnull), scored(("a", "a")))
    assert not Path(os.devnull).is_file()


def test_table_by_part() -> None:
    """A row whose figure is another part's or condition's."""
    ids, speakers = ["x", "y", "z"], ["s", "t", "u"]
    clean = score(["a b", "a b", "c d"], ["a b", "a c", "c d"], ids, speakers=speakers)
    noisy = score(["a b", "a b", "c d"], ["", "a c", "d c"], ids, speakers=speakers)
    utterances = [Utterance(id=name, audio_filepath=Path("a.wav"), duration=1.0, text="a") for name in ids]
    text = table_by_part({"clean": clean, "noisy": noisy}, {"all": utterances, "last": utterances[2:]})
    head, _, *rows = (line.strip("| ").split(" | ") for line in text.splitlines())
    assert head == ["condition", "part", "%WER", "95% interval"]
    assert [row[:3] for row in rows] == [
        ["clean", "all", "16.67 [ 1 / 6, 0 ins, 0 del, 1 sub ]"],
        ["clean", "last", "0.00 [ 0 / 2, 0 ins, 0 del, 0 sub ]"],
        ["noisy", "all", "83.33 [ 5 / 6, 1 ins, 3 del, 1 sub ]"],
        ["noisy", "last", "100.00 [ 2 / 2, 1 ins, 1 del, 0 sub ]"],
    ]
    assert rows[2][3] == str(noisy.interval())


def test_report_of_a_script_without_spaces(tmp_path: Path) -> None:
    """A report whose rate, interval, rows and alignment are of sentences, and which hides that it counts
    characters.
    """
    result = score(["今天天气很好", "好"], ["今天天汽很好", "好"], ["a", "b"], speakers=["x", "y"])
    text = summary(result)
    assert text.startswith("%CER 14.29 [ 1 / 7, 0 ins, 0 del, 1 sub ]\n95% interval of the CER: ")
    assert "%WER" not in text
    assert "Counted: characters, since the script has no spaces between words" in text
    assert alignment_text(result.utterances[0]).splitlines()[2] == "EVAL:" + " " * 10 + "S"
    write_score_folder(tmp_path, result)
    row = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))
    assert (row["rate"], row["characters"], row["errors"]) == ("CER", 7, 1)
    first = json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (first["reference"], first["characters"]) == ("今天天气很好", 6)
