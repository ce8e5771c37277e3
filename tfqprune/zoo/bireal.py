"""Bi-Real-Net-18 for ImageNet.

Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and
Advanced Training Algorithm", arXiv 1808.00278.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import larq as lq
import tensorflow as tf

from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision, Scheme
from tfqprune.zoo.registry import register


def _convolution(x: Any, filters: int, strides: int, how: Scheme, name: str) -> Any:
    """The 3x3 convolution; the binary one has the paper's own quantisers."""
    if how.kind != "binary":
        if not how.quantised:
            x = blocks.relu(x, name=f"{name}_relu")
        return blocks.convolution(x, filters, 3, how, name=f"{name}_conv", strides=strides)
    return lq.layers.QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        pad_values=1.0,
        use_bias=False,
        input_quantizer="approx_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
        kernel_initializer="glorot_normal",
        name=f"{name}_conv",
    )(x)


def _unit(x: Any, filters: int, how: Scheme, name: str) -> Any:
    """One convolution with a real-valued shortcut around it; where the channels double, the image is halved."""
    shortcut, strides = x, 1
    if x.shape[-1] != filters:
        strides = 2
        shortcut = tf.keras.layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(x)
        shortcut = blocks.float_convolution(shortcut, filters, 1, name=f"{name}_shortcut_conv")
        shortcut = blocks.batch_norm(shortcut, name=f"{name}_shortcut_bn")
    x = _convolution(x, filters, strides, how, name)
    x = blocks.batch_norm(x, name=f"{name}_bn")
    return tf.keras.layers.Add(name=f"{name}_add")([x, shortcut])


@register
def bireal18(
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    quantize_ends: bool = False,
    name: str | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-18: a shortcut around each of 16 convolutions, real-valued everywhere.

    Paper: arXiv 1808.00278: approximate sign for activations, magnitude-aware sign for weights, float 1x1
    convolutions in the shortcuts. Ours: padding with +1 instead of 0 (0 is not among +-1, and the Larq Compute
    Engine is faster so), momentum of the batch norms, and every precision but binary.

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
    filters = [blocks.scaled(channels, width) for channels in (64, 128, 256, 512)]
    x = blocks.first_convolution(image, filters[0], 7, how, quantize=quantize_ends, strides=2)
    x = blocks.batch_norm(x, name="stem_bn")
    x = tf.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, channels in enumerate(filters, start=1):
        for unit in range(1, 5):
            x = _unit(x, channels, how, f"stage{stage}_unit{unit}")
    x = tf.keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = blocks.classifier(x, classes, how, quantize=quantize_ends)
    return blocks.finish(image, x, "bireal18", how, name)
