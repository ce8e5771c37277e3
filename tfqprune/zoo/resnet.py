"""Residual networks: for small images (ResNet-20, -32, -56, and a small one for digits) and ResNet-18 for ImageNet.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385. Ours, for every precision but float:

- binary: sign -> convolution -> batch norm -> add, a shortcut around every convolution, as in Bi-Real Net
  (arXiv 1808.00278); so every channel of a stage lives on its residual stream.
- DoReFa and ternary: two convolutions in a block, each followed by a batch norm; the next convolution's own input
  quantiser is the activation, and the residual stream stays real-valued.
- where a stage halves the image, the shortcut is average pooling and a 1x1 convolution at the network's precision
  (float with ``quantize_shortcuts=False``), instead of the papers' zero padding or strided 1x1 convolution.

The float networks are the papers', with a strided 1x1 convolution in the shortcut (their option B).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfqprune.errors import ZooError
from tfqprune.zoo import blocks
from tfqprune.zoo.blocks import Precision, Scheme
from tfqprune.zoo.registry import register


def _shortcut(x: Any, filters: int, strides: int, how: Scheme, name: str, quantize: bool) -> Any:
    """The way around a block: identity, or a 1x1 convolution where the shape changes."""
    if strides == 1 and x.shape[-1] == filters:
        return x
    if not how.quantised:
        x = blocks.float_convolution(x, filters, 1, name=f"{name}_shortcut_conv", strides=strides)
        return blocks.batch_norm(x, name=f"{name}_shortcut_bn")
    if strides > 1:
        x = tf.keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_shortcut_pool")(x)
    if quantize:
        x = blocks.convolution(x, filters, 1, how, name=f"{name}_shortcut_conv")
    else:
        x = blocks.float_convolution(x, filters, 1, name=f"{name}_shortcut_conv")
    return blocks.batch_norm(x, name=f"{name}_shortcut_bn")


def _single(x: Any, filters: int, strides: int, how: Scheme, name: str, quantize_shortcuts: bool) -> Any:
    """One convolution with a shortcut around it (binary networks)."""
    shortcut = _shortcut(x, filters, strides, how, name, quantize_shortcuts)
    x = blocks.convolution(x, filters, 3, how, name=f"{name}_conv", strides=strides)
    x = blocks.batch_norm(x, name=f"{name}_bn")
    return tf.keras.layers.Add(name=f"{name}_add")([x, shortcut])


def _basic(x: Any, filters: int, strides: int, how: Scheme, name: str, quantize_shortcuts: bool) -> Any:
    """Two convolutions with a shortcut around both; the inner channels belong to this block alone."""
    shortcut = _shortcut(x, filters, strides, how, name, quantize_shortcuts)
    x = blocks.convolution(x, filters, 3, how, name=f"{name}_conv1", strides=strides)
    x = blocks.batch_norm(x, name=f"{name}_bn1")
    if not how.quantised:
        x = blocks.relu(x, name=f"{name}_relu1")
    x = blocks.convolution(x, filters, 3, how, name=f"{name}_conv2")
    x = blocks.batch_norm(x, name=f"{name}_bn2")
    x = tf.keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return x if how.quantised else blocks.relu(x, name=f"{name}_relu2")


def _stages(x: Any, filters: Sequence[int], blocks_per_stage: int, how: Scheme, *, quantize_shortcuts: bool) -> Any:
    """All residual stages; each but the first halves the image. A block is two convolutions at every precision."""
    for stage, channels in enumerate(filters, start=1):
        for block in range(1, blocks_per_stage + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            if how.kind == "binary":
                x = _single(x, channels, strides, how, f"{name}a", quantize_shortcuts)
                x = _single(x, channels, 1, how, f"{name}b", quantize_shortcuts)
            else:
                x = _basic(x, channels, strides, how, name, quantize_shortcuts)
    return x


def _head(x: Any, classes: int, how: Scheme, quantize_ends: bool) -> Any:
    """ReLU (the float blocks end in one already), mean over the image, dense layer, softmax."""
    if how.quantised:
        x = blocks.head_relu(x, how, quantize=quantize_ends)
    x = tf.keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return blocks.classifier(x, classes, how, quantize=quantize_ends)


def resnet(
    depth: int = 20,
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    quantize_ends: bool = False,
    quantize_shortcuts: bool = True,
    name: str | None = None,
) -> tf.keras.Model:
    """A residual network for small images: three stages of 16, 32 and 64 channels.

    Paper: arXiv 1512.03385, section 4.2. Ours: the quantised blocks and shortcuts, see the head of this file.

    Args:
        depth: 6 n + 2 (8, 14, 20, 32, 44, 56, ...): n blocks of two convolutions in each stage.
        precision: "binary", "ternary", k for DoReFa-k, or None for float.
        input_shape: (height, width, channels).
        classes: number of classes.
        width: factor on all channels.
        quantize_ends: quantise the first convolution's kernel and the last dense layer too.
        quantize_shortcuts: 1x1 convolutions of the shortcuts at ``precision``; False keeps them float.
        name: of the model; by default the network and its precision.

    Returns:
        A functional model, images to probabilities ``[batch, classes]``.

    Raises:
        ZooError: a depth that is not 6 n + 2, or another argument that makes no sense.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise ZooError(f"Expected a depth of 6 n + 2 (8, 14, 20, 26, 32, ...). Received: {depth!r}.")
    how = blocks.scheme(precision)
    image = blocks.image_input(input_shape, classes, smallest=4)
    filters = [blocks.scaled(channels, width) for channels in (16, 32, 64)]
    x = blocks.first_convolution(image, filters[0], 3, how, quantize=quantize_ends)
    x = blocks.batch_norm(x, name="stem_bn")
    if not how.quantised:
        x = blocks.relu(x, name="stem_relu")
    x = _stages(x, filters, (depth - 2) // 6, how, quantize_shortcuts=quantize_shortcuts)
    x = _head(x, classes, how, quantize_ends)
    return blocks.finish(image, x, f"resnet{depth}", how, name)


def _of_depth(depth: int, name: str, images: str, **defaults: Any) -> Callable[..., tf.keras.Model]:
    """``resnet`` with its depth filled in, as a builder of its own."""
    function = functools.partial(resnet, depth, **defaults)
    function.__doc__ = f"ResNet-{depth} for {images}; the arguments are those of ``resnet`` without the depth."
    return register(function, name)


resnet20 = _of_depth(20, "resnet20", "32x32 colour images")
resnet32 = _of_depth(32, "resnet32", "32x32 colour images")
resnet56 = _of_depth(56, "resnet56", "32x32 colour images")
resnet_digits = _of_depth(14, "resnet_digits", "the 8x8 digits of scikit-learn", input_shape=(8, 8, 1), classes=10)


@register
def resnet18(
    *,
    precision: Precision = "binary",
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    quantize_ends: bool = False,
    quantize_shortcuts: bool = True,
    name: str | None = None,
) -> tf.keras.Model:
    """ResNet-18 for ImageNet: four stages of 64, 128, 256 and 512 channels, two blocks each.

    Paper: arXiv 1512.03385, table 1. Ours: the quantised blocks and shortcuts, see the head of this file. With
    ``precision="binary"`` everything but the first convolution, the last dense layer and the batch norms is 1 bit.

    Args:
        precision: "binary", "ternary", k for DoReFa-k, or None for float.
        input_shape: (height, width, channels).
        classes: number of classes.
        width: factor on all channels.
        quantize_ends: quantise the first convolution's kernel and the last dense layer too.
        quantize_shortcuts: 1x1 convolutions of the shortcuts at ``precision``; False keeps them float.
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
    if not how.quantised:
        x = blocks.relu(x, name="stem_relu")
    x = tf.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    x = _stages(x, filters, 2, how, quantize_shortcuts=quantize_shortcuts)
    x = _head(x, classes, how, quantize_ends)
    return blocks.finish(image, x, "resnet18", how, name)
