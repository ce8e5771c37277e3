"""What a trial is worth: a metric, or a metric with a soft size term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner

from tfqprune.errors import EvaluationError, PlanError, real_number

#: the objective's name where it has a size term
SOFT = "soft_objective"
#: metrics of Keras that rise, which Keras-Tuner takes for falling
_RISING = frozenset({"cosine_similarity", "f1_score", "r2_score", "binary_io_u", "io_u", "one_hot_io_u", "mean_io_u"})


class Goal:
    """The objective of a search.

    With a size term, a trial is worth ``metric - weight * share``, where ``share`` is its cost over the
    budget (of several costs, the largest share). For a metric that is to fall, the term is added.

    Args:
        objective: a metric's name, or a ``keras_tuner.Objective``.
        size_weight: of the size term: how much of the metric a whole budget is worth; 0: none.

    Attributes:
        metric: the metric's name.
        objective: what the oracle optimises.
        soft: whether there is a size term.

    Raises:
        PlanError: several objectives or none, or one of which nobody says which way it is to go; a weight that is
            negative or not finite.
    """

    def __init__(self, objective: Any, size_weight: float = 0.0) -> None:
        what = "size_weight (how much of the objective a whole budget is worth)"
        self.size_weight = real_number(what, size_weight, PlanError, 0)
        self.soft = self.size_weight > 0
        base = _objective(objective)
        self.metric, self.larger_is_better = str(base.name), base.direction == "max"
        self.objective = keras_tuner.Objective(SOFT, base.direction) if self.soft else base

    def __str__(self) -> str:
        size = f" with size_weight {self.size_weight:g}" if self.soft else ""
        return f"{self.metric}, {self.objective.direction}{size}"

    def check(self, names: Sequence[str]) -> None:
        """Refuses an objective that no trial would have.

        Args:
            names: of the metrics of a trial.

        Raises:
            EvaluationError: the metric is not among them.
        """
        if self.metric not in names:
            raise EvaluationError(
                f"Expected an objective among {', '.join(names)}. Received: {self.metric!r}. Choose one of them, or "
                "have it computed: metrics=[...]."
            )

    def of(self, metrics: Mapping[str, float], share: float) -> dict[str, float]:
        """A trial's metrics, with the soft objective among them where there is one.

        Args:
            metrics: by name.
            share: cost over budget.
        """
        if not self.soft or self.metric not in metrics:
            return dict(metrics)
        sign = -1 if self.larger_is_better else 1
        return {**metrics, SOFT: metrics[self.metric] + sign * self.size_weight * share}


def _objective(given: Any) -> keras_tuner.Objective:
    """One objective that has a direction: Keras-Tuner knows that of common metrics."""
    if isinstance(given, str) and given.removeprefix("val_") in _RISING:
        return keras_tuner.Objective(given, "max")
    known = isinstance(given, str | keras_tuner.Objective)
    try:
        objective = keras_tuner.Oracle(objective=given).objective if known else None
    except ValueError:
        objective = None
    if getattr(objective, "direction", None) in ("min", "max") and not hasattr(objective, "objectives"):
        return objective
    title = given if isinstance(given, str) else "val_top5"
    raise PlanError(
        f"Expected one objective whose direction is known. Received: {given!r}. Say which way it goes, as in "
        f"keras_tuner.Objective({title!r}, 'max')."
    )
