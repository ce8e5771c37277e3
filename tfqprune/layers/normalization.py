"""Normalisations: per channel (batch norm) or over the channels (layer, group, unit norm)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.layers.activation import PassThrough
from tfqprune.layers.base import Kept, LayerCall, LayerRecord, handler_for, register_handler
from tfqprune.layers.space import Channels

K = tf.keras.layers


def _axes(layer: tf.keras.layers.Layer, rank: int) -> list[int]:
    axis = layer.axis
    return [int(entry) % rank for entry in (axis if isinstance(axis, list | tuple) else [axis])]


class ScaleHandler(PassThrough):
    """Weights shaped like the normalised axes, one value a position."""

    weights: tuple[str, ...] = ("gamma", "beta")

    def declare(self, call: LayerCall, axes: list[int]) -> None:
        """Says that the weights run along ``axes``, and along the channels where those are among them."""
        channels = call.inputs[0]
        if channels.axis not in axes or all(getattr(call.layer, name, None) is None for name in self.weights):
            return
        call.role("out", channels.ids)
        for name in self.weights:
            if getattr(call.layer, name, None) is not None:
                call.weight(name, tuple("out" if axis == channels.axis else None for axis in sorted(axes)))


@register_handler(
    K.BatchNormalization, K.experimental.SyncBatchNormalization, tf.compat.v1.keras.layers.BatchNormalization
)
class BatchNormHandler(ScaleHandler):
    """Statistics of each position of ``axis`` on its own."""

    weights: tuple[str, ...] = (
        "gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"
    )  # fmt: skip

    def flow(self, call: LayerCall) -> list[Channels]:
        axes = _axes(call.layer, len(call.input_shapes[0]))
        if len(axes) > 1:
            return call.opaque(f"feeds {call.title}, which normalises several axes at once")
        if call.inputs[0].axis is not None and not call.align(axes[0]):
            return call.opaque(f"feeds {call.title}, which takes its statistics over the channels")
        self.declare(call, axes)
        return super().flow(call)


def is_batch_norm(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer is known to compute what a batch norm does; a user's subclass may do more in its ``call``."""
    return isinstance(handler_for(layer), BatchNormHandler)


@register_handler(K.LayerNormalization)
class LayerNormHandler(ScaleHandler):
    """Mean and variance over ``axis``; over what stays where the channels are among them."""

    def flow(self, call: LayerCall) -> list[Channels]:
        axes = _axes(call.layer, len(call.input_shapes[0]))
        if call.inputs[0].axis in axes:
            call.mixes(call.inputs[0])
        self.declare(call, axes)
        return super().flow(call)


@register_handler(K.UnitNormalization)
class UnitNormHandler(PassThrough):
    """Divides by the L2 norm over ``axis``; over what stays where the channels are among them."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.inputs[0].axis in _axes(call.layer, len(call.input_shapes[0])):
            call.mixes(call.inputs[0])
        return super().flow(call)


@register_handler(K.GroupNormalization)
class GroupNormHandler(ScaleHandler):
    """Statistics over blocks of channels: slot j of every block is tied, so that blocks stay equal."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels, rank = call.inputs[0], len(call.input_shapes[0])
        axes = _axes(call.layer, rank)
        if channels.axis not in axes:
            return call.opaque(f"feeds {call.title}, which takes its statistics over the channels")
        call.mixes(channels)
        call.role("channels", channels.ids)
        self.declare(call, axes)
        if call.layer.groups < len(channels):
            blocks = channels.ids.reshape(call.layer.groups, -1)
            for block in blocks[1:]:
                call.space.tie(blocks[0], block)
        return super().flow(call)

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        # One channel a group (instance norm): whole groups go.
        if len(record.roles["channels"]) == record.layer.groups:
            return {**config, "groups": len(kept("channels"))}
        return config


def _cut_broadcast(value: Any, size: int, positions: np.ndarray) -> Any:
    """Takes positions of a constant's last axis where that axis is the channels."""
    array = np.asarray(value)
    if array.ndim and array.shape[-1] == size and size > 1:
        return np.take(array, positions, axis=-1).tolist()
    return value


@register_handler(K.Rescaling)
class RescalingHandler(PassThrough):
    """``scale`` and ``offset`` are numbers, or constants that broadcast against the last axis."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels, rank = call.inputs[0], len(call.input_shapes[0])
        if tuple(call.output_shapes[0]) != tuple(call.input_shapes[0]):
            return call.opaque(f"feeds {call.title}, whose scale changes the number of channels or positions")
        constants = [np.asarray(value) for value in (call.layer.scale, call.layer.offset)]
        if any(value.ndim for value in constants):
            if channels.axis != rank - 1:
                return call.opaque(f"feeds {call.title}, whose scale runs along another axis than the channels")
            call.role("out", channels.ids)
        return super().flow(call)

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        if not any(np.ndim(config[key]) for key in ("scale", "offset")):
            return config
        size = max(np.shape(config[key])[-1] for key in ("scale", "offset") if np.ndim(config[key]))
        return {**config, **{key: _cut_broadcast(config[key], size, kept("out")) for key in ("scale", "offset")}}


@register_handler(K.Normalization)
class NormalizationHandler(PassThrough):
    """Preprocessing with a mean and variance: adapted weights, or constants of the config."""

    def flow(self, call: LayerCall) -> list[Channels]:
        layer, channels, rank = call.layer, call.inputs[0], len(call.input_shapes[0])
        axes = sorted(entry % rank for entry in layer.axis)
        if not axes:
            return super().flow(call)
        if axes != [channels.axis]:
            return call.opaque(f"feeds {call.title}, which normalises another axis than the channels")
        call.role("out", channels.ids)
        if layer.input_mean is None:
            call.weight("mean", ("out",))
            call.weight("variance", ("out",))
        return super().flow(call)

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        if record.layer.input_mean is None or not record.layer.axis:
            return config
        positions = kept("out")
        cut = {key: np.asarray(config[key], dtype="float32") for key in ("mean", "variance")}
        return {
            **config,
            **{
                key: np.take(value, positions, axis=int(np.argmax(value.shape))) if value.size > 1 else value
                for key, value in cut.items()
            },
        }
