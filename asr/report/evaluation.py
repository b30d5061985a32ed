"""The page of an evaluation: gather what it shows, from the model, the recordings and the run's folder."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asr import __version__
from asr.decoding.decoder import DescribedDecoder
from asr.files import write_text
from asr.microscope.page import pictures
from asr.model.acoustic import AcousticModel
from asr.model.encoder import parameter_count
from asr.report.charts import learning_curves
from asr.report.media import read_media
from asr.report.page import About, build_page, select
from asr.scoring.breakdown import Value
from asr.scoring.evaluation import Evaluation
from asr.training.diagnostics import FOLDER
from asr.training.metrics import METRICS, read_metrics

__all__ = ["about_evaluation", "describe_settings", "write_page"]

_LONG = 6  # entries of a value that is a topic of its own


def about_evaluation(title: str, settings: Mapping[str, Mapping[str, str]], run_dir: Path | None) -> About:
    """What the page says beside the errors: settings, and of the training its curves and pictures.

    Args:
        title: of the page.
        settings: of `describe_settings`.
        run_dir: the folder that the model was trained in; None where it is unknown.
    """
    if run_dir is None:
        return About(title, settings)
    curves = learning_curves(read_metrics(run_dir / METRICS))
    return About(title, settings, curves, pictures(run_dir / FOLDER))


def write_page(
    path: Path,
    evaluation: Evaluation,
    model: AcousticModel,
    about: About,
    fields: Sequence[Mapping[str, Value]],
    batch_s: float,
) -> None:
    """Write the page of an evaluation.

    The model runs once more over the utterances that are shown with sound and picture.

    Args:
        path: of the HTML file, in an existing folder.
        evaluation: of the model.
        model: on its device.
        about: of `about_evaluation`.
        fields: further values of each utterance in the manifest.
        batch_s: seconds of audio in a batch, padding included.

    Raises:
        OSError: the file cannot be written.
    """
    selection = select(evaluation.score)
    by_id = {utterance.id: utterance for utterance in evaluation.utterances}
    # Closed also where the page has room for fewer: threads that read ahead would keep the process alive.
    with closing(read_media(model, [by_id[name] for name in selection.ids], batch_s)) as media:
        html = build_page(evaluation, fields, selection, media, about)
    write_text(path, html)


def describe_settings(
    model: AcousticModel, name: Path, decoder: DescribedDecoder, manifest: Path
) -> dict[str, dict[str, str]]:
    """Settings and origin of a score, by topic, for people and for JSON.

    Args:
        model: on its device.
        name: of its file, or of a model that ships.
        decoder: what decodes its output.
        manifest: what was recognised.
    """
    settings = model.settings
    encoder, features = asdict(settings.encoder), asdict(settings.features)
    encoder.pop("loss", None)
    return {
        "Evaluation": {
            "model": str(name),
            "manifest": str(manifest),
            "decoder": decoder.name,
            **({"weights": decoder.weights} if decoder.weights else {}),
            "device": str(model.device),
            "asr": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "Network": {
            "weights": f"{parameter_count(model) / 1e6:.2f} million",
            "units": f"{settings.tokenizer.vocab_size - 1} {settings.tokenizer.units}",
            **{key: _text(value) for key, value in encoder.items()},
        },
        "Features": {key: _text(value) for key, value in features.items()},
        **_topics("Origin of the model", settings.provenance),
    }


def _topics(title: str, values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Values by topic, where a long or nested value is a topic of its own."""
    found: dict[str, dict[str, str]] = {title: {}}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and any(isinstance(part, Mapping) for part in value.values())
        if isinstance(value, Mapping) and (nested or len(value) > _LONG):
            found |= _topics(f"{title}: {key}", value)
        elif isinstance(value, Mapping):
            found[title][key] = ", ".join(f"{name}: {_text(part)}" for name, part in value.items())
        else:
            found[title][key] = _text(value)
    return {name: topic for name, topic in found.items() if topic}


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
