"""``hybrid``: k bits a weight in the file, as in ``packed``, and integer sums, as in ``fast``. Stock LiteRT 2.1.

Kernels are decoded to 8-bit integers at each run. The interpreter's own convolution then quantises its input by the
largest magnitude it finds, onto 127 steps, so one more input channel of 127 steps makes the levels integers. The scale
of each output channel and its bias follow as operators of their own.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.codes import Match, match_all
from tflite_export.convert import to_litert
from tflite_export.decode import Storage, insert_decoder, insert_integer_decoder, storage_for
from tflite_export.dynamic import Levels, append_channel, levels_of
from tflite_export.formats.base import Built, Capability, Format, Request
from tflite_export.formats.registry import register_format
from tflite_export.graph import BuiltinOperator, Graph, TensorType

_STEPS = 127


class Hybrid(Format):
    """k bits stored, integers computed."""

    name = "hybrid"
    summary = "k bits a weight as in packed, exact integer sums; faster than packed, some 300 bytes more a layer"
    keeps_small = True
    capability = Capability(
        kernel_bits=frozenset(range(1, 8)),
        needs_quantised=True,
        runtime="litert",
        platforms="every platform with LiteRT 2.1 or newer, without XNNPACK",
    )

    def build(self, request: Request) -> Built:
        model = to_litert(request.model, request.batch_size)
        graph = Graph(model)
        for match in match_all(graph, list(request.facts.kernels)):
            storage = storage_for(match.kernel.integers)
            if storage is None:
                continue
            bits = max(request.facts.input_bits[layer] for layer in match.layers)
            for consumer in graph.consumers(match.tensor):
                levels = _integer_levels(graph, match, bits, consumer)
                if levels is not None:
                    _rewrite(graph, match, storage, levels, consumer)
            if graph.consumers(match.tensor):
                insert_decoder(graph, match, storage)
        return Built(model)


def _integer_levels(graph: Graph, match: Match, bits: int, consumer: Any) -> Levels | None:
    """The levels of a layer's input where it can be computed in integers, else None."""
    given = int(consumer.inputs[0])
    if graph.kind(consumer) not in ("CONV_2D", "FULLY_CONNECTED") or int(consumer.inputs[1]) != match.tensor:
        return None
    if graph.shape(given)[-1] != match.kernel.integers.shape[-1] or np.abs(match.kernel.integers).max() > _STEPS:
        return None
    levels = levels_of(graph, given, bits, {int(i): operator for operator in graph.operators for i in operator.outputs})
    return levels if levels is not None and levels.high <= _STEPS else None


def _rewrite(graph: Graph, match: Match, storage: Storage, levels: Levels, consumer: Any) -> None:
    """conv(x, kernel) + bias -> conv(x, integers) * scale + bias, with the activation at the end."""
    given = int(consumer.inputs[0])
    sentinel = levels.low >= 0  # +-1 are their own largest magnitude
    if sentinel:
        given = append_channel(graph, consumer, given, _STEPS * levels.unit)
    kernel = insert_integer_decoder(graph, match, storage, consumer, int(sentinel))
    bias = [int(i) for i in consumer.inputs[2:] if i >= 0]
    is_dense = graph.kind(consumer) == "FULLY_CONNECTED"
    # a convolution insists on a bias
    nothing = -1 if is_dense else graph.add_constant(np.zeros(len(match.scale), np.float32))
    consumer.inputs = np.asarray([given, kernel, nothing], np.int32)
    consumer.builtinOptions = copy.copy(consumer.builtinOptions)
    activation = consumer.builtinOptions.fusedActivationFunction
    consumer.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    output = int(consumer.outputs[0])
    shape = graph.shape(output)
    sums = graph.add_tensor(shape, TensorType.FLOAT32)
    consumer.outputs = np.asarray([sums], np.int32)
    scale = graph.add_constant((match.scale * np.float32(storage.step)).astype(np.float32))
    scaled = graph.add_tensor(shape, TensorType.FLOAT32) if bias else output
    multiply, add = schema.MulOptionsT(), schema.AddOptionsT()
    (add if bias else multiply).fusedActivationFunction = activation
    after = [graph.new_operator(BuiltinOperator.MUL, [sums, scale], [scaled], multiply)]
    if bias:
        after.append(graph.new_operator(BuiltinOperator.ADD, [scaled, bias[0]], [output], add))
    at = next(i for i, operator in enumerate(graph.operators) if operator is consumer) + 1
    graph.subgraph.operators[at:at] = after


register_format(Hybrid())
