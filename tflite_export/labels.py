"""Gives the constants of a .tflite file their Keras layers' names back, by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tflite_export.codes import CodedKernel, channel_scale, coded_kernels, leaf_layers, to_file_layout
from tflite_export.decode import stored_integers
from tflite_export.graph import Graph, TensorType
from tflite_export.packing import pack, pack_sign_words, unpack_sign_words
from tfqprune.errors import TfqpruneError
from tfqprune.precision import deployed

# Share of a channel's largest weight by which a stored value may be off: float32 roundings, half a step of 10 bits,
# half a step of 7 bits.
_FLOAT_TOLERANCE = {TensorType.FLOAT32: 4e-6, TensorType.FLOAT16: 6e-4, TensorType.INT8: 4.2e-3}


def label_constants(graph: Graph, model: Any) -> dict[int, str]:
    """Constant tensor -> Keras layer name, for every kernel that is stored as such, packed, or as sign words."""
    by_content: dict[bytes, str] = {}
    try:
        kernels = coded_kernels(model)
    except TfqpruneError:
        kernels = []
    for kernel in kernels:
        stored, bits = stored_integers(kernel.integers, kernel.axis)
        by_content.setdefault(pack(stored, bits), kernel.layer)
        if np.all(np.abs(kernel.integers) == 1):
            by_content.setdefault(pack_sign_words(kernel.integers.reshape(-1)).tobytes(), kernel.layer)
    floats: dict[tuple[int, ...], list[tuple[str, np.ndarray, int]]] = {}
    for layer in leaf_layers(model):
        for weight in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            if getattr(layer, weight, None) is not None:
                values, axis = to_file_layout(layer, weight, deployed(layer, weight))
                floats.setdefault(values.shape, []).append((layer.name, values, axis))
    labels = {}
    for index, tensor in enumerate(graph.tensors):
        if not graph.is_constant(index):
            continue
        name = by_content.get(graph.raw(index).tobytes())
        shape = graph.shape(index)
        if name is None and tensor.type in _FLOAT_TOLERANCE:
            values, tolerance = graph.constant(index), _FLOAT_TOLERANCE[tensor.type]
            name = _first(n for n, v, axis in floats.get(shape, []) if _proportional(values, v, axis, tolerance))
        if name is None and tensor.type == TensorType.INT8:
            name = _first(k.layer for k in kernels if _same_integers(graph.constant(index), k))
        if name is None and tensor.type == TensorType.INT32 and len(shape) == 4:
            name = _first(k.layer for k in kernels if _same_signs(graph.constant(index), k))
        if name is not None:
            labels[index] = name
    return labels


def _first(names: Iterator[str]) -> str | None:
    return next(names, None)


def _proportional(values: np.ndarray, kernel: np.ndarray, axis: int, tolerance: float) -> bool:
    return channel_scale(values, kernel, axis, tolerance) is not None


def _same_integers(stored: np.ndarray, kernel: CodedKernel) -> bool:
    """Whether 8-bit integers are a kernel's, up to the sign of a channel and sentinel channels at the end."""
    wanted = kernel.integers.shape
    if stored.ndim != len(wanted) or stored.shape[:-1] != wanted[:-1] or not 0 <= stored.shape[-1] - wanted[-1] <= 2:
        return False
    return channel_scale(stored[..., : wanted[-1]], kernel.integers, kernel.axis) is not None


def _same_signs(words: np.ndarray, kernel: CodedKernel) -> bool:
    """Whether sign words are a kernel's, up to the sign of a channel (turned with a negative batch-norm scale)."""
    wanted = kernel.integers.shape
    if len(wanted) != 4 or words.shape[:-1] != wanted[:-1] or words.shape[-1] != -(-wanted[-1] // 32):
        return False
    return channel_scale(unpack_sign_words(words, wanted[-1]), kernel.integers, kernel.axis) is not None
