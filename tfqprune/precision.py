"""Bits: which weights are quantised, to how many bits, and what the quantiser makes of them.

The bit-width is read from the quantiser's own ``precision`` (as ``larq.models.summary`` does),
never guessed from a class name. *Latent* weights are the float variables; the *deployed* kernel
is the quantiser's output for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from larq.quantizers import DoReFa, MagnitudeAwareSign, NoOp, SteTern

Quantizer = Callable[[tf.Tensor], tf.Tensor]

# Weight attribute -> the layer attribute that holds its quantiser (larq's naming).
QUANTIZER_OF_WEIGHT = {
    "kernel": "kernel_quantizer",
    "depthwise_kernel": "depthwise_quantizer",
    "pointwise_kernel": "pointwise_quantizer",
}


def weight_quantizer(layer: tf.keras.layers.Layer, weight: str) -> Quantizer | None:
    """The quantiser of one weight of a layer (``kernel``, ``depthwise_kernel``, ...), or None."""
    attribute = QUANTIZER_OF_WEIGHT.get(weight)
    return None if attribute is None else getattr(layer, attribute, None)


def quantized_weights(layer: tf.keras.layers.Layer) -> dict[str, Quantizer]:
    """The weights of a layer that a quantiser stands on: weight attribute -> quantiser."""
    found = {weight: weight_quantizer(layer, weight) for weight in QUANTIZER_OF_WEIGHT}
    return {weight: quantizer for weight, quantizer in found.items() if quantizer is not None}


def quantizer_bits(quantizer: Quantizer | None) -> int:
    """Bits of a quantiser's output, 32 where there is none or it does not say."""
    return int(getattr(quantizer, "precision", None) or 32)


def weight_bits(layer: tf.keras.layers.Layer, weight: str) -> int:
    """Bits of one deployed weight: its quantiser's precision, else the size of its dtype."""
    quantizer = weight_quantizer(layer, weight)
    if quantizer is not None and getattr(quantizer, "precision", None):
        return quantizer_bits(quantizer)
    return int(tf.as_dtype(getattr(layer, weight).dtype).size) * 8


def input_bits(layer: tf.keras.layers.Layer) -> int:
    """Bits of the activations a layer multiplies: its input quantiser's precision, else 32."""
    return quantizer_bits(getattr(layer, "input_quantizer", None))


def is_tensor_wide(quantizer: Quantizer | None) -> bool:
    """Whether one output value may depend on other values of the tensor (a scale or threshold).

    True for DoReFa in weight mode (largest tanh), ternary with the TWN threshold (mean),
    magnitude-aware sign (mean over all but the last axis), and every quantiser unknown here:
    those are treated with care rather than with hope.
    """
    if quantizer is None or isinstance(quantizer, NoOp):
        return False
    if isinstance(quantizer, DoReFa):
        return quantizer.mode == "weights"
    if isinstance(quantizer, SteTern):
        return bool(quantizer.ternary_weight_networks)
    if isinstance(quantizer, MagnitudeAwareSign):
        return True
    name = getattr(quantizer, "__name__", type(quantizer).__name__).lower()
    return name not in {
        "stesign", "ste_sign", "approxsign", "approx_sign", "swishsign", "swish_sign",
        "steheaviside", "ste_heaviside",
    }  # fmt: skip


def quantize(quantizer: Quantizer | None, values: np.ndarray) -> np.ndarray:
    """Applies a quantiser to an array, without touching its training metrics.

    Args:
        quantizer: a larq quantiser, any callable on tensors, or None (values pass unchanged).
        values: latent weights of any shape.

    Returns:
        The deployed values, same shape and dtype.
    """
    if quantizer is None:
        return np.asarray(values)
    quantizer = unmeasured(quantizer)
    # A layer's own call, past Keras's casting: under a mixed policy it would round levels to half precision.
    function = quantizer.call if isinstance(quantizer, tf.keras.layers.Layer) else quantizer
    return np.asarray(function(tf.constant(values)))


def unmeasured(quantizer: Any) -> Any:
    """A quantiser without larq's flip ratio, which counts on kernels of one shape; the one given stays as it is."""
    if not hasattr(quantizer, "flip_ratio"):
        return quantizer
    alike = copy.copy(quantizer)
    alike.__dict__.pop("flip_ratio")
    return alike


def latent(layer: tf.keras.layers.Layer, weight: str) -> np.ndarray:
    """The float variable behind a weight, as stored in checkpoints."""
    return variable_value(getattr(layer, weight))


def variable_value(variable: Any) -> np.ndarray:
    """The stored value of a variable; larq's QuantizedVariable is unwrapped to its latent values."""
    return np.asarray(tf.keras.backend.get_value(getattr(variable, "latent_variable", variable)))


def broken_values(variable: Any) -> int:
    """How many of a variable's values are NaN or infinite."""
    value = variable_value(variable)
    # One sum sees NaN and infinity at a fraction of the cost of looking at every value.
    if value.dtype.kind != "f" or np.isfinite(value.sum()):
        return 0
    return int((~np.isfinite(value)).sum())


def deployed(layer: tf.keras.layers.Layer, weight: str) -> np.ndarray:
    """What the layer really multiplies with: the quantiser's output for the latent weight."""
    return quantize(weight_quantizer(layer, weight), latent(layer, weight))


@dataclass(frozen=True)
class Codes:
    """A deployed kernel as integers: ``values == integers * scale``.

    Attributes:
        integers: int array of the kernel's shape. Binary: -1, +1. Ternary: -1, 0, +1.
            DoReFa-k: the odd integers from -(2^k - 1) to 2^k - 1.
        scale: float, or an array over the last axis (magnitude-aware sign).
        bits: bits that one code needs.
    """

    integers: np.ndarray
    scale: float | np.ndarray
    bits: int


def codes(layer: tf.keras.layers.Layer, weight: str) -> Codes | None:
    """The deployed kernel as integer codes, or None where it has no finite code book.

    Known code books: sign quantisers and heaviside (scale 1), ternary, magnitude-aware sign (scale per output channel),
    DoReFa in weight mode (scale 1 / (2^k - 1)).
    """
    quantizer = weight_quantizer(layer, weight)
    if quantizer is None or isinstance(quantizer, NoOp):
        return None
    values = deployed(layer, weight)
    bits = quantizer_bits(quantizer)
    scale: float | np.ndarray = 1.0
    if isinstance(quantizer, DoReFa):
        scale = 1.0 / (2**bits - 1)
    elif isinstance(quantizer, MagnitudeAwareSign):
        scale = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        integers = np.nan_to_num(np.rint(values / scale))
    if not np.allclose(integers * scale, values, rtol=1e-5, atol=1e-6):
        return None
    return Codes(integers.astype(np.int32), scale, bits)
