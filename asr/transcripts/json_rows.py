"""Transcripts as JSON: an object each, with words, times, confidences, scores and alternatives.

    {"audio_filepath": "talk.wav", "duration": 2.1, "text": "stand in", "score": -1.3, …,
     "words": [{"word": "stand", "start": 0.32, "end": 0.6, "confidence": 0.97}, …]}

A word outside the vocabulary, which --open-vocabulary spells by its sound, has "unknown": true.
A file holds one object, or one a line (JSON Lines); a manifest is such a file, too.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import DataError
from asr.files import json_line, read_lines
from asr.transcripts.record import RecordingTranscript

if TYPE_CHECKING:
    from asr.recognition.streaming import StreamResult  # imports torch

__all__ = ["format_json", "read_json", "result_row"]


def format_json(transcript: RecordingTranscript, *, nbest: int = 1) -> str:
    """One line of JSON.

    Args:
        transcript: with its hypotheses, of which the first is its text; or with an error.
        nbest: more than 1 writes so many hypotheses, if the decoder found them, under "nbest".
    """
    row: dict[str, object] = {"audio_filepath": transcript.audio_filepath}
    if transcript.id != Path(transcript.audio_filepath).stem:
        row = {"id": transcript.id, **row}
    if transcript.recording_id:
        row["recording_id"] = transcript.recording_id
    if transcript.offset_s:
        row["offset"] = round(transcript.offset_s, 3)
    row["duration"] = round(transcript.duration_s or 0.0, 3)
    if transcript.channel is not None:
        row["channel"] = transcript.channel
    if transcript.error:
        row["error"] = transcript.error
    elif transcript.hypotheses:
        row |= _fields(transcript.hypotheses[0])
        if nbest > 1:
            row["nbest"] = [_fields(hypothesis) for hypothesis in transcript.hypotheses[:nbest]]
    else:
        row["text"] = transcript.text
        if transcript.confidence is not None:
            row["confidence"] = round(transcript.confidence, 4)
        row["words"] = [_word(word) for word in transcript.words]
    for name, intervals in transcript.tiers.items():
        row[name] = [_word(interval, "text") for interval in intervals]
    return json_line(row)


def _fields(hypothesis: Hypothesis) -> dict[str, object]:
    return {
        "text": hypothesis.text,
        "score": round(hypothesis.score, 3),
        "acoustic_score": round(hypothesis.acoustic_score, 3),
        "lm_log_prob": round(hypothesis.lm_log_prob, 3),
        "rescore_lm_log_prob": round(hypothesis.rescore_lm_log_prob, 3),
        "attention_score": round(hypothesis.attention_score, 3),
        "words": [_word(word) for word in hypothesis.words],
    }


def result_row(result: "StreamResult") -> dict[str, object]:
    """What is known of an utterance of a stream, as an object of JSON."""
    row: dict[str, object] = {
        "final": result.final, "start": round(result.start_s, 3), "end": round(result.end_s, 3),
        "text": result.text,
    }  # fmt: skip
    return row | (
        {"words": [_word(word) for word in result.words]} if result.final else {"stable": result.stable}
    )


def _word(word: Word, key: str = "word") -> dict[str, object]:
    row: dict[str, object] = {
        key: word.text,
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
        "confidence": round(word.confidence, 4),
    }
    return {**row, "unknown": True} if word.unknown else row


def read_json(path: Path) -> list[RecordingTranscript]:
    """Read transcripts that `format_json` has written, or a manifest; alternatives and scores are left out.

    An object without id has the name of its recording, without folder and suffix.

    Raises:
        DataError: the file cannot be read, a line is no object, or lacks audio_filepath and id, or has values
            of the wrong type.
    """
    lines = read_lines(path)
    try:  # one object, possibly over several lines
        rows = [(1, json.loads("\n".join(lines)))]
    except json.JSONDecodeError:
        rows = [(number, _load(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    return [_transcript(row, f"{path} line {number}") for number, row in rows]


def _load(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} line {number}: broken JSON: {error.msg} at column {error.colno}. Expected one object "
            f"per line, with id or audio_filepath, and text."
        ) from error


def _transcript(row: Any, where: str) -> RecordingTranscript:
    try:
        audio = str(row.get("audio_filepath") or "")
        name = str(row["id"] if row.get("id") is not None else Path(audio).stem)
        if not name:
            raise ValueError("neither id nor audio_filepath")
        if not row.get("error") and not isinstance(row["text"], str):
            raise ValueError(f"text is {json.dumps(row['text'])}")
        channel = row.get("channel")
        return RecordingTranscript(
            id=name,
            text="" if row.get("error") else row["text"],
            words=tuple(
                Word(
                    str(one["word"]),
                    float(one["start"]),
                    float(one["end"]),
                    float(one["confidence"]),
                    one.get("unknown") is True,
                )
                for one in row.get("words") or ()
            ),
            duration_s=None if row.get("duration") is None else float(row["duration"]),
            audio_filepath=audio,
            offset_s=float(row.get("offset") or 0.0),
            channel=None if channel is None else int(channel),
            recording_id=str(row.get("recording_id") or ""),
            error=str(row.get("error") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{where}: no transcript: {reason}. Expected an object with id or audio_filepath, and text."
        ) from None
