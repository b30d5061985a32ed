"""Shapes of networks as the command line names them: the settings of recurrent layers among the others."""

from dataclasses import fields, replace
from typing import Any

from asr.lm.charrnn import CharRnnConfig
from asr.lm.wordrnn import WordRnnConfig
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig

__all__ = ["charrnn_config", "encoder_config", "wordrnn_config"]

DEFAULT = EncoderConfig()


def encoder_config(base: EncoderConfig = DEFAULT, **settings: Any) -> EncoderConfig:
    """`base` with other settings, those of its recurrent layers included."""
    layers = {item.name: settings.pop(item.name) for item in fields(LayerConfig) if item.name in settings}
    return replace(base, layers=replace(base.layers, **layers), **settings)


def charrnn_config(embedding: int = 4, **layers: Any) -> CharRnnConfig:
    """A character RNN with these settings of its recurrent layers."""
    return CharRnnConfig(embedding=embedding, layers=replace(CharRnnConfig().layers, **layers))


def wordrnn_config(**settings: Any) -> WordRnnConfig:
    """A word RNN with other settings, those of its recurrent layers included."""
    own = {name: settings.pop(name) for name in ("vocabulary", "embedding", "cutoffs") if name in settings}
    return WordRnnConfig(**own, layers=replace(WordRnnConfig().layers, **settings))
