"""`asr.load`: a model for recognition, computed by torch or by onnxruntime."""

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from asr.decoding.config import DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.device import choose_device
from asr.errors import ModelError, SettingsError, check_number
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.recognition.transcription import Model

__all__ = ["Engine", "load", "load_with_engine", "require_onnx"]

EngineName = Literal["torch", "onnx", "onnx-int8"]

Engine = Annotated[
    EngineName | None,
    tyro.conf.arg(
        metavar="torch|onnx|onnx-int8",
        help="What computes the model: torch, or onnxruntime on the CPU, also with weights of 8 bits.",
        help_behavior_hint="(default: onnx for a graph of `asr export`, else torch)",
    ),
]
"""A setting of commands; None chooses by the kind of the file."""


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    decoding: DecoderSettings | None = None,
    nbest: int = 1,
    engine: EngineName | None = None,
) -> Model:
    """Load a model: one that ships with the package, or one that `asr train` or `asr export` has written.

        >>> model = asr.load("runs/mine/model.safetensors", device="cpu")
        >>> model = asr.load("mine.safetensors", decoding=asr.DecoderSettings(lm=Path("words.bin")))

    Args:
        model: a name (english, english-fast), a folder of `asr adapt`, or the path of a .safetensors file or
            of a graph (.onnx), which has no language model.
        device: auto, cpu, cuda or cuda:N; auto is a GPU where there is a usable one. Float32 is exact there.
        decoding: language model, lexicon, beam and weights. None, and what is None in it: what ships with a
            named model; for a file, greedy decoding.
        nbest: hypotheses per recording; more than one needs a beam search.
        engine: torch, or onnx or onnx-int8 for onnxruntime on the CPU; None: onnx for a graph, else torch.

    Raises:
        ModelError: there is no such model, or the file cannot be used.
        SettingsError: the device or a setting is unknown or impossible here.
    """
    check_number("nbest", nbest, least=1)
    files = find_model(Path(model))
    acoustic = load_with_engine(files.path, device, engine)
    settings = (decoding or DecoderSettings()).with_defaults_of(files)
    return Model(acoustic, build_decoder(settings, acoustic, nbest))


def load_with_engine(path: Path, device: str, engine: Engine) -> AcousticModel:
    """Load a model.

    Args:
        path: of `asr train` (.safetensors) or `asr export` (.onnx).
        device: auto, cpu, cuda or cuda:N; onnxruntime computes on the CPU.
        engine: None: onnx for a graph, else torch. The weights of a graph stay as they are.

    Raises:
        ModelError: the file cannot be used.
        SettingsError: the device or the engine cannot be used.
    """
    is_graph = path.suffix == ".onnx"
    if engine == "torch" and is_graph:
        raise SettingsError(f"--engine torch: {path} is a graph. Name its .safetensors file, or use onnx.")
    if engine in (None, "torch") and not is_graph:
        return load_model(path, choose_device(device))
    if device.startswith("cuda"):
        raise SettingsError(f"--device {device}: onnxruntime is used on the CPU. Expected auto or cpu.")
    require_onnx()
    from asr.export.engine import OnnxModel
    from asr.export.int8 import to_int8
    from asr.export.model import export_model

    if not is_graph:
        graph = export_model(load_model(path))
        return OnnxModel((to_int8(graph) if engine == "onnx-int8" else graph).SerializeToString())
    try:
        return OnnxModel(path.read_bytes())
    except OSError as error:
        reason = f"cannot be read: {error.strerror}. Expected a graph that `asr export` has written."
        raise ModelError(f"{path}: {reason}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def require_onnx() -> None:
    """Refuse to go on without onnx and onnxruntime.

    Raises:
        SettingsError: one is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"ONNX needs the package {error.name}, which is not installed: pip install 'asr-rnn[onnx]'"
        ) from error
