"""Fine-tuning of the best trials of a search that judged them by proxy."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial

from tfqprune.allocation.judging import Judge, give_up_tuning, tuned_metrics
from tfqprune.allocation.oracle import ratios_of
from tfqprune.allocation.results import SearchResults
from tfqprune.errors import ActivationError, BudgetError, EvaluationError, ExportError, TfqpruneError

#: errors that fail one trial, whenever it runs
FAILED = (keras_tuner.errors.FailedTrialError, ActivationError)
#: errors of measuring a slim model, which say nothing of the next one
UNMEASURABLE = (BudgetError, ExportError)


class Promotion(SearchResults):
    """The part of :class:`RatioTuner` that fine-tunes the best few."""

    _judge: Judge | None = None

    def _promote(self, callbacks: Sequence[Any]) -> None:
        """Fine-tunes the best trials until as many as asked for are; no trial twice, whether it worked or not."""
        left, failures = self.promote, 0
        for trial in filter(self._promotable, [own for own in self._trials() if own.status == "COMPLETED"]):
            if left <= 0:
                break
            if tuned_metrics(Path(self.get_trial_dir(trial.trial_id))) is None:
                failures = 0 if self._tune(trial, callbacks) else failures + 1
                self._write_records()
            left -= bool(self._tuned(trial))
            if failures >= self._own_oracle.max_consecutive_failed_trials:
                raise EvaluationError(
                    f"Expected trials that can be fine-tuned. Received: {failures} failures in a row. {trial.message}"
                )

    def _promotable(self, trial: Trial) -> bool:
        """Whether a trial holds the budget; one that cannot be measured is passed over."""
        try:
            return self._holds(trial)
        except UNMEASURABLE as error:
            if self._own_oracle.verbose:
                print(f"trial {int(trial.trial_id) + 1} cannot be measured: {error}")
            return False

    def _tune(self, trial: Trial, callbacks: Sequence[Any]) -> bool:
        """Fine-tunes a trial that was judged by proxy; says whether it worked."""
        assert self._judge is not None  # search() made it
        counts, folder = self._the_fitter().nearest(ratios_of(trial)), Path(self.get_trial_dir(trial.trial_id))
        name, title = self._own_oracle.objective.name, f"trial {int(trial.trial_id) + 1}"
        try:
            tuned = self._judge.tuned(counts, folder, int(trial.trial_id), self._own_callbacks(callbacks, trial))
            said = f"{title} fine-tuned | {name} {self._finite(tuned, counts)[name]:.4f}, before {trial.score:.4f}"
        except Exception as error:
            if hopeless(error):
                raise
            give_up_tuning(folder)
            trial.message = traceback.format_exc()
            self._own_oracle._save_trial(trial)
            said = f"{title} could not be fine-tuned: {trial.message.strip().splitlines()[-1]}"
        if self._own_oracle.verbose:
            print(said)
        return bool(self._tuned(trial))

    def _own_callbacks(self, callbacks: Sequence[Any], trial: Trial) -> list[Any]:
        copies = list(self._deepcopy_callbacks(list(callbacks)))
        self._configure_tensorboard_dir(copies, trial)
        return copies

    def _finite(self, metrics: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
        """As :meth:`_judged`, for an objective that is a number."""
        judged = self._judged(metrics, counts)
        name = self._own_oracle.objective.name
        if not math.isfinite(judged.get(name, 0.0)):
            raise keras_tuner.errors.FailedTrialError(f"{name} is {judged[name]}")
        return judged


def hopeless(error: Exception) -> bool:
    """Whether an error says that no trial would fare better."""
    return isinstance(error, TfqpruneError | keras_tuner.errors.FatalError) and not isinstance(error, FAILED)
