"""The oracle of the ratio search: Keras-Tuner's Bayesian one, with every trial on the budget."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial
from threadpoolctl import threadpool_limits

from tfqprune.allocation.space import RatioSpace
from tfqprune.allocation.surrogate import Prior, Surrogate, expected_improvement, propose, tamed
from tfqprune.files import write_json

PREFIX = "ratio/"
_ENDED = frozenset({"COMPLETED", "FAILED"})
_ATTEMPTS = 50  # to find a point that has not been tried


class BudgetOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Suggests ratios that hold a budget.

    Guerra, Zhuang, Reid, Drummond, "Automatic Pruning for Quantized Neural Networks", arXiv
    2002.00523, find per-layer ratios by Bayesian optimisation. Ours: all points lie on the budget, the
    process sees the ratios that a suggestion leads to (not the suggestion), each dimension has its
    own length scale, expected improvement is maximised over candidates in bulk, and the search starts
    from given solutions and, where nothing is known beforehand, a few random points.

    Its hyperparameters are the ratios themselves, one a group, named ``ratio/<group>``.

    Args:
        names: group -> (least, largest) ratio.
        objective: as for every Keras-Tuner oracle.
        max_trials: number of trials.
        seed: of all chance.
        num_random: random points after the given ones; None: as many as there are dimensions, 3 to 8, or none where
            there is a prior.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[float, float]],
        *,
        objective: Any,
        max_trials: int,
        seed: int,
        num_random: int | None = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 10,
    ) -> None:
        parameters = keras_tuner.HyperParameters()
        for name, (least, most) in names.items():
            parameters.Float(PREFIX + name, least, most)
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            seed=seed,
            hyperparameters=parameters,
            allow_new_entries=True,
            tune_new_entries=True,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.seed = self._seed_state = seed  # the base class takes 0 for "none given"
        self.num_random = num_random
        self.trials: dict[str, Trial] = {}
        self.start_order: list[str] = []
        self.end_order: list[str] = []
        #: set before the search: where points lie, and what to start from
        self.space: RatioSpace | None = None
        self.starts: list[dict[str, float]] = []
        #: what points on the budget are expected to be worth, where anything is known beforehand
        self.prior: Prior | None = None
        self._surrogate: Surrogate | None = None
        self._exhausted = False
        #: whether all trials of the search have ended
        self.over = False
        #: why the search had to stop, or None
        self.failure: str | None = None
        #: called when a trial has ended
        self.after_trial: Callable[[], None] = lambda: None
        self._failures = 0  # in a row, in this process: after a restart there is another chance
        self._last_sign: dict[str, float] = {}  # worker -> when it was last heard of

    # -- suggestions --------------------------------------------------------------------------

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial's ratios (Keras-Tuner calls this)."""
        if self.failure is not None:
            return {"status": "STOPPED", "values": None}
        space = self._the_space()
        number = len(self.trials)
        for values in map(_values, self.starts):
            if not self._duplicate(values):
                return {"status": "RUNNING", "values": values}
        for preferences in self._preferences(space, np.random.default_rng([self.seed, number])):
            values = _values(space.exact(preferences).ratios)
            if not self._duplicate(values):
                return {"status": "RUNNING", "values": values}
        if not self._exhausted and self.verbose:
            print(f"search over after {number} of {self.max_trials} trials: no further plan found on the budget")
        self._exhausted = True
        return {"status": "STOPPED", "values": None}

    def _preferences(self, space: RatioSpace, rng: np.random.Generator) -> np.ndarray:
        random = space.sample(rng, _ATTEMPTS)
        done = [trial for trial in self.in_order() if trial.status == "COMPLETED"]
        if self.num_random is not None:
            num_random = self.num_random
        else:  # chance tells less than what is known beforehand
            num_random = 0 if self.prior else min(max(space.dimensions, 3), 8)
        if len(done) < max(len(self.starts) + num_random, 2):
            return random
        points = np.array([space.coordinates(ratios_of(trial)) for trial in done])
        sign = 1.0 if self.objective.direction == "max" else -1.0
        values = tamed(sign * np.array([trial.score for trial in done]))
        # Matrices of some hundred points: threads would wait for each other, at several times the CPU time.
        with threadpool_limits(limits=1, user_api="blas"):
            return np.concatenate([self._proposals(space, points, values, rng), random])

    def _proposals(
        self, space: RatioSpace, points: np.ndarray, values: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        if self._surrogate is None or self._surrogate.dimensions != space.dimensions:
            self._surrogate = Surrogate(space.dimensions, self.prior)
        process = self._surrogate.fit(points, values)
        running = [space.coordinates(ratios_of(trial)) for trial in self.ongoing_trials.values()]
        if running:
            # As in the base class, trials under way count with a pessimistic guess.
            mean, deviation = process.predict(np.array(running))
            points = np.concatenate([points, running])
            values = np.concatenate([values, mean - deviation])
            process = self._surrogate.condition(points, values)
        # Improvement over what the process believes of its best point: one lucky measurement sets no bar.
        best = float(process.predict(points)[0].max())
        parents = points[np.argsort(-values, kind="stable")[:5]]
        return propose(lambda candidates: expected_improvement(process, candidates, best), parents, space.project, rng)

    def in_order(self) -> list[Trial]:
        """All trials by their number (ids are as wide as ``max_trials`` was when they began)."""
        return sorted(self.trials.values(), key=lambda trial: int(trial.trial_id))

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best trials, best first, the earlier one where two are equal; then those that did not end well."""
        sign = -1 if self.objective.direction == "max" else 1
        done = [trial for trial in self.in_order() if trial.status == "COMPLETED"]
        others = [trial for trial in self.in_order() if trial.status != "COMPLETED"]
        return [*sorted(done, key=lambda trial: sign * trial.score), *others][:num_trials]

    def _the_space(self) -> RatioSpace:
        if self.space is None:
            raise RuntimeError("Expected the oracle's space to be set before the search. Received: none.")
        return self.space

    def remaining_trials(self) -> int:
        """How many trials are still to begin: none once the budget leaves no further plan to try."""
        return 0 if self._exhausted else max((self.max_trials or 0) - len(self.trials), 0)

    def _check_consecutive_failures(self) -> None:
        # The base class raises here, before the trial is saved and while it holds a lock.
        last = self.trials[self.end_order[-1]]
        self._failures = self._failures + 1 if last.status == "FAILED" else 0
        if self._failures >= self.max_consecutive_failed_trials:
            self.failure = f"{self._failures} failed trials in a row. {last.message or ''}".strip()

    # -- chief and workers --------------------------------------------------------------------

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial for a worker, the one it has already, or word that it should wait or stop."""
        self._last_sign[tuner_id] = time.monotonic()
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            # Another worker may die, and its trial will need one that is still there.
            trial.status = "IDLE"
            self.tuner_ids.add(tuner_id)
        return trial

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Takes in a trial's metrics, unless another worker has ended it in the meantime."""
        trial = self.trials[trial_id]
        return trial if trial_id in self.end_order else super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Ends a trial, unless another worker has ended it in the meantime."""
        if trial.trial_id in self.end_order:
            for tuner_id, ongoing in list(self.ongoing_trials.items()):
                if ongoing.trial_id == trial.trial_id:
                    self.ongoing_trials.pop(tuner_id)
            return
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)
        super().end_trial(trial)
        self.after_trial()

    @keras_tuner.synchronized
    def finished(self, timeout: float) -> bool:
        """Whether all trials have ended and no worker waits; gives up workers silent for ``timeout`` seconds."""
        now = time.monotonic()
        for tuner_id in [own for own in self.tuner_ids if now - self._last_sign.get(own, now) > timeout]:
            self.tuner_ids.discard(tuner_id)
            lost = self.ongoing_trials.pop(tuner_id, None)
            if lost is not None:
                print(f"Worker {tuner_id} has been silent for {timeout:g} s; its trial {lost.trial_id} runs again.")
                self._retry_queue.append(lost.trial_id)
        over = len(self.trials) >= (self.max_trials or 0) or self._exhausted or self.failure is not None
        return over and not self._retry_queue and not self.ongoing_trials and not self.tuner_ids

    # -- what is on disk survives being killed --------------------------------------------------

    def save(self) -> None:
        write_json(self._get_oracle_fname(), {**self.get_state(), "ended_after": self.max_trials if self.over else 0})

    def ended(self) -> bool:
        """Whether a search of at least as many trials has ended, as the disk says: for workers, who hold no trials."""
        try:
            content = json.loads(Path(self._get_oracle_fname()).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return int(content.get("ended_after", 0)) >= (self.max_trials or 0)

    def _save_trial(self, trial: Trial) -> None:
        write_json(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def saved(self) -> bool:
        """Whether there are trials on disk, or was at least a search."""
        folder = Path(self._project_dir)
        return (folder / "oracle.json").exists() or any(folder.glob("trial_*/trial.json"))

    def reload(self) -> None:
        """Takes up the trials on disk; those that were under way run again."""
        # The base class takes the folder's name for a pattern: "run[1]" is not found by it, and "run1" is.
        loaded = map(Trial.load, Path(self._project_dir).glob("trial_*/trial.json"))
        own = {trial.trial_id: trial for trial in loaded}
        self.trials = dict(own)
        if not os.path.exists(self._get_oracle_fname()):
            self.save()  # trials alone are enough
        super().reload()
        self.trials = own
        for trial in self.trials.values():
            self._record_values(trial)
        known = [trial.trial_id for trial in self.in_order()]
        unfinished = [trial_id for trial_id in known if self.trials[trial_id].status not in _ENDED]
        self._retry_queue = unfinished[::-1]  # taken from the end
        for trial_id in unfinished:
            # Whatever it had reported before it was cut off does not count.
            self.trials[trial_id].metrics = type(self.trials[trial_id].metrics)()
            self.trials[trial_id].score = None
        self.start_order = [*self.start_order, *(own for own in known if own not in self.start_order)]
        ended = [own for own in known if own not in unfinished and own not in self.end_order]
        self.end_order = [own for own in [*self.end_order, *ended] if own in self.trials and own not in unfinished]


def ratios_of(trial: Trial) -> dict[str, float]:
    """A trial's ratios by group."""
    values = trial.hyperparameters.values
    return {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}


def _values(ratios: Mapping[str, float]) -> dict[str, float]:
    return {PREFIX + name: float(value) for name, value in ratios.items()}


def as_starts(solutions: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Solutions to start from, each once."""
    starts: list[dict[str, float]] = []
    for solution in solutions:
        if dict(solution) not in starts:
            starts.append(dict(solution))
    return starts
