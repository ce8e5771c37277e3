"""``float16``: half the bytes of float32, unfolded when the file is loaded. For models whose kernels are float."""

from __future__ import annotations

from tflite_export.convert import to_litert
from tflite_export.formats.base import Built, Capability, Format, Promise, Request
from tflite_export.formats.registry import register_format
from tflite_export.narrow import narrow_floats


class Float16(Format):
    """Kernels in 16 bits, arithmetic in float32."""

    needs_levels = False
    name = "float16"
    summary = "16 bits a weight, any layer the converter takes, stock LiteRT"
    capability = Capability(
        kernel_bits=frozenset(range(1, 33)),
        needs_quantised=False,
        runtime="litert",
        platforms="every LiteRT platform",
        promise=Promise(top1=0.95, off_share=1.0, unexplained=0.25),
    )

    def build(self, request: Request) -> Built:
        model = to_litert(request.model, request.batch_size)
        narrow_floats(model, "float16", keep_small=False)
        return Built(model)


register_format(Float16())
