"""Integer arithmetic at XNNPACK speed with float inputs and outputs, kept exact by a sentinel channel.

A convolution with float input and 8-bit weights quantises its input at run time, by the range it finds in it. One
more input channel with a constant, under zero weights, fixes that range, so that the levels of the activations fall
on integers: the sums are then exact.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.codes import Match
from tflite_export.graph import BuiltinOperator, Graph, TensorType

# Operators that move or choose values and make no new ones.
_PASSING = {"PADV2", "PAD", "RESHAPE", "MAX_POOL_2D", "TRANSPOSE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "SQUEEZE"}
_MAX_LEVEL = 255


@dataclass(frozen=True)
class Levels:
    """What the values of an activation are: ``unit`` times integers from ``low`` to ``high``."""

    unit: float
    low: int
    high: int

    @property
    def sentinels(self) -> tuple[float, ...]:
        """Constants that make the run-time scale fit the levels.

        The runtime maps the range, zero included, onto 256 steps: from 0 to 255 units a step is one unit. For +-1 it
        is 1 / 127, with -128 / 127 and 1 as the ends.
        """
        return (255.0 * self.unit,) if self.low >= 0 else (-128.0 / 127.0 * self.unit, self.unit)

    def hold(self, value: float) -> bool:
        """Whether a value, say that of a padding, is an integer of them."""
        steps = value / self.unit
        return abs(steps - round(steps)) < 1e-4 and self.low <= round(steps) <= self.high


def levels_of(graph: Graph, tensor: int, bits: int, producers: dict[int, Any]) -> Levels | None:
    """The levels of an activation by how the file computes it, or None where it, or its padding, is real-valued.

    Args:
        graph: the file.
        tensor: the activation.
        bits: of the quantiser in front of the layer that reads it.
        producers: tensor -> the operator that writes it.
    """
    found, paddings = _levels_and_paddings(graph, tensor, bits, producers)
    return found if found is not None and all(map(found.hold, paddings)) else None


def _levels_and_paddings(
    graph: Graph, tensor: int, bits: int, producers: dict[int, Any]
) -> tuple[Levels | None, list[float]]:
    """The levels that an activation has but for what it is padded with, and what that is."""
    paddings: list[float] = []
    unit = 1.0
    for _ in range(8):
        operator = producers.get(tensor)
        if operator is None:
            break
        kind = graph.kind(operator)
        if kind == "SIGN":
            return Levels(unit, -1, 1) if bits <= 2 else None, paddings  # +-1, or with 0 for ternary activations
        if kind == "ROUND":
            return Levels(unit, 0, 2**bits - 1) if 2**bits - 1 <= _MAX_LEVEL else None, paddings
        if kind == "MUL":
            constants = [int(i) for i in operator.inputs if graph.is_constant(int(i))]
            if len(constants) != 1 or graph.constant(constants[0]).size != 1:
                break
            unit *= float(graph.constant(constants[0]).reshape(-1)[0])
            tensor = next(int(i) for i in operator.inputs if int(i) != constants[0])
        elif kind in _PASSING:
            if kind == "PADV2":
                value = int(operator.inputs[2])
                if not graph.is_constant(value):
                    break
                paddings.append(unit * float(graph.constant(value).reshape(-1)[0]))
            tensor = int(operator.inputs[0])
        else:
            break
    return None, paddings


def insert_sentinels(graph: Graph, match: Match, levels: Levels, consumer: Any) -> None:
    """Gives a convolution or dense layer 8-bit weights and its input the sentinel channels.

    Args:
        graph: the file, changed in place.
        match: the kernel, [out, ..., in] with integers that 8 bits hold.
        levels: of the input.
        consumer: the CONV_2D or FULLY_CONNECTED operator.
    """
    sentinels = levels.sentinels
    given = int(consumer.inputs[0])
    for value in sentinels:
        given = append_channel(graph, consumer, given, value)
    widths = [(0, 0)] * (match.kernel.integers.ndim - 1) + [(0, len(sentinels))]
    integers = np.pad(match.kernel.integers, widths)
    kernel = quantized_constant(graph, integers, match.scale, axis=0, uneven=True)
    if graph.kind(consumer) == "FULLY_CONNECTED":  # convolutions do so anyway; without it the range is symmetric
        consumer.builtinOptions = copy.copy(consumer.builtinOptions)
        consumer.builtinOptions.asymmetricQuantizeInputs = True
        graph.set_version(consumer, BuiltinOperator.FULLY_CONNECTED, 9)
    inputs = [int(i) for i in consumer.inputs]
    consumer.inputs = np.asarray([given, kernel, *inputs[2:]], np.int32)


def quantized_constant(
    graph: Graph, integers: np.ndarray, scale: np.ndarray, axis: int, uneven: bool = False
) -> int:  # fmt: skip
    """An INT8 constant with one positive scale for each channel of an axis; a negative one changes the integers' sign.

    Args:
        graph: the file.
        integers: from -127 to 127.
        scale: float32 [channels].
        axis: of the channels.
        uneven: equal scales count as one for the whole tensor, which takes another code path: one is moved by an ulp.
    """
    signs = np.where(scale < 0, -1, 1)
    integers = integers * signs.reshape([-1 if i == axis else 1 for i in range(integers.ndim)])
    # a channel without any weight has scale 0, which runtimes refuse
    positive = np.where(scale == 0, np.float32(1.0), np.abs(scale)).astype(np.float32)
    integers = integers * (scale != 0).reshape([-1 if i == axis else 1 for i in range(integers.ndim)])
    if uneven and len(positive) > 1 and np.all(positive == positive[0]):
        positive[-1] = np.nextafter(positive[-1], np.float32(np.inf))
    index = graph.add_tensor(integers.shape, TensorType.INT8, integers.astype(np.int8).tobytes())
    record = schema.QuantizationParametersT()
    record.scale = positive
    record.zeroPoint = np.zeros(len(scale), np.int64)
    record.quantizedDimension = axis
    graph.tensors[index].quantization = record
    return index


def store_as_bytes(graph: Graph, match: Match, consumer: Any) -> None:
    """8-bit constant -> DEQUANTIZE, which the interpreter evaluates once, for one reader of a kernel."""
    integers = match.kernel.integers
    stored = quantized_constant(graph, integers, match.scale, match.kernel.axis)
    floats = graph.add_tensor(integers.shape, TensorType.FLOAT32)
    graph.insert(
        consumer,
        [graph.new_operator(BuiltinOperator.DEQUANTIZE, [stored], [floats], schema.DequantizeOptionsT(), version=5)],
    )
    consumer.inputs = np.where(np.asarray(consumer.inputs) == match.tensor, floats, consumer.inputs).astype(np.int32)


def append_channel(graph: Graph, before: Any, tensor: int, value: float) -> int:
    """Adds one input channel of a constant to an activation; returns the wider one."""
    shape = graph.shape(tensor)
    padding = np.zeros((len(shape), 2), np.int32)
    padding[-1, 1] = 1
    padded = graph.add_tensor((*shape[:-1], shape[-1] + 1), TensorType.FLOAT32)
    inputs = [tensor, graph.add_constant(padding), graph.add_constant(np.asarray(value, np.float32))]
    graph.insert(before, [graph.new_operator(BuiltinOperator.PADV2, inputs, [padded], schema.PadV2OptionsT())])
    return padded
