"""Activations: element-wise ones let channels pass, those over all channels (softmax) freeze them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf
from larq import quantizers

from tfqprune import precision
from tfqprune.layers.base import LayerCall, LayerHandler, register_handler
from tfqprune.layers.space import Channels

K = tf.keras.layers


@lru_cache(maxsize=256)
def _is_elementwise(function: Callable[[tf.Tensor], tf.Tensor]) -> bool:
    """Whether a function commutes with dropping channels, found by running it."""
    values = tf.constant(np.random.default_rng(0).normal(size=(4, 6)).astype("float32") * 3)
    try:
        whole, part = np.asarray(function(values)), np.asarray(function(values[:, 1::2]))
    except Exception:  # a user's function may raise anything: it looks at more than single values
        return False
    return whole.shape == (4, 6) and np.allclose(whole[:, 1::2], part, rtol=1e-5, atol=1e-6)


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
    K.Dropout, K.SpatialDropout1D, K.SpatialDropout2D, K.SpatialDropout3D, K.AlphaDropout,
    K.GaussianDropout, K.GaussianNoise, K.ActivityRegularization,
    quantizers.NoOp, quantizers.SteSign, quantizers.ApproxSign, quantizers.SwishSign, quantizers.SteHeaviside,
)(PassThrough)  # fmt: skip


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
