"""One line for each trial: value, best so far, cost, time left."""

from __future__ import annotations

import time
from typing import Any

from keras_tuner.engine.trial import Trial

from tfqprune.allocation.records import record_of
from tfqprune.budget import Limits, format_cost


class SearchDisplay:
    """Stands in for Keras-Tuner's display, which prints a table of all ratios twice a trial.

    Keras-Tuner has no public name for that class; an oracle asks of it what stands here.

    Args:
        oracle: whose trials are shown.
        limits: the budget.
        verbose: 0 prints nothing.
    """

    def __init__(self, oracle: Any, limits: Limits, verbose: int = 1) -> None:
        self.oracle = oracle
        self.limits = limits
        self.verbose = verbose
        self._starts: dict[str, float] = {}
        self._durations: list[float] = []

    def get_state(self) -> dict[str, Any]:
        """Nothing to keep: times are those of this process."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""

    def on_trial_begin(self, trial: Trial) -> None:
        """Keras-Tuner says that a trial begins."""
        self._starts[trial.trial_id] = time.perf_counter()

    def on_trial_end(self, trial: Trial) -> None:
        """Keras-Tuner says that a trial has ended."""
        now = time.perf_counter()
        seconds = now - self._starts.get(trial.trial_id, now)
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
        record = record_of(trial)
        for cost, limit in self.limits.limits.items():
            value = record.cost(cost)
            if value is not None:
                about = "" if cost in record.metrics else "about "
                parts.append(f"{cost} {about}{format_cost(cost, value)} of {format_cost(cost, limit)}")
        # Those that workers are at count in full. The oracle knows the workers that are alive, or this process.
        trials = max(oracle.max_trials - len(oracle.end_order), 0)
        left = trials * sum(self._durations) / len(self._durations) / max(len(oracle.tuner_ids), 1)
        parts.append(f"{seconds:.1f} s, {_duration(left)} left")
        return " | ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
