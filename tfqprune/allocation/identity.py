"""Digests of models, scores and data: whether two searches are about the same thing."""

from __future__ import annotations

import hashlib
import itertools
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
from tfqprune.errors import DataError
from tfqprune.evaluation import CALIBRATION_SAMPLES, PlanEvaluator
from tfqprune.layers.running import substitute
from tfqprune.losses import compiled_arguments, loss_name
from tfqprune.models import feed, is_graph_model, nodes
from tfqprune.rebuild import values_of
from tfqprune.recovery.training import fresh_optimizer
from tfqprune.samples import arrays_of, batched, sample_weights

_BATCH = 64  # of data sets that have no batches
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


def data_digest(model: tf.keras.Model, data: Any) -> str:
    """Changes with the form, size and samples of data, and with sample weights, in whatever order they come.

    Args:
        model: whose inputs they are.
        data: arrays, (x, y), an object with ``x`` and ``y``, or a tf.data.Dataset.

    Raises:
        DataError: data that does not fit the model, or is endless.
    """
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise DataError("Expected data that ends. Received: an endless data set; bound it with .take(n).")
        return f"{_form(data)} {_checksum(batched(model, data, _BATCH))}"
    inputs, labels = arrays_of(model, data)
    weights = sample_weights(model, data, len(inputs[0]))
    arrays = [*inputs, *(labels or []), *([] if weights is None else tf.nest.flatten(weights))]
    described = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
    return f"{described} {_checksum([arrays])}"


def data_facts(kind: str, model: tf.keras.Model, data: Any) -> dict[str, str]:
    """What is known of data to train on: its digest; of a tf.data.Dataset form and size, and its first samples.

    Samples that are drawn anew with each pass, shuffled or augmented, say nothing and are left out.

    Args:
        kind: "training", for "training data" and "first training samples".
        model: whose inputs they are.
        data: arrays, (x, y), an object with ``x`` and ``y``, or a tf.data.Dataset.

    Raises:
        DataError: data that does not fit the model.
    """
    if not isinstance(data, tf.data.Dataset):
        return {f"{kind} data": data_digest(model, data)}
    facts = {f"{kind} data": _form(data)}
    if not _by_chance(data):
        first, again = (_checksum(batched(model, data, _BATCH), CALIBRATION_SAMPLES) for _ in range(2))
        if first == again:
            facts[f"first {kind} samples"] = first
    return facts


def evaluator_facts(evaluator: PlanEvaluator, training: Any, validation: Any) -> dict[str, Any]:
    """What an evaluator judges plans by: its data, as far as it is known, its loss and metrics.

    Raises:
        DataError: data that does not fit the model, or is endless.
    """
    model = evaluator.graph.model
    return {
        **data_facts("training", model, training),
        "validation data": data_digest(model, validation),
        "calibration samples": evaluator.calibration_samples,
        **judging_facts(model, *evaluator.judged_by),
    }


def _form(data: tf.data.Dataset) -> str:
    return f"{data.element_spec} {int(data.cardinality())}"


def _by_chance(data: tf.data.Dataset) -> bool:
    """Whether samples may be drawn: without a seed of their own they may stay the same in one process alone."""
    titles = [type(data).__name__.lstrip("_")]
    for function in data._functions():
        graph = function.function.graph.as_graph_def()
        calls = [*graph.node, *(node for own in graph.library.function for node in own.node_def)]
        titles += ["Random" if "seed" in node.attr else node.op for node in calls]
    return any(title.startswith(("Random", "Shuffle")) for title in titles) or any(map(_by_chance, data._inputs()))


def _checksum(batches: Iterable[Any], count: int | None = None) -> str:
    """Of the first ``count`` samples, or of all, whatever their order and the size of the batches."""
    total, done = 0, 0
    for batch in batches:
        parts = [np.asarray(part) for part in tf.nest.flatten(batch) if part is not None]
        if len({len(part) for part in parts}) > 1:
            raise DataError(f"Expected one label for each sample. Received: batches of {[len(own) for own in parts]}.")
        for sample in itertools.islice(zip(*parts, strict=True), None if count is None else count - done):
            checksum = 0
            for part in sample:
                checksum = zlib.crc32(np.asarray(part).tobytes(), checksum)
            total, done = (total + checksum) % 2**64, done + 1
        if done == count:
            break
    return f"{done} samples {total:016x}"


def judging_facts(model: tf.keras.Model, loss: Any, metrics: Any) -> dict[str, Any]:
    """How models are judged. A loss is the same by its name, as a function and as an object without options.

    Args:
        model: the model to prune, which may be compiled with weights of losses and further metrics.
        loss: as for ``compile``.
        metrics: as for ``compile``.
    """
    known = compiled_arguments(model)
    losses = tf.nest.map_structure(_loss, loss)
    return {
        "loss": _plain([losses, known.get("loss_weights")]),
        "metrics": _plain([metrics, known.get("weighted_metrics")]),
    }


def _loss(loss: Any) -> Any:
    if isinstance(loss, str):
        loss = tf.keras.losses.get(loss)  # "mse" is mean_squared_error
    if isinstance(loss, FunctionType) and not loss.__module__.startswith("tf_keras."):
        return loss
    options = {}
    if isinstance(loss, tf.keras.losses.Loss):
        usual = type(loss)().get_config() if type(loss).__module__.startswith("tf_keras.") else {}
        options = {key: value for key, value in loss.get_config().items() if usual.get(key, loss) != value}
    return [loss_name(loss), _plain({key: value for key, value in options.items() if key != "name"})]


def optimizer_facts(optimizer: Any) -> dict[str, Any]:
    """An optimiser of fine-tuning; its learning rate is the search's own.

    Raises:
        DataError: no optimiser of Keras.
    """
    made = fresh_optimizer(optimizer, 1.0)
    config = {key: value for key, value in made.get_config().items() if key != "jit_compile"}  # a matter of the device
    return {"optimizer": [type(made).__qualname__, _plain(config)]}
