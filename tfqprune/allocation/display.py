"""One line for each trial: value, best so far, cost, time left."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.oracle import Display

from tfqprune.budget import Limits, format_cost


class SearchDisplay(Display):
    """Stands in for Keras-Tuner's display, which prints a table of all ratios twice a trial.

    Args:
        oracle: whose trials are shown.
        limits: the budget.
    """

    def __init__(self, oracle: Any, limits: Limits, verbose: int = 1) -> None:
        super().__init__(oracle, verbose)
        self.search_start: datetime | None = None
        self.limits = limits
        self._durations: list[float] = []

    def on_trial_begin(self, trial: Trial) -> None:
        self.trial_start[trial.trial_id] = datetime.now()
        if self.search_start is None:
            self.search_start = datetime.now()

    def on_trial_end(self, trial: Trial) -> None:
        seconds = (datetime.now() - self.trial_start.get(trial.trial_id, datetime.now())).total_seconds()
        self._durations.append(seconds)
        if self.verbose >= 1:
            print(self.line(trial, seconds), flush=True)

    def line(self, trial: Trial, seconds: float) -> str:
        """What is said of a trial that has ended."""
        oracle = self.oracle
        parts = [f"trial {int(trial.trial_id) + 1}/{oracle.max_trials}"]
        name = oracle.objective.name
        if trial.status == "COMPLETED":
            parts.append(f"{name} {trial.score:.4f}")
        else:
            parts.append("failed: " + (trial.message or f"{name} is not a number").strip().splitlines()[-1])
        best = next((own for own in oracle.get_best_trials(1) if own.status == "COMPLETED"), None)
        if best is not None:
            parts.append(f"best {best.score:.4f} (trial {int(best.trial_id) + 1})")
        for cost, limit in self.limits.limits.items():
            if trial.metrics.exists(cost):
                value = trial.metrics.get_last_value(cost)
                parts.append(f"{cost} {format_cost(cost, value)} of {format_cost(cost, limit)}")
        left = (oracle.max_trials - len(oracle.trials)) * sum(self._durations) / len(self._durations)
        parts.append(f"{seconds:.1f} s, {_duration(left)} left")
        return " | ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
