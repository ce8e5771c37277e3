"""Stores kernels that stayed float in 16 or 8 bits. Arithmetic stays float; the weights lose precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.dynamic import quantized_constant
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tfqprune.errors import ExportError

WIDTHS = ("float32", "float16", "int8")
# Operator -> position of its kernel and axis of the output channels.
_KERNELS = {
    "CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 0), "TRANSPOSE_CONV": (1, 0),
    "CONV_3D": (1, 4), "CONV_3D_TRANSPOSE": (1, 3),
}  # fmt: skip
# Unfolding takes some 100 bytes of tables and a scale a channel.
_WORTH = 128
_FLOAT16_MAX = 65504.0


def check_width(width: str) -> None:
    """Makes sure that a width is one of :data:`WIDTHS`.

    Raises:
        ExportError: it is not.
    """
    if width not in WIDTHS:
        raise ExportError(f"Expected float_weights to be one of {', '.join(WIDTHS)}. Received: {width!r}.")


def narrow_floats(model: Any, width: str, keep_small: bool) -> int:
    """Replaces float32 kernels by narrower constants, in place.

    Args:
        model: a ``ModelT``.
        width: one of :data:`WIDTHS`; int8 has one scale for each output channel (largest weight / 127).
        keep_small: unfold at each run (small in memory) rather than once when the file is loaded (fast).

    Returns:
        How many kernels were replaced.

    Raises:
        ExportError: ``width`` is unknown, or a weight is too large for float16.
    """
    check_width(width)
    if width == "float32":
        return 0
    graph = Graph(model)
    replaced = 0
    for operator in list(graph.operators):
        position, axis = _KERNELS.get(graph.kind(operator), (-1, 0))
        if position < 0 or position >= len(operator.inputs):
            continue
        kernel = int(operator.inputs[position])
        if kernel < 0 or graph.tensors[kernel].type != TensorType.FLOAT32 or not graph.is_constant(kernel):
            continue
        values = graph.constant(kernel)
        if values.size < _WORTH:
            continue
        unfolded = _half(graph, operator, values, keep_small) if width == "float16" else None
        unfolded = _byte(graph, operator, values, axis, keep_small) if unfolded is None else unfolded
        operator.inputs = np.where(np.asarray(operator.inputs) == kernel, unfolded, operator.inputs).astype(np.int32)
        replaced += 1
    return replaced


def wide_weights(model: Any) -> dict[str, int]:
    """Weights that are float32 in a file: kind of the operator that reads them -> their bytes.

    Weights are constants with two axes or more, and large enough to be worth narrowing: tables of embeddings, kernels
    of recurrent layers.
    """
    found: dict[str, int] = {}
    for graph in (Graph(model, index) for index in range(len(model.subgraphs))):
        for operator in graph.operators:
            for tensor in map(int, operator.inputs if operator.inputs is not None else ()):
                if tensor < 0 or graph.tensors[tensor].type != TensorType.FLOAT32 or not graph.is_constant(tensor):
                    continue
                shape = np.asarray(graph.shape(tensor))
                if shape.prod() >= _WORTH and (shape > 1).sum() > 1:
                    found[graph.kind(operator)] = found.get(graph.kind(operator), 0) + 4 * int(shape.prod())
    return found


def _half(graph: Graph, before: Any, values: np.ndarray, keep_small: bool) -> int:
    largest = float(np.abs(values).max())
    if largest > _FLOAT16_MAX:
        raise ExportError(
            f"Expected weights up to {_FLOAT16_MAX:g} for float16. Received: {largest:g}. Use float_weights='int8'."
        )
    stored = graph.add_constant(values.astype(np.float16))
    floats = graph.add_tensor(values.shape, TensorType.FLOAT32)
    if keep_small:
        operator = graph.new_operator(BuiltinOperator.CAST, [stored], [floats], version=1)
    else:
        operator = graph.new_operator(
            BuiltinOperator.DEQUANTIZE, [stored], [floats], schema.DequantizeOptionsT(), version=3
        )
    graph.insert(before, [operator])
    return floats


def _byte(graph: Graph, before: Any, values: np.ndarray, axis: int, keep_small: bool) -> int:
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others)
    scale = np.where(largest == 0, 1.0, largest / 127.0).astype(np.float32)
    column = [-1 if i == axis else 1 for i in range(values.ndim)]
    integers = np.clip(np.rint(values / scale.reshape(column)), -127, 127).astype(np.int8)
    floats = graph.add_tensor(values.shape, TensorType.FLOAT32)
    if not keep_small:
        stored = quantized_constant(graph, integers, scale, axis)
        graph.insert(
            before,
            [
                graph.new_operator(
                    BuiltinOperator.DEQUANTIZE, [stored], [floats], schema.DequantizeOptionsT(), version=5
                )
            ],
        )
        return floats
    stored = graph.add_constant(integers)
    wide = graph.add_tensor(values.shape, TensorType.FLOAT32)
    factor = graph.add_constant(scale.reshape(column))
    graph.insert(
        before,
        [
            graph.new_operator(BuiltinOperator.CAST, [stored], [wide]),
            graph.new_operator(BuiltinOperator.MUL, [wide, factor], [floats], schema.MulOptionsT()),
        ],
    )
    return floats
