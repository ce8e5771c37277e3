"""Scores plans on data: on the evaluation twin where there can be one, else on the slim model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.errors import DataError
from tfqprune.slim import SlimBuilder
from tfqprune.twin import EvaluationTwin, Statistics, obstacle

Removed = Mapping[str, tuple[int, ...]]

#: training samples that batch norms are re-estimated on, unless told otherwise
CALIBRATION_SAMPLES = 2048


class PlanEvaluator:
    """Says how good plans are: batch norms re-estimated, then a pass over the validation data.

    Args:
        graph: the channel graph of the model.
        validation: (x, y) arrays, anything with ``.x`` and ``.y``, or a batched tf.data.Dataset.
        calibration: the same, to re-estimate batch norms on (labels are not looked at); None: they
            keep their statistics.
        calibration_samples: how many samples of it, from its beginning.
        batch_size: of arrays.
        loss / metrics: as for ``compile``; None: the model's own if it is compiled, else the
            cross-entropy that fits its output, and accuracy.

    Attributes:
        twin: the evaluation twin, or None.
        reason: None, or why there is no twin.

    Raises:
        DataError: no data, or data that is not (inputs, labels).
    """

    def __init__(
        self,
        graph: ChannelGraph,
        validation: Any,
        calibration: Any = None,
        *,
        calibration_samples: int = CALIBRATION_SAMPLES,
        batch_size: int = 256,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
    ) -> None:
        self.graph = graph
        self._loss, self._metrics = loss, metrics
        self._validation = as_dataset(validation, batch_size, "validation data")
        self._calibration: list[Any] = []
        if calibration is not None:
            self._calibration = [
                tf.nest.map_structure(tf.convert_to_tensor, inputs)
                for inputs in first_inputs(as_dataset(calibration, batch_size, "calibration data"), calibration_samples)
            ]
        self.reason = obstacle(graph)
        self.twin = None if self.reason else self._compiled(EvaluationTwin(graph))

    def __call__(self, removed: Removed) -> dict[str, float]:
        """The metrics of a plan (``plan.removed``): loss, accuracy and whatever else is compiled."""
        return self.evaluate(removed)[0]

    def evaluate(self, removed: Removed) -> tuple[dict[str, float], Statistics]:
        """The metrics of a plan, and the statistics of the slim model's batch norms that they belong to."""
        alive = self.graph.alive(dict(removed))
        if self.twin is not None:
            twin = self.twin
            twin.set_plan(removed)
        else:
            twin = self._compiled(EvaluationTwin(SlimBuilder(self.graph, alive).build()))
        if self._calibration:
            twin.re_estimate(self._calibration)
        results = twin.model.evaluate(self._validation, verbose=0, return_dict=True)
        statistics = twin.statistics()
        if twin is self.twin:
            statistics = cut_statistics(self.graph, alive, statistics)
        return with_accuracy({name: float(value) for name, value in results.items()}), statistics

    def _compiled(self, twin: EvaluationTwin) -> EvaluationTwin:
        compile_like(twin.model, self.graph.model, self._validation, loss=self._loss, metrics=self._metrics)
        return twin


def cut_statistics(graph: ChannelGraph, alive: np.ndarray, statistics: Statistics) -> Statistics:
    """Statistics over all channels, cut to those that stay (``alive``: bool over channel ids)."""
    cut = {}
    for name, values in statistics.items():
        ids = graph.records[name].roles.get("out")
        cut[name] = values if ids is None else tuple(value[alive[ids]] for value in values)
    return cut


def set_statistics(graph: ChannelGraph, slim: tf.keras.Model, statistics: Statistics) -> None:
    """Gives the batch norms of a slim model statistics, by the names that their layers have in the graph."""
    names = {id(record.layer): name for name, record in graph.records.items()}
    for old, new in zip(_batch_norms(graph.model), _batch_norms(slim), strict=True):
        mean, variance = statistics[names[id(old)]]
        new.moving_mean.assign(mean)
        new.moving_variance.assign(variance)


def _batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.BatchNormalization]:
    layers = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    return [layer for layer in layers.values() if isinstance(layer, tf.keras.layers.BatchNormalization)]


def with_accuracy(results: dict[str, float]) -> dict[str, float]:
    """Adds ``accuracy`` where there is one under a longer name only (sparse_categorical_accuracy)."""
    longer = [name for name in results if name.endswith("_accuracy")]
    return results if "accuracy" in results or not longer else {**results, "accuracy": results[longer[0]]}


def as_dataset(data: Any, batch_size: int, what: str) -> tf.data.Dataset:
    """(inputs, labels) as a batched dataset.

    Raises:
        DataError: it is something else, or empty.
    """
    if isinstance(data, tf.data.Dataset):
        if not isinstance(data.element_spec, tuple) or len(data.element_spec) < 2:
            raise DataError(
                f"Expected {what} that yields (inputs, labels). Received: a dataset of {data.element_spec}."
            )
        if data.cardinality() == 0:
            raise DataError(f"Expected {what} with at least one batch. Received: an empty dataset.")
        return data
    if hasattr(data, "x") and hasattr(data, "y"):
        data = (data.x, data.y)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError(
            f"Expected {what} as (x, y) arrays or a batched tf.data.Dataset. Received: {type(data).__name__}."
        )
    sizes = {len(part) for part in tf.nest.flatten(tuple(data))}
    if len(sizes) != 1 or 0 in sizes:
        raise DataError(
            f"Expected {what} with as many labels as inputs, at least one. Received: sizes {sorted(sizes)}."
        )
    return tf.data.Dataset.from_tensor_slices(tuple(data)).batch(batch_size)


def first_inputs(dataset: tf.data.Dataset, samples: int) -> Iterator[Any]:
    """The inputs of a dataset's first batches, about ``samples`` of them; a short last batch is left out."""
    seen, size = 0, 0
    for inputs, *_ in dataset:
        count = int(tf.nest.flatten(inputs)[0].shape[0])
        if count < size and seen:
            break
        size = max(size, count)
        yield inputs
        seen += count
        if seen >= samples:
            break


def compile_like(
    new: tf.keras.Model,
    model: tf.keras.Model,
    data: tf.data.Dataset | None,
    *,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
) -> None:
    """Compiles a model as another one is compiled, with an optimiser of its own that remembers nothing.

    Args:
        new: the model to compile.
        model: the one to follow, where ``loss``, ``metrics`` or ``optimizer`` are None.
        data: what it will be evaluated on; says whether labels are one-hot (None: they are numbers).
        optimizer: as for ``compile``.
        loss: as for ``compile``.
        metrics: as for ``compile``.
    """
    known = dict(getattr(getattr(model, "_compile_config", None), "config", None) or {})
    arguments = {key: _fresh(known[key]) for key in ("loss_weights", "weighted_metrics") if known.get(key)}
    new.compile(
        optimizer=_fresh(optimizer or known.get("optimizer") or "adam"),
        loss=loss or _fresh(known.get("loss")) or _default_loss(new, data),
        metrics=_fresh(metrics if metrics is not None else known.get("metrics") or ["accuracy"]),
        **arguments,
    )


def _fresh(value: Any) -> Any:
    """Optimisers and metrics made anew: they hold variables."""
    if isinstance(value, list | tuple):
        return [_fresh(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _fresh(entry) for key, entry in value.items()}
    if isinstance(
        value, tf.keras.optimizers.Optimizer | tf.keras.optimizers.legacy.Optimizer | tf.keras.metrics.Metric
    ):
        return type(value).from_config(value.get_config())
    return value


def _default_loss(model: tf.keras.Model, data: tf.data.Dataset | None) -> Any:
    """The cross-entropy that fits a classifier's output and its labels.

    Raises:
        DataError: the model has several outputs, so nothing is obvious.
    """
    if len(model.outputs) != 1:
        raise DataError(
            f"Expected a compiled model, or a loss, for a model with {len(model.outputs)} outputs. Received: neither."
        )
    output = model.outputs[0]
    logits = not _ends_in_probabilities(output._keras_history.layer)
    if output.shape[-1] == 1:
        return tf.keras.losses.BinaryCrossentropy(from_logits=logits)
    labels = None if data is None else data.element_spec[1].shape
    if labels is not None and labels.rank == output.shape.rank and labels[-1] == output.shape[-1]:
        return tf.keras.losses.CategoricalCrossentropy(from_logits=logits)
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def _ends_in_probabilities(layer: tf.keras.layers.Layer) -> bool:
    if isinstance(layer, tf.keras.layers.Softmax):
        return True
    return getattr(layer, "activation", None) in (tf.keras.activations.softmax, tf.keras.activations.sigmoid)
