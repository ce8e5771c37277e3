"""What a ratio search has found: plans, models, tables, the Pareto front."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from tfqprune.allocation.cluster import is_worker
from tfqprune.allocation.goal import Goal
from tfqprune.allocation.judging import restore, tuned_metrics
from tfqprune.allocation.oracle import BudgetOracle, ratios_of
from tfqprune.allocation.project import Project
from tfqprune.allocation.records import TrialRecord, pareto_front, record_of
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import PlanError
from tfqprune.evaluation import compile_like
from tfqprune.fitting import Fitter
from tfqprune.plan import PruningPlan

#: scores of the units, in the folder of the search
SCORES = "scores.npz"


class SearchResults(keras_tuner.Tuner):
    """The part of :class:`RatioTuner` that looks back."""

    graph: ChannelGraph
    budget: Budget
    goal: Goal
    evaluation: str
    promote: int
    _limits: dict[str, Any]
    _project: Project
    _own_oracle: BudgetOracle
    _fitter: Fitter | None

    def _the_fitter(self) -> Fitter:
        if self._fitter is None:
            saved = self._project.folder / SCORES
            if not saved.exists():
                raise PlanError("Expected a search before its plans. Received: no trials; call search() first.")
            with np.load(saved) as arrays:
                self._fitter = Fitter(
                    self.graph, {name: arrays[name] for name in arrays.files}, self.budget, **self._limits
                )
        return self._fitter

    def _judged(self, metrics: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """A trial's metrics with its costs, and with the soft objective where there is one.

        Costs that take seconds to measure are estimated, on the cautious side, until a trial is among the best.
        """
        fitter = self._the_fitter()
        costs = fitter.costs(counts, measure=False)
        return {**self.goal.of(metrics, fitter.limits.load(costs)), **costs}

    def records(self) -> list[TrialRecord]:
        """All trials so far, in order."""
        return [record_of(trial) for trial in self._own_oracle.in_order()]

    def get_best_plans(self, num_plans: int = 1) -> list[PruningPlan]:
        """The plans of the best trials, best first.

        Raises:
            PlanError: no trial has been completed.
        """
        return [self._plan(trial) for trial in self._best(num_plans)]

    def best_trial(self) -> Trial:
        """The best trial.

        Raises:
            PlanError: no trial has been completed.
        """
        return self._best(1)[0]

    def _best(self, count: int) -> list[Trial]:
        oracle = self._results()
        trials = [trial for trial in oracle.get_best_trials(self.oracle.max_trials) if trial.status == "COMPLETED"]
        if not trials:
            raise PlanError("Expected a completed trial. Received: none; call search() first.")
        if self.evaluation == "both":
            trials.sort(key=self._rank_after_tuning)
        return list(itertools.islice(filter(self._holds, trials), count))

    def _holds(self, trial: Trial) -> bool:
        """Whether a trial holds the budget: measured, where it was only estimated."""
        fitter = self._the_fitter()
        return fitter.holds(fitter.nearest(ratios_of(trial)))

    def _rank_after_tuning(self, trial: Trial) -> float:
        """What was fine-tuned comes first, in the order of what it achieved by that."""
        tuned = tuned_metrics(Path(self.get_trial_dir(trial.trial_id)))
        if tuned is None:
            return math.inf
        objective = self.oracle.objective
        value = self._judged(tuned, self._the_fitter().nearest(ratios_of(trial)))[objective.name]
        return -value if objective.direction == "max" else value

    def _results(self) -> Any:
        """The oracle that knows the results: for a worker, what the chief has saved, as far as it can be seen."""
        if is_worker() and os.path.exists(self._own_oracle._get_oracle_fname()):
            self._own_oracle.reload()
            return self._own_oracle
        return self.oracle

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[keras_tuner.HyperParameters]:
        """The ratios of the best trials, best first, named ``ratio/<group>``."""
        return [trial.hyperparameters for trial in self._best(num_trials)]

    def _plan(self, trial: Trial) -> PruningPlan:
        fitter = self._the_fitter()
        counts = fitter.nearest(ratios_of(trial))
        notes = {
            "allocator": "bayesian",
            "budget": self.budget.as_dict(),
            "trial": trial.trial_id,
            "value": trial.score,
            "seed": self._project.facts["seed"],
            "costs": fitter.costs(counts),
        }
        return fitter.plan(counts, str(self._project.read().get("criterion used", "")), notes)

    def get_best_models(self, num_models: int = 1) -> list[tf.keras.Model]:
        """The slim models of the best trials, best first, as they were judged.

        Their batch norms have the statistics that were estimated in the trial. They are compiled as the
        original is.

        Raises:
            PlanError: no trial has been completed.
            OutputError: what the trial left on disk is gone (it ran on another machine).
        """
        return [self.load_model(trial) for trial in self._best(num_models)]

    def load_model(self, trial: Trial) -> tf.keras.Model:
        """The slim model of one trial, see :meth:`get_best_models`."""
        slim = restore(self.graph, self._plan(trial).removed, Path(self.get_trial_dir(trial.trial_id)))
        compile_like(slim, self.graph.model, loss=self.loss, metrics=self.metrics)
        return slim

    def pareto_front(self, cost: str | None = None) -> list[TrialRecord]:
        """Trials that no other beats in both the metric (without a size term) and a cost, cheapest first.

        It is written as ``front.json`` after every trial, too.

        Args:
            cost: the cost; None: the budget's first.
        """
        larger = self._own_oracle.objective.direction == "max"
        return pareto_front(
            self.records(), cost or self.budget.names[0], metric=self.goal.metric, larger_is_better=larger
        )

    def get_front_plans(self, cost: str | None = None) -> list[PruningPlan]:
        """The plans of :meth:`pareto_front`, cheapest first.

        Args:
            cost: the cost; None: the budget's first.
        """
        return [self._plan(self._own_oracle.trials[record.trial]) for record in self.pareto_front(cost)]
