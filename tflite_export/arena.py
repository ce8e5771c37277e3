"""How much memory the intermediate tensors of a file need: a plan of their lifetimes, as the interpreter makes it."""

from __future__ import annotations

import math
import os

from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_BITS, Graph
from tflite_export.runtime import ask, runtime_of
from tfqprune.errors import ExportError

_ALIGNMENT = 16


def arena_bytes(path: str | os.PathLike[str], *, timeout: float = 120.0) -> int | None:
    """Bytes of the arena by greedy-by-size planning over operator lifetimes (kernels' scratch memory not counted).

    Source of the planner: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
    arXiv 2001.03288, as TensorFlow Lite and tflite-micro use it.

    Returns:
        Bytes for the file's own batch size (other sizes that it leaves open are taken as 8), or None where shapes are
        in neither the file nor the runtime.

    Raises:
        ExportError: the file is damaged or does not run.
    """
    model = read_model(path)
    graph = Graph(model)
    shapes: list[tuple[int, ...]] = [graph.shape(i) for i in range(len(graph.tensors))]
    lifetimes = _lifetimes(graph)
    if any(graph.tensors[i].shape is None for i in lifetimes) or _leaves_sizes_open(graph):
        if runtime_of(model) != "litert":
            return None
        answer = ask(
            {"task": "shapes", "model": os.fspath(path), "runtime": "litert", "threads": 1, "xnnpack": False}, timeout
        )
        shapes = [tuple(shape) for shape in answer["shapes"]][: len(shapes)]
        if len(shapes) < len(graph.tensors):
            raise ExportError(
                f"Expected shapes of {len(graph.tensors)} tensors from the runtime. Received: {len(shapes)}."
            )
    sizes = {
        i: math.ceil(math.prod(shapes[i]) * TYPE_BITS.get(graph.tensors[i].type, 32) / 8) for i in lifetimes
    }  # fmt: skip
    return plan([(sizes[i], first, last) for i, (first, last) in lifetimes.items()])


def _leaves_sizes_open(graph: Graph) -> bool:
    """Whether an input has an open size behind the batch."""
    signatures = [graph.tensors[int(i)].shapeSignature for i in graph.subgraph.inputs]
    return any(s is not None and any(int(n) < 0 for n in s[1:]) for s in signatures)


def _lifetimes(graph: Graph) -> dict[int, tuple[int, int]]:
    """Tensor -> first and last operator that needs it, for everything that is computed or fed in."""
    end = len(graph.operators)
    found: dict[int, tuple[int, int]] = {int(i): (0, 0) for i in graph.subgraph.inputs}
    for number, operator in enumerate(graph.operators):
        for tensor in (int(i) for i in [*operator.inputs, *operator.outputs] if i >= 0):
            if not graph.is_constant(tensor):
                first = found.get(tensor, (number, number))[0]
                found[tensor] = (first, number)
    for tensor in (int(i) for i in graph.subgraph.outputs):
        if tensor in found:
            found[tensor] = (found[tensor][0], end)
    return found


def plan(buffers: list[tuple[int, int, int]]) -> int:
    """The memory that buffers (bytes, first use, last use) need when those alive together must not overlap.

    Largest first, each at the lowest offset that is free during its life.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for size, first, last in sorted(buffers, key=lambda b: (-b[0], b[1])):
        size = math.ceil(size / _ALIGNMENT) * _ALIGNMENT
        offset = 0
        for start, end, other_first, other_last in sorted(placed):
            if other_first <= last and first <= other_last:
                if start - offset >= size:
                    break
                offset = max(offset, end)
        placed.append((offset, offset + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)
