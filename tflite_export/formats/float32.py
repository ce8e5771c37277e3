"""``float32``: the TensorFlow converter's file, batch norms folded, stripped. Exact for every model, never small."""

from __future__ import annotations

from tflite_export.convert import to_litert
from tflite_export.formats.base import Built, Capability, Format, Request
from tflite_export.formats.registry import register_format


class Float32(Format):
    """The plain converter's file, stripped."""

    needs_levels = False
    name = "float32"
    summary = "32 bits a weight, any layer the converter takes, stock LiteRT"
    capability = Capability(
        kernel_bits=frozenset(range(1, 33)), needs_quantised=False, runtime="litert", platforms="every LiteRT platform"
    )

    def build(self, request: Request) -> Built:
        # tflite-micro wants a fixed batch and has no merged clip; elsewhere the clip saves an operator
        return Built(to_litert(request.model, request.batch_size), merge_clips=request.batch_size is None)


register_format(Float32())
