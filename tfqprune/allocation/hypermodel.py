"""Ratios as hyperparameters of a ``keras_tuner.HyperModel``, for those who prefer a tuner of their own."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.src.backend import keras as tuners_keras  # the one whose History Keras-Tuner knows

from tfqprune.allocation.base import unscored
from tfqprune.allocation.oracle import PREFIX
from tfqprune.budget import Budget, check_budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import ModelTypeError
from tfqprune.evaluation import CALIBRATION_BATCH, CALIBRATION_SAMPLES, compile_like, with_accuracy
from tfqprune.fitting import Bounds, Fitter, names_of
from tfqprune.plan import PruningPlan
from tfqprune.recovery import reestimate_batch_norms
from tfqprune.scoring import choose_criterion, run_criterion
from tfqprune.slim import prune


class PruningHyperModel(keras_tuner.HyperModel):
    """Builds slim models: the hyperparameters are preferences, scaled onto the budget.

    Use it with a tuner class from :func:`legacy_tuner`, since Keras-Tuner takes Keras 3 models only::

        RandomSearch = legacy_tuner(keras_tuner.RandomSearch)
        tuner = RandomSearch(PruningHyperModel(model, budget, data=train), objective="val_accuracy", ...)

    Args:
        model: the model to prune; compiled, for :meth:`build`.
        budget: what every model holds.
        criterion: ranks the units of each group (see :func:`tfqprune.score`).
        data: what the criterion looks at; batch norms are re-estimated on it, too. None: they keep
            their statistics.
        align: keep a multiple of so many channels in each layer.
        minimum: the least ratio, one or by group or member layer name.
        maximum: the largest ratio, likewise.
        exclude: groups or layers that stay whole.
        scores: scores that exist already, instead of ``criterion``.
        calibration_samples: samples that batch norms are re-estimated on.

    Raises:
        BudgetError: the budget is above the original or cannot be met.
        PlanError: names, bounds, align or scores do not fit the model.
        ModelTypeError: no graph model.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        budget: Budget,
        criterion: Any = "auto",
        data: Any = None,
        *,
        align: int = 1,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
        scores: Mapping[str, np.ndarray] | None = None,
        calibration_samples: int = CALIBRATION_SAMPLES,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_budget(budget)
        self.model, self.data = model, data
        self._batches = -(-calibration_samples // CALIBRATION_BATCH)
        graph = ChannelGraph(model)
        limits: dict[str, Any] = {"align": align, "minimum": minimum, "maximum": maximum, "exclude": names_of(exclude)}
        self._criterion = "given"
        if scores is None:
            limits["meter"] = Fitter(graph, unscored(graph), budget, **limits).meter
            chosen = choose_criterion(graph, criterion, data)
            self._criterion, scores = chosen.name, run_criterion(graph, chosen, data)
        self.fitter = Fitter(graph, scores, budget, **limits)

    def plan(self, hp: keras_tuner.HyperParameters) -> PruningPlan:
        """The plan that hyperparameters stand for."""
        preferences = {name: hp.Float(PREFIX + name, 0.0, 1.0, default=0.5) for name in self.fitter.names}
        fit = self.fitter.project(preferences, measure=False)
        if not self.fitter.holds(fit.counts):  # the estimate of a measured cost was too low
            fit = self.fitter.project(preferences)
        return self.fitter.plan(fit, self._criterion)

    def build(self, hp: keras_tuner.HyperParameters) -> tf.keras.Model:
        """The compiled slim model of these hyperparameters, batch norms re-estimated.

        Raises:
            ModelTypeError: the original is not compiled with a loss.
        """
        if getattr(self.model, "loss", None) is None:
            raise ModelTypeError(
                "Expected a model that is compiled with a loss: slim models are compiled as it is. Received: "
                f"{self.model.name!r}, which is not. Call its compile(optimizer, loss, metrics) first."
            )
        slim = prune(self.model, self.plan(hp))
        if self.data is not None:
            reestimate_batch_norms(slim, self.data, self._batches, batch_size=CALIBRATION_BATCH)
        compile_like(slim, self.model)
        return slim

    def fit(
        self, hp: keras_tuner.HyperParameters, model: tf.keras.Model, *args: Any, callbacks: Any = (), **kwargs: Any
    ) -> Any:
        """Trains a model as its ``fit`` does; the history, of which Keras-Tuner takes the best epoch.

        It is one of Keras 3: Keras-Tuner takes no other.
        """
        adapted = [own if isinstance(own, tf.keras.callbacks.Callback) else _Adapter(own) for own in callbacks]
        history = tuners_keras.callbacks.History()
        history.history = _with_val_accuracy(model.fit(*args, callbacks=adapted, **kwargs).history)
        return history


def _with_val_accuracy(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Adds ``val_accuracy`` where it has a longer name (:func:`with_accuracy`)."""
    validation = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    return {**logs, **{f"val_{name}": value for name, value in with_accuracy(validation).items()}}


class _Adapter(tf.keras.callbacks.Callback):
    """Passes on to a callback of Keras 3 (Keras-Tuner's own are) what a legacy model tells.

    Args:
        callback: of Keras 3.
    """

    def __init__(self, callback: Any) -> None:
        super().__init__()
        self.callback = callback

    def set_model(self, model: tf.keras.Model) -> None:
        super().set_model(model)
        self.callback.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.callback.on_epoch_end(epoch, _with_val_accuracy(logs or {}))


def legacy_tuner(tuner: type[keras_tuner.Tuner]) -> type[keras_tuner.Tuner]:
    """A tuner class of Keras-Tuner that takes models of legacy Keras (tf_keras).

    Keras-Tuner checks that what a hypermodel builds is a model of Keras 3; everything else it does
    with one works on legacy models, too.

    Args:
        tuner: ``keras_tuner.RandomSearch``, ``Hyperband``, ``GridSearch``, ``BayesianOptimization``, ...

    Raises:
        TypeError: not a tuner class, or no model came out of a hypermodel (when trials run).
    """
    if not (isinstance(tuner, type) and issubclass(tuner, keras_tuner.Tuner)):
        raise TypeError(f"Expected a tuner class, such as keras_tuner.RandomSearch. Received: {tuner!r}.")

    def _try_build(self: Any, hp: keras_tuner.HyperParameters) -> tf.keras.Model:
        tf.keras.backend.clear_session()
        gc.collect()
        model = self._build_hypermodel(hp)
        if not isinstance(model, tf.keras.Model):
            raise keras_tuner.errors.FatalTypeError(
                f"Expected the hypermodel to build a legacy Keras model. Received: {model!r}."
            )
        return model

    return type(f"Legacy{tuner.__name__}", (tuner,), {"_try_build": _try_build, "__doc__": tuner.__doc__})
