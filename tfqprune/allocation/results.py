"""What a ratio search has found: plans, models, tables, the Pareto front."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
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
from tfqprune.allocation.records import ESTIMATED, TrialRecord, pareto_front, record_of, write_records
from tfqprune.budget import COUNTED, Budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import BudgetError, PlanError, whole_number
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

    def _judged(
        self, metrics: Mapping[str, float], counts: Mapping[str, int], *, measure: bool = False
    ) -> dict[str, float]:
        """A trial's metrics with its costs, and with the soft objective where there is one.

        Args:
            metrics: of the trial.
            counts: its plan.
            measure: False: costs that take seconds to measure are estimated, on the cautious side, and named so.
        """
        fitter = self._the_fitter()
        costs = fitter.costs(counts, measure=measure)
        judged = self.goal.of(metrics, fitter.limits.load(costs))
        estimated = () if measure else self.budget.measured
        return judged | {ESTIMATED + name if name in estimated else name: value for name, value in costs.items()}

    def records(self) -> list[TrialRecord]:
        """All trials so far, in order."""
        trials = sorted(self._trials(), key=lambda trial: int(trial.trial_id))
        return [record_of(trial, self._tuned(trial)) for trial in trials]

    def _write_records(self) -> None:
        records = self.records()
        measured = [own for own in records if all(name in own.metrics for name in self.budget.measured)]
        write_records(self._project.folder, records, self._front(measured))

    def get_best_plans(self, num_plans: int = 1) -> list[PruningPlan]:
        """The plans of the best trials, best first.

        Raises:
            PlanError: no trial has been completed, or less than one is asked for.
        """
        return [self._plan(trial) for trial in self._best(num_plans)]

    def best_trial(self) -> Trial:
        """The best trial.

        Raises:
            PlanError: no trial has been completed.
        """
        return self._best(1)[0]

    def _best(self, count: int) -> list[Trial]:
        whole_number("how many of the best", count, PlanError)
        trials = [trial for trial in self._ranked() if trial.status == "COMPLETED"]
        best = list(itertools.islice(filter(self._holds, trials), count))
        if not best:
            received = "none that holds it, measured" if trials else "none; call search() first"
            raise PlanError(f"Expected a completed trial on the budget. Received: {received}.")
        return best

    def _ranked(self) -> list[Trial]:
        """All trials: what was fine-tuned comes first, in the order of what it achieved by that."""
        return sorted(self._trials(), key=self._rank_after_tuning)

    def _holds(self, trial: Trial) -> bool:
        """Whether a trial holds the budget: measured, where it was only estimated."""
        fitter = self._the_fitter()
        return fitter.holds(fitter.nearest(ratios_of(trial)))

    def _rank_after_tuning(self, trial: Trial) -> float:
        tuned = self._tuned(trial)
        if not tuned:
            return math.inf
        objective = self.oracle.objective
        value = self._judged(tuned, self._the_fitter().nearest(ratios_of(trial)))[objective.name]
        return -value if objective.direction == "max" else value

    def _tuned(self, trial: Trial) -> dict[str, float]:
        """What fine-tuning made of a trial that was judged by proxy; empty where there was none, or it failed."""
        tuned = tuned_metrics(Path(self.get_trial_dir(trial.trial_id))) if self.evaluation == "both" else None
        tuned = {name: value for name, value in (tuned or {}).items() if math.isfinite(value)}
        return tuned if self.goal.metric in tuned else {}

    def _trials(self) -> list[Trial]:
        """All trials, best first: for a worker, what the chief has saved, as far as it can be seen."""
        own = self._own_oracle
        if is_worker():
            if not os.path.exists(own._get_oracle_fname()):
                return list(self.oracle.get_best_trials(self.oracle.max_trials))
            own.reload()
        return own.get_best_trials(len(own.trials))

    def results_summary(self, num_trials: int = 10) -> None:
        """Prints the best trials: ratios, score, and what fine-tuning made of them."""
        print(f"Results summary\nResults in {self.project_dir}\nShowing {num_trials} best trials")
        print(self.oracle.objective)
        for trial in self._ranked()[:num_trials]:
            print()
            trial.summary()
            for name, value in self._tuned(trial).items():
                print(f"Fine-tuned {name}: {value}")

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[keras_tuner.HyperParameters]:
        """The ratios of the best trials, best first, named ``ratio/<group>``."""
        return [trial.hyperparameters for trial in self._best(num_trials)]

    def _plan(self, trial: Trial) -> PruningPlan:
        fitter = self._the_fitter()
        counts = fitter.nearest(ratios_of(trial))
        notes = {
            "allocator": "bayesian",
            "budget": self.budget.as_dict(),
            **self.found(trial),
            "costs": fitter.costs(counts),
        }
        return fitter.plan(counts, str(self._project.read().get("criterion used", "")), notes)

    def found(self, trial: Trial) -> dict[str, Any]:
        """What a plan's notes say of its trial: number, value, seed, and metrics after fine-tuning where there was."""
        tuned = self._tuned(trial)
        notes = {"trial": trial.trial_id, "value": trial.score, "seed": self._project.facts["seed"]}
        return notes | ({"tuned": tuned} if tuned else {})

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

        All of them hold the budget: where costs of it are measured, those of the front are measured now if they were
        not in their trials, which takes seconds each. Trials that are beaten by their estimate are not measured.
        ``front.json``, written after every trial, is the front of the trials that were measured in their time.

        Args:
            cost: the cost; None: the budget's first.

        Raises:
            BudgetError: no such cost, or one that is measured and not in the budget.
        """
        known = (*COUNTED, *self.budget.measured)
        if cost is not None and cost not in known:
            raise BudgetError(
                f"Expected one of the costs that trials have: {', '.join(known)}. Received: {cost!r}. "
                "What is measured is known of a search with a budget for it."
            )
        records = {record.trial: record for record in self.records()}
        while True:
            front = self._front(records.values(), cost)
            unknown = [own for own in front if any(name not in own.metrics for name in self.budget.measured)]
            if not unknown:
                return front
            fitter = self._the_fitter()
            for record in unknown:
                counts = fitter.nearest(record.ratios)
                if fitter.holds(counts):
                    exact = {name: own for name, own in record.metrics.items() if not name.startswith(ESTIMATED)}
                    records[record.trial] = replace(record, metrics={**exact, **fitter.costs(counts)})
                else:
                    del records[record.trial]

    def _front(self, records: Iterable[TrialRecord], cost: str | None = None) -> list[TrialRecord]:
        larger = self._own_oracle.objective.direction == "max"
        cost = cost or self.budget.names[0]
        return pareto_front(records, cost, metric=self.goal.metric, larger_is_better=larger, estimates=True)

    def get_front_plans(self, cost: str | None = None) -> list[PruningPlan]:
        """The plans of :meth:`pareto_front`, cheapest first.

        Args:
            cost: the cost; None: the budget's first.
        """
        trials = {trial.trial_id: trial for trial in self._trials()}
        return [self._plan(trials[record.trial]) for record in self.pareto_front(cost)]
