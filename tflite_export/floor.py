"""The theoretical floor: how few bytes a model's parameters need."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from tflite_export.codes import leaf_layers, named_layers, own_nodes
from tflite_export.convert import check_keras
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

    Raises:
        ModelTypeError: no legacy Keras model.
    """
    return math.ceil(sum(floor_by_layer(model).values()))


def floor_by_layer(model: Any) -> dict[str, float]:
    """The bytes of :func:`floor_bytes` layer by layer, those that need none left out.

    What a batch norm adds counts with the convolution or dense layer that it directly follows, as it does in a file;
    elsewhere it stands under its own name.

    Args:
        model: a legacy Keras model.

    Returns:
        Layer name (as in :func:`tflite_export.codes.named_layers`) -> bytes, fractions included.
    """
    check_keras(model)
    followed = _followed_by_batch_norm(model)
    absorbed = {id(layer) for layer in followed.values()}
    named = named_layers(model)
    bits: Counter[int] = Counter()
    for layer in named.values():
        if type(layer).__name__ in _BATCH_NORMS:
            home = followed.get(id(layer), layer)
            folded = home is not layer and not quantized_weights(home)
            bits[id(home)] += 32 * int(np.prod(layer.moving_mean.shape)) * (2 - folded)
        else:
            bits[id(layer)] += _weight_bits(layer, id(layer) in absorbed)
    return {name: bits[id(layer)] / 8 for name, layer in named.items() if bits[id(layer)]}


def _weight_bits(layer: Any, absorbed: bool) -> int:
    """Bits of a layer's own weights; without bias and scales where a batch norm absorbs them."""
    bits = 0
    quantised = {_key(getattr(layer, weight)): weight for weight in quantized_weights(layer)}
    for variable in layer._trainable_weights + layer._non_trainable_weights:
        if type(layer).__name__ == "Normalization" and variable is layer.count:
            continue  # how many samples it has seen
        count = int(np.prod(variable.shape))
        weight = quantised.get(_key(variable))
        if weight is not None:
            bits += count * weight_bits(layer, weight)
            coded = codes(layer, weight)
            if coded is not None and np.ndim(coded.scale) and not absorbed:
                bits += 32 * int(np.size(coded.scale))
        elif not (absorbed and variable is getattr(layer, "bias", None)):
            bits += 8 * count * int(variable.dtype.size)
    return bits


def _key(variable: Any) -> int:
    return id(getattr(variable, "latent_variable", variable))


def _followed_by_batch_norm(model: Any) -> dict[int, Any]:
    """Id of a batch norm -> the linear layer before it, whose bias disappears in it."""
    followed: dict[int, Any] = {}
    own = own_nodes(model)
    for layer in leaf_layers(model):
        nodes = [node for node in layer._inbound_nodes if id(node) in own]
        if type(layer).__name__ not in _BATCH_NORMS or len(nodes) > 1:
            continue
        for node in nodes:
            producers = list({id(p): p for p in _as_list(node.inbound_layers)}.values())
            if len(producers) == 1 and _linear_product(producers[0], own):
                followed[id(layer)] = producers[0]
    return followed


def _linear_product(layer: Any, own: set[int]) -> bool:
    """Whether a layer is a convolution or dense layer whose only reader can be folded into it."""
    has_kernel = hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")
    activation = getattr(layer, "activation", None)
    linear = activation is None or getattr(activation, "__name__", "") == "linear"
    readers, calls = (sum(id(n) in own for n in nodes) for nodes in (layer._outbound_nodes, layer._inbound_nodes))
    return has_kernel and linear and readers == 1 and calls == 1


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
