"""Stores small constants of equal shape as one; the runtime takes the bundle apart.

Each constant costs some 40 bytes of tables (tensor, buffer, padding) beside its values, which a network of many narrow
layers feels: in a binary ResNet-20 these and the bits that Larq Compute Engine leaves unused are most of what the file
weighs over its floor. What comes out of a bundle is computed anew at each run and lives in the arena.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.graph import BuiltinOperator, Graph, TensorType

# Values above which 40 bytes are too few to matter, and copies in the arena begin to.
_MOST_VALUES = 128
# An operator that takes a bundle apart costs some 70 bytes and an offset for each part.
_FEWEST_PARTS = 3
_CAST_VERSION = 4  # the first that reads UINT16
_WORD = 32  # bits of one of Larq Compute Engine's words
_NARROW_WORDS = {8: np.uint8, 16: np.uint16}


def bundle_constants(graph: Graph) -> int:
    """Bundles float constants of equal shape, up to 128 values each, that operators read.

    Args:
        graph: the file, changed in place. Delegates that want constant scales and biases leave its operators to the
            builtin kernels, so this suits formats that run without one.

    Returns:
        How many constants are in bundles now.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    outputs = {int(i) for i in graph.subgraph.outputs}
    for operator in graph.operators:
        for tensor in map(int, operator.inputs):
            if tensor < 0 or tensor in outputs or tensor in alike[graph.shape(tensor)]:
                continue
            if graph.is_constant(tensor) and _is_small_float(graph, tensor):
                alike[graph.shape(tensor)].append(tensor)
    bundled = 0
    for shape, tensors in alike.items():
        distinct = {graph.raw(tensor).tobytes() for tensor in tensors}
        # equal constants are shared without a bundle
        if len(distinct) < max(_FEWEST_PARTS, len(tensors)):
            continue
        stored = graph.add_constant(np.stack([graph.constant(tensor) for tensor in tensors]))
        options = schema.UnpackOptionsT()
        options.num, options.axis = len(tensors), 0
        parts = [graph.add_tensor(shape, TensorType.FLOAT32) for _ in tensors]
        operator = graph.new_operator(BuiltinOperator.UNPACK, [stored], parts, options)
        _put_first(graph, [operator], tensors, parts)
        bundled += len(tensors)
    return bundled


def narrow_filters(graph: Graph) -> int:
    """Stores filters of Larq Compute Engine's binary convolutions in 8 or 16 bits where their channels fit.

    The engine keeps the signs of a filter position in whole 32-bit words, the unused bits zero: with 16 input channels
    half of the constant is air.

    Args:
        graph: the file, changed in place.

    Returns:
        How many filters are narrow now.
    """
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for operator in graph.operators:
        if graph.kind(operator) != "LceBconv2d":
            continue
        tensor = int(operator.inputs[1])
        if not graph.is_constant(tensor) or graph.tensors[tensor].type != TensorType.INT32:
            continue
        words = graph.constant(tensor)
        used = int(words.view(np.uint32).max()).bit_length()
        width = next((bits for bits in _NARROW_WORDS if used <= bits), _WORD)
        key = (width, words.shape[1:])
        if width < _WORD and words.shape[-1] == 1 and tensor not in alike[key]:
            alike[key].append(tensor)
    narrowed = 0
    for (width, _), tensors in alike.items():
        filters = [graph.constant(tensor) for tensor in tensors]
        saved = sum(f.size for f in filters) * (_WORD - width) // 8
        if saved < 70 * (1 + (len(tensors) > 1)) + 60:
            continue
        dtype = _NARROW_WORDS[width]
        joined = np.concatenate(filters)
        stored = graph.add_constant(joined.astype(dtype))
        wide = graph.add_tensor(joined.shape, TensorType.INT32)
        operators = [graph.new_operator(BuiltinOperator.CAST, [stored], [wide], version=_CAST_VERSION)]
        parts = [wide]
        if len(filters) > 1:
            sizes = graph.add_constant(np.asarray([len(f) for f in filters], np.int32))
            axis = graph.add_constant(np.asarray(0, np.int32))
            options = schema.SplitVOptionsT()
            options.numSplits = len(filters)
            parts = [graph.add_tensor(f.shape, TensorType.INT32) for f in filters]
            operators.append(graph.new_operator(BuiltinOperator.SPLIT_V, [wide, sizes, axis], parts, options, 2))
        _put_first(graph, operators, tensors, parts)
        narrowed += len(tensors)
    return narrowed


@dataclass(frozen=True)
class Part:
    """A tensor that the runtime takes out of a bundle, or a narrow constant that it widens.

    Attributes:
        constant: tensor index of the bundle.
        values: of the part.
        number: which part it is.
        share: of the bundle's bytes.
    """

    constant: int
    values: np.ndarray = field(compare=False)
    number: int = 0
    share: Fraction = Fraction(1)


def parts_of(graph: Graph) -> dict[int, Part]:
    """The tensors that come out of bundles as this module makes them: tensor -> part."""
    parts: dict[int, Part] = {}
    for operator in graph.operators:
        kind, outputs = graph.kind(operator), [int(i) for i in operator.outputs]
        if kind not in ("CAST", "UNPACK", "SPLIT_V") or not len(operator.inputs) or not outputs:
            continue
        bundle = int(operator.inputs[0])
        if bundle < 0:
            continue
        if kind == "CAST":
            if graph.is_constant(bundle) and graph.tensors[bundle].type in (TensorType.UINT8, TensorType.UINT16):
                parts[outputs[0]] = Part(bundle, graph.constant(bundle).astype(np.int32))
            continue
        if bundle in parts:
            bundle, values = parts[bundle].constant, parts[bundle].values
        elif graph.is_constant(bundle) and graph.tensors[bundle].type == TensorType.FLOAT32:
            values = graph.constant(bundle)
        else:
            continue
        sizes = [1] * len(outputs)
        if kind == "SPLIT_V" and len(operator.inputs) == 3 and (given := int(operator.inputs[1])) >= 0:
            if graph.tensors[given].type != TensorType.INT32 or not graph.is_constant(given):
                continue
            sizes = [int(size) for size in graph.constant(given).reshape(-1)]
        if len(sizes) != len(outputs) or min(sizes) < 1 or not values.ndim or sum(sizes) != len(values):
            continue
        ends = np.cumsum(sizes)
        for number, (tensor, size, end) in enumerate(zip(outputs, sizes, ends, strict=True)):
            part = values[end - 1] if kind == "UNPACK" else values[end - size : end]
            parts[tensor] = Part(bundle, part, number, Fraction(size, len(values)))
    return parts


def _is_small_float(graph: Graph, tensor: int) -> bool:
    shape = graph.shape(tensor)
    record = graph.tensors[tensor].quantization
    plain = record is None or record.scale is None
    is_float = graph.tensors[tensor].type == TensorType.FLOAT32
    return bool(is_float and plain and shape and 1 < int(np.prod(shape)) <= _MOST_VALUES)


def _put_first(graph: Graph, operators: list[Any], old: Sequence[int], new: Sequence[int]) -> None:
    for before, after in zip(old, new, strict=True):
        graph.replace_uses(before, after)
    graph.insert(graph.operators[0], operators)
