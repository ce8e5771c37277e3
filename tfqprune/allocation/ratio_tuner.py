"""The Bayesian ratio search as a Keras-Tuner tuner."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.engine.trial import Trial

from tfqprune.allocation.base import unscored
from tfqprune.allocation.display import SearchDisplay
from tfqprune.allocation.identity import data_digest, model_digest, scores_digest
from tfqprune.allocation.oracle import BudgetOracle, as_starts, ratios_of
from tfqprune.allocation.project import Project
from tfqprune.allocation.records import TrialRecord, pareto_front, record_of, write_records
from tfqprune.allocation.space import RatioSpace, Shared
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import BudgetError, OutputError, PlanError, TfqpruneError
from tfqprune.evaluation import (
    CALIBRATION_SAMPLES,
    PlanEvaluator,
    Statistics,
    compile_like,
    set_statistics,
)
from tfqprune.fitting import Bounds, Fitter
from tfqprune.plan import PruningPlan
from tfqprune.scoring import choose_criterion, run_criterion
from tfqprune.slim import prune

_SCORES = "scores.npz"
_STATISTICS = "statistics.npz"
_EVALUATIONS = ("proxy", "finetune", "both")


class RatioTuner(keras_tuner.Tuner):
    """Finds a ratio for each group by Bayesian optimisation; every trial lies on the budget.

    Running the same script again takes up the search where it stopped.

    Guerra, Zhuang, Reid, Drummond, "Automatic Pruning for Quantized Neural Networks", arXiv
    2002.00523, find per-layer ratios by Bayesian optimisation. How is ours: see
    :class:`tfqprune.allocation.oracle.BudgetOracle`.

    Args:
        model: the model to prune.
        budget: what every trial holds.
        criterion: ranks the units of each group (see :func:`tfqprune.score`).
        max_trials: number of trials.
        directory / project_name: where trials are kept: ``directory/project_name``.
        objective: ``"val_accuracy"``, ``"val_loss"``, another compiled metric, or a ``keras_tuner.Objective``.
        seed: the same seed gives the same trials.
        overwrite: start anew in a folder that holds an earlier search.
        data: what the criterion looks at; None: the training data of :meth:`search`.
        scores: scores that exist already, instead of ``criterion``.
        evaluation: ``"proxy"``: re-estimate batch norms on some training data and evaluate, without
            training; ``"finetune"``: fine-tune the slim model; ``"both"``: all by proxy, then
            fine-tune the best few.
        promote: how many are fine-tuned with ``"both"``.
        align: keep a multiple of so many channels in each layer.
        minimum / maximum: bounds of the ratios, one or by group or member layer name.
        exclude: groups or layers that stay whole.
        share: groups with one ratio: ``"stage"``, or lists of names (see :class:`RatioSpace`).
        starts: ratios by group to try first, after the uniform solution; scaled onto the budget.
        num_random: random trials before the Gaussian process takes over; None: 3 to 8.
        calibration_samples: training samples that batch norms are re-estimated on.
        batch_size: of arrays.
        loss / metrics / optimizer: as for ``compile``; None: as the model is compiled.
        distribution_strategy: a ``tf.distribute`` strategy for the fine-tuning.
        max_retries_per_trial / max_consecutive_failed_trials: as for every Keras-Tuner tuner.

    Raises:
        BudgetError: the budget is above the original or cannot be met.
        PlanError: names, bounds, align or share do not fit the model.
        ModelTypeError: no graph model.
        OutputError: the folder holds another search (model, budget, criterion, ... changed).
    """

    def __init__(
        self,
        model: tf.keras.Model,
        budget: Budget,
        criterion: Any = "auto",
        max_trials: int = 30,
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        objective: Any = "val_accuracy",
        seed: int = 0,
        overwrite: bool = False,
        *,
        data: Any = None,
        scores: Mapping[str, np.ndarray] | None = None,
        evaluation: str = "proxy",
        promote: int = 3,
        align: int = 1,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
        share: Shared = None,
        starts: Sequence[Mapping[str, float]] = (),
        num_random: int | None = None,
        calibration_samples: int = CALIBRATION_SAMPLES,
        batch_size: int = 256,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        optimizer: Any = None,
        distribution_strategy: Any = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 10,
    ) -> None:
        if not isinstance(budget, Budget):
            raise BudgetError(f"Expected a tfqprune.Budget, as in Budget(memory=0.5). Received: {budget!r}.")
        if evaluation not in _EVALUATIONS:
            raise ValueError(f"Expected evaluation to be one of {', '.join(_EVALUATIONS)}. Received: {evaluation!r}.")
        self.graph = ChannelGraph(model)
        self.budget = budget
        self.criterion = criterion
        self.evaluation = evaluation
        self.promote = promote
        self._data, self._given_scores, self._starts, self._share = data, scores, list(starts), share
        self._limits: dict[str, Any] = {
            "align": align, "minimum": minimum, "maximum": maximum, "exclude": tuple(exclude)
        }  # fmt: skip
        self._calibration_samples, self._batch_size = calibration_samples, batch_size
        self._evaluator: PlanEvaluator | None = None
        self._fitter: Fitter | None = None
        # Units hardly change what a ratio costs: a budget that cannot be met is refused before any scoring.
        outline = Fitter(self.graph, unscored(self.graph), budget, **self._limits)
        self._limits["meter"] = outline.meter
        if not outline.names:
            raise PlanError("Expected a model with groups that can be pruned. Received: one in which all are frozen.")
        directory, project_name = os.fspath(directory or "."), project_name or "ratio_search"
        self._project = Project(Path(directory) / project_name, self._facts(objective, seed), overwrite=overwrite)
        bounds = {
            group.name: (int(outline.levels[group.name][0]) / group.size, outline.most[group.name])
            for group in outline.groups
        }
        oracle = BudgetOracle(
            bounds,
            objective=objective,
            max_trials=max_trials,
            seed=seed,
            num_random=num_random,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self._own_oracle = oracle  # a worker's ``self.oracle`` stands in for the chief's
        oracle._display = SearchDisplay(oracle, outline.limits)
        super().__init__(
            oracle,
            directory=directory,
            project_name=project_name,
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            distribution_strategy=distribution_strategy,
        )

    def _facts(self, objective: Any, seed: int) -> dict[str, Any]:
        criterion = self.criterion if isinstance(self.criterion, str) else repr(self.criterion)
        limits = {key: value for key, value in self._limits.items() if key != "meter"}
        facts = {
            "model": model_digest(self.graph),
            "budget": self.budget.as_dict(),
            "objective": str(getattr(objective, "name", objective)),
            "seed": seed,
            "evaluation": self.evaluation,
            "share": self._share,
            **{key: dict(value) if isinstance(value, Mapping) else value for key, value in limits.items()},
        }
        return facts | (
            {"criterion": criterion} if self._given_scores is None else {"scores": scores_digest(self._given_scores)}
        )

    # -- the search ---------------------------------------------------------------------------

    def search(
        self, train: Any, y: Any = None, *, validation_data: Any, epochs: int = 1, verbose: int = 1, **fit: Any
    ) -> None:
        """Runs the trials that are left.

        Args:
            train: (x, y) arrays, anything with ``.x`` and ``.y``, a batched tf.data.Dataset; or x, with
                ``y`` beside it. Batch norms are re-estimated on its first samples.
            y: the labels, where ``train`` is x alone.
            validation_data: the same, to judge trials by.
            epochs: of fine-tuning, where trials are fine-tuned.
            verbose: 0 prints nothing.
            **fit: further arguments of ``fit``, where trials are fine-tuned.

        Raises:
            DataError: data that is not (inputs, labels), or empty.
            OutputError: other data than this search was begun with.
        """
        train = train if y is None else (train, y)
        self._project.add(
            {
                "training data": data_digest(train),
                "validation data": data_digest(validation_data, contents=True),
                "calibration samples": self._calibration_samples,
                **({"epochs": epochs} if self.evaluation != "proxy" else {}),
            }
        )
        self._prepare(train)
        self._evaluator = PlanEvaluator(
            self.graph,
            validation_data,
            train,
            calibration_samples=self._calibration_samples,
            batch_size=self._batch_size,
            loss=self.loss,
            metrics=self.metrics,
        )
        super().search(train=train, validation_data=validation_data, epochs=epochs, verbose=verbose, **fit)

    def run_trial(self, trial: Trial, **fit: Any) -> dict[str, float]:
        """Scores one trial's plan (Keras-Tuner calls this): its metrics, costs and seconds."""
        began = time.perf_counter()
        fitter = self._the_fitter()
        counts = fitter.nearest(ratios_of(trial))
        assert self._evaluator is not None  # search() made it
        results, statistics = self._evaluator.evaluate(fitter.removed(counts))
        self._save_statistics(trial, statistics)
        metrics = {f"val_{name}": value for name, value in results.items()}
        return {**metrics, **fitter.costs(counts), "seconds": time.perf_counter() - began}

    def on_trial_end(self, trial: Trial) -> None:
        super().on_trial_end(trial)
        if not self._is_worker():
            write_records(self._project.folder, self.records())

    def _try_run_and_update_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> None:
        try:
            self._run_and_update_trial(trial, *args, **kwargs)
            trial.status = "COMPLETED"
        except (TfqpruneError, keras_tuner.errors.FatalError):
            raise  # this can never work: no trial would fare better
        except keras_tuner.errors.FailedTrialError:
            trial.status, trial.message = "FAILED", traceback.format_exc()
        except Exception:  # out of memory, a runtime's error: this trial failed, the search goes on
            trial.status, trial.message = "INVALID", traceback.format_exc()

    def _prepare(self, data: Any) -> None:
        """Ranks the units, and gives the oracle its space."""
        scores, title = self._scores(data)
        self._project.add({"scores": scores_digest(scores), "criterion used": title})
        np.savez(self._project.folder / _SCORES, **scores)
        self._fitter = Fitter(self.graph, scores, self.budget, **self._limits)
        oracle = self._own_oracle
        oracle.space = space = RatioSpace(self._fitter, self._share)
        starts = [self._fitter.project(start).ratios for start in self._starts]
        oracle.starts = as_starts([space.uniform.ratios, *starts])

    def _scores(self, data: Any) -> tuple[dict[str, np.ndarray], str]:
        if self._given_scores is not None:
            return dict(self._given_scores), "given"
        data = data if self._data is None else self._data
        chosen = choose_criterion(self.graph, self.criterion, data)
        known = self._project.read()
        saved = self._project.folder / _SCORES
        if saved.exists() and known.get("criterion used") == chosen.name:
            with np.load(saved) as arrays:
                return {name: arrays[name] for name in arrays.files}, chosen.name
        return run_criterion(self.graph, chosen, data), chosen.name

    def _the_fitter(self) -> Fitter:
        if self._fitter is None:
            saved = self._project.folder / _SCORES
            if not saved.exists():
                raise PlanError("Expected a search before its plans. Received: no trials; call search() first.")
            with np.load(saved) as arrays:
                self._fitter = Fitter(
                    self.graph, {name: arrays[name] for name in arrays.files}, self.budget, **self._limits
                )
        return self._fitter

    # -- results ------------------------------------------------------------------------------

    def records(self) -> list[TrialRecord]:
        """All trials so far, in order."""
        oracle = self._own_oracle
        return [record_of(oracle.trials[trial_id]) for trial_id in sorted(oracle.trials)]

    def get_best_plans(self, num_plans: int = 1) -> list[PruningPlan]:
        """The plans of the best trials, best first.

        Raises:
            PlanError: no trial has been completed.
        """
        return [self._plan(trial) for trial in self._best(num_plans)]

    def _best(self, count: int) -> list[Trial]:
        trials = [trial for trial in self.oracle.get_best_trials(count) if trial.status == "COMPLETED"]
        if not trials:
            raise PlanError("Expected a completed trial. Received: none; call search() first.")
        return trials

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
        slim = prune(self.graph.model, self._plan(trial))
        set_statistics(self.graph, slim, self._load_statistics(trial))
        compile_like(slim, self.graph.model, loss=self.loss, metrics=self.metrics)
        return slim

    def _save_statistics(self, trial: Trial, statistics: Statistics) -> None:
        arrays = {f"{name}:{part}": value for name, values in statistics.items() for part, value in enumerate(values)}
        np.savez(os.path.join(self.get_trial_dir(trial.trial_id), _STATISTICS), **arrays)

    def _load_statistics(self, trial: Trial) -> Statistics:
        path = os.path.join(self.get_trial_dir(trial.trial_id), _STATISTICS)
        if not os.path.exists(path):
            raise OutputError(
                f"Expected the statistics of trial {trial.trial_id} in {path!r}. Received: no such file. If it ran on "
                "another machine, let all workers share the directory, or prune by get_best_plans() and re-estimate."
            )
        with np.load(path) as arrays:
            names = dict.fromkeys(name.rsplit(":", 1)[0] for name in arrays.files)
            return {name: (arrays[f"{name}:0"], arrays[f"{name}:1"]) for name in names}

    def pareto_front(self, cost: str | None = None) -> list[TrialRecord]:
        """Trials that no other beats in both value and cost, cheapest first.

        Args:
            cost: the cost; None: the budget's first.
        """
        return pareto_front(
            self.records(), cost or self.budget.names[0], larger_is_better=self.oracle.objective.direction == "max"
        )
