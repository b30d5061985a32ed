"""Errors of each speaker in sclite's form."""

from asr.scoring.speakers import speaker_report
from asr.scoring.wer import score


def test_the_report_by_hand() -> None:
    """A rate of another speaker, a mean over utterances in place of speakers, a sum without those unnamed."""
    result = score(
        ["a b c d", "a b", "a b c d e", "x"], ["a b c", "a x", "a b c d e f", "x"],
        speakers=["zoe", "anna", "anna", ""],
    )  # fmt: skip
    assert speaker_report(result).splitlines() == [
        "| SPKR    |  # Snt  # Wrd |   Corr    Sub    Del    Ins    Err  S.Err |",
        "|---------+---------------+-------------------------------------------|",
        "| anna    |      2      7 |   85.7   14.3    0.0   14.3   28.6  100.0 |",
        "| zoe     |      1      4 |   75.0    0.0   25.0    0.0   25.0  100.0 |",
        "|---------+---------------+-------------------------------------------|",
        "| Sum/Avg |      4     12 |   83.3    8.3    8.3    8.3   25.0   75.0 |",
        "|---------+---------------+-------------------------------------------|",
        "| Mean    |    1.5    5.5 |   80.4    7.1   12.5    7.1   26.8  100.0 |",
        "| S.D.    |    0.7    2.1 |    7.6   10.1   17.7   10.1    2.5    0.0 |",
        "| Median  |    1.5    5.5 |   80.4    7.1   12.5    7.1   26.8  100.0 |",
    ]


def test_no_speaker() -> None:
    """A table without a line."""
    assert speaker_report(score(["a"], ["b"])) == ""
    assert speaker_report(score([""], [""], speakers=["anna"])) == ""
