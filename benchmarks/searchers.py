"""Searches over ratios with one face: they are asked for a plan, and told what it was worth.

All of them search the same plans: a number between 0 and 1 for each group, scaled onto the budget by the same exact
projection (``Fitter.project``), and all are told the uniform solution as their first trial. What differs is what they
make of the values.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras_tuner

from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.allocation.oracle import PREFIX, BudgetOracle, ratios_of
from tfqprune.allocation.space import RatioSpace
from tfqprune.allocation.starting import guide
from tfqprune.fitting import Fitter

Counts = dict[str, int]

#: what is told of each method in the tables
DESCRIPTIONS = {
    "uniform": "one ratio for all groups (`UniformAllocator`); one plan",
    "sensitivity": "each group alone at six ratios, then a threshold (`SensitivityAllocator`); one plan",
    "random": "Keras-Tuner's random oracle",
    "stock": "Keras-Tuner's `BayesianOptimization` oracle with its default settings (random for 3 x dimensions trials)",
    "tpe": "Optuna's TPE sampler with its default settings (random for 10 trials)",
    "unguided": "the oracle of `RatioTuner` without sensitivity curves",
    "ours": "the oracle of `RatioTuner` with sensitivity curves, which are measured before",
}


class Searcher(ABC):
    """One search.

    Args:
        fitter: turns preferences into numbers of units on the budget.
        trials: how many will be asked for.
        seed: of all chance.
        curves: what groups alone lose; one method looks at them.
    """

    def __init__(self, fitter: Fitter, trials: int, seed: int, curves: SensitivityCurves) -> None:
        self.fitter, self.trials, self.seed, self.curves = fitter, trials, seed, curves

    @abstractmethod
    def ask(self) -> Counts:
        """The next plan: units that go, by group."""

    @abstractmethod
    def tell(self, value: float) -> None:
        """What the plan asked for last is worth; more is better."""

    def projected(self, preferences: dict[str, float]) -> Counts:
        """The plan of preferences on the budget."""
        return self.fitter.project(preferences).counts


class OracleSearcher(Searcher):
    """An oracle of Keras-Tuner, driven as a tuner drives it."""

    def __init__(self, fitter: Fitter, trials: int, seed: int, curves: SensitivityCurves) -> None:
        super().__init__(fitter, trials, seed, curves)
        self._folder = tempfile.TemporaryDirectory()
        self.oracle = self.make_oracle()
        self.oracle._set_project_dir(self._folder.name, "search")
        self.oracle.verbose = 0

    @abstractmethod
    def make_oracle(self) -> keras_tuner.Oracle:
        """The oracle."""

    def ask(self) -> Counts:
        self._trial = self.oracle.create_trial("benchmark")
        if self._trial.status == "STOPPED":
            raise StopIteration
        return self.counts(ratios_of(self._trial))

    def counts(self, values: dict[str, float]) -> Counts:
        """The plan that an oracle's values stand for."""
        return self.projected(values)

    def tell(self, value: float) -> None:
        self.oracle.update_trial(self._trial.trial_id, {"value": value})
        self._trial.status = "COMPLETED"
        self.oracle.end_trial(self._trial)

    def common(self) -> dict[str, Any]:
        """Arguments that all oracles take."""
        return {
            "objective": keras_tuner.Objective("value", "max"),
            "max_trials": self.trials,
            # 0 stands for "none given" in Keras-Tuner
            "seed": self.seed + 1,
        }

    def parameters(self) -> keras_tuner.HyperParameters:
        """A preference for each group."""
        parameters = keras_tuner.HyperParameters()
        for name in self.fitter.names:
            parameters.Float(PREFIX + name, 0, 1)
        return parameters


def _started(oracle: type[keras_tuner.Oracle]) -> type[keras_tuner.Oracle]:
    """An oracle class whose first trial has equal preferences: the uniform solution."""

    class Started(oracle):  # type: ignore[misc,valid-type]
        def populate_space(self, trial_id: str) -> dict[str, Any]:
            if len(self.trials) == 0:
                names = [parameter.name for parameter in self.hyperparameters.space]
                return {"status": "RUNNING", "values": dict.fromkeys(names, 0.5)}
            return super().populate_space(trial_id)

    return Started


class RandomSearcher(OracleSearcher):
    """Preferences drawn alike from 0 to 1."""

    def make_oracle(self) -> keras_tuner.Oracle:
        oracle = _started(keras_tuner.oracles.RandomSearchOracle)
        return oracle(hyperparameters=self.parameters(), **self.common())


class StockSearcher(OracleSearcher):
    """Keras-Tuner's Bayesian optimisation as it comes."""

    def make_oracle(self) -> keras_tuner.Oracle:
        oracle = _started(keras_tuner.oracles.BayesianOptimizationOracle)
        return oracle(hyperparameters=self.parameters(), **self.common())


class UnguidedSearcher(OracleSearcher):
    """The oracle of ``RatioTuner`` with ``sensitivity=False``."""

    def make_oracle(self) -> BudgetOracle:
        bounds = {name: (0.0, most) for name, most in self.fitter.most.items()}
        oracle = BudgetOracle(bounds, **self.common())
        oracle.space = RatioSpace(self.fitter)
        oracle.starts = [oracle.space.uniform.ratios]
        return oracle

    def counts(self, values: dict[str, float]) -> Counts:
        return self.fitter.nearest(values)  # they are ratios on the budget already


class OurSearcher(UnguidedSearcher):
    """The oracle of ``RatioTuner`` with sensitivity curves."""

    def make_oracle(self) -> BudgetOracle:
        oracle = super().make_oracle()
        guide(oracle, self.curves)
        return oracle


class TpeSearcher(Searcher):
    """Optuna's tree-structured Parzen estimator as it comes."""

    def __init__(self, fitter: Fitter, trials: int, seed: int, curves: SensitivityCurves) -> None:
        import optuna

        super().__init__(fitter, trials, seed, curves)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._study.enqueue_trial(dict.fromkeys(fitter.names, 0.5))

    def ask(self) -> Counts:
        self._trial = self._study.ask()
        return self.projected({name: self._trial.suggest_float(name, 0, 1) for name in self.fitter.names})

    def tell(self, value: float) -> None:
        self._study.tell(self._trial, value)


SEARCHERS: dict[str, Callable[[Fitter, int, int, SensitivityCurves], Searcher]] = {
    "random": RandomSearcher,
    "stock": StockSearcher,
    "tpe": TpeSearcher,
    "unguided": UnguidedSearcher,
    "ours": OurSearcher,
}
