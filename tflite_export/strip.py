"""Takes out of a .tflite model what no runtime reads: names, metadata, empty records, duplicates, dead tensors.

What a caller can see stays: names of inputs and outputs, the signature, shapes and types of inputs and outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfqprune.errors import ExportError

# Larq Compute Engine's conversions; its convolutions shape their outputs themselves.
_RANK_CHECKING = (b"LceQuantize", b"LceDequantize")


def strip(model: Any, drop_shapes: bool = False) -> None:
    """Strips a model in place.

    Args:
        model: the object tree from :func:`tflite_export.flatbuffer.read_model`.
        drop_shapes: also forget the shapes of intermediate tensors, which kernels work out again when they are
            prepared. Delegates that look at shapes before that do not take such a file, so this suits formats
            that run without one.
    """
    model.description = None
    model.metadata = None
    model.metadataBuffer = None
    for subgraph in model.subgraphs:
        subgraph.name = None
        subgraph.debugMetadataIndex = -1
        drop_unused_operators(subgraph)
    _share_equal_buffers(model)
    for subgraph in model.subgraphs:
        _share_equal_constants(model, subgraph)
        _drop_unused_tensors(model, subgraph)
        _bare_tensors(model, subgraph, drop_shapes)
        for operator in subgraph.operators:
            _bare_operator(operator)
    _drop_unused_codes(model)
    _share_equal_buffers(model)


def set_batch_size(model: Any, batch_size: int) -> None:
    """Fixes the batch (first) dimension of every input; the runtime derives the rest from the inputs.

    Raises:
        ExportError: the file has a fixed batch of another size.
    """
    subgraph = model.subgraphs[0]
    for index in (int(i) for i in subgraph.inputs):
        tensor = subgraph.tensors[index]
        signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        fixed = int(signature[0]) if signature is not None and len(signature) else -1
        if fixed not in (-1, batch_size):
            raise ExportError(
                f"Expected batch_size={fixed} or None: the converter's file has that batch size, by the model's Input "
                f"or because Larq Compute Engine fixes it. Received: {batch_size}."
            )
    for tensor in subgraph.tensors:
        if tensor.shapeSignature is None or list(tensor.shapeSignature)[:1] != [-1]:
            continue
        tensor.shape = np.asarray([batch_size, *list(tensor.shape)[1:]], dtype=np.int32)
        rest = [int(n) for n in list(tensor.shapeSignature)[1:]]
        # other sizes may be open too
        tensor.shapeSignature = np.asarray([batch_size, *rest], dtype=np.int32) if -1 in rest else None


def drop_unused_operators(subgraph: Any) -> None:
    """Drops operators whose outputs nobody reads, from the end to the beginning."""
    needed = {int(i) for i in subgraph.outputs}
    kept = []
    for operator in reversed(subgraph.operators):
        outputs = [int(i) for i in operator.outputs]
        if not outputs or any(i in needed for i in outputs):
            needed.update(int(i) for i in operator.inputs)
            kept.append(operator)
    subgraph.operators = kept[::-1]


def _share_equal_buffers(model: Any) -> None:
    """Keeps one buffer for equal contents, drops the unused; buffer 0 is the empty one by convention."""
    buffers = [schema.BufferT()]
    place: dict[bytes, int] = {b"": 0}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            data = model.buffers[tensor.buffer].data
            key = b"" if data is None else np.asarray(data, dtype=np.uint8).tobytes()
            if key not in place:
                place[key] = len(buffers)
                buffers.append(schema.BufferT(data=np.frombuffer(key, dtype=np.uint8)))
            tensor.buffer = place[key]
    model.buffers = buffers


def _share_equal_constants(model: Any, subgraph: Any) -> None:
    """Lets operators share one tensor for equal constants (same bytes, type, shape, no quantisation)."""
    visible = _visible(model, subgraph)
    first: dict[tuple[Any, ...], int] = {}
    same: dict[int, int] = {}
    for index, tensor in enumerate(subgraph.tensors):
        if tensor.buffer == 0 or tensor.isVariable or index in visible or _has_quantization(tensor.quantization):
            continue
        shape = () if tensor.shape is None else tuple(int(d) for d in tensor.shape)
        same[index] = first.setdefault((tensor.buffer, tensor.type, shape), index)
    _renumber(model, subgraph, lambda index: same.get(index, index))


def _drop_unused_tensors(model: Any, subgraph: Any) -> None:
    used = _visible(model, subgraph)
    for operator in subgraph.operators:
        for indices in (operator.inputs, operator.outputs, operator.intermediates):
            used.update(int(i) for i in (indices if indices is not None else []) if i >= 0)
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)}
    _renumber(model, subgraph, lambda index: place.get(index, index))
    subgraph.tensors = [subgraph.tensors[old] for old in order]


def _visible(model: Any, subgraph: Any) -> set[int]:
    """Tensors that a caller can name: graph inputs and outputs and those of the signatures."""
    visible = {int(i) for i in subgraph.inputs} | {int(i) for i in subgraph.outputs}
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is subgraph:
            visible.update(int(e.tensorIndex) for e in [*(signature.inputs or []), *(signature.outputs or [])])
    return visible


def _renumber(model: Any, subgraph: Any, place: Callable[[int], int]) -> None:
    def moved(indices: Any) -> np.ndarray:
        return np.asarray([place(int(i)) if i >= 0 else -1 for i in indices], dtype=np.int32)

    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is subgraph:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = place(int(entry.tensorIndex))
    subgraph.inputs, subgraph.outputs = moved(subgraph.inputs), moved(subgraph.outputs)
    for operator in subgraph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        if operator.intermediates is not None:
            operator.intermediates = moved(operator.intermediates)


def _has_quantization(record: Any) -> bool:
    return record is not None and (record.scale is not None or record.details is not None)


def _bare_tensors(model: Any, subgraph: Any, drop_shapes: bool) -> None:
    visible = _visible(model, subgraph)
    ranked = _with_checked_rank(model, subgraph)
    for index, tensor in enumerate(subgraph.tensors):
        tensor.hasRank = False
        if _has_quantization(tensor.quantization):
            tensor.quantization.min = tensor.quantization.max = None
        else:
            tensor.quantization = None
        if index in visible:
            continue
        tensor.name = None
        if subgraph is model.subgraphs[0]:  # in loops it says which sizes change from turn to turn
            tensor.shapeSignature = None
        computed = tensor.buffer == 0 and not tensor.isVariable and index not in ranked
        if (drop_shapes and computed) or (tensor.shape is not None and len(tensor.shape) == 0):
            tensor.shape = None


def _with_checked_rank(model: Any, subgraph: Any) -> set[int]:
    """Outputs whose kernel compares their stored rank with the input's before it shapes them."""
    checking = {i for i, code in enumerate(model.operatorCodes) if code.customCode in _RANK_CHECKING}
    return {int(i) for o in subgraph.operators if int(o.opcodeIndex) in checking for i in o.outputs}


def _bare_operator(operator: Any) -> None:
    """Empty vectors and options that hold nothing but defaults cost bytes for nothing."""
    if operator.intermediates is not None and len(operator.intermediates) == 0:
        operator.intermediates = None
    if operator.customOptions is not None and len(operator.customOptions) == 0:
        operator.customOptions = None
    operator.mutatingVariableInputs = None
    operator.debugMetadataIndex = -1


def _drop_unused_codes(model: Any) -> None:
    uses = Counter(int(operator.opcodeIndex) for subgraph in model.subgraphs for operator in subgraph.operators)
    # the index 0 is a default, which takes no bytes
    used = [code for code, _ in sorted(uses.items(), key=lambda item: (-item[1], item[0]))]
    place = {old: new for new, old in enumerate(used)}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            operator.opcodeIndex = place[int(operator.opcodeIndex)]
    model.operatorCodes = [model.operatorCodes[old] for old in used]
