"""Convolutions of every kind: plain, grouped, depthwise, separable, transposed, and larq's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from tfqprune.layers.activation import is_elementwise
from tfqprune.layers.base import (
    Kept,
    LayerCall,
    LayerHandler,
    LayerRecord,
    channel_axis,
    pixels,
    register_handler,
    resized,
)
from tfqprune.layers.space import Channels

K = tf.keras.layers


class KernelHandler(LayerHandler, ABC):
    """Base of layers whose kernel mixes the channels of one axis."""

    def axis(self, call: LayerCall) -> int:
        return channel_axis(call.layer, len(call.input_shapes[0]))

    def flow(self, call: LayerCall) -> list[Channels]:
        axis = self.axis(call)
        across = f"feeds {call.title} along another axis than its channels"
        if not call.align(axis) and not call.read_across(axis, across):
            return call.opaque(across)
        outputs = Channels(axis, self.connect(call, call.inputs[0].ids))
        if call.output_shapes[0][axis] != len(outputs.ids):
            reason = f"{call.title} has an activation that changes the number of channels"
            call.space.freeze(outputs.ids, reason)
            return call.opaque(reason)
        if not is_elementwise(getattr(call.layer, "activation", None)):
            call.space.freeze(outputs.ids, f"{call.title} has an activation that looks at all channels together")
        return [outputs]

    @abstractmethod
    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        """Declares roles and weights for the input ids; returns the output ids."""

    def bias(self, call: LayerCall, role: str) -> None:
        if call.layer.use_bias:
            call.weight("bias", (role,))


@register_handler(K.Conv1D, K.Conv2D, K.Conv3D, lq.layers.QuantConv1D, lq.layers.QuantConv2D, lq.layers.QuantConv3D)
class ConvHandler(KernelHandler):
    """kernel: (*spatial, in / groups, out).

    In a grouped convolution slot j of every group of inputs is tied, and slot j of every group of
    outputs, so each group loses the same number. With one input channel a group the layer is a
    depthwise convolution, and whole groups go.
    """

    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        layer = call.layer
        spatial = (None,) * len(layer.kernel_size)
        reuse = pixels(call.output_shapes[0], self.axis(call))
        # Blocks that were cut down to one input each, and are to be known as what they were (GradualPruning), say so.
        if layer.groups > 1 and layer.groups == len(ids) and not getattr(layer, "_tied_blocks", False):
            kept = call.role("in", ids)
            if "out" not in call.record.roles:
                call.role("out", np.repeat(kept, layer.filters // layer.groups))
            call.weight("kernel", (*spatial, None, "out"), reuse)
        else:
            blocks = call.role("in", ids).reshape(layer.groups, -1)
            first = not call.record.weight_axes
            call.record.roles["slot"] = blocks[0]
            call.mint("out", layer.filters)
            if first:
                for tied in (blocks, call.record.roles["out"].reshape(layer.groups, -1)):
                    for block in tied[1:]:
                        call.space.tie(tied[0], block)
            call.weight("kernel", (*spatial, "slot", "out"), reuse)
        self.bias(call, "out")
        return call.record.roles["out"]

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        config, layer = resized(config, kept, {"filters": "out"}), record.layer
        if layer.groups > 1 and layer.kernel.shape[-2] == 1:
            config["groups"] = len(kept("in"))
        return config


@register_handler(K.DepthwiseConv1D, K.DepthwiseConv2D, lq.layers.QuantDepthwiseConv2D)
class DepthwiseConvHandler(KernelHandler):
    """depthwise_kernel: (*spatial, in, multiplier); output c * multiplier + j comes from input c."""

    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        kept = call.role("in", ids)
        if "out" not in call.record.roles:
            call.role("out", np.repeat(kept, call.layer.depth_multiplier))
        spatial = (None,) * len(call.layer.kernel_size)
        call.weight("depthwise_kernel", (*spatial, "in", None), pixels(call.output_shapes[0], self.axis(call)))
        self.bias(call, "out")
        return call.record.roles["out"]


@register_handler(K.SeparableConv1D, K.SeparableConv2D, lq.layers.QuantSeparableConv1D, lq.layers.QuantSeparableConv2D)
class SeparableConvHandler(KernelHandler):
    """depthwise_kernel: (*spatial, in, multiplier), pointwise_kernel: (1.., in * multiplier, out)."""

    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        layer = call.layer
        kept = call.role("in", ids)
        call.record.roles["middle"] = np.repeat(kept, layer.depth_multiplier)
        call.mint("out", layer.filters)
        spatial = (None,) * len(layer.kernel_size)
        reuse = pixels(call.output_shapes[0], self.axis(call))
        call.weight("depthwise_kernel", (*spatial, "in", None), reuse)
        call.weight("pointwise_kernel", (*spatial, "middle", "out"), reuse)
        self.bias(call, "out")
        return call.record.roles["out"]

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        return resized(config, kept, {"filters": "out"})


@register_handler(
    K.Conv1DTranspose, K.Conv2DTranspose, K.Conv3DTranspose,
    lq.layers.QuantConv2DTranspose, lq.layers.QuantConv3DTranspose,
)  # fmt: skip
class ConvTransposeHandler(KernelHandler):
    """kernel: (*spatial, out, in); every input position meets the whole kernel."""

    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        layer = call.layer
        call.role("in", ids)
        call.mint("out", layer.filters)
        spatial = (None,) * len(layer.kernel_size)
        call.weight("kernel", (*spatial, "out", "in"), pixels(call.input_shapes[0], self.axis(call)))
        self.bias(call, "out")
        return call.record.roles["out"]

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        return resized(config, kept, {"filters": "out"})


@register_handler(K.Dense, lq.layers.QuantDense)
class DenseHandler(KernelHandler):
    """kernel: (in, out), on the last axis of inputs of any rank."""

    def axis(self, call: LayerCall) -> int:
        return len(call.input_shapes[0]) - 1

    def connect(self, call: LayerCall, ids: np.ndarray) -> np.ndarray:
        call.role("in", ids)
        call.mint("out", call.layer.units)
        call.weight("kernel", ("in", "out"), pixels(call.output_shapes[0], self.axis(call)))
        self.bias(call, "out")
        return call.record.roles["out"]

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        return resized(config, kept, {"units": "out"})
