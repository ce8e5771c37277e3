"""``binary``: Larq Compute Engine for networks of +-1 kernels and activations. Runs in its runtime only.

Kernels that the engine has no binary kernel for (real input, dense, depthwise) are stored as bits too and decoded.
"""

from __future__ import annotations

from tflite_export.bundling import bundle_constants, narrow_filters
from tflite_export.codes import match_constants
from tflite_export.convert import to_lce
from tflite_export.decode import insert_lce_decoder
from tflite_export.formats.base import Built, Capability, Facts, Format, Request
from tflite_export.formats.registry import register_format
from tflite_export.graph import Graph

# The decoder of a kernel costs some 250 bytes; below this many signs floats are as small.
_WORTH_DECODING = 128


class Binary(Format):
    """Single bits in Larq Compute Engine's runtime."""

    keeps_small = True
    name = "binary"
    summary = "single bits, computed as single bits; +-1 kernels and activations; Larq Compute Engine's runtime"
    capability = Capability(
        kernel_bits=frozenset({1}),
        needs_quantised=True,
        runtime="lce",
        platforms="Larq Compute Engine: Android and Linux on Arm64 (fast), x86-64 (reference kernels)",
    )

    def refusal(self, facts: Facts) -> str | None:
        if facts.kernel_bits and not facts.binary:
            wide = [f"{name} has {bits}-bit weights" for name, bits in facts.kernel_bits.items() if bits != 1]
            wide += [f"{k.layer}.{k.weight} has weights of 0" for k in facts.kernels if not k.integers.all()]
            return f'{wide[0] if wide else "no layer has 1-bit activations"}; use format="packed"'
        if facts.open_inputs:
            return f"{facts.open_inputs[0]} leaves a size open, and Larq Compute Engine fixes all"
        return super().refusal(facts)

    def build(self, request: Request) -> Built:
        model = to_lce(request.model)
        graph = Graph(model)
        for match in match_constants(graph, list(request.facts.kernels)):
            if match.kernel.integers.size >= _WORTH_DECODING:
                insert_lce_decoder(graph, match)
        narrow_filters(graph)
        bundle_constants(graph)
        return Built(model, drop_shapes=True)


register_format(Binary())
