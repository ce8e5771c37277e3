"""Ratios from each group's own sensitivity."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfqprune.allocation.base import Allocator, register_allocator
from tfqprune.allocation.curves import LADDER, Removed, SensitivityCurves, measure
from tfqprune.allocation.goal import Goal
from tfqprune.allocation.identity import data_digest, data_facts, model_digest, scores_digest
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import EvaluationError, OutputError, PlanError
from tfqprune.evaluation import CALIBRATION_SAMPLES, PlanEvaluator
from tfqprune.fitting import Fit, Fitter


@register_allocator("sensitivity")
class SensitivityAllocator(Allocator):
    """The largest ratios at which the loss of each group alone stays under one threshold.

    Liu, Kong, Yu, "Automatic Compression Ratio Allocation", doi 10.1145/3387168.3387184, take a ratio
    for each layer from the sensitivity of the accuracy to it. Ours: the loss of each group alone at
    a ladder of ratios, on the evaluation twin with batch norms re-estimated, and a bisection of the
    threshold on the cost.

    Args:
        budget: what must hold.
        evaluate: model -> value, larger is better; or a :class:`PlanEvaluator`. A function gets the
            evaluation twin (a Keras model with the original's inputs and outputs, compiled as the
            original is) with a plan set, or the slim model where there can be no twin.
        validation: in place of ``evaluate``: data to evaluate the metric on.
        calibration: data to re-estimate batch norms on; None: ``data`` of :meth:`allocate`, and
            where that is None, too, they keep their statistics.
        metric: what of ``validation``, or of a :class:`PlanEvaluator`, counts: its name, or a ``keras_tuner.Objective``
            for one whose direction Keras-Tuner does not know. What is to fall (losses, errors) counts negatively.
        ladder: the ratios that each group is tried at.
        path: JSON file for the curves: read if it is there, written after every group. The budget may
            change; model, scores, ladder, bounds, metric and data must be those that it was begun with.
            What ``evaluate`` does cannot be compared: use another path for another function.
        curves: curves that exist already; nothing is measured.
        calibration_samples: samples of the calibration data that are used.

    Raises:
        EvaluationError: no ``evaluate``, ``validation`` or ``curves``, or more than one.
        PlanError: a ladder without ratios between 0 and 1, or a metric of which nobody says which way it is to go.
        OutputError: no file can be at the path; or, once there is a model, it holds something else.
    """

    def __init__(
        self,
        budget: Budget,
        evaluate: Callable[[tf.keras.Model], float] | PlanEvaluator | None = None,
        *,
        validation: Any = None,
        calibration: Any = None,
        metric: Any = "accuracy",
        ladder: Sequence[float] = LADDER,
        path: str | os.PathLike[str] | None = None,
        curves: SensitivityCurves | None = None,
        calibration_samples: int = CALIBRATION_SAMPLES,
    ) -> None:
        super().__init__(budget)
        given = [way is not None for way in (evaluate, validation, curves)]
        if sum(given) != 1:
            raise EvaluationError(
                "Expected one of evaluate (a function of a model), validation (data) and curves. "
                f"Received: {sum(given)} of them."
            )
        if evaluate is not None and not callable(evaluate):
            raise EvaluationError(
                f"Expected evaluate to be a function of a model. Received: a {type(evaluate).__name__}. Data to "
                "evaluate on go into validation=..."
            )
        if not ladder or not all(0 < ratio < 1 for ratio in ladder):
            raise PlanError(f"Expected a ladder of ratios between 0 and 1. Received: {ladder!r}.")
        if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
            raise OutputError(
                f"Expected a file for the curves, in a folder that exists. Received: {os.fspath(path)!r}. Make the "
                "folder first, or choose another path."
            )
        self._function, self._validation, self._calibration = evaluate, validation, calibration
        goal = Goal(f"val_{metric}" if isinstance(metric, str) else metric)
        self._metric, self._larger_is_better = goal.metric.removeprefix("val_"), goal.larger_is_better
        self._ladder, self._path = tuple(sorted(ladder)), path
        self._samples = calibration_samples
        #: the curves, once they are measured
        self.curves = curves

    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        if self._function is not None or self._validation is not None:
            self.curves = self._measured(fitter)
        assert self.curves is not None  # the constructor has seen to it
        missing = [name for name in fitter.names if name not in self.curves.values]
        if missing:
            raise PlanError(f"Expected sensitivity curves for all groups. Received: none for {', '.join(missing)}.")
        return fitter.fit(self.curves.family(fitter.names))

    def notes(self) -> dict[str, Any]:
        return {} if self.curves is None else {"baseline": self.curves.baseline}

    def _measured(self, fitter: Fitter) -> SensitivityCurves:
        calibration = self._data if self._calibration is None else self._calibration
        own_function = self._function is not None and not isinstance(self._function, PlanEvaluator)
        identity = {
            "model": model_digest(fitter.graph),
            "scores": scores_digest(fitter.scores),
            "ladder": list(self._ladder),
            "levels": {name: levels.tolist() for name, levels in fitter.levels.items()},
            "metric": "evaluate" if own_function else self._metric,
            "validation": None if self._validation is None else data_digest(fitter.graph.model, self._validation),
            "calibration": None
            if calibration is None
            else list(data_facts("calibration", fitter.graph.model, calibration).values()),
            "calibration samples": None if calibration is None else self._samples,
        }
        curves = SensitivityCurves(identity)
        if self._path is not None and Path(self._path).exists():
            curves = SensitivityCurves.load(self._path)
            if changed := curves.changed(identity):
                raise OutputError(
                    f"Expected what the curves in {os.fspath(self._path)!r} were begun with. Received: "
                    f"{', '.join(changed)} changed. Choose another path, or remove the file."
                )
        if all(name in curves.values for name in fitter.names):
            return curves
        return measure(curves, fitter, self._evaluation(fitter.graph, calibration), self._ladder, self._path)

    def _evaluation(self, graph: ChannelGraph, calibration: Any) -> Callable[[Removed], float]:
        given = self._function
        if isinstance(given, PlanEvaluator):
            evaluator = given
        else:
            evaluator = PlanEvaluator(graph, self._validation, calibration, calibration_samples=self._samples)
            if given is not None:
                function = given
                return lambda removed: function(evaluator.model(removed))
        return rising(evaluator, self._metric, self._larger_is_better)


def rising(evaluator: PlanEvaluator, metric: str, larger_is_better: bool) -> Callable[[Removed], float]:
    """What an evaluator says of one metric, turned so that larger is better.

    Args:
        evaluator: of plans.
        metric: as the evaluator names it: "accuracy".
        larger_is_better: which way it goes.

    Returns:
        A function for :func:`measure`. It raises an EvaluationError where there is no such metric.
    """

    def value(removed: Removed) -> float:
        results = evaluator(removed)
        if metric not in results:
            raise EvaluationError(f"Expected a metric among {', '.join(results)}. Received: {metric!r}.")
        return results[metric] if larger_is_better else -results[metric]

    return value
