"""The theoretical floor: how few bytes a model's parameters need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tflite_export.codes import leaf_layers
from tfqprune.precision import codes, quantized_weights, weight_bits

_BATCH_NORMS = ("BatchNormalization", "SyncBatchNormalization")


def floor_bytes(model: Any) -> int:
    """Bytes of a model's parameters at deployed precision: a lower mark for a file's size.

    k bits for each weight behind a k-bit quantiser, 32 for each other float. A batch norm counts as folded: after a
    float convolution or dense layer (linear, read by nothing else) one float a channel, the new bias, in place of
    the old one; everywhere else two, scale and shift. The scale of a quantiser that has one per channel
    (magnitude-aware sign) is 32 bits each where no such batch norm follows. Optimiser state does not count.

    Args:
        model: a legacy Keras model; nested models are counted through, shared layers once.

    Returns:
        Bytes, rounded up.
    """
    folded, absorbed = _folded_batch_norms(model)
    bits, seen = 0, set()
    for layer in leaf_layers(model):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if type(layer).__name__ in _BATCH_NORMS:
            channels = int(np.prod(layer.moving_mean.shape))
            bits += 32 * channels * (1 if id(layer) in folded else 2)
            continue
        quantised = {_key(getattr(layer, weight)): weight for weight in quantized_weights(layer)}
        for variable in layer._trainable_weights + layer._non_trainable_weights:
            count = int(np.prod(variable.shape))
            weight = quantised.get(_key(variable))
            if weight is not None:
                bits += count * weight_bits(layer, weight)
                coded = codes(layer, weight)
                if coded is not None and np.ndim(coded.scale) and id(layer) not in absorbed:
                    bits += 32 * int(np.size(coded.scale))
            elif id(layer) in absorbed and variable is getattr(layer, "bias", None):
                continue
            else:
                bits += 8 * count * int(variable.dtype.size)
    return math.ceil(bits / 8)


def _key(variable: Any) -> int:
    return id(getattr(variable, "latent_variable", variable))


def _folded_batch_norms(model: Any) -> tuple[set[int], set[int]]:
    """Ids of batch norms whose scale disappears in a float kernel, and of layers whose bias disappears in theirs."""
    folded: set[int] = set()
    absorbed: set[int] = set()
    for layer in leaf_layers(model):
        if type(layer).__name__ not in _BATCH_NORMS or len(layer._inbound_nodes) > 1:
            continue
        for node in layer._inbound_nodes:
            producers = list({id(p): p for p in _as_list(node.inbound_layers)}.values())
            if len(producers) == 1 and _linear_product(producers[0]):
                absorbed.add(id(producers[0]))
                if not quantized_weights(producers[0]):
                    folded.add(id(layer))
    return folded, absorbed


def _linear_product(layer: Any) -> bool:
    """Whether a layer is a convolution or dense layer whose only reader can be folded into it."""
    has_kernel = hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")
    activation = getattr(layer, "activation", None)
    linear = activation is None or getattr(activation, "__name__", "") == "linear"
    return has_kernel and linear and len(layer._outbound_nodes) == 1 and len(layer._inbound_nodes) == 1


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
