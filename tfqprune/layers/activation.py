"""Activations: element-wise ones let channels pass, those over all channels (softmax) freeze them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from larq import quantizers

from tfqprune import precision
from tfqprune.layers.base import Kept, LayerCall, LayerHandler, LayerRecord, register_handler
from tfqprune.layers.space import Channels

K = tf.keras.layers


@lru_cache(maxsize=256)
def _is_elementwise(function: Callable[[tf.Tensor], tf.Tensor]) -> bool:
    """Whether a function commutes with dropping channels, found by running it."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(16, 6)) * 3
    for probe in (values, 100 * values, 0.01 * values, values * (rng.random(values.shape) < 0.2)):
        given = tf.constant(probe.astype("float32"))
        try:
            whole, part = np.asarray(function(given)), np.asarray(function(given[:, 1::2]))
        except Exception:  # a user's function may raise anything: it looks at more than single values
            return False
        if whole.shape != probe.shape or not np.allclose(whole[:, 1::2], part, 1e-5, 1e-6, equal_nan=True):
            return False
    return True


def is_elementwise(function: Callable[[tf.Tensor], tf.Tensor] | None) -> bool:
    """Whether an activation treats every value alone (None does)."""
    if function is None or function is tf.keras.activations.linear:
        return True
    if isinstance(function, quantizers.Quantizer):
        return not precision.is_tensor_wide(function)
    if isinstance(function, K.Layer) and function.weights:  # these may run along the channels
        return False
    try:
        return _is_elementwise(function)
    except TypeError:  # not hashable
        return _is_elementwise.__wrapped__(function)


class PassThrough(LayerHandler):
    """Every channel goes on as it came, at its own position."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return [call.inputs[0]] * len(call.output_shapes)


def _quantize(call: LayerCall, quantizer: quantizers.Quantizer) -> list[Channels]:
    """Channels pass a quantiser; one with a tensor-wide scale takes it over what stays."""
    if precision.is_tensor_wide(quantizer):
        call.mixes(call.inputs[0])
    return [call.inputs[0]]


@register_handler(K.Masking)
class MaskingHandler(LayerHandler):
    """Which steps count is told by all channels together."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return call.opaque(f"feeds {call.title}, which looks at all channels together to tell which steps count")


@register_handler(K.Activation)
class ActivationHandler(PassThrough):
    """Passes element-wise functions; others (softmax) freeze."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if isinstance(call.layer.activation, quantizers.Quantizer):
            return _quantize(call, call.layer.activation)
        if not is_elementwise(call.layer.activation):
            call.freeze_inputs(f"feeds {call.title}, whose activation looks at all channels together")
        return super().flow(call)


register_handler(
    K.ReLU, K.LeakyReLU, K.ELU, K.ThresholdedReLU,
    K.SpatialDropout1D, K.SpatialDropout2D, K.SpatialDropout3D, K.GaussianDropout, K.GaussianNoise,
    K.ActivityRegularization,
    quantizers.NoOp, quantizers.SteSign, quantizers.ApproxSign, quantizers.SwishSign, quantizers.SteHeaviside,
)(PassThrough)  # fmt: skip


@register_handler(K.Dropout)
class DropoutHandler(PassThrough):
    """Noise that is not shared along an axis has its length, which the slim model's inputs tell."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.layer.noise_shape and call.inputs[0].axis is not None:
            call.role("out", call.inputs[0].ids)
        return super().flow(call)

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        return {**config, "noise_shape": [1 if size == 1 else None for size in config["noise_shape"]]}


@register_handler(K.AlphaDropout)
class AlphaDropoutHandler(PassThrough):
    """Keras wants all lengths of its noise as numbers, so where they are given the channels stay."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.layer.noise_shape:
            call.freeze_inputs(f"feeds {call.title}, whose noise has a fixed shape")
        return super().flow(call)


@register_handler(quantizers.DoReFa, quantizers.SteTern, quantizers.MagnitudeAwareSign)
class QuantizerHandler(PassThrough):
    """A quantiser used as a layer of its own."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return _quantize(call, call.layer)


@register_handler(K.Softmax)
class SoftmaxHandler(PassThrough):
    """Frozen over the channels, passing over other axes."""

    def flow(self, call: LayerCall) -> list[Channels]:
        rank, axis = len(call.input_shapes[0]), call.layer.axis
        axes = [entry % rank for entry in (axis if isinstance(axis, list | tuple) else [axis])]
        if call.inputs[0].axis in axes:
            call.freeze_inputs(f"feeds {call.title}, a softmax over the channels")
        return super().flow(call)


@register_handler(K.PReLU)
class PReLUHandler(PassThrough):
    """Slopes have the input's shape, 1 along shared axes."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels, rank = call.inputs[0], len(call.input_shapes[0])
        if channels.axis is not None and channels.axis not in (call.layer.shared_axes or ()):
            call.role("out", channels.ids)
            call.weight("alpha", tuple("out" if axis == channels.axis else None for axis in range(1, rank)))
        return super().flow(call)
