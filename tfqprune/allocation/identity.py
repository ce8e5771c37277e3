"""Digests of models, scores and data: whether two searches are about the same thing."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.layers.running import substitute
from tfqprune.models import feed, is_graph_model, nodes
from tfqprune.rebuild import values_of

_NUMBER = re.compile(r"_\d+$")


def model_digest(graph: ChannelGraph) -> str:
    """Changes with what a model computes: its layers and their configurations, how they are called, every weight.

    The same model built again has the same digest, in this process or in another one: of names, the numbers at the end
    do not count, which Keras gives anew with every build.
    """
    layers = [
        [type(record.layer).__name__, [list(weight.shape) for weight in record.layer.weights], _config(record.layer)]
        for record in graph.records.values()
    ]
    digest = hashlib.sha256(json.dumps([layers, _calls(graph)], sort_keys=True).encode())
    for record in graph.records.values():
        for value in values_of(record):
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def _config(layer: Any) -> Any:
    if isinstance(layer, tf.keras.layers.Lambda):  # its config holds byte code as marshal writes it, never twice alike
        return _plain({"name": layer.name, "function": layer.function, "arguments": layer.arguments})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of functions without a name; nothing is saved here
            config = dict(layer.get_config())
    except Exception:  # a user's layer need not have one
        config = {}
    nameless = {key: getattr(layer, key, None) for key, value in config.items() if not isinstance(value, str)}
    return _plain(config | {key: value for key, value in nameless.items() if isinstance(value, FunctionType)})


def _calls(graph: ChannelGraph) -> list[Any]:
    """The inputs, every call (number of the layer, arguments), and which tensors come out, all tensors numbered."""
    numbers = {id(record.layer): number for number, record in enumerate(graph.records.values())}
    calls: list[Any] = []

    def walk(model: tf.keras.Model, inputs: Iterable[str]) -> list[str]:
        table = dict(zip(map(id, model.inputs), inputs, strict=True))
        for node in nodes(model):
            outputs = tf.nest.flatten(node.outputs)
            if is_graph_model(node.layer):
                titles = walk(node.layer, [table[id(tensor)] for tensor in feed(node.layer, node)])
            else:
                titles = [f"call {len(calls)}, output {number}" for number in range(len(outputs))]
                arguments = substitute(node, [table[id(tensor)] for tensor in node.keras_inputs])
                calls.append([numbers[id(node.layer)], _plain(arguments)])
            table.update(zip(map(id, outputs), titles, strict=True))
        return [table[id(tensor)] for tensor in model.outputs]

    inputs = graph.model.inputs
    outputs = walk(graph.model, [f"input {number}" for number in range(len(inputs))])
    return [[[tensor.dtype.name, list(tensor.shape)] for tensor in inputs], calls, outputs]


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, the same in every process: never an address, an order by chance or a file's name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {
            str(_plain(key)): _NUMBER.sub("", entry) if key == "name" and isinstance(entry, str) else _plain(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_plain(entry), sort_keys=True) for entry in value)
    if isinstance(value, np.ndarray | np.generic | tf.Tensor | tf.Variable):
        array = np.asarray(value)
        content = array.tolist() if array.dtype == object else hashlib.sha256(array.tobytes()).hexdigest()
        return [str(array.dtype), list(array.shape), _plain(content)]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        known = [cell.__qualname__ if isinstance(cell, FunctionType) else _plain(cell) for cell in cells]
        return [value.__qualname__, _plain([value.__code__, value.__defaults__, value.__kwdefaults__]), known]
    if isinstance(value, CodeType):
        return [value.co_code.hex(), _plain(value.co_consts), list(value.co_names)]
    if isinstance(value, slice):
        return [_plain(part) for part in (value.start, value.stop, value.step)]
    if isinstance(value, bytes | tf.DType | np.dtype | tf.TensorShape):
        return str(value)
    if hasattr(value, "get_config") and not isinstance(value, type):
        return [type(value).__qualname__, _config(value)]
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def scores_digest(scores: Mapping[str, np.ndarray]) -> str:
    """Changes with the order that scores give the units of any group."""
    digest = hashlib.sha256()
    for name in sorted(scores):
        digest.update(name.encode())
        digest.update(np.argsort(np.asarray(scores[name]), kind="stable").astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def data_digest(data: Any, *, contents: bool = False) -> str:
    """Changes with the form and size of data, and with its samples, in whatever order they come.

    Args:
        data: arrays, (x, y), an object with ``x`` and ``y``, or a tf.data.Dataset.
        contents: go through the samples of a tf.data.Dataset, too. One that is augmented never yields
            the same samples twice; for that, form and size have to do.
    """
    if isinstance(data, tf.data.Dataset):
        described = f"{data.element_spec} {int(data.cardinality())}"
        return described + (f" {_checksum(data)}" if contents else "")
    if hasattr(data, "x") and hasattr(data, "y"):
        data = (data.x, data.y)
    arrays = [np.asarray(array) for array in tf.nest.flatten(data)]
    described = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
    return f"{described} {_checksum([arrays])}"


def _checksum(batches: Iterable[Any]) -> str:
    total, count = 0, 0
    for batch in batches:
        parts = [np.ascontiguousarray(part) for part in tf.nest.flatten(batch)]
        for sample in zip(*parts, strict=True):
            checksum = 0
            for part in sample:
                checksum = zlib.crc32(np.asarray(part).tobytes(), checksum)
            total, count = (total + checksum) % 2**64, count + 1
    return f"{count} samples {total:016x}"
