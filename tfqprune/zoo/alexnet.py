"""DoReFa AlexNet for ImageNet.

Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients",
arXiv 1606.06160.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import larq as lq
import tensorflow as tf

from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision, Scheme
from tfqprune.zoo.registry import register

# filters, kernel size, pooling behind it (its padding) or None
_CONVOLUTIONS = ((256, 5, "same"), (384, 3, "same"), (384, 3, None), (256, 3, "valid"))


def _norm(x: Any, name: str, how: Scheme) -> Any:
    """Batch norm without scale, as published; a float network gets its ReLU here."""
    x = tf.keras.layers.BatchNormalization(scale=False, momentum=0.9, epsilon=1e-4, name=name)(x)
    return x if how.quantised else blocks.relu(x, name=f"{name}_relu")


def _dense(x: Any, units: int, how: Scheme, name: str) -> Any:
    """A hidden dense layer without bias at the scheme's precision."""
    if not how.quantised:
        return tf.keras.layers.Dense(units, use_bias=False, name=name)(x)
    arguments = {**how.weight_arguments(), **how.input_arguments()}
    return lq.layers.QuantDense(units, use_bias=False, name=name, **arguments)(x)


@register
def dorefa_alexnet(
    *,
    precision: Precision = 2,
    activation_bits: int | None = None,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    quantize_ends: bool = False,
    name: str | None = None,
) -> tf.keras.Model:
    """DoReFa-Net's AlexNet: five convolutions and three dense layers.

    Paper: arXiv 1606.06160 (12x12 first convolution, batch norms without scale, float first and last layer). Ours:
    one ``precision`` for weights and activations by default, where the paper's best known network has 1-bit weights
    with a scale per layer and 2-bit activations: ``precision=1, activation_bits=2`` here, with levels +-1.

    Args:
        precision: k for DoReFa-k; also "binary", "ternary", or None for float.
        activation_bits: of the activations, where they differ from the weights' (DoReFa only).
        input_shape: (height, width, channels), at least 64x64.
        classes: number of classes.
        width: factor on all channels and hidden units.
        quantize_ends: quantise the first convolution's kernel and the last dense layer too.
        name: of the model; by default the network and its precision.

    Returns:
        A functional model, images to probabilities ``[batch, classes]``.

    Raises:
        ZooError: an argument that makes no sense.
    """
    how = blocks.scheme(precision, activation_bits)
    image = blocks.image_input(input_shape, classes, smallest=64)
    filters = blocks.scaled(96, width)
    if quantize_ends and how.quantised:
        x = lq.layers.QuantConv2D(filters, 12, strides=4, name="conv1", **how.weight_arguments())(image)
    else:
        x = tf.keras.layers.Conv2D(filters, 12, strides=4, name="conv1")(image)
    if not how.quantised:
        x = blocks.relu(x, name="conv1_relu")
    for index, (channels, size, pooling) in enumerate(_CONVOLUTIONS, start=2):
        x = blocks.convolution(x, blocks.scaled(channels, width), size, how, name=f"conv{index}")
        x = _norm(x, f"bn{index}", how)
        if pooling:
            x = tf.keras.layers.MaxPooling2D(3, strides=2, padding=pooling, name=f"pool{index}")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    for index in (6, 7):
        x = _norm(_dense(x, blocks.scaled(4096, width), how, f"fc{index}"), f"bn{index}", how)
    if how.quantised and not quantize_ends:
        x = tf.keras.layers.ReLU(max_value=1.0, name="clip")(x)
    x = blocks.classifier(x, classes, how, quantize=quantize_ends)
    return blocks.finish(image, x, "dorefa_alexnet", how, name)
