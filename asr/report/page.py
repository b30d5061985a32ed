"""The page about an evaluation: one HTML file that opens from disk."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asr.decoding.hypothesis import Hypothesis
from asr.pages.render import data_uri, render
from asr.report.charts import Chart, reliability_chart
from asr.report.media import Media
from asr.report.tables import histogram, percent, rate_row, tables
from asr.scoring.breakdown import Value, confusions, word_errors, worst
from asr.scoring.calibration import calibrate
from asr.scoring.evaluation import Evaluation
from asr.scoring.wer import Score

__all__ = ["About", "Selection", "build_page", "select"]

_EACH = 100  # utterances that are shown of the worst and of all
_MOST_TEXT = 5000  # utterances whose text is on the page; of more only those that are shown
_MOST_MEDIA = 14_000_000  # characters of sounds and pictures on the page: it should open at once
_MOST_PAIRS = 60  # rows in a table of words


@dataclass(frozen=True)
class Selection:
    """The ids of the utterances that are shown with sound and picture.

    Attributes:
        worst: those with the most errors, the most first.
        random: drawn from all.
        seed: of the draw.
    """

    worst: tuple[str, ...]
    random: tuple[str, ...]
    seed: int

    @property
    def ids(self) -> list[str]:
        """All, in turns, so that a limit cuts off both alike; each once."""
        turns = [name for pair in zip(self.worst, self.random, strict=False) for name in pair]
        return list(dict.fromkeys([*turns, *self.worst, *self.random]))


@dataclass(frozen=True)
class About:
    """What the page says about the evaluation beside its errors.

    Attributes:
        title: of the page.
        settings: names and values by topic: the model, the decoding, the data.
        curves: of the training; empty where they are not known.
        gradients: captions and data URIs of pictures.
    """

    title: str
    settings: Mapping[str, Mapping[str, str]]
    curves: Sequence[Chart] = ()
    gradients: Sequence[tuple[str, str]] = ()


def select(score: Score, seed: int = 0) -> Selection:
    """The worst hundred utterances that have errors, and a random hundred."""
    ids = [utterance.id for utterance in score.utterances]
    drawn = random.Random(seed).sample(ids, min(_EACH, len(ids)))
    return Selection(tuple(utterance.id for utterance in worst(score, _EACH)), tuple(drawn), seed)


def build_page(
    evaluation: Evaluation,
    fields: Sequence[Mapping[str, Value]],
    selection: Selection,
    media: Iterable[Media | None],
    about: About,
) -> str:
    """The page, as HTML.

    Args:
        evaluation: the score and all that was recognised.
        fields: further values of each utterance in the manifest.
        selection: of `select`.
        media: of each utterance of `selection.ids`; read until the page is as large as it may be.
        about: the rest.
    """
    score = evaluation.score
    hypotheses = {
        one.id: hypothesis
        for one, hypothesis in zip(evaluation.utterances, evaluation.hypotheses, strict=True)
    }
    seconds = {one.id: one.duration for one in evaluation.utterances}
    details = _details(selection.ids, media, hypotheses)
    listed = {*selection.ids} if len(score.utterances) > _MOST_TEXT else {*seconds}
    utterances = [
        [one.id, one.speaker, round(seconds[one.id], 2), one.reference, one.hypothesis, one.operations]
        for one in score.utterances
        if one.id in listed
    ]
    index = {row[0]: number for number, row in enumerate(utterances)}
    pairs, wrong_words = confusions(score), word_errors(score)
    calibration = calibrate(score, hypotheses)
    return render(
        "report.html",
        about=about,
        score=score,
        whole=rate_row("all", score),
        interval=score.interval(),
        cer_interval=score.cer_interval(),
        percent=percent,
        perfect=sum(not one.words.errors for one in score.utterances),
        hours=sum(seconds.values()) / 3600,
        left_out=evaluation.left_out,
        histogram=histogram(score),
        tables=tables(score, evaluation.utterances, fields),
        words={
            "Substituted": [
                (f"{p.reference} → {p.hypothesis}", p.count) for p in pairs if p.reference and p.hypothesis
            ],
            "Deleted": [(p.reference, p.count) for p in pairs if not p.hypothesis],
            "Inserted": [(p.hypothesis, p.count) for p in pairs if not p.reference],
        },
        wrong_words=wrong_words[:_MOST_PAIRS],
        most_pairs=_MOST_PAIRS,
        calibration=calibration,
        reliability=reliability_chart(calibration.bins) if calibration else None,
        utterances=utterances,
        lists={
            "worst": [index[name] for name in selection.worst],
            "random": [index[name] for name in selection.random],
        },
        seed=selection.seed,
        not_listed=len(score.utterances) - len(utterances),
        details={index[name]: detail for name, detail in details.items()},
        without_media=len(selection.ids) - sum("sound" in detail for detail in details.values()),
    )


def _details(
    ids: Sequence[str], media: Iterable[Media | None], hypotheses: Mapping[str, Hypothesis]
) -> dict[str, dict[str, Any]]:
    """What the page shows of an utterance once it is opened, by its id."""
    found: dict[str, dict[str, Any]] = {}
    size = 0
    for name, one in zip(ids, media, strict=False):
        words = [
            [word.text, round(word.start_s, 2), round(word.end_s, 2), round(word.confidence, 3)]
            for word in hypotheses[name].words
        ]
        found[name] = {"words": words}
        if one is None:
            continue
        sound, picture = data_uri("audio/ogg", one.sound), data_uri("image/png", one.picture)
        size += len(sound) + len(picture)
        if size > _MOST_MEDIA:
            break
        found[name] |= {
            "sound": sound, "picture": picture, "seconds": round(one.duration_s, 3), "step_s": one.step_s,
            "runs": [[*asdict(run).values()] for run in one.runs],
        }  # fmt: skip
    return found
