"""``packed``: k bits a weight in the file, decoded by the runtime just before each layer. Any topology, stock LiteRT.

1, 2 and 4 bits are stored as such, ternary in 2, 3 in 4, 5 to 8 in 8. Activations and sums stay float, so the file
computes what the float model computes, at the speed of float kernels plus the decoding.
"""

from __future__ import annotations

from tflite_export.bundling import bundle_constants
from tflite_export.codes import match_all
from tflite_export.convert import to_litert
from tflite_export.decode import insert_decoder, storage_for
from tflite_export.formats.base import Built, Capability, Format, Request
from tflite_export.formats.registry import register_format
from tflite_export.graph import Graph


class Packed(Format):
    """k bits a weight, decoded at run time."""

    keeps_small = True
    name = "packed"
    summary = "k bits a weight (k = 1, 2, 4; 3 in 4; ternary in 2), any topology, stock LiteRT 2.1 or newer"
    capability = Capability(
        kernel_bits=frozenset(range(1, 9)),
        needs_quantised=True,
        runtime="litert",
        platforms="every platform with LiteRT 2.1 or newer (INT2); INT4 alone needs TensorFlow Lite 2.17 or newer",
    )

    def build(self, request: Request) -> Built:
        model = to_litert(request.model, request.batch_size)
        graph = Graph(model)
        for match in match_all(graph, list(request.facts.kernels)):
            storage = storage_for(match.kernel.integers)
            if storage is not None:
                insert_decoder(graph, match, storage)
        bundle_constants(graph)
        return Built(model, drop_shapes=True)


register_format(Packed())
