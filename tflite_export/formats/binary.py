"""``binary``: Larq Compute Engine for networks of +-1 kernels and activations. Runs in its runtime only."""

from __future__ import annotations

from tflite_export.convert import to_lce
from tflite_export.formats.base import Built, Capability, Facts, Format, Request
from tflite_export.formats.registry import register_format


class Binary(Format):
    """Single bits in Larq Compute Engine's runtime."""

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
            return f'{wide[0] if wide else "no layer has 1-bit activations"}; use format="packed"'
        return super().refusal(facts)

    def build(self, request: Request) -> Built:
        return Built(to_lce(request.model))


register_format(Binary())
