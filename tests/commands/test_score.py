"""`asr score`: two text files in, a summary out, and no line lost or guessed."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from asr.commands.score import ScoreSettings, run
from asr.errors import DataError, SettingsError
from asr.scoring.text_files import score_files
from asr.text.normalize import NORMALIZERS


@pytest.fixture
def files(tmp_path: Path) -> "Files":
    """Writes a pair of text files and scores them."""
    return Files(tmp_path)


class Files:
    """A reference and a hypothesis in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.ref, self.hyp = folder / "ref.txt", folder / "hyp.txt"

    def write(self, ref: str | bytes, hyp: str | bytes) -> "Files":
        for path, content in ((self.ref, ref), (self.hyp, hyp)):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def wer_line(self, ids: bool = False, normalizer: str = "verbatim") -> str:
        return score_files(self.ref, self.hyp, normalizer=normalizer, ids=ids).wer_line()


def test_lines_pair_up_by_number(files: Files) -> None:
    """Guards plain scoring, names of utterances included."""
    files.write("a b c\nd\n", "a x c\nd e\n")
    result = score_files(files.ref, files.hyp, normalizer="verbatim", ids=False)
    assert result.wer_line() == "%WER 50.00 [ 2 / 4, 1 ins, 0 del, 1 sub ]"
    assert [utterance.id for utterance in result.utterances] == ["line-1", "line-2"]


def test_files_of_one_recording(tmp_path: Path) -> None:
    """Numbers and times of subtitles counted as words; lines of tables likewise."""
    times = "00:00:01,000 --> 00:00:02,000\n"
    for name, content in (
        ("ref.srt", f"1\n{times}a b c\n"), ("hyp.srt", f"1\n{times}a\n\n2\n{times}x c\n"),
        ("ref.txt", "a\nb c\n"), ("a.csv", "id,text\nu,a b c\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
    for reference in ("ref.srt", "ref.txt"):
        result = run(ScoreSettings(tmp_path / reference, tmp_path / "hyp.srt"))
        assert "%WER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]" in result
    with pytest.raises(DataError, match=r"a\.csv: files of this format are not read"):
        run(ScoreSettings(tmp_path / "ref.txt", tmp_path / "a.csv"))


STM = """;; LABEL "M" "Male" ""
talk 1 anna 0.00 2.00 <o,f0,female> a b c
talk 1 inter_segment_gap 2.00 3.00 IGNORE_TIME_SEGMENT_IN_SCORING
talk 1 ben 3.00 5.00 d e
quiet 1 anna 0.00 1.00 f
"""


def test_segments_of_an_stm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A word that is scored where it was not said, or is counted although it is not to be scored."""
    caplog.set_level(logging.INFO, "asr")
    (tmp_path / "ref.stm").write_text(STM)
    # the middle of c is in the first segment, x and y are in the ignored one, z follows the last one
    words = [(0.1, "a"), (0.6, "b"), (1.7, "c"), (2.2, "x"), (2.6, "y"), (2.9, "d"), (4.0, "e"), (6.0, "z")]
    hypothesis = tmp_path / "hyp.ctm"
    hypothesis.write_text("".join(f"talk A {start} 0.4 {word} 0.9\n" for start, word in words))
    result = run(ScoreSettings(tmp_path / "ref.stm", hypothesis, results=tmp_path / "results.jsonl"))
    assert "%WER 33.33 [ 2 / 6, 1 ins, 1 del, 0 sub ]" in result
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["id"], row["hypothesis"]) for row in rows] == [
        ("talk-1-0000.00-0002.00", "a b c"), ("talk-1-0003.00-0005.00", "d e z"),
        ("quiet-1-0000.00-0001.00", ""),
    ]  # fmt: skip
    assert "no words of 1 of the 2 recordings" in caplog.text
    assert "2 words are in segments that are not scored" in caplog.text


def test_channels_of_an_stm(tmp_path: Path) -> None:
    """Channels with names other than A and 1, of which the first was taken; sclite compares any names."""
    (tmp_path / "ref.stm").write_text("".join(f"talk {name} anna 0 2 {name}\n" for name in ("1", "B", "far")))
    (tmp_path / "hyp.ctm").write_text("talk A 0.1 0.4 1\ntalk 2 0.1 0.4 B\ntalk far 0.1 0.4 far\n")
    result = run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.ctm", normalizer="verbatim"))
    assert "%WER 0.00 [ 0 / 3" in result
    (tmp_path / "hyp.ctm").write_text("talk near 0.1 0.4 far\n")
    with pytest.raises(DataError, match=r"channel near of talk has no segment in .*, which has A, B, far"):
        run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.ctm"))


def test_a_channel_that_the_stm_lacks(tmp_path: Path) -> None:
    """The other side of a call counted as words that were inserted in this one; with one channel on both
    sides, its name does not matter."""
    (tmp_path / "ref.stm").write_text("call 1 anna 0 2 a\n")
    (tmp_path / "hyp.ctm").write_text("call far 0.1 0.4 a\n")
    assert "%WER 0.00" in run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.ctm"))
    (tmp_path / "hyp.ctm").write_text("call A 0.1 0.4 a\ncall B 0.1 0.4 b\n")
    with pytest.raises(DataError, match=r"channel B of call has no segment in .*, which has A\."):
        run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.ctm"))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("talk 1 anna 0 2 a {b / c} d", "ref.stm line 2: alternatives, .* '{b / c}'"),
        ("talk 1 anna 0 2 a ( b / c ) d", r"alternatives, .* '\( b / c \)'"),
        ("talk 1 anna 2 0 a", "start 2, end 0"),
        ("talk 1 anna zero 2 a", "Expected recording, channel, speaker, start and end"),
        ("other 2 anna 0 2 a", "hyp.ctm: talk has no segment in .*ref.stm, which has other"),
        ("talk 1 anna 0 2 ignore_time_segment_in_scoring", "no segment that is scored"),
    ],
)
def test_an_stm_that_cannot_be_scored(tmp_path: Path, line: str, complaint: str) -> None:
    """Alternatives counted as words; times that mean nothing; the wrong file."""
    (tmp_path / "ref.stm").write_text(f";; comment\n{line}\n")
    (tmp_path / "hyp.ctm").write_text("talk 1 0.1 0.4 a\n")
    with pytest.raises(DataError, match=complaint):
        run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.ctm"))


def test_an_stm_needs_times(tmp_path: Path) -> None:
    """Texts without times scored as if all were in one segment; reference and hypothesis exchanged."""
    (tmp_path / "ref.stm").write_text(STM)
    (tmp_path / "hyp.trn").write_text("a b c (talk)\n")
    with pytest.raises(DataError, match=r"hyp\.trn: has no times of words"):
        run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.trn"))
    with pytest.raises(DataError, match=r"ref\.stm: an stm has true texts, and is the first file"):
        run(ScoreSettings(tmp_path / "hyp.trn", tmp_path / "ref.stm"))
    rows = {"id": "talk", "text": "a b c"}
    (tmp_path / "hyp.jsonl").write_text(json.dumps(rows) + "\n")
    with pytest.raises(DataError, match="no times of the words of talk"):
        run(ScoreSettings(tmp_path / "ref.stm", tmp_path / "hyp.jsonl"))


def test_ids_in_another_order(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """Ids that are taken for words, in files that are in different orders: 100% and no reason why."""
    files.write("u-1 a b\nu-2 c d\n", "u-2 c d\nu-1 a b\n").wer_line()
    assert "such as 'u-1'. If these are utterance ids, add --ids" in caplog.text


def test_empty_and_one_letter_lines_are_utterances(files: Files) -> None:
    """Guards against the fault of jiwer's command line: short lines dropped from both sides, WER 0."""
    files.write("I\n\na\n\n", "a\nx y\n\n\n")
    result = score_files(files.ref, files.hyp, normalizer="verbatim", ids=False)
    assert len(result.utterances) == 4
    assert result.wer_line() == "%WER 200.00 [ 4 / 2, 2 ins, 1 del, 1 sub ]"


@pytest.mark.parametrize("ref", ["a b\nc", "a b\nc\n", "a b\r\nc\r\n", b"\xef\xbb\xbfa b\nc\n"])
def test_line_ends_and_byte_order_marks(files: Files, ref: str | bytes) -> None:
    """Guards against a missing last line feed, Windows line ends or a byte order mark that make errors."""
    assert files.write(ref, "a b\nc\n").wer_line() == "%WER 0.00 [ 0 / 3, 0 ins, 0 del, 0 sub ]"


def test_a_line_ends_at_a_line_feed_only(files: Files) -> None:
    """Guards against splitlines: it cuts at U+2028, form feeds and more, and shifts all that follows."""
    assert files.write("a\u2028b\nc\x0cd\x85e\n", "a b\nc d e\n").wer_line().startswith("%WER 0.00 [ 0 / 5,")


def test_ids_join_files_of_any_order(files: Files) -> None:
    """Guards the join by id: order and separators do not matter, an id alone is an empty transcript."""
    files.write("u1 a b\nu2\tc\nu3\n", "u3 x\nu2 c\nu1   a\n")
    result = score_files(files.ref, files.hyp, normalizer="verbatim", ids=True)
    assert [utterance.id for utterance in result.utterances] == ["u1", "u2", "u3"]
    assert result.wer_line() == "%WER 66.67 [ 2 / 3, 1 ins, 1 del, 0 sub ]"


def test_ids_are_not_normalised(files: Files) -> None:
    """Guards against ids that collapse into one when case or marks are removed."""
    files.write("U-1 a\nu1 b\n", "U-1 a\nu1 b\n")
    assert files.wer_line(ids=True, normalizer="english").startswith("%WER 0.00 [ 0 / 2,")


def test_missing_and_extra_ids(files: Files) -> None:
    """Guards against utterances that are left out of the score: a few are named, all are counted."""
    ref = "".join(f"u{number} a\n" for number in range(10))
    files.write(ref, "u0 a\nu1 a\nv1 a\nv2 a\n")
    with pytest.raises(DataError) as caught:
        files.wer_line(ids=True)
    message = str(caught.value)
    assert "hyp.txt lacks 8 of the 10 ids of" in message
    assert "(u2, u3, u4, u5, u6 and 3 more)" in message
    assert "has 2 ids that" in message
    assert "(v1, v2)" in message


@pytest.mark.parametrize(
    ("ref", "hyp", "ids", "message"),
    [
        ("a\nb\n", "a\n", False, r"ref\.txt has 2 lines, but .*hyp\.txt has 1\..*--ids"),
        ("a\n\n", "a\n", False, r"has 2 lines, but"),
        ("", "a\n", False, r"ref\.txt is empty"),
        ("a\n", b"a\n", True, None),
        ("u a\nu b\n", "u a\n", True, r"ref\.txt line 2: the id 'u' is already in line 1"),
        ("u a\n", "u a\n\n", True, r"hyp\.txt line 2 is empty. With --ids"),
        ("a\nb\n", b"a\nbc\xe9\n", False, r"hyp\.txt line 2: byte 0xe9, number 3 of the line is not UTF-8"),
        ("a\n".encode("utf-16"), "a\n", False, r"ref\.txt is UTF-16"),
    ],
)
def test_wrong_files(
    files: Files, ref: str | bytes, hyp: str | bytes, ids: bool, message: str | None
) -> None:
    """Guards each message, with file, line and counts, and against lines dropped to make files fit."""
    files.write(ref, hyp)
    if message is None:
        assert files.wer_line(ids=ids) == "%WER 0.00 [ 0 / 0, 0 ins, 0 del, 0 sub ]"
        return
    with pytest.raises(DataError, match=message):
        files.wer_line(ids=ids)


def test_files_that_cannot_be_read(files: Files, tmp_path: Path) -> None:
    """Guards against a traceback for the commonest mistake of all."""
    files.ref.write_text("a\n")
    with pytest.raises(DataError, match=r"hyp\.txt does not exist"):
        files.wer_line()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        score_files(tmp_path, files.ref, normalizer="verbatim", ids=False)


def test_hints(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the two hints, and that they only hint: ids and case still count as they stand."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        assert files.write("u-1 a\nu-2 b\n", "u-1 a\nu-2 c\n").wer_line().startswith("%WER 25.00 [ 1 / 4,")
        assert "such as 'u-1'. If these are utterance ids, add --ids" in caplog.text
        caplog.clear()
        assert files.write("HELLO YOU\n", "hello you\n").wer_line().startswith("%WER 100.00 [ 2 / 2,")
        assert "the reference is all in upper case" in caplog.text.lower()
        assert "--normalizer lower" in caplog.text
        caplog.clear()
        files.write("the a\nour b\n", "the a\nour c\n").wer_line()
        files.write("u-1 a\nu-1 b\n", "u-1 a\nu-1 c\n").wer_line()
        files.write("u-1 A\nu-2 b\n", "u-1 A\nu-2 c\n").wer_line(ids=True)
        files.write("HELLO\n", "hello\n").wer_line(normalizer="lower")
        assert caplog.text == ""


def test_run_writes_what_is_asked_for(files: Files, tmp_path: Path) -> None:
    """Guards each option of the command: both reports, the ids and the normaliser reach the score."""
    files.write("u1 A b\nu2 c\n", "u2 c\nu1 a x\n")
    results, alignments = tmp_path / "out" / "r.jsonl", tmp_path / "out" / "a.txt"
    arguments = [str(files.ref), str(files.hyp), "--ids", "--normalizer", "lower"]
    arguments += ["--results", str(results), "--alignments", str(alignments)]
    settings = tyro.cli(ScoreSettings, args=arguments)
    text = run(settings)
    assert text.startswith("%WER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]\n")
    assert text.endswith("Normalizer: lower")
    assert [json.loads(line)["errors"] for line in results.read_text().splitlines()] == [1, 0]
    assert "REF:  a b\nHYP:  a x\nEVAL:   S" in alignments.read_text()


def test_defaults(files: Files) -> None:
    """Guards the defaults: no rule acts, nothing is written beside the inputs."""
    files.write("A b\n", "a b\n")
    text = run(tyro.cli(ScoreSettings, args=[str(files.ref), str(files.hyp)]))
    assert text.startswith("%WER 50.00 [ 1 / 2, 0 ins, 0 del, 1 sub ]\n")
    assert sorted(path.name for path in files.ref.parent.iterdir()) == ["hyp.txt", "ref.txt"]


def test_reports_do_not_overwrite_inputs(files: Files) -> None:
    """Guards a hypothesis file against one misplaced option, and one report against the other."""
    files.write("a\n", "a\n")
    with pytest.raises(SettingsError, match=r"--results .*hyp\.txt would overwrite the hypothesis"):
        run(ScoreSettings(files.ref, files.hyp, results=files.ref.parent / "." / "hyp.txt"))
    out = files.ref.parent / "out"
    with pytest.raises(SettingsError, match=r"--alignments .*out would overwrite the file of --results"):
        run(ScoreSettings(files.ref, files.hyp, results=out, alignments=out))
    assert files.hyp.read_text() == "a\n"
    assert not out.exists()


def test_unknown_normalizer(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a misspelt name, and a help text that forgets one."""
    files.write("a\n", "a\n")
    with pytest.raises(SettingsError, match=r"verbatim, lower, english, words\. Got 'englsh'"):
        files.wer_line(normalizer="englsh")
    with pytest.raises(SystemExit) as caught:
        tyro.cli(ScoreSettings, args=["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NORMALIZERS)


def test_scoring_never_imports_torch() -> None:
    """Guards `asr --help` and `asr score` against the seconds that torch takes; the settings load less
    still."""
    program = (
        "import sys, asr.commands.score\n"
        "assert not {'torch', 'jiwer', 'numpy'} & set(sys.modules), 'settings'\n"
        "import asr.scoring.results, asr.scoring.text_files, asr.text.tokenizer\n"
        "assert 'torch' not in sys.modules, 'scoring'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])


def test_trn_has_ids(tmp_path: Path) -> None:
    """sclite's format: the id in brackets scored as a word, 12.5% for 16.7%; lines in another order."""
    ref, hyp = tmp_path / "ref.trn", tmp_path / "hyp.trn"
    ref.write_text("a b x (spk1-utt1)\nd e f (spk1-utt2)\n")
    hyp.write_text("d e f (spk1-utt2)\na b c (spk1-utt1)\n")
    assert run(ScoreSettings(ref, hyp)).startswith("%WER 16.67 [ 1 / 6, 0 ins, 0 del, 1 sub ]\n")


def test_trn_under_another_name_is_noticed(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """The ids of a trn file in a .txt, which are counted as words without a hint; brackets that are none."""
    files.write("a b x (s1-u1)\nd e f (s1-u2)\n", "a b c (s1-u1)\nd e f (s1-u2)\n").wer_line()
    assert "such as '(s1-u1)'. If these are the utterance ids of sclite's trn format" in caplog.text
    caplog.clear()
    files.write("a (noise)\nb (noise)\n", "a (noise)\nb c\n").wer_line()
    files.write("a (b)\n\n", "a (b)\n\n").wer_line()
    assert caplog.text == ""


def test_formats_with_ids_mix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reference in one format and a hypothesis in another; a ctm, which has no line for an empty text."""
    trn, ctm, text = tmp_path / "ref.trn", tmp_path / "hyp.ctm", tmp_path / "ref.txt"
    manifest = tmp_path / "ref.jsonl"
    trn.write_text("a b (u1)\nc (u2)\n")
    text.write_text("u1 a b\nu2 c\n")
    manifest.write_text('{"id": "u1", "text": "a b"}\n{"id": "u2", "text": "c"}\n')
    ctm.write_text("u1 1 0.5 0.1 x\nu1 1 0.1 0.1 a\n")
    for reference, ids in ((trn, False), (text, True), (manifest, False)):
        caplog.clear()
        settings = ScoreSettings(reference, ctm, ids=ids)
        assert run(settings).startswith("%WER 66.67 [ 2 / 3, 0 ins, 1 del, 1 sub ]")
        assert "no words of 1 of the 2 utterances" in caplog.text
        assert "such as u2: scored as empty transcripts" in caplog.text
    with pytest.raises(SettingsError, match=r"hyp\.ctm has utterance ids, .*ref\.txt has none\..*--ids"):
        run(ScoreSettings(text, ctm))
    with pytest.raises(DataError, match=r"hyp\.trn has 1 ids that .*ref\.ctm lacks \(u2\)"):
        run(ScoreSettings(ctm.rename(tmp_path / "ref.ctm"), trn.rename(tmp_path / "hyp.trn")))
