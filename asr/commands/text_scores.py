"""Score a file of transcripts against another, in any format: what `asr score` and `asr compare` share."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import DataError, SettingsError
from asr.files import read_lines
from asr.transcripts.formats import OF_ONE, WITH_IDS, WITH_TIMES, read_transcripts, texts_by_id
from asr.transcripts.stm import read_stm, texts_of_segments

if TYPE_CHECKING:
    from asr.scoring.wer import Score

__all__ = ["score_texts"]

log = logging.getLogger("asr")

_NO_LINES = (".csv",)  # whose lines have more than texts, and which nothing here reads


def score_texts(reference: Path, hypothesis: Path, normalizer: str, *, ids: bool) -> "Score":
    """Score a file against another; matched by ids where one of them has these, otherwise by lines.

    Subtitles and a TextGrid are the text of one recording, whatever lines it has.

    Args:
        reference: with the true texts; its suffix names its format.
        hypothesis: with the recognised texts.
        normalizer: name of the rules applied to both sides.
        ids: whether lines of text files begin with ids.

    Raises:
        DataError: a file cannot be read, or the two do not match.
        SettingsError: the normalizer is unknown, or only one of the files has ids.
    """
    # Imported here, so that `asr --help`, which needs only the settings, stays fast.
    from asr.scoring.text_files import score_by_id, score_files

    for path in (reference, hypothesis):
        if path.suffix.lower() in _NO_LINES:
            raise DataError(
                f"{path}: files of this format are not read. Expected a text, one line an utterance, or trn, "
                f"ctm or jsonl. Write `TEXT (ID)` for each utterance into a .trn file."
            )
    if hypothesis.suffix.lower() == ".stm":
        raise DataError(
            f"{hypothesis}: an stm has true texts, and is the first file. Expected what was recognised, with "
            "times of words: ctm, or the JSON of `asr transcribe`."
        )
    if reference.suffix.lower() == ".stm":
        return _score_segments(reference, hypothesis, normalizer)
    suffixes = {reference.suffix.lower(), hypothesis.suffix.lower()}
    if suffixes & {*OF_ONE} and not suffixes & {*WITH_IDS}:
        name = reference.stem
        references, hypotheses = {name: _whole_text(reference)}, {name: _whole_text(hypothesis)}
        return score_by_id(references, hypotheses, reference, hypothesis, normalizer)
    if not suffixes & {*WITH_IDS}:
        return score_files(reference, hypothesis, normalizer=normalizer, ids=ids)
    references = _read_by_id(reference, hypothesis, ids)
    hypotheses = _read_by_id(hypothesis, reference, ids)
    if hypothesis.suffix.lower() == ".ctm":
        empty = [name for name in references if name not in hypotheses]
        if empty:  # a recording without words has no line in a ctm
            log.warning(
                "%s: no words of %d of the %d utterances of %s, such as %s: scored as empty transcripts.",
                hypothesis, len(empty), len(references), reference, empty[0],
            )  # fmt: skip
        hypotheses = {**dict.fromkeys(empty, ""), **hypotheses}
    return score_by_id(references, hypotheses, reference, hypothesis, normalizer)


def _score_segments(reference: Path, hypothesis: Path, normalizer: str) -> "Score":
    """Score words with times against the segments of an stm."""
    from asr.scoring.text_files import warn_about_case
    from asr.scoring.wer import score

    segments = read_stm(reference)
    if hypothesis.suffix.lower() not in WITH_TIMES:
        raise DataError(
            f"{hypothesis}: has no times of words, by which the segments of {reference} are scored. "
            "Expected a ctm, or the JSON of `asr transcribe`."
        )
    texts = texts_of_segments(segments, reference, read_transcripts(hypothesis), hypothesis)
    rows = [(one, text) for one, text in zip(segments, texts, strict=True) if one.text is not None]
    return warn_about_case(
        score(
            [one.text or "" for one, _ in rows],
            [text for _, text in rows],
            [one.id for one, _ in rows],
            normalizer,
            speakers=[one.speaker for one, _ in rows],
        )
    )


def _whole_text(path: Path) -> str:
    """The text of one recording."""
    if path.suffix.lower() in OF_ONE:
        return read_transcripts(path)[0].text
    return " ".join(read_lines(path))


def _read_by_id(path: Path, other: Path, ids: bool) -> dict[str, str]:
    from asr.scoring.text_files import read_by_id

    if path.suffix.lower() in (*WITH_IDS, *OF_ONE):
        return texts_by_id(path)
    if ids:
        return read_by_id(path)
    raise SettingsError(
        f"{other} has utterance ids, {path} has none. Expected both to have them: add --ids if the lines of "
        f"{path.name} begin with ids, or score files of the same format."
    )
