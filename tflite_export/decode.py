"""Stores kernels as 1 to 8 bits and lets the runtime decode them: constant -> CAST (-> ADD) -> MUL -> filter.

CAST is not folded or cached by the interpreter, so the decoded floats live in the arena, one layer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.codes import Match
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.packing import pack, pack_sign_pairs, pack_sign_words
from tfqprune.errors import ExportError

TYPE_OF_BITS = {2: TensorType.INT2, 4: TensorType.INT4, 8: TensorType.INT8}
# The first version of CAST that reads INT2 or INT4; an older runtime then refuses the file by name.
_CAST_VERSION = {2: 8, 4: 6, 8: 1}


@dataclass(frozen=True)
class Storage:
    """How integers are stored: ``integers == step * (stored + offset)``.

    Attributes:
        bits: 1 (two signs share a 2-bit code), 2, 4 or 8.
        step: 1, or 2 where only odd integers occur and half of the range is saved.
        offset: 0, or 0.5 with step 2.
    """

    bits: int
    step: int
    offset: float


def storage_for(integers: np.ndarray) -> Storage | None:
    """The narrowest storage of a kernel's integers, or None where 8 bits do not hold them.

    | integers | bits |
    | --- | --- |
    | -1, 1 | 1 |
    | -1, 0, 1 or -3, -1, 1, 3 | 2 |
    | -8 to 7 or odd ones from -15 to 15 | 4 |
    | -128 to 127 or odd ones from -255 to 255 | 8 |
    """
    low, high = int(integers.min()), int(integers.max())
    odd = bool(np.all(integers % 2 != 0))
    if odd and low >= -1 and high <= 1:
        return Storage(1, 1, 0.0)
    for bits in (2, 4, 8):
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return Storage(bits, 1, 0.0)
        if odd and -(2**bits) < low and high < 2**bits:
            return Storage(bits, 2, 0.5)
    return None


def insert_decoder(graph: Graph, match: Match, storage: Storage) -> None:
    """Replaces a float constant by packed integers and, before each of its readers, the operators that decode them."""
    for consumer in graph.consumers(match.tensor):
        builder = _Builder(graph)
        decoded = _signs(builder, match) if storage.bits == 1 else _integers(builder, match, storage)
        graph.insert(consumer, builder.operators)
        consumer.inputs = np.where(np.asarray(consumer.inputs) == match.tensor, decoded, consumer.inputs).astype(
            np.int32
        )


def insert_lce_decoder(graph: Graph, match: Match) -> None:
    """Replaces a float constant of +-1 (times a scale) by sign words that Larq Compute Engine's runtime decodes.

    Its converter keeps such kernels as floats where the layer's input is real, or the layer is dense or depthwise.
    The signs are packed flat, so that only the last of all words has unused bits.
    """
    shape = match.kernel.integers.shape
    words = pack_sign_words(match.kernel.integers.reshape(1, -1))
    for consumer in graph.consumers(match.tensor):
        builder = _Builder(graph)
        stored = graph.add_constant(words)
        flat = builder.run(
            BuiltinOperator.CUSTOM, [stored], (1, match.kernel.integers.size), custom="LceDequantize"
        )  # fmt: skip
        wanted = graph.add_constant(np.asarray(shape, np.int32))
        signs = builder.run(BuiltinOperator.RESHAPE, [flat, wanted], shape, schema.ReshapeOptionsT())
        decoded = builder.scale(signs, match.scale, match.kernel.axis, shape)
        graph.insert(consumer, builder.operators)
        consumer.inputs = np.where(np.asarray(consumer.inputs) == match.tensor, decoded, consumer.inputs).astype(
            np.int32
        )


class _Builder:
    """Collects the operators of one decoder."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.operators: list[Any] = []

    def run(
        self, builtin: int, inputs: list[int], shape: tuple[int, ...], options: Any = None, version: int = 1,
        custom: str | None = None,
    ) -> int:  # fmt: skip
        output = self.graph.add_tensor(shape, TensorType.FLOAT32)
        self.operators.append(self.graph.new_operator(builtin, inputs, [output], options, version, custom))
        return output

    def cast(self, integers: np.ndarray, bits: int) -> int:
        stored = self.graph.add_tensor(integers.shape, TYPE_OF_BITS[bits], pack(integers, bits))
        return self.run(BuiltinOperator.CAST, [stored], integers.shape, version=_CAST_VERSION[bits])

    def scalar(self, value: float) -> int:
        return self.graph.add_constant(np.asarray(value, dtype=np.float32))

    def scale(self, tensor: int, scale: np.ndarray, axis: int, shape: tuple[int, ...]) -> int:
        if np.all(scale == scale[0]):
            factor = self.scalar(float(scale[0]))
        else:
            factor = self.graph.add_constant(scale.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
        return self.run(BuiltinOperator.MUL, [tensor, factor], shape, schema.MulOptionsT())


def stored_integers(integers: np.ndarray, axis: int) -> tuple[np.ndarray, int]:
    """The integers that the file holds for a kernel, and their width in bits.

    Raises:
        ExportError: the integers need more than 8 bits.
    """
    storage = storage_for(integers)
    if storage is None:
        raise ExportError(
            f"Expected integers that 8 bits hold. Received: {integers.min()} to {integers.max()}. "
            'Use format="float32" for quantisers of more than 8 bits.'
        )
    if storage.bits > 1:
        return np.rint(integers / storage.step - storage.offset).astype(np.int32), storage.bits
    first, second = np.split(_even(integers, axis), 2, axis=axis)
    return pack_sign_pairs(first, second), 2


def _even(signs: np.ndarray, axis: int) -> np.ndarray:
    """With one more output channel where their number is odd (pruning leaves such numbers)."""
    extra = [(0, signs.shape[i] % 2 if i == axis else 0) for i in range(signs.ndim)]
    return np.pad(signs, extra, constant_values=1)


def insert_integer_decoder(graph: Graph, match: Match, storage: Storage, before: Any, zeros: int) -> int:
    """Operators that unfold packed integers to INT8 at run time; for kernels of integer convolutions.

    Args:
        graph: the file, changed in place.
        match: the kernel; its scale is not applied.
        storage: how its integers are stored.
        before: the operator to put them in front of.
        zeros: input channels of zero weights to append.

    Returns:
        The INT8 tensor, whose real values are ``integers / storage.step``.
    """
    shape = match.kernel.integers.shape
    builder = _Builder(graph)
    if storage.bits == 1:
        decoded = _joined_signs(builder, match, doubled=True)
    else:
        decoded = builder.cast(*stored_integers(match.kernel.integers, match.kernel.axis))
        if storage.offset:
            half = builder.scalar(storage.offset)
            decoded = builder.run(BuiltinOperator.ADD, [decoded, half], shape, schema.AddOptionsT())
    if zeros:
        padding = np.zeros((len(shape), 2), np.int32)
        padding[-1, 1] = zeros
        shape = (*shape[:-1], shape[-1] + zeros)
        decoded = builder.run(
            BuiltinOperator.PAD, [decoded, graph.add_constant(padding)], shape, schema.PadOptionsT()
        )  # fmt: skip
    integers = graph.add_tensor(shape, TensorType.INT8)
    record = schema.QuantizationParametersT()
    record.scale = np.asarray([1.0 / storage.step], np.float32)
    record.zeroPoint = np.asarray([0], np.int64)
    graph.tensors[integers].quantization = record
    builder.operators.append(
        graph.new_operator(BuiltinOperator.QUANTIZE, [decoded], [integers], schema.QuantizeOptionsT())
    )
    graph.insert(before, builder.operators)
    return integers


def _integers(builder: _Builder, match: Match, storage: Storage) -> int:
    integers = match.kernel.integers
    decoded = builder.cast(*stored_integers(integers, match.kernel.axis))
    if storage.offset:
        half = builder.scalar(storage.offset)
        decoded = builder.run(BuiltinOperator.ADD, [decoded, half], integers.shape, schema.AddOptionsT())
    return builder.scale(decoded, match.scale * storage.step, match.kernel.axis, integers.shape)


def _signs(builder: _Builder, match: Match) -> int:
    """Signs, times the scale of each output channel."""
    shape, axis = match.kernel.integers.shape, match.kernel.axis
    both = _joined_signs(builder, match, doubled=False)
    # the second half is decoded as +-0.5
    half = (shape[axis] + 1) // 2
    factors = np.where(np.arange(shape[axis]) < half, np.float32(1.0), np.float32(2.0))
    return builder.scale(both, match.scale * factors, axis, shape)


def _joined_signs(builder: _Builder, match: Match, doubled: bool) -> int:
    """Two signs per 2-bit code: the first half of the output channels in the high bit, the second in the low bit.

    The second half comes as +-0.5, or as +-1 for one more operator.
    """
    shape, axis = match.kernel.integers.shape, match.kernel.axis
    stored, bits = stored_integers(match.kernel.integers, axis)
    half = stored.shape
    code = builder.cast(stored, bits)
    code = builder.run(BuiltinOperator.ADD, [code, builder.scalar(0.5)], half, schema.AddOptionsT())
    high = builder.run(BuiltinOperator.SIGN, [code], half)
    low = builder.run(BuiltinOperator.SUB, [code, high], half, schema.SubOptionsT())
    if doubled:
        low = builder.run(BuiltinOperator.ADD, [low, low], half, schema.AddOptionsT())
    joined = schema.ConcatenationOptionsT()
    joined.axis = axis
    both_shape = tuple(2 * n if i == axis else n for i, n in enumerate(half))
    both = builder.run(BuiltinOperator.CONCATENATION, [high, low], both_shape, joined)
    if both_shape != shape:
        where = [builder.graph.add_constant(np.asarray(v, np.int32)) for v in ([0] * len(shape), shape)]
        both = builder.run(BuiltinOperator.SLICE, [both, *where], shape, schema.SliceOptionsT())
    return both
