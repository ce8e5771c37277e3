"""Where the bytes of a .tflite file go: by layer and by kind, against the floor."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tflite_export.bundling import Part, parts_of
from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_BITS, TYPE_NAMES, Graph, TensorType, is_lce

KINDS = ("weights", "scales", "biases", "other constants", "names", "tables")
# Operator -> kind of each input that may be constant.
_ROLES: dict[str, dict[int, str]] = {
    "CONV_2D": {1: "weights", 2: "biases"},
    "DEPTHWISE_CONV_2D": {1: "weights", 2: "biases"},
    "FULLY_CONNECTED": {1: "weights", 2: "biases"},
    "TRANSPOSE_CONV": {1: "weights", 3: "biases"},
    "CONV_3D": {1: "weights", 2: "biases"},
    "BATCH_MATMUL": {0: "weights", 1: "weights"},
    "EMBEDDING_LOOKUP": {1: "weights"},
    "GATHER": {0: "weights"},
    "LceBconv2d": {1: "weights", 2: "scales", 3: "biases", 4: "biases"},
    "PRELU": {1: "scales"},
}
_ELEMENTWISE = {"MUL": "scales", "DIV": "scales", "ADD": "biases", "SUB": "biases"}


@dataclass(frozen=True)
class SizeRow:
    """One constant of a file.

    Attributes:
        layer: operator that uses it, as ``number name`` in execution order, or the Keras layer's name where known.
        kind: one of :data:`KINDS`.
        type: element type (``INT2``, ``FLOAT32``, ...).
        elements: number of elements.
        bytes: bytes of its buffer; 0 where an earlier row already has that buffer.
    """

    layer: str
    kind: str
    type: str
    elements: int
    bytes: int


@dataclass(frozen=True)
class SizeReport:
    """Bytes of a file.

    Attributes:
        total: size of the file in bytes.
        by_kind: bytes for each of :data:`KINDS`; they sum to ``total``.
        rows: every constant, in order of execution.
        floor_bytes: the model's floor where a model was given (see :func:`tflite_export.floor_bytes`), else the bytes
            of the file's weights, scales and biases.
        floor_by_layer: the model's floor, layer by layer; empty without a model.
        runtime: ``litert`` or ``lce``.
    """

    total: int
    by_kind: dict[str, int]
    rows: tuple[SizeRow, ...]
    floor_bytes: int
    runtime: str
    floor_by_layer: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Size over floor."""
        return self.total / self.floor_bytes if self.floor_bytes else float("inf")

    @property
    def by_layer(self) -> dict[str, int]:
        """Bytes of constants by layer, in order of execution."""
        sums: dict[str, int] = {}
        for row in self.rows:
            sums[row.layer] = sums.get(row.layer, 0) + row.bytes
        return sums

    def __str__(self) -> str:
        lines = [f"{self.total:,} bytes, {self.ratio:.3f} of the floor of {self.floor_bytes:,} ({self.runtime})"]
        lines += [f"  {kind:<16} {count:>12,}" for kind, count in self.by_kind.items()]
        lines += [f"  {layer:<40} {count:>12,}" for layer, count in self.by_layer.items() if count]
        return "\n".join(lines)


def size_report(path: str | os.PathLike[str] | bytes, model: Any = None) -> SizeReport:
    """Counts the bytes of a .tflite file by layer and by kind.

    Args:
        path: the file, or its content.
        model: the Keras model it came from, for the floor and the layers' names; optional.

    Raises:
        ExportError: the file is damaged.
        ModelTypeError: ``model`` is no legacy Keras model.
    """
    if model is not None:
        from tflite_export.convert import check_keras

        check_keras(model)
    parsed = read_model(path)
    total = len(path) if isinstance(path, bytes) else os.path.getsize(path)
    names = sum(_names(subgraph) for subgraph in parsed.subgraphs) + sum(
        len(entry.name or b"")
        for signature in parsed.signatureDefs or []
        for entry in [*(signature.inputs or []), *(signature.outputs or [])]
    )
    seen: set[int] = {0}
    rows: list[SizeRow] = []
    for subgraph in parsed.subgraphs:
        graph = Graph(parsed)
        graph.subgraph = subgraph
        rows += _rows(graph, seen, _layer_names(graph, model) if model is not None else {})
    kinds = dict.fromkeys(KINDS, 0)
    for row in rows:
        kinds[row.kind] += row.bytes
    for subgraph in parsed.subgraphs:
        kinds["scales"] += sum(_quantization_bytes(tensor.quantization) for tensor in subgraph.tensors)
    kinds["names"] = names
    kinds["tables"] = total - sum(kinds.values())
    layers: dict[str, float] = {}
    if model is not None:
        from tflite_export.floor import floor_by_layer

        layers = floor_by_layer(model)
        floor = math.ceil(sum(layers.values()))
    else:
        floor = kinds["weights"] + kinds["scales"] + kinds["biases"]
    return SizeReport(total, kinds, tuple(rows), floor, "lce" if is_lce(parsed) else "litert", layers)


def _names(subgraph: Any) -> int:
    return sum(len(tensor.name or b"") for tensor in subgraph.tensors) + len(subgraph.name or b"")


def _quantization_bytes(record: Any) -> int:
    if record is None:
        return 0
    scale = 0 if record.scale is None else 4 * len(record.scale)
    return scale + (0 if record.zeroPoint is None else 8 * len(record.zeroPoint))


def _rows(graph: Graph, seen: set[int], layer_names: dict[int, str]) -> list[SizeRow]:
    """A row for each constant, or part of one, at the operator where it first meets data."""
    decoded: dict[int, list[tuple[int, str]]] = {}  # tensor computed from constants alone -> those constants, roles
    parts = parts_of(graph)
    used: set[Part] = set()
    rows = []
    for number, operator in enumerate(graph.operators):
        kind = graph.kind(operator)
        found: list[tuple[int, str]] = []
        static = True
        for position, tensor in enumerate(int(i) for i in operator.inputs):
            if tensor < 0:
                continue
            if graph.is_constant(tensor) or tensor in parts:
                found.append((tensor, _role(graph, kind, position, tensor)))
            elif tensor in decoded:
                found += decoded[tensor]
            else:
                static = False
        outputs = [int(i) for i in operator.outputs]
        if outputs and outputs[0] in parts:  # what is in the bundle counts where it is read
            found = [(t, role) for t, role in found if t not in parts and t != parts[outputs[0]].constant]
        elif static and found and len(outputs) == 1:
            decoded[outputs[0]] = [(t, _role_in_decoder(graph, t, role)) for t, role in found]
            continue
        label = next((layer_names[t] for t, _ in found if t in layer_names), f"{number} {kind}")
        for tensor, role in dict(found).items():  # a decoder may lead to one constant along two ways
            part = parts.get(tensor)
            constant, share = (tensor, Fraction(1)) if part is None else (part.constant, part.share)
            stored = graph.tensors[constant]
            new = stored.buffer not in seen if part is None else part not in used
            if part is None:
                seen.add(stored.buffer)
            else:
                used.add(part)
            size = int(len(graph.raw(constant)) * share) if new else 0
            elements = int(math.prod(graph.shape(constant)) * share)
            rows.append(SizeRow(label, role, TYPE_NAMES.get(stored.type, "?"), elements, size))
    return rows


def _role(graph: Graph, kind: str, position: int, tensor: int) -> str:
    if kind in _ROLES:
        return _ROLES[kind].get(position, "other constants")
    is_float = graph.tensors[tensor].type in (TensorType.FLOAT32, TensorType.FLOAT16)
    return _ELEMENTWISE.get(kind, "other constants") if is_float else "other constants"


def _role_in_decoder(graph: Graph, tensor: int, role: str) -> str:
    """In a chain of constants the integers are the weights (a shape or an axis is a small int32), floats scale them."""
    tensor_type = graph.tensors[tensor].type
    if role != "other constants":
        return role if role == "weights" else "scales"
    if TYPE_BITS.get(tensor_type, 32) <= 16 and tensor_type != TensorType.FLOAT16:
        return "weights"
    if tensor_type == TensorType.INT32:
        return "weights" if len(graph.shape(tensor)) > 1 or len(graph.raw(tensor)) > 64 else "other constants"
    return "scales" if tensor_type != TensorType.FLOAT16 else "weights"


def _layer_names(graph: Graph, model: Any) -> dict[int, str]:
    """Constant -> name of the Keras layer whose kernel it is."""
    from tflite_export.labels import label_constants

    return label_constants(graph, model)
