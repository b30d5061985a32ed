"""What the doctor can find: every check with its severity, and a finding of one."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CHECKS", "Check", "Finding", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Check:
    """Something that may be wrong."""

    severity: Severity
    title: str  # what is found, of several utterances
    unusable: bool = False  # nothing can be learned from such an utterance: --fix leaves it out


CHECKS: dict[str, Check] = {
    "no-utterance": Check("error", "manifests without an utterance"),
    "line": Check("error", "lines that are no utterance", unusable=True),
    "missing-audio": Check("error", "recordings that do not exist", unusable=True),
    "unreadable-audio": Check("error", "recordings that cannot be read", unusable=True),
    "after-the-end": Check("error", "segments after the end of their recording", unusable=True),
    "duration": Check("error", "durations longer than the recording"),
    "empty-text": Check("error", "transcripts without words", unusable=True),
    "alignment": Check("error", "transcripts too long for their audio: CTC cannot align them", unusable=True),
    "outside": Check(
        "error", "characters that train lacks: `asr train` stops, or with --text.unknown drop leaves them out"
    ),
    "silence": Check("error", "silence with a transcript", unusable=True),
    "same-audio-across": Check("error", "recordings that are in two manifests"),
    "unused-audio": Check("warning", "recordings much longer than their durations"),
    "same-audio": Check("warning", "recordings that are twice in a manifest"),
    "antiphase": Check("warning", "channels that cancel each other: the loudest is used"),
    "clipping": Check("warning", "clipped recordings"),
    "quiet": Check("warning", "very quiet recordings"),
    "dc": Check("warning", "recordings with an offset (DC)"),
    "bandwidth": Check("warning", "nothing above 4 kHz: telephone speech at a higher rate"),
    "low-rate": Check("warning", "sample rates below 16 kHz"),
    "speaking-rate": Check("warning", "unusual numbers of characters a second: wrong transcripts?"),
    "long": Check("warning", "utterances of more than 30 s"),
    "control": Check("warning", "control or invisible characters in transcripts"),
    "mark": Check("warning", "combining marks without a letter; of a Turkish İ: --normalizer words:tr"),
    "digits": Check("warning", "digits: spell them out as they are spoken"),
    "symbol": Check("warning", "symbols and punctuation that the text rules leave"),
    "rare": Check("warning", "characters in fewer than 3 transcripts, which become tokens"),
    "shared-speaker": Check("warning", "speakers of train who are in dev or test, too"),
    "disagreement": Check("warning", "transcripts that disagree most with their audio"),
    "shared-sentence": Check("note", "sentences of dev or test that are in train, too"),
    "same-text": Check("note", "transcripts that another utterance of the manifest has"),
    "case": Check("note", "capital letters beside small ones, before the text rules"),
    "channels": Check("note", "recordings with several channels: their mean is used"),
    "rates": Check("note", "sample rates that differ"),
}
"""Every check by name, the worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was found.

    Attributes:
        check: its name.
        manifest: the file.
        id: of the utterance; "" where it is about several.
        detail: what exactly.
        count: how many it stands for: utterances, speakers or sentences, as the check's title has it.
        value: a number to sort by, the worst highest.
    """

    check: str
    manifest: str
    id: str = ""
    detail: str = ""
    count: int = 1
    value: float = 0.0

    @property
    def severity(self) -> Severity:
        """The severity of its check."""
        return CHECKS[self.check].severity

    def as_row(self) -> dict[str, Any]:
        """A line of JSON."""
        row = asdict(self)
        return {"severity": self.severity, **{key: value for key, value in row.items() if value != ""}}
