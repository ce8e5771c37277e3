"""One handler per layer family: how channels flow, how weights and config are cut."""

from __future__ import annotations

import tensorflow as tf

from tfqprune.layers import convolution, merging, normalization, reshaping, spatial  # noqa: F401  (they register)
from tfqprune.layers.base import LayerCall, LayerHandler, LayerRecord, handler_for, register_handler
from tfqprune.layers.operators import operator_for
from tfqprune.layers.probing import ProbedHandler
from tfqprune.layers.space import Channels, ChannelSpace

__all__ = [
    "ChannelSpace",
    "Channels",
    "LayerCall",
    "LayerHandler",
    "LayerRecord",
    "choose_handler",
    "register_handler",
]


def choose_handler(layer: tf.keras.layers.Layer) -> LayerHandler:
    """The registered handler of a layer, that of its operator, or one that probes the layer."""
    return handler_for(layer) or operator_for(layer) or ProbedHandler()
