"""Pooling, padding, cropping, upsampling and resizing: they move space, not channels."""

from __future__ import annotations

import tensorflow as tf

from tfqprune.layers.activation import PassThrough
from tfqprune.layers.base import LayerCall, channel_axis, register_handler
from tfqprune.layers.space import Channels

K = tf.keras.layers


@register_handler(
    K.MaxPooling1D, K.MaxPooling2D, K.MaxPooling3D, K.AveragePooling1D, K.AveragePooling2D, K.AveragePooling3D,
    K.ZeroPadding1D, K.ZeroPadding2D, K.ZeroPadding3D, K.Cropping1D, K.Cropping2D, K.Cropping3D,
    K.UpSampling1D, K.UpSampling2D, K.UpSampling3D,
    K.Resizing, K.CenterCrop, K.RandomCrop, K.RandomFlip, K.RandomRotation, K.RandomTranslation, K.RandomZoom,
    K.RandomHeight, K.RandomWidth,
)  # fmt: skip
class SpatialHandler(PassThrough):
    """Works on each channel alone, if the channels lie where the layer expects them."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.inputs[0].axis is not None and not call.align(channel_axis(call.layer, len(call.input_shapes[0]))):
            return call.opaque(f"feeds {call.title} along another axis than its channels")
        return super().flow(call)


@register_handler(
    K.GlobalAveragePooling1D, K.GlobalAveragePooling2D, K.GlobalAveragePooling3D,
    K.GlobalMaxPooling1D, K.GlobalMaxPooling2D, K.GlobalMaxPooling3D,
)  # fmt: skip
class GlobalPoolingHandler(SpatialHandler):
    """Space goes; the channels become axis 1, or stay where they are with ``keepdims``."""

    def flow(self, call: LayerCall) -> list[Channels]:
        outputs = super().flow(call)
        if outputs[0] is not call.inputs[0] or call.layer.keepdims:
            return outputs
        return [Channels(1, outputs[0].ids)]
