"""Scores plans on data: on the evaluation twin where there can be one, else on the slim model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf
from larq.optimizers import CaseOptimizer

from tfqprune.channels import ChannelGraph
from tfqprune.errors import DataError, EvaluationError
from tfqprune.layers.normalization import is_batch_norm
from tfqprune.losses import compiled_arguments
from tfqprune.plan import PruningPlan, checked_removal
from tfqprune.recovery.training import TrainingData, choose_loss, default_metrics, prepare
from tfqprune.samples import take_samples
from tfqprune.slim import SlimBuilder
from tfqprune.twin import EvaluationTwin, Removed, Statistics, obstacle

#: training samples that batch norms are re-estimated on, unless told otherwise
CALIBRATION_SAMPLES = 2048
#: samples in a batch of the re-estimation, as in ``reestimate_batch_norms``
CALIBRATION_BATCH = 128
#: in the names of metrics that take an answer among the first few for right
_TOP_K = re.compile(r"top_?(k|\d)")


class PlanEvaluator:
    """Says how good plans are: batch norms re-estimated, then a pass over the validation data.

    Args:
        graph: the channel graph of the model.
        validation: a pair (x, y), an object with ``x`` and ``y``, or a tf.data.Dataset of batches; None
            where only :meth:`model` is asked for.
        calibration: the same, to re-estimate batch norms on (labels are not looked at); None: they
            keep their statistics.
        calibration_samples: how many samples of it.
        batch_size: of validation arrays.
        loss: as for ``compile``; None: the compiled one, else the one that goes with labels and outputs.
        metrics: as for ``compile``; None: the compiled ones, else accuracy where the loss is a cross-entropy.

    Attributes:
        calibration_samples: as given.
        twin: the evaluation twin, or None.
        reason: None, or why there is no twin.

    Raises:
        DataError: no data, data without labels or that does not fit the model.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        validation: Any = None,
        calibration: Any = None,
        *,
        calibration_samples: int = CALIBRATION_SAMPLES,
        batch_size: int = 256,
        loss: Any = None,
        metrics: Any = None,
    ) -> None:
        self.graph = graph
        model = graph.model
        self._loss, self._metrics = loss, metrics
        self.calibration_samples = calibration_samples
        self._validation: TrainingData | None = None
        if validation is not None:
            self._validation = prepare(model, validation, batch_size, "validation", shuffle=False)
        self._calibration: list[Any] = []
        if calibration is not None:
            samples = take_samples(model, calibration, calibration_samples).mixed()
            self._calibration = [
                tf.nest.pack_sequence_as(model._nested_inputs, inputs)
                for inputs, _ in samples.batches(CALIBRATION_BATCH)
            ]
        self.reason = obstacle(graph)
        self.twin = None if self.reason else self._compiled(EvaluationTwin(graph))

    def __call__(self, plan: PruningPlan | Removed) -> dict[str, float]:
        """The metrics of a plan, or of ``plan.removed``: loss, accuracy and whatever else is compiled.

        Raises:
            PlanError: the plan was made for another model, or is unsound.
            ActivationError: NaN or infinity reaches a batch norm that is re-estimated.
        """
        return self.evaluate(plan)[0]

    @property
    def validation(self) -> tf.data.Dataset:
        """The validation data, in batches.

        Raises:
            DataError: there is none.
        """
        if self._validation is None:
            raise DataError("Expected validation data to evaluate on. Received: none.")
        return self._validation.dataset

    def evaluate(self, plan: PruningPlan | Removed) -> tuple[dict[str, float], Statistics]:
        """The metrics of a plan, and the statistics of the slim model's batch norms that they belong to."""
        validation = self.validation
        twin = self._set(plan)
        results = twin.model.evaluate(validation, verbose=0, return_dict=True)
        statistics = twin.statistics()
        if twin is self.twin:
            statistics = cut_statistics(self.graph, twin.alive, statistics)
        return with_accuracy({name: float(value) for name, value in results.items()}), statistics

    @property
    def judged_by(self) -> tuple[Any, Any]:
        """Loss and metrics, whether they were given, compiled or follow from the data."""
        return _resolved(self.graph.model, self._validation, self._loss, self._metrics)

    def names(self) -> list[str]:
        """What :meth:`evaluate` returns, by the first batch of the validation data.

        Raises:
            DataError: there is none, or its labels do not go with the outputs and the loss.
        """
        first = self.validation.take(1)
        twin = self.twin or self._built({})
        try:
            return list(with_accuracy(twin.model.evaluate(first, verbose=0, return_dict=True)))
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            reason = str(error).split("\n\t [[")[0].strip().splitlines()[-1]  # the lines before say where, for pages
            raise DataError(
                "Expected validation labels that go with the model's outputs and the loss. Received: a first batch "
                f"that cannot be evaluated ({reason})."
            ) from error

    def model(self, plan: PruningPlan | Removed) -> tf.keras.Model:
        """A Keras model that computes what the slim model does, batch norms re-estimated.

        It is compiled if the original is, or if there is validation data. It is the evaluation twin,
        where there is one: the next call changes it.
        """
        return self._set(plan).model

    def _set(self, plan: PruningPlan | Removed) -> EvaluationTwin:
        if self.twin is not None:
            twin = self.twin
            twin.set_plan(plan)
        else:
            twin = self._built(checked_removal(self.graph, plan))
        if self._calibration:
            twin.re_estimate(self._calibration)
        return twin

    def _built(self, removed: dict[str, tuple[int, ...]]) -> EvaluationTwin:
        """A twin of one slim model, where there is none of the whole one."""
        return self._compiled(EvaluationTwin(SlimBuilder(self.graph, self.graph.alive(removed)).build()))

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


def _batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    layers = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    return [layer for layer in layers.values() if is_batch_norm(layer)]


def with_accuracy(results: dict[str, Any]) -> dict[str, Any]:
    """Adds ``accuracy`` where there is one under a longer name only (sparse_categorical_accuracy).

    Of several outputs' accuracies none is *the* one, and one among the first k (``top_k``, ``top5``) is another thing.
    """
    longer = [name for name in results if name.endswith("_accuracy") and not _TOP_K.search(name)]
    return results if "accuracy" in results or len(longer) != 1 else {**results, "accuracy": results[longer[0]]}


def compile_like(
    new: tf.keras.Model,
    model: tf.keras.Model,
    data: TrainingData | None = None,
    *,
    loss: Any = None,
    metrics: Any = None,
) -> None:
    """Compiles a model as another one is, with an optimiser and metrics of its own that remember nothing.

    Left as it is where the other one is not compiled and neither ``loss`` nor ``data`` say how.

    Args:
        new: the model to compile.
        model: the one to follow.
        data: infers a loss where there is none.
        loss: as for ``compile``.
        metrics: as for ``compile``.
    """
    known = compiled_arguments(model)
    if loss is None and known.get("loss") is None and data is None:
        return
    loss, metrics = _resolved(model, data, loss, metrics)
    further = {key: _fresh(known[key]) for key in ("loss_weights", "weighted_metrics") if known.get(key)}
    new.compile(optimizer=_fresh(known.get("optimizer") or "adam"), loss=loss, metrics=_fresh(metrics), **further)


def _resolved(model: tf.keras.Model, data: TrainingData | None, loss: Any, metrics: Any) -> tuple[Any, Any]:
    """Loss and metrics: as given, else as the model is compiled, else what goes with the data."""
    known = compiled_arguments(model)
    if loss is None:
        loss = known.get("loss") if data is None else choose_loss(model, data, None)
    if metrics is None:
        metrics = known.get("metrics") or default_metrics(loss)
    return loss, metrics


def _fresh(value: Any) -> Any:
    """Optimisers and metrics made anew: they hold variables."""
    if isinstance(value, list | tuple):
        return [_fresh(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _fresh(entry) for key, entry in value.items()}
    if isinstance(value, CaseOptimizer):  # its own config keeps no predicates, but the names of the old variables
        pairs = [(predicate, _fresh(optimizer)) for predicate, optimizer in value.pred_opt_pairs]
        return type(value)(*pairs, default_optimizer=_fresh(value.default), name=value._name)
    if isinstance(
        value, tf.keras.optimizers.Optimizer | tf.keras.optimizers.legacy.Optimizer | tf.keras.metrics.Metric
    ):
        try:
            return type(value).from_config(value.get_config())
        except Exception as error:  # classes of users, too
            raise EvaluationError(
                f"Expected metrics and optimizers that can be made anew from their get_config(). Received: "
                f"{type(value).__name__} ({getattr(value, 'name', 'no name')!r}), which cannot: {error}. "
                "Give its class a get_config() that returns all arguments of its constructor."
            ) from error
    return value
