"""``int8``: post-training quantisation of weights and activations by TensorFlow's converter, for plain Keras layers.

It rounds anew on its own grid, so it is refused for models with quantised kernels, whose levels it would miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tflite_export.convert import to_litert
from tflite_export.formats.base import Built, Capability, Facts, Format, Promise, Request
from tflite_export.formats.registry import register_format
from tflite_export.samples import generated_inputs

_CALIBRATION = 64


class Int8(Format):
    """Integers in and between layers, floats at the ends of the file."""

    name = "int8"
    summary = "8 bits a weight and activation, calibrated on data; plain Keras layers; stock LiteRT and accelerators"
    capability = Capability(
        kernel_bits=frozenset(),
        needs_quantised=False,
        runtime="litert",
        platforms="every LiteRT platform, tflite-micro, most accelerators",
        promise=Promise(top1=0.8, off_share=1.0),
    )

    def refusal(self, facts: Facts) -> str | None:
        if facts.kernel_bits:
            name, bits = next(iter(facts.kernel_bits.items()))
            return (
                f"{name} has {bits}-bit weights, whose levels post-training quantisation would miss; "
                'use format="packed" or "fast"'
            )
        return None

    def build(self, request: Request) -> Built:
        import tensorflow as tf

        notes: tuple[str, ...] = ()
        data = request.data
        if data is None:
            data = generated_inputs(request.model, _CALIBRATION)
            notes = ("calibrated on generated inputs: pass data=... with real ones for a better file",)
        names = list(request.model.input_names)

        def representative() -> Iterator[dict[str, Any]]:
            for i in range(min(len(data[0]), 4 * _CALIBRATION)):
                yield {name: array[i : i + 1] for name, array in zip(names, data)}

        def configure(converter: Any) -> None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

        return Built(to_litert(request.model, configure), notes=notes)


register_format(Int8())
