"""``fast``: 8 bits stored, integer sums in XNNPACK's kernels, float in between. Any topology, stock LiteRT.

The sums of quantised layers are exact (see :mod:`tflite_export.dynamic`). Kernels whose input is real-valued, or that
have no such operator (depthwise, transposed), are stored in 8 bits and unfolded to floats when the file is loaded.
"""

from __future__ import annotations

from typing import Any

from tflite_export.codes import Match, match_constants, missing_layers
from tflite_export.convert import to_litert
from tflite_export.dynamic import insert_sentinels, levels_of, store_as_bytes
from tflite_export.formats.base import Built, Capability, Format, Request
from tflite_export.formats.registry import register_format
from tflite_export.graph import Graph

_INTEGER_KERNELS = ("CONV_2D", "FULLY_CONNECTED")


class Fast(Format):
    """8-bit storage and integer sums."""

    name = "fast"
    summary = "8 bits a weight, exact integer sums at XNNPACK speed, any topology, stock LiteRT"
    capability = Capability(
        kernel_bits=frozenset(range(1, 8)),
        needs_quantised=True,
        runtime="litert",
        platforms="every LiteRT platform; fast where XNNPACK runs",
    )

    def build(self, request: Request) -> Built:
        model = to_litert(request.model, request.batch_size)
        graph = Graph(model)
        kernels = list(request.facts.kernels)
        matches = match_constants(graph, kernels)
        notes = [f"{name} stays float: not found in the file" for name in missing_layers(kernels, matches)]
        for match in matches:
            bits = max(request.facts.input_bits[layer] for layer in match.layers)
            for consumer in graph.consumers(match.tensor):
                if not _as_integers(graph, match, bits, consumer):
                    store_as_bytes(graph, match, consumer)
        return Built(model, notes=tuple(notes))


def _as_integers(graph: Graph, match: Match, bits: int, consumer: Any) -> bool:
    if graph.kind(consumer) not in _INTEGER_KERNELS or int(consumer.inputs[1]) != match.tensor:
        return False
    # one scale is one for the whole tensor: without XNNPACK a convolution's range is then symmetric, for no sentinel
    if graph.kind(consumer) == "CONV_2D" and len(match.scale) == 1:
        return False
    given = int(consumer.inputs[0])
    if graph.shape(given)[-1] != match.kernel.integers.shape[-1]:  # a grouped convolution has no place for a channel
        return False
    producers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    levels = levels_of(graph, given, bits, producers)
    if levels is None:
        return False
    insert_sentinels(graph, match, levels, consumer)
    return True


register_format(Fast())
