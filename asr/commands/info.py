"""`asr info`: what a model is, how it was trained, and the command that trains it again."""

import json
from dataclasses import dataclass
from typing import Any

import tyro

from asr.commands.common_options import ModelName
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model, settings_record
from asr.model.shipped import find_model

__all__ = ["InfoSettings", "run"]


@dataclass(frozen=True)
class InfoSettings:
    """Show what a model file says of itself: network, tokens, text rules, origin, tuned weights.

    The origin has the command, the commit and the versions that trained it; with the same ones and on a CPU
    of the same kind, the command gives the same weights again.
    """

    model: tyro.conf.Positional[ModelName]
    # print everything as one JSON object, all settings of the training included
    json: tyro.conf.FlagCreatePairsOff[bool] = False


def run(settings: InfoSettings) -> str:
    """The text to print.

    Raises:
        ModelError: there is no such model, or the file cannot be used.
    """
    files = find_model(settings.model)
    model = load_model(files.path)
    if settings.json:
        return json.dumps(settings_record(model.settings), ensure_ascii=False, indent=2)
    rows = {"file": str(files.path), **_network(model)}
    if files.lm and files.lexicon:
        rows |= {"language model": str(files.lm), "lexicon": str(files.lexicon)}
    if files.rescore_lm:
        rows |= {"rescored by": str(files.rescore_lm)}
    origin = {name: value for name, value in model.settings.provenance.items() if name != "settings"}
    rows |= {name.replace("_", " "): _value(value) for name, value in origin.items()}
    trained = model.settings.provenance.get("settings", {})
    rows |= {"seed": str(trained["train.seed"])} if "train.seed" in trained else {}
    for tuning in model.settings.tunings:
        rows.setdefault("tuned on", f"{tuning.manifest}, {tuning.utterances} utterances")
    width = max(map(len, rows))
    lines = [f"{name:{width}}  {value}" for name, value in rows.items()]
    more = "all settings: --json" if trained else ""
    return "\n".join([*lines, *([more] if more else [])])


def _network(model: AcousticModel) -> dict[str, str]:
    """Of features, encoder and tokens, a line each."""
    features, encoder = model.settings.features, model.settings.encoder
    recurrent, symbols = encoder.recurrent(), model.settings.tokenizer.symbols
    weights = sum(weight.numel() for weight in model.parameters())
    directions = "both directions" if encoder.layers.bidirectional else "one direction"
    return {
        "network": f"{recurrent.depth} layers of {recurrent.width} {encoder.layers.cell} units, "
        f"{directions}; {weights / 1e6:.1f} M weights",
        "features": f"{features.n_mels} log-mel bands at {features.sample_rate} Hz, normalised by "
        f"{features.normalize}; a step of {1000 * model.step_s:g} ms",
        "criterion": encoder.loss.criterion,
        "tokens": f"{len(symbols)} {model.settings.tokenizer.units}: {' '.join(symbols)!r:.120}",
        "text rules": model.settings.text_normalizer,
    }


def _value(value: Any) -> str:
    """A value of the provenance as one reads it."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_value(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
