"""QuickNet for ImageNet, made for the Larq Compute Engine.

Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized Neural Networks",
arXiv 2011.09398.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision, Scheme
from tfqprune.zoo.registry import register

_BLOCKS = (4, 4, 4, 4)
_FILTERS = (64, 128, 256, 512)


@lq.utils.register_keras_custom_object  # under its plain name: .h5 files know no other
class BlurInitializer(tf.keras.initializers.Initializer):
    """The fixed 3x3 binomial filter of anti-aliased pooling (Zhang, arXiv 1904.11486), for a depthwise kernel."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        """The kernel ``[3, 3, channels, 1]``; each channel sums to 1."""
        row = np.array([1.0, 2.0, 1.0]) / 4.0
        return tf.constant(np.broadcast_to(np.outer(row, row)[:, :, None, None], shape), dtype or tf.float32)


def _stem(image: Any, filters: int, how: Scheme, quantize: bool) -> Any:
    """3x3 convolution, depthwise 3x3 and 1x1: a quarter of the image's height and width."""
    x = blocks.first_convolution(image, max(1, filters // 4), 3, how, quantize=quantize, strides=2)
    x = blocks.batch_norm(x, name="stem_bn1")
    x = blocks.relu(x, name="stem_relu")
    x = tf.keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="stem_depthwise")(x)
    x = blocks.batch_norm(x, name="stem_bn2", scale=False, center=False)
    x = blocks.float_convolution(x, filters, 1, name="stem_pointwise")
    return blocks.batch_norm(x, name="stem_bn3")


def _residual(x: Any, how: Scheme, name: str) -> Any:
    """Binary 3x3 convolution -> ReLU -> batch norm, with a shortcut around all of it."""
    filters = x.shape[-1]
    if how.kind == "binary":
        y = lq.layers.QuantConv2D(
            filters,
            3,
            padding="same",
            pad_values=1.0,
            activation="relu",
            use_bias=False,
            input_quantizer=lq.quantizers.SteSign(clip_value=1.25),
            kernel_quantizer=lq.quantizers.SteSign(clip_value=1.25),
            kernel_constraint=lq.constraints.WeightClip(clip_value=1.25),
            kernel_initializer="glorot_normal",
            name=f"{name}_conv",
        )(x)
    else:
        y = blocks.convolution(x, filters, 3, how, name=f"{name}_conv")
        y = blocks.relu(y, name=f"{name}_relu")
    y = blocks.batch_norm(y, name=f"{name}_bn")
    return tf.keras.layers.Add(name=f"{name}_add")([y, x])


def _transition(x: Any, filters: int, name: str) -> Any:
    """ReLU, anti-aliased max pooling and a float 1x1 convolution to more channels."""
    x = blocks.relu(x, name=f"{name}_relu")
    x = tf.keras.layers.MaxPooling2D(2, strides=1, name=f"{name}_pool")(x)
    x = tf.keras.layers.DepthwiseConv2D(
        3,
        strides=2,
        padding="same",
        use_bias=False,
        depthwise_initializer=BlurInitializer(),
        trainable=False,
        name=f"{name}_blur",
    )(x)
    x = blocks.float_convolution(x, filters, 1, name=f"{name}_conv")
    return blocks.batch_norm(x, name=f"{name}_bn")


@register
def quicknet(
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    quantize_ends: bool = False,
    name: str | None = None,
) -> tf.keras.Model:
    """QuickNet: four stages of four binary residual convolutions, float transitions between them.

    Source: arXiv 2011.09398 and the version 1.0 network of the same authors. Ours: momentum of the batch norms in
    the stem, and every precision but binary.

    Args:
        precision: "binary" as published; "ternary", k for DoReFa-k, or None for float in the same graph.
        input_shape: (height, width, channels).
        classes: number of classes.
        width: factor on all channels.
        quantize_ends: quantise the first convolution's kernel and the last dense layer too.
        name: of the model; by default the network and its precision.

    Returns:
        A functional model, images to probabilities ``[batch, classes]``.

    Raises:
        ZooError: an argument that makes no sense.
    """
    how = blocks.scheme(precision)
    image = blocks.image_input(input_shape, classes, smallest=32)
    filters = [blocks.scaled(channels, width, multiple=4) for channels in _FILTERS]
    x = _stem(image, filters[0], how, quantize_ends)
    for stage, (count, channels) in enumerate(zip(_BLOCKS, filters), start=1):
        if stage > 1:
            x = _transition(x, channels, f"transition{stage - 1}")
        for block in range(1, count + 1):
            x = _residual(x, how, f"stage{stage}_block{block}")
    x = blocks.head_relu(x, how, quantize=quantize_ends)
    x = tf.keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = blocks.classifier(x, classes, how, quantize=quantize_ends)
    return blocks.finish(image, x, "quicknet", how, name)
