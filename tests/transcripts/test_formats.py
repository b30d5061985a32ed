"""Files of transcripts: what is written is read back, and what other programs read."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import DataError
from asr.transcripts.cue_files import format_srt, format_tsv, format_vtt, read_srt, read_tsv, read_vtt
from asr.transcripts.formats import FORMATS, read_transcripts, texts_by_id
from asr.transcripts.json_rows import format_json, read_json
from asr.transcripts.record import RecordingTranscript
from asr.transcripts.sclite import format_ctm, format_trn, read_ctm, read_trn
from asr.transcripts.subtitles import Subtitle, make_subtitles
from asr.transcripts.textgrid import format_textgrid, read_textgrid

WORDS = (
    Word("stand", 0.32, 0.6, 0.9731),
    Word("in", 0.64, 0.72, 0.5),
    Word("the", 0.72, 0.8, 1.0),
    Word("icebox", 2.04, 2.4, 0.25),
)
TEXT = "stand in the icebox"


def transcript(words: Sequence[Word] = WORDS, **fields: object) -> RecordingTranscript:
    text = " ".join(word.text for word in words)
    values = {"id": "talk", "text": text, "words": tuple(words), "duration_s": 2.5} | fields
    return RecordingTranscript(**values)  # type: ignore[arg-type]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "html"])  # for people alone
def test_every_format_is_read_back(name: str, tmp_path: Path) -> None:
    """A format that is written and that nothing reads, or another text than was written."""
    for words in (WORDS, ()):
        content = FORMATS[name].write(transcript(words))
        path = write(tmp_path, f"talk{FORMATS[name].suffix}", content)
        if name == "txt":
            assert content == f"{' '.join(word.text for word in words)}\n"
        elif name == "ctm" and not words:
            assert content == ""
        else:
            (found,) = read_transcripts(path)
            assert found.text == " ".join(word.text for word in words)
            assert found.id == "talk"
            if name in ("json", "ctm", "textgrid"):
                assert [word.text for word in found.words] == [word.text for word in words]
                for read, written in zip(found.words, words, strict=True):
                    assert (read.start_s, read.end_s) == pytest.approx((written.start_s, written.end_s))


# -------------------------------------------------------------------------------------------------- subtitles

SUBTITLES = [
    Subtitle(0.0, 1.0004, ("stand in the ice box", "a <b> & c --> d")),
    Subtitle(1.0004, 3661.5, ("four",)),
]


def test_srt_by_hand(tmp_path: Path) -> None:
    """Other players' files: Windows line ends, tags, hours, no number, no empty line at the end."""
    assert format_srt(make_subtitles(WORDS, 2.5)) == (
        "1\n00:00:00,320 --> 00:00:01,320\nstand in the\n\n2\n00:00:01,500 --> 00:00:02,500\nicebox\n"
    )
    path = write(
        tmp_path,
        "a.srt",
        "\ufeff1\r\n00:00:01,000 --> 01:00:02,500\r\n<i>stand</i> in\r\n{\\an8}the ice box\r\n\r\n\r\n"
        "01:00:03.000 --> 01:00:04.000 X1:40\n2023",
    )
    assert read_srt(path) == [
        Subtitle(1.0, 3602.5, ("stand in", "the ice box")),
        Subtitle(3603.0, 3604.0, ("2023",)),
    ]


def test_subtitles_round_trip(tmp_path: Path) -> None:
    """Characters that a format gives a meaning; rounding that lets one subtitle run into the next."""
    srt = read_srt(write(tmp_path, "a.srt", format_srt(SUBTITLES)))
    vtt = read_vtt(write(tmp_path, "a.vtt", format_vtt(SUBTITLES)))
    tsv = read_tsv(write(tmp_path, "a.tsv", format_tsv(SUBTITLES)))
    assert vtt[0].lines == ("stand in the ice box", "a <b> & c -> d")
    assert tsv[0].text == "stand in the ice box a <b> & c --> d"
    for found in (srt, vtt, tsv):
        assert [(one.start_s, one.end_s) for one in found] == [(0.0, 1.0), (1.0, 3661.5)]
        assert found[1].lines == ("four",)


def test_vtt_by_hand(tmp_path: Path) -> None:
    """What browsers demand, and what other programs write: notes, names, settings, times without hours."""
    assert format_vtt(SUBTITLES[1:]) == "WEBVTT\n\n00:00:01.000 --> 01:01:01.500\nfour\n"
    path = write(
        tmp_path,
        "a.vtt",
        "WEBVTT - talk\nKind: captions\n\nNOTE nothing\n\nSTYLE\n::cue {}\n\n"
        "first\n00:01.000 --> 00:02.500 align:start\n<v Anna>stand<00:01.500> &lt;in&gt;</v>\n\n",
    )
    assert read_vtt(path) == [Subtitle(1.0, 2.5, ("stand <in>",))]


def test_other_programs_read_the_subtitles(tmp_path: Path) -> None:
    """Files that only this project reads."""
    pysubs2 = pytest.importorskip("pysubs2")
    words = [Word(f"word{n}", 0.5 * n, 0.5 * n + 0.4, 1.0) for n in range(200)]
    subtitles = make_subtitles(words)
    for name, text in (("srt", format_srt(subtitles)), ("vtt", format_vtt(subtitles))):
        found = pysubs2.SSAFile.from_string(text, format_=name)
        assert [(event.start, event.end) for event in found] == [
            (round(1000 * one.start_s), round(1000 * one.end_s)) for one in subtitles
        ]
        assert [event.plaintext.split("\n") for event in found] == [[*one.lines] for one in subtitles]
    ours = write(tmp_path, "theirs.srt", found.to_string("srt"))
    assert [one.text for one in read_srt(ours)] == [one.text for one in subtitles]


# ------------------------------------------------------------------------------------------------ ctm and trn


def test_ctm_by_hand(tmp_path: Path) -> None:
    """Lines that sclite and Kaldi write: comments, no confidence, several channels, any order."""
    assert format_ctm(transcript(WORDS[:2])) == (
        "talk 1 0.320 0.280 stand 0.9731\ntalk 1 0.640 0.080 in 0.5000\n"
    )
    assert format_ctm(transcript(WORDS[1:2], channel=1)) == "talk B 0.640 0.080 in 0.5000\n"
    path = write(
        tmp_path,
        "a.ctm",
        ";; a comment\nb A 1.5 0.2 two 0.5\nb A 1.0 .5 one NA\n\na 1 0 0.5 x\nb B 0.0 0.1 other 0.9 lex s1\n",
    )
    first, second, third = read_ctm(path)
    assert (first.id, first.channel, first.text) == ("b", 0, "one two")
    assert first.words == (Word("one", 1.0, 1.5, 1.0), Word("two", 1.5, 1.7, 0.5))
    assert (second.id, second.channel, second.text) == ("a", 0, "x")
    assert (third.id, third.channel, third.text) == ("b", 1, "other")
    assert texts_by_id(path) == {"b-A": "one two", "a": "x", "b-B": "other"}


def test_ctm_round_trip(tmp_path: Path) -> None:
    """Times, confidences or channels that change on the way."""
    written = [
        transcript(channel=0),
        transcript(WORDS[:1], id="b", channel=0),
        transcript(WORDS[1:], id="b", channel=1),
    ]
    path = write(tmp_path, "a.ctm", "".join(map(format_ctm, written)))
    for found, one in zip(read_ctm(path), written, strict=True):
        assert (found.id, found.channel, found.words) == (one.id, one.channel, one.words)


def test_channels_of_a_ctm(tmp_path: Path) -> None:
    """1 taken for the mix of the channels in a recording that has a 2; other names taken for the mix, so that
    two of them were one id twice."""
    lines = ["talk 1 0 1 a", "talk 2 0 1 b", "talk far 0 1 c", "talk near 0 1 d", "talk 0 0 1 e"]
    path = write(tmp_path, "numbers.ctm", "\n".join(lines))
    assert [one.channel for one in read_ctm(path)] == [0, 1, "far", "near", "0"]
    expected = {"talk-A": "a", "talk-B": "b", "talk-far": "c", "talk-near": "d", "talk-0": "e"}
    assert texts_by_id(path) == expected
    path = write(tmp_path, "letters.ctm", "\n".join(["talk A 0 1 a", "talk b 0 1 b", *lines[2:]]))
    assert texts_by_id(path) == expected


def test_trn_by_hand(tmp_path: Path) -> None:
    """An id that becomes a word, or brackets within a text that become an id."""
    assert format_trn(transcript()) == "stand in the icebox (talk)\n"
    assert format_trn(transcript((), id="a(1)")) == "(a[1])\n"
    path = write(tmp_path, "a.trn", ";; comment\na  b x (spk1-utt1)\n(spk1-utt2)\r\na (b) c (u 3)(u3) \n\n")
    assert texts_by_id(path) == {"spk1-utt1": "a b x", "spk1-utt2": "", "u3": "a (b) c (u 3)"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.trn", "a b (u1)\nc d\n", r"a\.trn line 2: 'c d' ends without an id"),
        ("a.trn", "a b (u1)\nc d (u1)\n", r"a\.trn line 2: the id 'u1' has a line already"),
        ("a.trn", "a { b / c } (u1)\n", r"a\.trn line 1: alternatives"),
        ("a.trn", "a {b / c} (u1)\n", r"a\.trn line 1: alternatives"),
        ("a.ctm", "a 1 0.0 0.1\n", r"a\.ctm line 1: 'a 1 0\.0 0\.1'\. Expected recording, channel, start"),
        ("a.ctm", "a 1 zero 0.1 x\n", r"a\.ctm line 1: .*Expected recording"),
        ("a.ctm", "a 1 -1 0.1 x\n", r"a\.ctm line 1: start -1, duration 0\.1\. Expected seconds"),
        ("a.ctm", "a 1 * * <ALT_BEGIN>\n", r"a\.ctm line 1: alternatives"),
        ("a.srt", "1\nhello\n", r"a\.srt line 2: 'hello'\. Expected the times"),
        ("a.srt", "1\n0:0:1,0 --> 0:0:2,0\nx\n\n2\n0:0:2,0 -> 0:0:3,0\ny\n", r"a\.srt line 6: '0:0:2,0 -> "),
        ("a.vtt", "WEBVTT\n\n00:01.0 --> 00:02.0\nx\n00:02.0 --> 00:03.0\ny\n", r"a\.vtt line 3: two times"),
        ("a.vtt", "00:01.000 --> 00:02.000\nx\n", r"a\.vtt line 1: .*Expected WEBVTT"),
        ("a.tsv", "0\t1\tx\n", r"a\.tsv line 1: .*Expected the header"),
        ("a.tsv", "start\tend\ttext\n0.5\t1\tx\n", r"a\.tsv line 2: .*milliseconds"),
        ("a.TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n1', "not a complete"),
        ("a.TextGrid", b"ooBinaryFile\x08TextGrid\0", "a binary TextGrid. .*Save it as text in Praat"),
        ("a.jsonl", '{"id": "a", "text": null}\n', r"a\.jsonl line 1: no transcript: text is null"),
        ("a.TextGrid", b"\xff\xff\x00", "neither UTF-8 nor UTF-16"),
        ("a.jsonl", '{"id": "a", "text": "x"}\n{"id": "b"', r"a\.jsonl line 2: broken JSON"),
        ("a.jsonl", '{"text": "x"}\n', r"a\.jsonl line 1: no transcript: neither id nor audio_filepath"),
        ("a.jsonl", '{"id": "a"}\n', r"a\.jsonl line 1: no transcript: the key 'text' is missing"),
        ("a.jsonl", "[1]\n", r"a\.jsonl line 1: no transcript"),
        ("a.trn", b"a\xe9 (u)\n", r"a\.trn line 1: byte 0xe9, number 2 of the line is not UTF-8"),
        ("a.doc", "x", r"a\.doc: unknown format\. Expected a file that ends in \.trn, \.ctm"),
    ],
)  # fmt: skip
def test_broken_files(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    """A traceback, or a text with words that nobody said, from a file that is not what its name promises."""
    with pytest.raises(DataError, match=message):
        read_transcripts(write(tmp_path, name, content))


def test_subtitles_of_other_programs(tmp_path: Path) -> None:
    """Times as words of a text: no empty line between subtitles, one within, no fractions, tight arrows."""
    for content in (
        "1\n0:0:1,0 --> 0:0:2,0\n\nhello\n2\n0:0:3,0 --> 0:0:4,0\n42\n",
        "1\n00:00:01 --> 00:00:02\nhello\n\n2\n00:00:03 --> 00:00:04\n42\n",
        "00:00:01,000-->00:00:02,000\nhello\n00:00:03,000-->00:00:04,000\n42\n",
    ):
        wanted = [Subtitle(1.0, 2.0, ("hello",)), Subtitle(3.0, 4.0, ("42",))]
        assert read_srt(write(tmp_path, "a.srt", content)) == wanted
    named = "WEBVTT\n00:01.000 --> 00:02.000\nit&#39;s&nbsp;&lt;me&gt;\n"
    assert [one.text.split() for one in read_vtt(write(tmp_path, "a.vtt", named))] == [["it's", "<me>"]]


def test_captions_that_roll(tmp_path: Path) -> None:
    """YouTube's captions repeat what is shown already: each line is a text once."""
    content = (
        "WEBVTT\n\n00:01.000 --> 00:02.000\n \nhello<00:01.500><c> there</c>\n\n"
        "00:02.000 --> 00:02.010\nhello there\n \n\n"
        "00:02.010 --> 00:03.000\nhello there\nnext<00:02.500><c> line</c>\n"
    )
    subtitles = read_vtt(write(tmp_path, "a.vtt", content))
    assert [(one.start_s, one.text) for one in subtitles] == [(1.0, "hello there"), (2.01, "next line")]


def test_textgrids_of_aligners(tmp_path: Path) -> None:
    """Pauses that aligners name, which would be words; UTF-16 without a mark."""
    grid = format_textgrid(transcript([Word("<p:>", 0.1, 0.2, 1.0), Word("sp", 0.2, 0.3, 1.0), *WORDS]))
    for content in (grid.encode(), grid.encode("utf-16-le")):
        assert read_textgrid(write(tmp_path, "a.TextGrid", content)).text == TEXT


def test_optional_words_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """sclite lets words in brackets be missing: another rate than sclite's without a word."""
    read_trn(write(tmp_path, "a.trn", "the (uh) cat (u1)\n(%hesitation) sat (u2)\n"))
    assert "a.trn: words in brackets, 2 such as (uh): sclite lets them be missing" in caplog.text


def test_ids_differ(tmp_path: Path) -> None:
    """Two utterances of which one is scored twice and the other not at all; a file without any."""
    rows = '{"id": "a", "text": "x"}\n{"audio_filepath": "b/a.wav", "text": "y"}\n'
    with pytest.raises(DataError, match="two transcripts have the id 'a'"):
        texts_by_id(write(tmp_path, "a.jsonl", rows))
    with pytest.raises(DataError, match="has no transcript"):
        texts_by_id(write(tmp_path, "a.ctm", ""))


# --------------------------------------------------------------------------------------------------- textgrid


def test_textgrid_by_hand(tmp_path: Path) -> None:
    """Praat's short format, quotes, comments, a tier of points before the words, UTF-16."""
    short = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n3\n'
        '"TextTier"\n"clicks"\n0\n2.5\n1\n1.25\n"click 7"\n'
        '"IntervalTier"\n"phones"\n0\n2.5\n1\n0\n2.5\n"s"\n'
        '"IntervalTier"\n"words"\n0\n2.5\n2\n0\n1 ! a comment\n"say ""hi"" 2 you"\n1\n2.5\n""\n'
    )
    for encoding in ("utf-8", "utf-16"):
        found = read_textgrid(write(tmp_path, "my talk.TextGrid", short.encode(encoding)))
        assert (found.id, found.duration_s, found.text) == ("my_talk", 2.5, 'say "hi" 2 you')
        assert [word.end_s for word in found.words] == pytest.approx([0.273, 0.636, 0.727, 1.0], abs=1e-3)


def test_praat_reads_the_textgrid(tmp_path: Path) -> None:
    """Intervals with holes, or quotes that end a text: Praat refuses the file."""
    praatio = pytest.importorskip("praatio.textgrid")
    words = (*WORDS, Word('"quoted"', 2.35, 2.45, 1.0))
    path = write(tmp_path, "talk.TextGrid", format_textgrid(transcript(words)))
    assert read_textgrid(path).text == TEXT + ' "quoted"'
    grid = praatio.openTextgrid(str(path), includeEmptyIntervals=True)
    entries = grid.getTier("words").entries
    assert [entry.label for entry in entries] == ["", "stand", "", "in", "the", "", "icebox", '"quoted"', ""]
    assert entries[0].start == 0.0
    assert entries[-1].end == grid.maxTimestamp == 2.5
    assert all(one.end == following.start for one, following in itertools.pairwise(entries))
    for kind in ("short_textgrid", "long_textgrid"):
        grid.save(str(tmp_path / "theirs.TextGrid"), format=kind, includeBlankSpaces=True)
        assert read_textgrid(tmp_path / "theirs.TextGrid").text == TEXT + ' "quoted"'


# ------------------------------------------------------------------------------------------------------- json


def test_json_fields(tmp_path: Path) -> None:
    """Fields that a reader relies on: under another name, missing, or of another recording."""
    best = Hypothesis(TEXT, WORDS, (1,), (0,), -1.25, -1.0)
    other = Hypothesis("stand", WORDS[:1], (1,), (0,), -2.25, -2.0)
    one = transcript(
        id="u1", audio_filepath="a/talk.wav", channel=1, offset_s=3.0, hypotheses=(best, other, other)
    )
    line = format_json(one, nbest=2)
    assert line.startswith(
        '{"id": "u1", "audio_filepath": "a/talk.wav", "offset": 3.0, "duration": 2.5, "channel"'
    )
    assert line.count('"score": -2.25') == 1
    assert format_json(one).count('"score"') == 1
    (found,) = read_json(write(tmp_path, "a.json", line))
    assert (found.id, found.channel, found.offset_s, found.words) == ("u1", 1, 3.0, WORDS)
    failed = transcript((), audio_filepath="talk.wav", error="talk.wav: no such file.", duration_s=0.0)
    assert format_json(failed) == (
        '{"audio_filepath": "talk.wav", "duration": 0.0, "error": "talk.wav: no such file."}\n'
    )
    spelled = replace(WORDS[0], unknown=True)
    line_of_unknown = format_json(transcript((spelled, WORDS[1])))
    assert line_of_unknown.count('"unknown": true') == 1
    assert "unknown" not in line
    (found,) = read_json(write(tmp_path, "unknown.json", line_of_unknown))
    assert found.words == (spelled, WORDS[1])
    rows = write(tmp_path, "a.jsonl", line + format_json(failed))
    assert [one.error for one in read_json(rows)] == ["", "talk.wav: no such file."]
    pretty = write(tmp_path, "b.json", '{\n  "audio_filepath": "x/y.wav",\n  "text": "z"\n}\n')
    assert [(one.id, one.text) for one in read_json(pretty)] == [("y", "z")]


def test_failed_recordings_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A score with recordings that failed in it, without a word."""
    path = write(tmp_path, "a.jsonl", '{"id": "a", "text": "x"}\n{"id": "b", "error": "no such file"}\n')
    assert texts_by_id(path) == {"a": "x", "b": ""}
    assert "1 recordings could not be transcribed" in caplog.text


def test_read_back_trn(tmp_path: Path) -> None:
    """The ids of several recordings, in their order."""
    path = write(tmp_path, "a.trn", "".join(format_trn(transcript(WORDS[:n], id=f"u{n}")) for n in range(3)))
    assert [(one.id, one.text) for one in read_trn(path)] == [("u0", ""), ("u1", "stand"), ("u2", "stand in")]
