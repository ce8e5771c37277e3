"""``int8``: integers in and between layers, in 8 bits, by one of two ways.

- Plain Keras layers: post-training quantisation by TensorFlow's converter, calibrated on data.
- Sequential DoReFa networks: level for level what Keras computes (see :mod:`tflite_export.integer`). Post-training
  quantisation would round anew on its own grid and miss their levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tflite_export.codes import match_constants
from tflite_export.convert import has_loops, to_litert, traced_names
from tflite_export.dynamic import store_as_bytes
from tflite_export.formats.base import CALIBRATION_SAMPLES, EXACT, Built, Capability, Facts, Format, Promise, Request
from tflite_export.formats.registry import register_format
from tflite_export.graph import Graph
from tflite_export.integer import IntegerRewriter
from tflite_export.samples import generated_inputs
from tflite_export.strip import drop_unused_operators
from tfqprune.errors import ExportError

_GENERATED = 64


class Int8(Format):
    """Integers in and between layers, floats at the ends of the file."""

    name = "int8"
    summary = "8 bits a weight and activation: plain layers calibrated on data, sequential DoReFa nets level for level"
    capability = Capability(
        kernel_bits=frozenset(range(1, 8)),
        needs_quantised=False,
        runtime="litert",
        platforms="every LiteRT platform, tflite-micro, most accelerators",
        promise=Promise(top1=0.8, off_share=1.0),
    )

    def refusal(self, facts: Facts) -> str | None:
        if not facts.kernel_bits:
            return None
        if facts.junctions:
            return (
                f"paths meet or part at {facts.junctions[0]}, and exact 8-bit levels need a sequential network; "
                'use format="packed" or "fast"'
            )
        if facts.sign_inputs:
            return (
                f"{facts.sign_inputs[0]} reads activations of +-1, and exact 8-bit levels need DoReFa activations; "
                'use format="binary" or "packed"'
            )
        return super().refusal(facts)

    def promise(self, facts: Facts) -> Promise:
        return EXACT if facts.kernel_bits else self.capability.promise

    def build(self, request: Request) -> Built:
        return _exact(request) if request.facts.kernel_bits else _calibrated(request)


def _exact(request: Request) -> Built:
    model = to_litert(request.model, request.batch_size)
    graph = Graph(model)
    matches = match_constants(graph, list(request.facts.kernels))
    layers = IntegerRewriter(graph, matches).run()
    if not layers:
        raise ExportError(
            "Expected a quantised layer between two DoReFa quantisers, to compute in integers. Received: none. "
            'Use format="packed" or "fast".'
        )
    drop_unused_operators(graph.subgraph)
    left = 0
    for match in matches:
        for consumer in graph.consumers(match.tensor):
            store_as_bytes(graph, match, consumer)
            left += 1
    rest = f"; {left} at the ends computes in floats from 8-bit weights" if left else ""
    note = f"{layers} quantised layers compute in integers, every channel proven exact{rest}"
    return Built(model, notes=(note,), merge_clips=False)


def _calibrated(request: Request) -> Built:
    import tensorflow as tf

    if has_loops(request.model, request.batch_size) and len(to_litert(request.model, request.batch_size).subgraphs) > 1:
        # TensorFlow 2.21: calibrating such a file ends the process
        raise ExportError(
            "Expected a model without loops, such as those of GRU and SimpleRNN layers: TensorFlow does not calibrate "
            'them. Received: one with loops. Use format="float16", or LSTM layers, which become one operator each.'
        )
    notes: tuple[str, ...] = ()
    data = request.data
    if data is None:
        data = generated_inputs(request.model, _GENERATED)
        notes = ("calibrated on generated inputs: pass data=... with real ones for a better file",)
    names = traced_names(request.model)

    def representative() -> Iterator[dict[str, Any]]:
        for i in range(min(len(data[0]), CALIBRATION_SAMPLES)):
            yield {name: array[i : i + 1] for name, array in zip(names, data)}

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    return Built(to_litert(request.model, request.batch_size, configure), notes=notes)


register_format(Int8())
