"""Reads and writes .tflite files as objects: bounded reading of any bytes, aligned and atomic writing.

Nothing here needs TensorFlow: the schema classes come with ai-edge-litert.
"""

from __future__ import annotations

import copy
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfqprune.errors import ExportError, OutputError

_IDENTIFIER = b"TFL3"
# The same name or vector may stand in many places; this many times the file's size is more than any file needs.
_SHARING = 8
# What the generated readers raise on bytes that are no flatbuffer.
_READ_ERRORS = (
    struct.error, IndexError, ValueError, TypeError, OverflowError, MemoryError, AttributeError, KeyError,
    RecursionError,
)  # fmt: skip


def read_bytes(source: str | os.PathLike[str] | bytes) -> bytes:
    """The content of a file, or the bytes themselves.

    Raises:
        ExportError: the file does not exist or cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        shown = os.fspath(source) if isinstance(source, os.PathLike) else source
        raise ExportError(f"Expected a readable .tflite file. Received: {shown!r} ({error}).") from error


def read_model(source: str | os.PathLike[str] | bytes) -> Any:
    """Parses a .tflite file into the schema's object tree (``ModelT``), whatever the bytes are.

    Args:
        source: path of a file, or its content.

    Raises:
        ExportError: the bytes are no intact .tflite file (truncated, random, inconsistent indices).
    """
    data = read_bytes(source)
    label = f"{len(data)} bytes" if isinstance(source, bytes) else repr(os.fspath(source))
    if len(data) < 16 or data[4:8] != _IDENTIFIER:
        raise ExportError(
            f"Expected a .tflite file (bytes 4 to 8 are {_IDENTIFIER!r}). "
            f"Received: {label}, starting {data[:8]!r}. Export the model again or check the path."
        )
    try:
        _check_vector_lengths(data)
        model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
        _check_indices(model)
    except (_DamageError, *_READ_ERRORS) as error:
        what = str(error) if isinstance(error, _DamageError) else f"{type(error).__name__}: {error}"
        raise ExportError(
            f"Expected an intact .tflite file. Received: {label}, whose content is damaged ({what}). "
            "Export the model again."
        ) from error
    return model


class _DamageError(Exception):
    """What is wrong with the content of a file."""


def _check_vector_lengths(data: bytes) -> None:
    """Refuses lengths that no file of this size can hold, before a reader loops over them.

    Every element of a vector of tables takes at least 4 bytes, so all of them together cannot exceed a quarter of the
    file. Names and vectors of numbers may be shared, but what all their owners read stays within a few file sizes.
    """
    budget, shared = len(data) // 4, _SHARING * len(data)

    def spend(count: int) -> int:
        nonlocal budget
        budget -= count
        if budget < 0:
            raise _DamageError("more table entries than the file has room for")
        return count

    def read(*sizes: int) -> None:
        nonlocal shared
        shared -= sum(sizes)
        if shared < 0:
            raise _DamageError(f"names and numbers that are shared until they are {_SHARING} times the file")

    def name(of: Any) -> int:
        return len(of.Name() or b"")

    root = schema.Model.GetRootAs(bytearray(data), 0)
    spend(root.OperatorCodesLength() + root.BuffersLength() + root.MetadataLength())
    if root.ExternalBufferGroupsLength() or root.ExternalBuffersLength():
        raise _DamageError("external buffers, which are not supported")
    for c in range(root.OperatorCodesLength()):
        read(len(root.OperatorCodes(c).CustomCode() or b""))
    for b in range(root.BuffersLength()):
        read(root.Buffers(b).DataLength())
    for m in range(root.MetadataLength()):
        read(name(root.Metadata(m)))
    for s in range(spend(root.SignatureDefsLength())):
        signature = root.SignatureDefs(s)
        read(len(signature.SignatureKey() or b""))
        for e in range(spend(signature.InputsLength())):
            read(name(signature.Inputs(e)))
        for e in range(spend(signature.OutputsLength())):
            read(name(signature.Outputs(e)))
    for s in range(spend(root.SubgraphsLength())):
        subgraph = root.Subgraphs(s)
        read(name(subgraph), 4 * subgraph.InputsLength(), 4 * subgraph.OutputsLength())
        for o in range(spend(subgraph.OperatorsLength())):
            operator = subgraph.Operators(o)
            read(4 * operator.InputsLength(), 4 * operator.OutputsLength(), 4 * operator.IntermediatesLength())
            read(operator.CustomOptionsLength(), operator.MutatingVariableInputsLength())
        for t in range(spend(subgraph.TensorsLength())):
            tensor = subgraph.Tensors(t)
            spend(tensor.VariantTensorsLength())
            read(name(tensor), 4 * tensor.ShapeLength(), 4 * tensor.ShapeSignatureLength())
            record = tensor.Quantization()
            if record is not None:
                read(4 * (record.ScaleLength() + record.MinLength() + record.MaxLength()), 8 * record.ZeroPointLength())
            sparsity = tensor.Sparsity()
            if sparsity is not None:
                spend(sparsity.DimMetadataLength())


def _check_indices(model: Any) -> None:
    """Refuses indices that point outside their table, so that later code can trust them."""
    buffers, codes = len(model.buffers or []), len(model.operatorCodes or [])
    if not model.subgraphs:
        raise _DamageError("no subgraph")
    for subgraph in model.subgraphs:
        if subgraph.tensors is None or subgraph.inputs is None or subgraph.outputs is None:
            raise _DamageError("a subgraph without tensors, inputs or outputs")
        subgraph.operators = subgraph.operators or []
        tensors = len(subgraph.tensors)
        for tensor in subgraph.tensors:
            _check_range([tensor.buffer], buffers, "buffer")
            if tensor.shape is not None:
                tensor.shape = np.asarray(tensor.shape).reshape(-1)
                if tensor.shape.size and int(tensor.shape.min()) < 0:
                    raise _DamageError(f"a shape with {int(tensor.shape.min())}")
        _check_range(subgraph.inputs, tensors, "graph input")
        _check_range(subgraph.outputs, tensors, "graph output")
        for operator in subgraph.operators:
            _check_range([operator.opcodeIndex], codes, "operator code")
            operator.inputs = [] if operator.inputs is None else operator.inputs
            operator.outputs = [] if operator.outputs is None else operator.outputs
            given = np.asarray(operator.inputs)
            _check_range(given[given != -1], tensors, "operator input")
            _check_range(operator.outputs, tensors, "operator output")
    for signature in model.signatureDefs or []:
        _check_range([signature.subgraphIndex], len(model.subgraphs), "signature's subgraph")
        limit = len(model.subgraphs[signature.subgraphIndex].tensors)
        for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
            _check_range([entry.tensorIndex], limit, "signature")


def _check_range(indices: Any, limit: int, what: str) -> None:
    values = np.asarray(indices)
    for index in (int(values.min()), int(values.max())) if values.size else ():
        if not 0 <= index < limit:
            raise _DamageError(f"{what} index {index}, expected 0 to {limit - 1}")


class _AlignedBuffer(schema.BufferT):
    """A buffer packed with the schema's alignment, which the generated Python packer leaves out."""

    def Pack(self, builder: Any) -> Any:
        payload = np.asarray(self.data, dtype=np.uint8).tobytes()
        # Scalars and small vectors need no more than their own element; kernels read large ones as SIMD words.
        builder.StartVector(1, len(payload), 16 if len(payload) >= 64 else 8 if len(payload) >= 8 else 4)
        builder.head -= len(payload)
        builder.Bytes[builder.head : builder.head + len(payload)] = payload
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors, strings and option tables once; a flatbuffer may refer to one from many places."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written: dict[Any, int] = {}

    def CreateNumpyVector(self, x: Any) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self.written:
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:
        key = s if isinstance(s, bytes) else s.encode(encoding, errors)
        if key not in self.written:
            self.written[key] = super().CreateString(s, encoding, errors)
        return self.written[key]


class _SharedTable:
    """Packs a table once for each content."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def key(self) -> Any:
        return (type(self.table), *((k, _content(v)) for k, v in sorted(vars(self.table).items())))

    def Pack(self, builder: _SharingBuilder) -> int:
        key = self.key()
        if key not in builder.written:
            builder.written[key] = self.table.Pack(builder)
        return builder.written[key]


def _content(value: Any) -> Any:
    """A hashable image of a field; objects below a table count as different."""
    if isinstance(value, _SharedTable):
        return value.key()
    if isinstance(value, np.ndarray | list):
        array = np.asarray(value)
        return array.dtype.str, array.tobytes()
    return value if isinstance(value, int | float | bool | bytes | str | None) else id(value)


def serialize(model: Any) -> bytes:
    """Packs a ``ModelT`` into the bytes of a .tflite file: constants aligned, equal parts written once.

    The model may be packed or changed again afterwards.
    """
    model = copy.copy(model)
    model.buffers = list(model.buffers)
    model.subgraphs = [_with_shared_tables(subgraph) for subgraph in model.subgraphs]
    for i, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data):
            model.buffers[i] = _AlignedBuffer(data=buffer.data)
        else:
            model.buffers[i] = schema.BufferT()
    size = sum(0 if b.data is None else len(b.data) for b in model.buffers)
    builder = _SharingBuilder(size + 65536)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _with_shared_tables(subgraph: Any) -> Any:
    subgraph = copy.copy(subgraph)
    subgraph.operators = [copy.copy(operator) for operator in subgraph.operators]
    for operator in subgraph.operators:
        if operator.builtinOptions is not None:
            operator.builtinOptions = _SharedTable(operator.builtinOptions)
    # intermediate tensors of one shape and type have equal tables: each then costs one offset
    subgraph.tensors = [_SharedTable(copy.copy(tensor)) for tensor in subgraph.tensors]
    for shared in subgraph.tensors:
        if shared.table.quantization is not None:
            shared.table.quantization = _SharedTable(shared.table.quantization)
    return subgraph


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that it is there in full or not at all (temporary file beside it, then rename).

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"Expected a writable place for the .tflite file. Received: {os.fspath(path)!r} ({error}). "
            "Create the folder or choose another path."
        ) from error
