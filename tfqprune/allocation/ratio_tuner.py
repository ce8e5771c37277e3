"""The Bayesian ratio search as a Keras-Tuner tuner."""

from __future__ import annotations

import contextlib
import math
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
from tfqprune.allocation.cluster import WORKER_TIMEOUT, is_chief, is_worker, serve, signs_of_life
from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.allocation.display import SearchDisplay
from tfqprune.allocation.goal import Goal
from tfqprune.allocation.identity import data_digest, model_digest, scores_digest
from tfqprune.allocation.judging import Judge, tuned_metrics
from tfqprune.allocation.oracle import BudgetOracle, as_starts, ratios_of
from tfqprune.allocation.project import Project
from tfqprune.allocation.records import write_records
from tfqprune.allocation.results import SCORES, SearchResults
from tfqprune.allocation.space import RatioSpace, Shared
from tfqprune.allocation.tensorboard import log_trial
from tfqprune.budget import Budget, format_cost
from tfqprune.channels import ChannelGraph
from tfqprune.errors import ActivationError, BudgetError, EvaluationError, PlanError, TfqpruneError
from tfqprune.evaluation import CALIBRATION_SAMPLES, PlanEvaluator
from tfqprune.files import write_arrays, write_json
from tfqprune.fitting import Bounds, Fitter
from tfqprune.scoring import choose_criterion, run_criterion

_EVALUATIONS = ("proxy", "finetune", "both")


class RatioTuner(SearchResults):
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
        size_weight: for those who want the trade-off between value and cost: how much of the objective
            a whole budget is worth. Above 0, trials may stay below the budget, each is worth
            ``objective - size_weight * cost / budget`` (added where the objective is to fall), and
            :meth:`pareto_front` is what the search leaves.
        seed: the same seed gives the same trials.
        overwrite: start anew in a folder that holds an earlier search.
        data: what the criterion looks at; None: the training data of :meth:`search`.
        scores: scores that exist already, instead of ``criterion``.
        fitter: scores, budget and bounds that exist already, instead of ``budget``, ``criterion``, ``data``,
            ``scores``, ``align``, ``minimum``, ``maximum`` and ``exclude``.
        evaluation: ``"proxy"``: re-estimate batch norms on some training data and evaluate, without
            training; ``"finetune"``: fine-tune the slim model; ``"both"``: all by proxy, then
            fine-tune the best few.
        promote: how many are fine-tuned with ``"both"``.
        align: keep a multiple of so many channels in each layer.
        minimum / maximum: bounds of the ratios, one or by group or member layer name.
        exclude: groups or layers that stay whole.
        share: groups with one ratio: ``"stage"``, or lists of names (see :class:`RatioSpace`).
        starts: ratios by group to try first, after the uniform solution; scaled onto the budget.
        sensitivity: curves of a :class:`SensitivityAllocator`; their solution is tried first, too.
        num_random: random trials before the Gaussian process takes over; None: 3 to 8.
        calibration_samples: training samples that batch norms are re-estimated on.
        batch_size: of arrays.
        loss / metrics / optimizer: as for ``compile``; None: as the model is compiled.
        distribution_strategy: a ``tf.distribute`` strategy for the fine-tuning.
        max_retries_per_trial / max_consecutive_failed_trials: as for every Keras-Tuner tuner.
        worker_timeout: seconds of silence after which the chief gives a worker's trial to another.

    Raises:
        BudgetError: the budget is above the original or cannot be met.
        PlanError: names, bounds, align or share do not fit the model.
        ModelTypeError: no graph model.
        OutputError: the folder holds another search (model, budget, criterion, ... changed).
    """

    def __init__(
        self,
        model: tf.keras.Model,
        budget: Budget | None = None,
        criterion: Any = "auto",
        max_trials: int = 30,
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        objective: Any = "val_accuracy",
        seed: int = 0,
        overwrite: bool = False,
        *,
        size_weight: float = 0.0,
        data: Any = None,
        scores: Mapping[str, np.ndarray] | None = None,
        fitter: Fitter | None = None,
        evaluation: str = "proxy",
        promote: int = 3,
        align: int = 1,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
        share: Shared = None,
        starts: Sequence[Mapping[str, float]] = (),
        sensitivity: SensitivityCurves | None = None,
        num_random: int | None = None,
        calibration_samples: int = CALIBRATION_SAMPLES,
        batch_size: int = 256,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        optimizer: Any = None,
        distribution_strategy: Any = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 10,
        worker_timeout: float = WORKER_TIMEOUT,
    ) -> None:
        if fitter is not None:
            budget, scores = fitter.budget, fitter.scores
        if not isinstance(budget, Budget):
            raise BudgetError(f"Expected a tfqprune.Budget, as in Budget(memory=0.5). Received: {budget!r}.")
        if evaluation not in _EVALUATIONS:
            raise ValueError(f"Expected evaluation to be one of {', '.join(_EVALUATIONS)}. Received: {evaluation!r}.")
        self.goal = Goal(objective, size_weight)
        self.graph = ChannelGraph(model) if fitter is None else fitter.graph
        self.budget = budget
        self.criterion = criterion
        self.evaluation = evaluation
        self.promote = promote
        self._data, self._given_scores, self._starts, self._share = data, scores, list(starts), share
        self._limits: dict[str, Any] = {
            "align": align, "minimum": minimum, "maximum": maximum, "exclude": tuple(exclude)
        }  # fmt: skip
        self._calibration_samples, self._batch_size = calibration_samples, batch_size
        self._worker_timeout = worker_timeout
        self._sensitivity = sensitivity
        self._waiting = False
        self._judge: Judge | None = None
        self._fitter: Fitter | None = fitter
        # Units hardly change what a ratio costs: a budget that cannot be met is refused before any scoring.
        outline = fitter or Fitter(self.graph, unscored(self.graph), budget, **self._limits)
        self._limits["meter"] = outline.meter
        if not outline.names:
            raise PlanError("Expected a model with groups that can be pruned. Received: one in which all are frozen.")
        directory, project_name = os.fspath(directory or "."), project_name or "ratio_search"
        self._project = Project(
            Path(directory) / project_name, self._facts(outline, seed), overwrite=overwrite and not is_worker()
        )
        bounds = {
            group.name: (int(outline.levels[group.name][0]) / group.size, outline.most[group.name])
            for group in outline.groups
        }
        oracle = BudgetOracle(
            bounds,
            objective=self.goal.objective,
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

    def _facts(self, outline: Fitter, seed: int) -> dict[str, Any]:
        criterion = self.criterion if isinstance(self.criterion, str) else repr(self.criterion)
        limits = {key: value for key, value in self._limits.items() if key != "meter"}
        if self._fitter is not None:
            limits = {"levels": {name: levels.tolist() for name, levels in outline.levels.items()}}
        facts = {
            "model": model_digest(self.graph),
            "budget": self.budget.as_dict(),
            "objective": str(self.goal),
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
        self,
        train: Any,
        y: Any = None,
        *,
        validation_data: Any,
        epochs: int = 1,
        learning_rate: float = 1e-3,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int = 1,
    ) -> None:
        """Runs the trials that are left.

        Args:
            train: (x, y) arrays, anything with ``.x`` and ``.y``, a batched tf.data.Dataset; or x, with
                ``y`` beside it. Batch norms are re-estimated on its first samples.
            y: the labels, where ``train`` is x alone.
            validation_data: the same, to judge trials by.
            epochs: of fine-tuning, where trials are fine-tuned.
            verbose: 0 prints nothing.
            learning_rate: of the first step of fine-tuning; it falls along half a cosine.
            callbacks: for fine-tuning, a copy for each trial. A TensorBoard callback gets every trial's
                metrics and ratios, too, fine-tuned or not.

        Raises:
            EvaluationError: too many trials failed in a row.
            ClusterError: this is the chief of a cluster, and its port is in use.
            DataError: data that is not (inputs, labels), or empty.
            OutputError: other data than this search was begun with.
        """
        train = train if y is None else (train, y)
        training = {"epochs": epochs, "learning rate": learning_rate} if self.evaluation != "proxy" else {}
        self._project.add(
            {
                "training data": data_digest(train),
                "validation data": data_digest(validation_data, contents=True),
                "calibration samples": self._calibration_samples,
                **training,
            }
        )
        self._prepare(train)
        evaluator = PlanEvaluator(
            self.graph,
            validation_data,
            train,
            calibration_samples=self._calibration_samples,
            batch_size=self._batch_size,
            loss=self.loss,
            metrics=self.metrics,
        )
        self._judge = Judge(
            self._the_fitter(),
            train,
            validation_data,
            evaluator,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=self._batch_size,
            optimizer=self.optimizer,
            loss=self.loss,
            metrics=self.metrics,
            calibration_samples=self._calibration_samples,
            strategy=self.distribution_strategy,
            seed=self._own_oracle.seed,
        )
        self._own_oracle.verbose = verbose
        if is_chief():
            self.save()
            serve(self.oracle, self._worker_timeout)
        else:
            if not is_worker():
                self.save()
            super().search(callbacks=list(callbacks))
        if self._own_oracle.failure is not None:
            raise EvaluationError(f"Expected trials that can be evaluated. Received: {self._own_oracle.failure}")
        if self.evaluation == "both" and not is_worker():
            self._promote(callbacks)

    def run_trial(self, trial: Trial, callbacks: Sequence[Any] = ()) -> dict[str, float]:
        """Scores one trial's plan (Keras-Tuner calls this): its metrics, costs and seconds."""
        began = time.perf_counter()
        fitter = self._the_fitter()
        counts = fitter.nearest(ratios_of(trial))
        assert self._judge is not None  # search() made it
        folder = Path(self.get_trial_dir(trial.trial_id))
        if self.evaluation == "finetune":
            copies = self._own_callbacks(callbacks, trial)
            metrics = self._judge.tuned(counts, folder, int(trial.trial_id), copies)
        else:
            metrics = self._judge.proxy(counts, folder)
        metrics = {**self._judged(metrics, counts), "seconds": time.perf_counter() - began}
        name = self._own_oracle.objective.name
        if not math.isfinite(metrics.get(name, 0.0)):
            raise keras_tuner.errors.FailedTrialError(f"{name} is {metrics[name]}")
        self._verify(metrics, counts)
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        log_trial(callbacks, trial, metrics)
        return metrics

    def _verify(self, metrics: dict[str, float], counts: Mapping[str, int]) -> None:
        """Measures what was estimated, where a trial is the best so far; fails it if it is above the budget."""
        if not self.budget.measured:
            return
        fitter, objective = self._the_fitter(), self._own_oracle.objective
        best = next((own for own in self.oracle.get_best_trials(1) if own.status == "COMPLETED"), None)
        if best is not None and not objective.better_than(metrics[objective.name], best.score):
            return
        metrics.update(fitter.costs(counts))
        if not fitter.holds(counts):
            over = [f"{name} of {format_cost(name, metrics[name])}" for name in fitter.limits.broken(metrics)]
            raise keras_tuner.errors.FailedTrialError(f"{', '.join(over)}, measured, is above the budget")

    def _promote(self, callbacks: Sequence[Any]) -> None:
        """Fine-tunes the best few trials; those that are on disk already are left alone."""
        fitter = self._the_fitter()
        assert self._judge is not None  # search() made it
        for trial in self._results().get_best_trials(self.promote):
            folder = Path(self.get_trial_dir(trial.trial_id))
            if trial.status != "COMPLETED" or tuned_metrics(folder) is not None:
                continue
            counts = fitter.nearest(ratios_of(trial))
            tuned = self._judge.tuned(counts, folder, int(trial.trial_id), self._own_callbacks(callbacks, trial))
            metrics = self._judged(tuned, counts)
            name = self._own_oracle.objective.name
            if self._own_oracle.verbose:
                print(
                    f"trial {int(trial.trial_id) + 1} fine-tuned | {name} {metrics[name]:.4f}, before {trial.score:.4f}"
                )

    def _own_callbacks(self, callbacks: Sequence[Any], trial: Trial) -> list[Any]:
        copies = list(self._deepcopy_callbacks(list(callbacks)))
        self._configure_tensorboard_dir(copies, trial)
        return copies

    def pre_create_trial(self) -> None:
        if self._waiting:
            time.sleep(0.5)  # the chief has nothing to do for this worker at the moment
        self._waiting = True

    def on_trial_begin(self, trial: Trial) -> None:
        self._waiting = False
        super().on_trial_begin(trial)

    def on_trial_end(self, trial: Trial) -> None:
        super().on_trial_end(trial)
        if not is_worker():
            write_records(self._project.folder, self.records(), self.pareto_front())

    def _try_run_and_update_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> None:
        alive = signs_of_life(self.oracle, self.tuner_id, self._worker_timeout)
        try:
            with alive if is_worker() else contextlib.nullcontext():
                self._run_and_update_trial(trial, *args, **kwargs)
            trial.status = "COMPLETED"
        except (keras_tuner.errors.FailedTrialError, ActivationError):
            trial.status, trial.message = "FAILED", traceback.format_exc()
        except (TfqpruneError, keras_tuner.errors.FatalError):
            raise  # this can never work: no trial would fare better
        except Exception:  # out of memory, a runtime's error: this trial failed, the search goes on
            trial.status, trial.message = "INVALID", traceback.format_exc()

    def save(self) -> None:
        """Saves the search to its folder."""
        if not is_worker():
            self.oracle.save()
        write_json(self._get_tuner_fname(), self.get_state())

    def _prepare(self, data: Any) -> None:
        """Ranks the units, and gives the oracle its space."""
        scores, title = self._scores(data)
        self._project.add({"scores": scores_digest(scores), "criterion used": title})
        write_arrays(self._project.folder / SCORES, scores)
        if self._fitter is None:
            self._fitter = Fitter(self.graph, scores, self.budget, **self._limits)
        oracle = self._own_oracle
        oracle.space = space = RatioSpace(self._fitter, self._share, below=self.goal.soft)
        starts = [self._fitter.project(start).ratios for start in self._starts]
        if self._sensitivity is not None:
            starts.insert(0, self._fitter.fit(self._sensitivity.family(self._fitter.names)).ratios)
        oracle.starts = as_starts([space.uniform.ratios, *starts])

    def _scores(self, data: Any) -> tuple[dict[str, np.ndarray], str]:
        if self._given_scores is not None:
            return dict(self._given_scores), "given"
        data = data if self._data is None else self._data
        chosen = choose_criterion(self.graph, self.criterion, data)
        known = self._project.read()
        saved = self._project.folder / SCORES
        if saved.exists() and known.get("criterion used") == chosen.name:
            with np.load(saved) as arrays:
                return {name: arrays[name] for name in arrays.files}, chosen.name
        return run_criterion(self.graph, chosen, data), chosen.name
