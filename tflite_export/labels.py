"""Gives the constants of a .tflite file their Keras layers' names back, by content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from tflite_export.bundling import parts_of
from tflite_export.codes import CodedKernel, channel_scale, coded_kernels, named_layers, to_file_layout
from tflite_export.decode import stored_integers
from tflite_export.graph import Graph, TensorType
from tflite_export.packing import pack, pack_sign_words, unpack_sign_words
from tfqprune.errors import ExportError
from tfqprune.precision import deployed

# Share of a channel's largest weight by which a stored value may be off: float32 roundings, half a step of 10 bits,
# half a step of 7 bits.
_FLOAT_TOLERANCE = {TensorType.FLOAT32: 4e-6, TensorType.FLOAT16: 6e-4, TensorType.INT8: 4.2e-3}


def label_constants(graph: Graph, model: Any) -> dict[int, str]:
    """Tensor (a constant or part of a bundle) -> layer name, for kernels stored as such, packed, or as sign words."""
    by_content: dict[bytes, str] = {}
    kernels = coded_kernels(model)
    for kernel in kernels:
        with suppress(ExportError):  # more than 8 bits hold: no file has it but as floats
            stored, bits = stored_integers(kernel.integers, kernel.axis)
            by_content.setdefault(pack(stored, bits), kernel.layer)
        if np.all(np.abs(kernel.integers) == 1):
            by_content.setdefault(pack_sign_words(kernel.integers.reshape(-1)).tobytes(), kernel.layer)
    floats: dict[tuple[int, ...], list[tuple[str, np.ndarray, int]]] = {}
    for name, layer in named_layers(model).items():
        for weight in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            if getattr(layer, weight, None) is not None:
                laid_out, axis = to_file_layout(layer, weight, deployed(layer, weight))
                floats.setdefault(laid_out.shape, []).append((name, laid_out, axis))
    labels = {}
    for index, content, values, tensor_type in _constants(graph):
        label = by_content.get(content)
        if label is None and tensor_type in _FLOAT_TOLERANCE:
            assert values is not None
            alike, tolerance = floats.get(values.shape, ()), _FLOAT_TOLERANCE[tensor_type]
            label = _first(name for name, kernel, axis in alike if _proportional(values, kernel, axis, tolerance))
        if label is None and values is not None and tensor_type == TensorType.INT8:
            label = _first(k.layer for k in kernels if _same_integers(values, k))
        if label is None and values is not None and tensor_type == TensorType.INT32 and values.ndim == 4:
            label = _first(k.layer for k in kernels if _same_signs(values, k))
        if label is not None:
            labels[index] = label
    return labels


def _constants(graph: Graph) -> Iterator[tuple[int, bytes, np.ndarray | None, int]]:
    """Constants and parts of bundles: tensor, bytes, values (None for less than 8 bits), type."""
    plain = {*_FLOAT_TOLERANCE, TensorType.INT8, TensorType.INT32}
    for index, tensor in enumerate(graph.tensors):
        if graph.is_constant(index):
            values = graph.constant(index) if tensor.type in plain else None
            yield index, graph.raw(index).tobytes(), values, tensor.type
    for index, part in parts_of(graph).items():
        yield index, part.values.tobytes(), part.values, graph.tensors[index].type


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
