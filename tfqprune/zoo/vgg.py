"""VGG-Small for 32x32 images, the usual plain network of low-precision papers."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision
from tfqprune.zoo.registry import register


@register
def vgg_small(
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    quantize_ends: bool = False,
    name: str | None = None,
) -> tf.keras.Model:
    """VGG-Small: 2 x 128, 2 x 256 and 2 x 512 3x3 convolutions, then one dense layer.

    Papers: Zhang et al., "LQ-Nets", arXiv 1807.10029 (this size); the plan is that of Simonyan and Zisserman, arXiv
    1409.1556. Ours: convolution -> pooling (after every second one) -> batch norm -> the next layer's quantiser.

    Args:
        precision: "binary", "ternary", k for DoReFa-k, or None for float.
        input_shape: (height, width, channels), at least 8x8.
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
    image = blocks.image_input(input_shape, classes, smallest=8)
    x = image
    for index, channels in enumerate((128, 128, 256, 256, 512, 512), start=1):
        filters = blocks.scaled(channels, width)
        if index == 1:
            x = blocks.first_convolution(x, filters, 3, how, quantize=quantize_ends, name="conv1")
        else:
            x = blocks.convolution(x, filters, 3, how, name=f"conv{index}")
        if index % 2 == 0:
            x = tf.keras.layers.MaxPooling2D(2, name=f"pool{index // 2}")(x)
        x = blocks.batch_norm(x, name=f"bn{index}")
        if index == 6:
            x = blocks.head_relu(x, how, quantize=quantize_ends)
        elif not how.quantised:
            x = blocks.relu(x, name=f"relu{index}")
    x = tf.keras.layers.Flatten(name="flatten")(x)
    x = blocks.classifier(x, classes, how, quantize=quantize_ends)
    return blocks.finish(image, x, "vgg_small", how, name)
