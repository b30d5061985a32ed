"""`asr export`: a model -> an ONNX graph for other runtimes, compared with torch at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.common_options import ModelName
from asr.commands.options import check_output
from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.errors import ModelError, SettingsError
from asr.export.loading import require_onnx
from asr.files import write_atomically
from asr.manifests.manifest import read_manifest
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.model.shipped import ModelFiles, find_model
from asr.scoring.evaluation import evaluate

__all__ = ["ExportSettings", "run"]

_ROUNDING = 0.05  # nats that float32 may differ in another order of sums; seen: 0.0002


@dataclass(frozen=True)
class ExportSettings:
    """Write a model as an ONNX graph: log-mel features in, log-probabilities of the tokens out.

    The file holds the settings and the tokenizer, too: `asr transcribe --model FILE.onnx` uses it.
    """

    model: tyro.conf.Positional[ModelName]
    # the graph, FILE.onnx
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    # weights of 8 bits: a quarter of the size
    int8: tyro.conf.FlagCreatePairsOff[bool] = False
    # a graph for one block after another, with states in and out; for unidirectional models
    streaming: tyro.conf.FlagCreatePairsOff[bool] = False
    # also compare the word error rate on these utterances, decoded as `asr evaluate` does by default
    check: Annotated[Path | None, tyro.conf.arg(metavar="MANIFEST", help_behavior_hint="(default: none)")] = (
        None
    )


def run(settings: ExportSettings) -> str:
    """Export the model; the result is the text to print.

    Raises:
        AsrError: a setting, the model or the manifest cannot be used, or the graph cannot be written.
    """
    require_onnx()
    from asr.export.engine import OnnxModel
    from asr.export.int8 import to_int8
    from asr.export.model import export_model, export_streaming
    from asr.export.parity import compare

    output, streaming = settings.output, settings.streaming
    if output.suffix != ".onnx":
        raise SettingsError(f"--output {output}: expected a name that ends in .onnx.")
    if streaming and settings.check is not None:
        raise SettingsError(
            "--check: a graph of blocks is not decoded here. Leave out --check or --streaming."
        )
    check_output(output, [settings.model, *([settings.check] if settings.check else [])])
    files = find_model(settings.model)
    model = load_model(files.path)
    graph = export_streaming(model) if streaming else export_model(model)
    content = (to_int8(graph) if settings.int8 else graph).SerializeToString()
    parity = compare(model, content, streaming=streaming)
    if parity.difference > _ROUNDING and not settings.int8:
        raise ModelError(
            f"{files.path}: the graph's log-probabilities differ from torch's by up to "
            f"{parity.difference:.2g}. Expected at most {_ROUNDING:g}. Nothing is written: this is "
            "an error of asr; please report it."
        )
    write_atomically(output, lambda temporary: temporary.write_bytes(content))
    lines = [
        f"{output}: {len(content) / 1e6:.1f} MB, {'int8' if settings.int8 else 'float32'}, "
        f"{'blocks with states' if streaming else 'whole utterances'}",
        f"Parity: log-probabilities differ from torch's by at most {parity.difference:.2g}; "
        f"the best token is the same in {100 * parity.agreement:.1f}% of the steps",
    ]
    if settings.check is not None:
        lines.append(_compare_errors(model, OnnxModel(content), files, settings.check))
    return "\n".join(lines)


def _compare_errors(model: AcousticModel, graph: AcousticModel, files: ModelFiles, manifest: Path) -> str:
    """Word error rates of both, in a line."""
    utterances = read_manifest(manifest, allow_empty_text=True)
    decoder = build_decoder(DecoderSettings().with_defaults_of(files), model)
    scores = [evaluate(one, utterances, decoder=decoder) for one in (model, graph)]
    rates, name = [100 * one.wer for one in scores], scores[0].rate_name
    return (
        f"{name} on {manifest.name}: {rates[0]:.2f}% with torch, {rates[1]:.2f}% with the graph "
        f"({rates[1] - rates[0]:+.2f} points)"
    )
