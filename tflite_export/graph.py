"""A small editing view on one subgraph of a .tflite model: constants in and out, operators in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfqprune.errors import ExportError

BuiltinOperator = schema.BuiltinOperator
TensorType = schema.TensorType

OPERATOR_NAMES: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPE_NAMES: dict[int, str] = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
TYPE_BITS: dict[int, int] = {
    TensorType.FLOAT32: 32, TensorType.FLOAT16: 16, TensorType.INT32: 32, TensorType.UINT8: 8, TensorType.INT64: 64,
    TensorType.BOOL: 8, TensorType.INT16: 16, TensorType.INT8: 8, TensorType.FLOAT64: 64, TensorType.UINT64: 64,
    TensorType.UINT32: 32, TensorType.UINT16: 16, TensorType.INT4: 4, TensorType.INT2: 2,
}  # fmt: skip
_NUMPY = {
    TensorType.FLOAT32: np.float32, TensorType.FLOAT16: np.float16, TensorType.INT32: np.int32,
    TensorType.UINT8: np.uint8, TensorType.INT64: np.int64, TensorType.INT16: np.int16, TensorType.INT8: np.int8,
    TensorType.UINT16: np.uint16,
}  # fmt: skip
_TYPE_OF_NUMPY = {np.dtype(value): key for key, value in _NUMPY.items()}


class Graph:
    """A subgraph of a model, the main one if no other is asked for, with the few operations that the formats need.

    Attributes:
        model: the whole ``ModelT``; changes are made in place.
    """

    def __init__(self, model: Any, subgraph: int = 0) -> None:
        self.model = model
        self.subgraph = model.subgraphs[subgraph]

    @property
    def tensors(self) -> list[Any]:
        return self.subgraph.tensors

    @property
    def operators(self) -> list[Any]:
        return self.subgraph.operators

    def kind(self, operator: Any) -> str:
        """The operator's name: of the builtin (``CONV_2D``), or the custom code (``LceBconv2d``)."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        builtin = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
        if builtin == BuiltinOperator.CUSTOM:
            custom = code.customCode or b""
            return custom.decode(errors="replace") if isinstance(custom, bytes) else str(custom)
        return OPERATOR_NAMES.get(builtin, f"operator {builtin}")

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The stored shape of a tensor; empty for a scalar."""
        stored = self.tensors[tensor].shape
        return () if stored is None else tuple(int(d) for d in stored)

    def is_constant(self, tensor: int) -> bool:
        """Whether the tensor has its values in the file."""
        data = self.model.buffers[self.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def raw(self, tensor: int) -> np.ndarray:
        """The bytes of a constant (uint8)."""
        return np.asarray(self.model.buffers[self.tensors[tensor].buffer].data, dtype=np.uint8)

    def constant(self, tensor: int) -> np.ndarray:
        """The values of a constant of 8 or more bits per element, in its shape."""
        dtype = _NUMPY.get(self.tensors[tensor].type)
        if dtype is None or not self.is_constant(tensor):
            raise ExportError(
                f"Expected a constant of a plain number type. Received: tensor {tensor} of type "
                f"{TYPE_NAMES.get(self.tensors[tensor].type)}."
            )
        content, shape = self.raw(tensor), self.shape(tensor)
        needed = math.prod(shape) * np.dtype(dtype).itemsize
        if min(shape, default=0) < 0 or content.size != needed:
            raise ExportError(
                f"Expected an intact .tflite file. Received: tensor {tensor} of shape {shape} and type "
                f"{TYPE_NAMES[self.tensors[tensor].type]}, {needed} bytes, with {content.size} bytes of values. Export "
                "the model again."
            )
        return content.view(dtype).reshape(shape)

    def add_tensor(self, shape: Sequence[int], tensor_type: int, data: bytes | None = None) -> int:
        """Adds a tensor, constant if data is given; returns its index."""
        tensor = schema.TensorT()
        tensor.shape = np.asarray(shape, dtype=np.int32)
        tensor.type = tensor_type
        tensor.hasRank = False
        tensor.buffer = 0
        if data is not None:
            self.model.buffers.append(schema.BufferT(data=np.frombuffer(data, dtype=np.uint8)))
            tensor.buffer = len(self.model.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_constant(self, values: np.ndarray) -> int:
        """Adds a constant of a numpy type; returns its tensor index."""
        values = np.ascontiguousarray(values)
        return self.add_tensor(values.shape, _TYPE_OF_NUMPY[values.dtype], values.tobytes())

    def operator_code(self, builtin: int, version: int = 1, custom: str | None = None) -> int:
        """The index of an operator code, added where the model does not have it."""
        wanted = None if custom is None else custom.encode()
        for i, code in enumerate(self.model.operatorCodes):
            same = max(int(code.builtinCode), int(code.deprecatedBuiltinCode)) == builtin
            if same and int(code.version) == version and (code.customCode or None) == wanted:
                return i
        code = schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        code.version = version
        code.customCode = wanted
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def set_version(self, operator: Any, builtin: int, version: int) -> None:
        """Raises the version of an operator to at least ``version``."""
        if int(self.model.operatorCodes[operator.opcodeIndex].version) < version:
            operator.opcodeIndex = self.operator_code(builtin, version)

    def new_operator(
        self, builtin: int, inputs: Sequence[int], outputs: Sequence[int], options: Any = None, version: int = 1,
        custom: str | None = None,
    ) -> Any:  # fmt: skip
        """An operator that is not in the graph yet (see :meth:`insert`)."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.operator_code(builtin, version, custom)
        operator.inputs = np.asarray(inputs, dtype=np.int32)
        operator.outputs = np.asarray(outputs, dtype=np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return operator

    def insert(self, before: Any, operators: Sequence[Any]) -> None:
        """Puts operators, in order, in front of one that is in the graph."""
        at = next(i for i, operator in enumerate(self.operators) if operator is before)
        self.subgraph.operators[at:at] = operators

    def consumers(self, tensor: int) -> list[Any]:
        """The operators that read a tensor."""
        return [operator for operator in self.operators if tensor in operator.inputs]

    def producer(self, tensor: int) -> Any | None:
        """The operator that writes a tensor, or None for inputs and constants."""
        return next((operator for operator in self.operators if tensor in operator.outputs), None)

    def replace_uses(self, old: int, new: int) -> None:
        """Lets every reader of one tensor, and the graph's outputs, read another one."""
        for operator in self.operators:
            operator.inputs = np.where(np.asarray(operator.inputs) == old, new, operator.inputs).astype(np.int32)
        outputs = np.asarray(self.subgraph.outputs)
        self.subgraph.outputs = np.where(outputs == old, new, outputs).astype(np.int32)


def is_lce(model: Any) -> bool:
    """Whether a model needs Larq Compute Engine's runtime (it has Lce* custom operators)."""
    return any(bytes(code.customCode or b"").startswith(b"Lce") for code in model.operatorCodes or [])
