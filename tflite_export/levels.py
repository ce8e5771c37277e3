"""Level by level: do the quantised activations in the file equal those of the Keras model?

The file is run with the activations in question as further outputs, so that the runtime computes them as it does for
its user. A flip early in a network moves sums later on: the first layer with mismatches is where to look.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.activations import input_levels
from tflite_export.codes import coded_kernels, leaf_layers, sharers
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import Graph, TensorType
from tflite_export.labels import label_constants
from tflite_export.packing import unpack_sign_words
from tflite_export.runtime import predict
from tfqprune.precision import quantized_weights

# Operators between a quantised activation and its layer that neither make nor round values.
_PASSING = {"PADV2", "PAD", "RESHAPE", "TRANSPOSE", "SPACE_TO_BATCH_ND", "SQUEEZE", "EXPAND_DIMS"}
_CHUNK = 16


@dataclass(frozen=True)
class LevelMismatch:
    """Quantised activations in front of one layer.

    Attributes:
        layer: name of the layer that reads them.
        mismatches: values that are another level in the file than in Keras.
        values: values compared.
    """

    layer: str
    mismatches: int
    values: int

    @property
    def share(self) -> float:
        """Mismatches over values."""
        return self.mismatches / self.values if self.values else 0.0


def compare_levels(
    model: Any,
    path: str | os.PathLike[str],
    arrays: list[np.ndarray],
    inputs_of_file: list[int],
    runtime: str,
    threads: int,
    xnnpack: bool,
) -> tuple[LevelMismatch, ...]:
    """Mismatches for each layer that multiplies quantised activations and is found in the file, in Keras order.

    Args:
        model: the Keras model.
        path: its file.
        arrays: inputs [samples, ...] in the model's order.
        inputs_of_file: for each input of the file the model's.
        runtime: ``litert`` or ``lce``.
        threads: of the runtime.
        xnnpack: whether LiteRT may use the delegate.
    """
    parsed = read_model(path)
    graph = Graph(parsed)
    observed = _observed_tensors(graph, model)
    layers = [layer for layer in _comparable_layers(model) if layer.name in observed]
    if not layers:
        return ()
    first = len(graph.subgraph.outputs)
    extra = [observed[layer.name] for layer in layers]
    graph.subgraph.outputs = np.asarray([*graph.subgraph.outputs, *dict.fromkeys(extra)], np.int32)
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.tflite"
        probe.write_bytes(serialize(parsed))
        answers = predict(
            probe, [arrays[i] for i in inputs_of_file], runtime=runtime, threads=threads, xnnpack=xnnpack
        )  # fmt: skip
    place = {tensor: first + i for i, tensor in enumerate(dict.fromkeys(extra))}
    expected = _keras_levels(model, layers, arrays)
    found = []
    for layer, want in zip(layers, expected):
        have = answers[place[observed[layer.name]]]
        if graph.tensors[observed[layer.name]].type == TensorType.INT32:
            have = unpack_sign_words(have, want.shape[-1])
        elif (step := _step(graph.tensors[observed[layer.name]])) is not None:
            have = have / step
        if have.size != want.size:
            continue  # padded already: not what the layer is given
        have = np.rint(have).astype(np.int64).reshape(want.shape)
        found.append(LevelMismatch(layer.name, int(np.count_nonzero(have != want)), want.size))
    return tuple(found)


def _comparable_layers(model: Any) -> list[Any]:
    """Layers of the model's own graph with a quantised kernel and quantised input, used once.

    Those whose kernel equals another's are left out: the file may hold one for both.
    """
    own = {id(layer) for layer in model.layers}
    doubtful = {name for names in sharers(coded_kernels(model)).values() if len(names) > 1 for name in names}
    return [
        layer
        for layer in leaf_layers(model)
        if id(layer) in own and quantized_weights(layer) and layer.name not in doubtful
        and input_levels(layer) is not None and len(layer._inbound_nodes) == 1
    ]  # fmt: skip


def _observed_tensors(graph: Graph, model: Any) -> dict[str, int]:
    """Layer name -> the tensor in the file that holds its quantised input."""
    labels = label_constants(graph, model)
    producers = {int(i): operator for operator in graph.operators for i in operator.outputs}
    kernels = {tensor: {name} for tensor, name in labels.items()}
    static = {i for i in range(len(graph.tensors)) if graph.is_constant(i)}
    observed: dict[str, int] = {}
    for operator in graph.operators:
        inputs = [int(i) for i in operator.inputs if i >= 0]
        names = {name for i in inputs for name in kernels.get(i, set())}
        if all(i in static for i in inputs):  # part of a decoder: the names travel with its output
            for output in (int(i) for i in operator.outputs):
                static.add(output)
                kernels.setdefault(output, names)
            continue
        data = inputs[2 if graph.kind(operator) == "TRANSPOSE_CONV" else 0]  # its first input is a shape
        for name in names:
            tensor = _quantised_input(graph, data, producers)
            if tensor is not None:
                observed.setdefault(name, tensor)
    return observed


def _quantised_input(graph: Graph, tensor: int, producers: dict[int, Any]) -> int | None:
    for _ in range(8):
        if graph.tensors[tensor].type in (TensorType.INT32, TensorType.INT8):
            return tensor
        operator = producers.get(tensor)
        if operator is None:
            return None
        kind = graph.kind(operator)
        if kind in ("ROUND", "SIGN"):
            return tensor
        if kind not in _PASSING and kind != "MUL":
            return None
        data = [int(i) for i in operator.inputs if not graph.is_constant(int(i))]
        if len(data) != 1:
            return None
        tensor = data[0]
    return None


def _step(tensor: Any) -> float | None:
    """What one level is worth in an 8-bit tensor."""
    record = tensor.quantization
    return float(record.scale[0]) if tensor.type == TensorType.INT8 and record is not None else None


def _keras_levels(model: Any, layers: list[Any], arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The integer levels in front of each layer: 0 to 2^k - 1, or -1 and 1."""
    import tensorflow as tf

    inner = tf.keras.Model(model.inputs, [layer.input for layer in layers])
    columns: list[list[np.ndarray]] = [[] for _ in layers]
    steps = [known.step for layer in layers if (known := input_levels(layer)) is not None]
    for start in range(0, len(arrays[0]), _CHUNK):
        part = [a[start : start + _CHUNK] for a in arrays]
        answers = inner(part if len(part) > 1 else part[0], training=False)
        answers = answers if isinstance(answers, list | tuple) else [answers]
        for column, layer, step, answer in zip(columns, layers, steps, answers):
            values = np.asarray(layer.input_quantizer(answer))
            column.append(np.rint(values / step).astype(np.int64))
    return [np.concatenate(column) for column in columns]
