"""Rewrites that change no value and save operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tflite_export.graph import BuiltinOperator, Graph, TensorType


def simplify(model: Any) -> None:
    """Simplifies the main subgraph of a model in place."""
    _merge_clips(Graph(model))


def _merge_clips(graph: Graph) -> None:
    """min(x, 1) followed by max(x, 0), how DoReFa activations are clipped, is one operator: RELU_0_TO_1."""
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for tensor in operator.inputs:
            readers.setdefault(int(tensor), []).append(operator)
    outputs = {int(i) for i in graph.subgraph.outputs}
    for minimum in list(graph.operators):
        if graph.kind(minimum) != "MINIMUM":
            continue
        sides = [int(i) for i in minimum.inputs]
        between = int(minimum.outputs[0])
        ones = [i for i in sides if _is_one(graph, i)]
        following = readers.get(between, [])
        if len(ones) != 1 or between in outputs or len(following) != 1 or graph.kind(following[0]) != "RELU":
            continue
        clip = following[0]
        clip.opcodeIndex = graph.operator_code(BuiltinOperator.RELU_0_TO_1)
        clip.inputs = np.asarray([i for i in sides if i != ones[0]], np.int32)
        graph.subgraph.operators = [operator for operator in graph.operators if operator is not minimum]


def _is_one(graph: Graph, tensor: int) -> bool:
    if graph.tensors[tensor].type != TensorType.FLOAT32 or not graph.is_constant(tensor):
        return False
    return bool(np.all(graph.constant(tensor) == 1.0)) and graph.constant(tensor).size == 1
