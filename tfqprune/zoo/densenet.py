"""BinaryDenseNet-28 for ImageNet.

Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv 1906.08637.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision, Scheme
from tfqprune.zoo.registry import register

_LAYERS = (6, 6, 6, 5)
_REDUCTION = (2.7, 2.7, 2.2)


def _dense_layer(x: Any, growth: int, how: Scheme, name: str) -> Any:
    """Batch norm -> 3x3 convolution, its ``growth`` new channels appended to the old ones."""
    y = blocks.batch_norm(x, name=f"{name}_bn")
    if not how.quantised:
        y = blocks.relu(y, name=f"{name}_relu")
    y = blocks.convolution(y, growth, 3, how, name=f"{name}_conv")
    return tf.keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def _transition(x: Any, reduction: float, multiple: int, name: str) -> Any:
    """Halves the image and divides the channels by ``reduction``, in float as published."""
    x = blocks.batch_norm(x, name=f"{name}_bn")
    x = tf.keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = blocks.relu(x, name=f"{name}_relu")
    channels = max(multiple, round(x.shape[-1] // reduction / multiple) * multiple)
    return blocks.float_convolution(x, channels, 1, name=f"{name}_conv")


@register
def binary_densenet28(
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    quantize_ends: bool = False,
    name: str | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet-28: four blocks of 6, 6, 6 and 5 densely connected convolutions, growth 64.

    Paper: arXiv 1906.08637: growth 64, channels divided by 2.7, 2.7 and 2.2 between the blocks and rounded to
    multiples of 32, float 1x1 convolutions there. Ours: padding with +1 instead of 0, sign gradients clipped at 1
    (published: 1.3), and every precision but binary.

    Args:
        precision: "binary" as published; "ternary", k for DoReFa-k, or None for float in the same graph.
        input_shape: (height, width, channels); images below 50 pixels get a 3x3 stem without pooling.
        classes: number of classes.
        width: factor on the growth, on the first convolution and on the multiple of 32.
        quantize_ends: quantise the first convolution's kernel and the last dense layer too.
        name: of the model; by default the network and its precision.

    Returns:
        A functional model, images to probabilities ``[batch, classes]``.

    Raises:
        ZooError: an argument that makes no sense.
    """
    how = blocks.scheme(precision)
    image = blocks.image_input(input_shape, classes, smallest=8)
    growth, multiple = blocks.scaled(64, width), blocks.scaled(32, width)
    if min(input_shape[:2]) < 50:
        x = blocks.first_convolution(image, growth, 3, how, quantize=quantize_ends)
    else:
        x = blocks.first_convolution(image, growth, 7, how, quantize=quantize_ends, strides=2)
        x = blocks.batch_norm(x, name="stem_bn")
        x = blocks.relu(x, name="stem_relu")
        x = tf.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for block, layers in enumerate(_LAYERS, start=1):
        for layer in range(1, layers + 1):
            x = _dense_layer(x, growth, how, f"block{block}_layer{layer}")
        if block < len(_LAYERS):
            x = _transition(x, _REDUCTION[block - 1], multiple, f"transition{block}")
    x = blocks.batch_norm(x, name="head_bn")
    x = blocks.head_relu(x, how, quantize=quantize_ends)
    x = tf.keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = blocks.classifier(x, classes, how, quantize=quantize_ends)
    return blocks.finish(image, x, "binary_densenet28", how, name)
