"""Shapes of encoders as the command line names them: the settings of recurrent layers among the others."""

from dataclasses import fields, replace
from typing import Any

from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig

__all__ = ["encoder_config"]

DEFAULT = EncoderConfig()


def encoder_config(base: EncoderConfig = DEFAULT, **settings: Any) -> EncoderConfig:
    """`base` with other settings, those of its recurrent layers included."""
    layers = {item.name: settings.pop(item.name) for item in fields(LayerConfig) if item.name in settings}
    return replace(base, layers=replace(base.layers, **layers), **settings)
