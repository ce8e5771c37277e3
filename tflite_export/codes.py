"""Finds the quantised kernels of a Keras model among the constants of a converted .tflite file.

The converter lays kernels out anew and multiplies batch-norm scales and activation steps into them. So a constant
belongs to a layer where every output channel of it is one number times that channel's integer codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.graph import Graph, TensorType
from tfqprune.errors import ExportError
from tfqprune.precision import codes, quantized_weights, quantizer_bits

# Relative error of a channel's values against scale * integers: some float32 roundings, far below half a level.
_TOLERANCE = 4e-6


@dataclass(frozen=True)
class CodedKernel:
    """One quantised kernel of a layer, in the layout of the .tflite file.

    Attributes:
        layer: name of the Keras layer, as in :func:`named_layers`.
        weight: weight attribute (``kernel``, ``depthwise_kernel``, ...).
        integers: the codes, in the layout of the file.
        axis: the axis of the output channels in that layout.
        bits: bits that one code needs by the quantiser's precision.
    """

    layer: str
    weight: str
    integers: np.ndarray
    axis: int
    bits: int


@dataclass(frozen=True)
class Match:
    """A constant of the file that is ``scale * kernel.integers``.

    Attributes:
        tensor: index of the constant.
        kernel: what it is.
        scale: float32 [channels], along ``kernel.axis``.
        layers: names of all layers with such a kernel; which of them reads the constant, its values do not tell.
    """

    tensor: int
    kernel: CodedKernel
    scale: np.ndarray
    layers: tuple[str, ...]


def named_layers(model: Any) -> dict[str, Any]:
    """The layers of a Keras model in order, those of nested models included, containers left out.

    Names are those of ``tfqprune.cost``: with the enclosing models before them (``block/conv``), for a nested model may
    have a layer of the same name.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def enter(parent: Any, prefix: str) -> None:
        for layer in parent._flatten_layers(recursive=False, include_self=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            name = prefix + layer.name
            while name in found:  # two parts of a user's layer
                name += "'"
            found[name] = layer
            enter(layer, f"{name}/")

    enter(model, "")
    return {name: layer for name, layer in found.items() if not _is_container(layer)}


def leaf_layers(model: Any) -> list[Any]:
    """The layers of :func:`named_layers`."""
    return list(named_layers(model).values())


def own_nodes(model: Any) -> set[int]:
    """Ids of the places where layers are called in a model and the models in it; layers may be part of others too."""
    networks = [model, *model._flatten_layers(recursive=True, include_self=False)]
    return {
        id(node)
        for network in networks
        for nodes in getattr(network, "_nodes_by_depth", {}).values()
        for node in nodes
    }  # fmt: skip


def _is_container(layer: Any) -> bool:
    return bool(getattr(layer, "layers", None))


def coded_kernels(model: Any) -> list[CodedKernel]:
    """The quantised kernels of a Keras model as integers in the layout of a .tflite file.

    Those whose quantiser gives no known set of equidistant levels are left out.
    """
    found = []
    for name, layer, weight in quantised_kernels(model):
        coded = codes(layer, weight)
        if coded is not None:
            integers, axis = to_file_layout(layer, weight, coded.integers)
            found.append(CodedKernel(name, weight, integers, axis, coded.bits))
    return found


def quantised_kernels(model: Any) -> list[tuple[str, Any, str]]:
    """Name, layer and weight attribute of every kernel behind a quantiser that quantises."""
    return [
        (name, layer, weight)
        for name, layer in named_layers(model).items()
        for weight, quantizer in quantized_weights(layer).items()
        if quantizer_bits(quantizer) < 32 and type(quantizer).__name__ not in ("NoOp", "NoOpQuantizer")
    ]


def to_file_layout(layer: Any, weight: str, kernel: np.ndarray) -> tuple[np.ndarray, int]:
    """Keras layout -> .tflite layout, and the axis of the output channels there."""
    if weight == "depthwise_kernel":
        if kernel.ndim == 3:  # one-dimensional separable: [width, channels, multiplier]
            kernel = kernel[None]
        return kernel.reshape(1, *kernel.shape[:2], -1), 3
    if weight == "pointwise_kernel" and kernel.ndim == 3:
        kernel = kernel[None]
    if "Transpose" in type(layer).__name__ and kernel.ndim == 4:  # [height, width, out, in]
        return kernel.transpose(2, 0, 1, 3), 0
    if kernel.ndim == 2:
        return kernel.T, 0
    if kernel.ndim == 3:  # one-dimensional convolution
        return kernel.transpose(2, 0, 1)[:, None], 0
    if kernel.ndim == 4:
        return kernel.transpose(3, 0, 1, 2), 0
    return kernel, kernel.ndim - 1


def match_constants(graph: Graph, kernels: list[CodedKernel]) -> list[Match]:
    """Pairs float constants of a file with coded kernels.

    Returns:
        One match per constant that is a multiple, per output channel, of a kernel's codes.
    """
    by_shape: dict[tuple[int, ...], list[CodedKernel]] = {}
    for kernel in kernels:
        by_shape.setdefault(kernel.integers.shape, []).append(kernel)
    alike = sharers(kernels)
    matches = []
    for index, tensor in enumerate(graph.tensors):
        if tensor.type != TensorType.FLOAT32 or not graph.is_constant(index):
            continue
        for kernel in by_shape.get(graph.shape(index), []):
            scale = channel_scale(graph.constant(index), kernel.integers, kernel.axis)
            if scale is not None:
                matches.append(Match(index, kernel, scale, alike[_up_to_scale(kernel)]))
                break
    return matches


def sharers(kernels: list[CodedKernel]) -> dict[bytes, tuple[str, ...]]:
    """The layers of kernels that are the same up to a scale per output channel, so that one constant may be any's."""
    found: dict[bytes, list[str]] = {}
    for kernel in kernels:
        found.setdefault(_up_to_scale(kernel), []).append(kernel.layer)
    return {key: tuple(names) for key, names in found.items()}


def _up_to_scale(kernel: CodedKernel) -> bytes:
    """A kernel's shape and its codes without the common factor of each channel; one key for all that are alike."""
    rows = np.moveaxis(kernel.integers, kernel.axis, 0).reshape(kernel.integers.shape[kernel.axis], -1)
    factor = np.maximum(np.gcd.reduce(rows, axis=1), 1)
    first = rows[np.arange(len(rows)), np.argmax(rows != 0, axis=1)]
    factor = np.where(first < 0, -factor, factor)
    return str((kernel.integers.shape, kernel.axis)).encode() + (rows // factor[:, None]).tobytes()


def channel_scale(
    values: np.ndarray, integers: np.ndarray, axis: int, tolerance: float = _TOLERANCE
) -> np.ndarray | None:  # fmt: skip
    """The float32 [channels] with values == scale * integers to ``tolerance`` of a channel's largest, or None."""
    with np.errstate(invalid="ignore"):  # a damaged file may hold anything
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
    codes_ = np.moveaxis(integers, axis, 0).reshape(rows.shape[0], -1).astype(np.float64)
    power = (codes_**2).sum(axis=1)
    scale = (rows * codes_).sum(axis=1) / np.where(power == 0, 1.0, power)
    error = np.abs(rows - scale[:, None] * codes_).max(axis=1)
    largest = np.abs(scale) * np.maximum(np.abs(codes_).max(axis=1), 1.0)
    if not np.all(error <= tolerance * largest):
        return None
    return scale.astype(np.float32)


def missing_layers(kernels: list[CodedKernel], matches: list[Match]) -> list[str]:
    """Names of layers whose kernel was not found among the constants, in order."""
    found = {(match.kernel.layer, match.kernel.weight) for match in matches}
    equal = {match.kernel.integers.tobytes() + bytes(str(match.kernel.integers.shape), "ascii") for match in matches}
    return [
        f"{kernel.layer}.{kernel.weight}"
        for kernel in kernels
        if (kernel.layer, kernel.weight) not in found
        # two layers with equal codes share one constant
        and kernel.integers.tobytes() + bytes(str(kernel.integers.shape), "ascii") not in equal
    ]


def match_all(graph: Graph, kernels: list[CodedKernel]) -> list[Match]:
    """The constants of all kernels.

    Raises:
        ExportError: a kernel is not in the file as it is in the model.
    """
    matches = match_constants(graph, kernels)
    missing = missing_layers(kernels, matches)
    if missing:
        raise ExportError(
            "Expected to find the kernel of every quantised layer in the converted file. Received: none for "
            f"{', '.join(missing)}. The converter changed it beyond a scale per output channel: check for a kernel "
            'that is rescaled per input channel, or use format="float32".'
        )
    return matches
