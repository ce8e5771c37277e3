"""What all networks of the zoo are made of: a precision, and layers at that precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import larq as lq
import tensorflow as tf

from tfqprune.errors import ZooError

# "binary", "ternary", k for DoReFa-k, None or 32 for float.
Precision = str | int | None

_L2 = 1e-4  # weight decay of float kernels; quantised kernels have none (their norm carries no meaning)


@dataclass(frozen=True)
class Scheme:
    """How the inner layers of a network are quantised.

    Attributes:
        kind: "binary", "ternary", "dorefa" or "float".
        weight_bits: bits of a deployed weight.
        activation_bits: bits of an activation that a quantised layer multiplies.
    """

    kind: str
    weight_bits: int
    activation_bits: int

    @property
    def label(self) -> str:
        """For model names: "binary", "ternary", "dorefa2", "dorefa1a2" (1-bit weights, 2-bit activations), "float"."""
        if self.kind != "dorefa":
            return self.kind
        mixed = "" if self.weight_bits == self.activation_bits else f"a{self.activation_bits}"
        return f"dorefa{self.weight_bits}{mixed}"

    @property
    def quantised(self) -> bool:
        """Whether the inner layers are quantised at all."""
        return self.kind != "float"

    def weight_arguments(self) -> dict[str, Any]:
        """Keyword arguments of a larq layer that quantise its kernel."""
        if self.kind == "binary":
            return {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
        if self.kind == "ternary":
            quantizer = lq.quantizers.SteTern(ternary_weight_networks=True)
            return {"kernel_quantizer": quantizer, "kernel_constraint": "weight_clip"}
        return {"kernel_quantizer": lq.quantizers.DoReFa(k_bit=self.weight_bits, mode="weights")}

    def input_arguments(self) -> dict[str, Any]:
        """Keyword arguments of a larq layer that quantise its input."""
        if self.kind == "binary":
            return {"input_quantizer": "ste_sign"}
        if self.kind == "ternary":
            return {"input_quantizer": lq.quantizers.SteTern()}
        return {"input_quantizer": lq.quantizers.DoReFa(k_bit=self.activation_bits, mode="activations")}


def scheme(precision: Precision, activation_bits: int | None = None) -> Scheme:
    """Reads the ``precision`` argument of a builder.

    Args:
        precision: "binary" (sign, 1 bit), "ternary" (2 bits; weights with the threshold of Ternary Weight Networks),
            k from 1 to 8 (DoReFa, weights and activations), or None, 32 or "float".
        activation_bits: for DoReFa, bits of the activations where they differ from the weights'.

    Raises:
        ZooError: any other value.
    """
    if activation_bits is not None and (isinstance(activation_bits, bool) or activation_bits not in range(1, 9)):
        raise ZooError(f"Expected activation_bits from 1 to 8. Received: {activation_bits!r}.")
    named = {"binary": Scheme("binary", 1, 1), "ternary": Scheme("ternary", 2, 2), "float": Scheme("float", 32, 32)}
    if precision is None or precision == 32:
        precision = "float"
    if isinstance(precision, str) and precision in named:
        if activation_bits is not None:
            raise ZooError(f"activation_bits goes with a DoReFa precision (1 to 8). Received: precision={precision!r}.")
        return named[precision]
    if isinstance(precision, int) and not isinstance(precision, bool) and 1 <= precision <= 8:
        return Scheme("dorefa", precision, activation_bits or precision)
    raise ZooError(
        "Expected precision 'binary', 'ternary', an integer from 1 to 8 (DoReFa), or None for float. "
        f"Received: {precision!r}."
    )


def convolution(
    x: Any, filters: int, size: int, how: Scheme, *, name: str, strides: int = 1, quantise_input: bool = True
) -> Any:
    """A convolution without bias at the scheme's precision.

    Binary layers pad with +1 (there is no 0 among +-1), all others with 0.

    Args:
        x: Keras tensor ``[batch, height, width, channels]``.
        filters: output channels.
        size: height and width of the kernel; padding is "same".
        how: the precision.
        name: of the layer.
        strides: of both axes.
        quantise_input: False for a first layer, whose input are real-valued images.
    """
    if not how.quantised:
        return float_convolution(x, filters, size, name=name, strides=strides)
    arguments = {**how.weight_arguments(), **(how.input_arguments() if quantise_input else {})}
    if how.kind == "binary" and quantise_input:
        arguments["pad_values"] = 1.0
    return lq.layers.QuantConv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="glorot_normal",
        name=name,
        **arguments,
    )(x)


def float_convolution(x: Any, filters: int, size: int, *, name: str, strides: int = 1) -> Any:
    """A plain Keras convolution without bias, padding "same"."""
    return tf.keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=tf.keras.regularizers.L2(_L2),
        name=name,
    )(x)


def batch_norm(x: Any, *, name: str, **arguments: Any) -> Any:
    """Batch normalisation with momentum 0.9 and epsilon 1e-5, as usual for quantised networks."""
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, **arguments)(x)


def relu(x: Any, *, name: str) -> Any:
    """A ReLU layer."""
    return tf.keras.layers.ReLU(name=name)(x)


def head_relu(x: Any, how: Scheme, *, quantize: bool) -> Any:
    """The ReLU in front of the classifier.

    Left out where a binary or ternary dense layer follows: the sign of what is never negative is constant.
    """
    return x if quantize and how.kind in ("binary", "ternary") else relu(x, name="head_relu")


def first_convolution(
    x: Any, filters: int, size: int, how: Scheme, *, quantize: bool, strides: int = 1, name: str = "stem_conv"
) -> Any:
    """The first convolution: float, or with a quantised kernel on the real-valued image."""
    if quantize and how.quantised:
        return convolution(x, filters, size, how, name=name, strides=strides, quantise_input=False)
    return float_convolution(x, filters, size, name=name, strides=strides)


def classifier(x: Any, classes: int, how: Scheme, *, quantize: bool) -> Any:
    """The last dense layer and the softmax: ``[batch, channels]`` to probabilities ``[batch, classes]``.

    A quantised one has no bias: its large integers are brought back to the range of logits by a batch norm.
    """
    if quantize and how.quantised:
        arguments = {**how.weight_arguments(), **how.input_arguments()}
        x = lq.layers.QuantDense(classes, use_bias=False, name="dense", **arguments)(x)
        x = batch_norm(x, name="dense_bn")
    else:
        x = tf.keras.layers.Dense(classes, kernel_regularizer=tf.keras.regularizers.L2(_L2), name="dense")(x)
    return tf.keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)


def image_input(input_shape: Sequence[int], classes: int, *, smallest: int) -> Any:
    """The input layer, after the shape and the number of classes were looked at.

    Raises:
        ZooError: not three positive numbers, an image smaller than the network can halve, or less than one class.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        raise ZooError(f"Expected input_shape (height, width, channels), positive integers. Received: {input_shape!r}.")
    if min(shape[:2]) < smallest:
        raise ZooError(f"Expected images of at least {smallest}x{smallest} pixels. Received: input_shape={shape}.")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ZooError(f"Expected classes, an integer of 1 or more. Received: {classes!r}.")
    return tf.keras.Input(shape, name="image")


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """A number of channels times the width of the network, at least ``multiple`` and divisible by it.

    Raises:
        ZooError: width is not a positive finite number.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= 64:
        raise ZooError(f"Expected width, a factor above 0 and up to 64. Received: {width!r}.")
    return max(multiple, round(channels * width / multiple) * multiple)


def finish(image: Any, output: Any, default_name: str, how: Scheme, name: str | None) -> tf.keras.Model:
    """The model from input to output, named after the network and its precision unless a name is given."""
    return tf.keras.Model(image, output, name=name or f"{default_name}_{how.label}")
