"""The trials of a search as tables: CSV, JSON, and the front of those that nothing beats."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import Trial

from tfqprune.allocation.oracle import ratios_of
from tfqprune.files import write_json, write_text

#: before the name of a cost that was estimated, not measured
ESTIMATED = "estimated_"
#: before the name of a metric after fine-tuning, where a trial was judged by proxy
TUNED = "tuned_"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        trial: its id.
        status: COMPLETED, FAILED, RUNNING.
        value: the objective, None unless completed.
        metrics: all that is known: metrics, costs, seconds; ``tuned_`` before what was measured after fine-tuning a
            trial that was judged by proxy, ``estimated_`` before a cost that was not measured.
        ratios: share of units removed, by group.
        message: why it failed, if it did.
    """

    trial: str
    status: str
    value: float | None
    metrics: dict[str, float]
    ratios: dict[str, float]
    message: str | None = None

    def cost(self, name: str) -> float | None:
        """A cost: measured, else estimated, else None."""
        return self.metrics.get(name, self.metrics.get(ESTIMATED + name))


def record_of(trial: Trial, tuned: Mapping[str, float] | None = None) -> TrialRecord:
    """A Keras-Tuner trial as a record, with its metrics after fine-tuning."""
    metrics = {name: float(trial.metrics.get_last_value(name)) for name in trial.metrics.metrics}
    metrics |= {TUNED + name: value for name, value in (tuned or {}).items()}
    done = trial.status == "COMPLETED" and trial.score is not None
    message = trial.message.strip().splitlines()[-1] if trial.message else None
    return TrialRecord(
        trial.trial_id, trial.status, float(trial.score) if done else None, metrics, ratios_of(trial), message
    )


def write_records(folder: Path, records: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> None:
    """Writes ``trials.json``, ``trials.csv`` and the Pareto front as ``front.json``, each in one step."""
    write_json(folder / "trials.json", [asdict(record) for record in records])
    write_json(folder / "front.json", [asdict(record) for record in front])
    rows: list[dict[str, Any]] = [
        {
            "trial": record.trial,
            "status": record.status,
            "value": record.value,
            **record.metrics,
            **{f"ratio/{name}": ratio for name, ratio in record.ratios.items()},
            "message": record.message,
        }
        for record in records
    ]
    columns = [*dict.fromkeys(column for row in rows for column in row if column != "message"), "message"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / "trials.csv", text.getvalue())


def pareto_front(
    records: Iterable[TrialRecord],
    cost: str,
    *,
    metric: str | None = None,
    larger_is_better: bool = True,
    estimates: bool = False,
) -> list[TrialRecord]:
    """Completed trials that no other beats in both value and cost, cheapest first.

    Args:
        records: trials.
        cost: name of the cost.
        metric: what counts as the value; None: the objective.
        larger_is_better: which way the value goes.
        estimates: take the estimate of a cost that was not measured; else the trial is left out.
    """
    sign = -1 if larger_is_better else 1

    def badness(record: TrialRecord) -> float:
        return sign * float((record.value or 0.0) if metric is None else record.metrics[metric])

    costs = [(record.cost(cost) if estimates else record.metrics.get(cost), record) for record in records]
    done = [(own, badness(record), record) for own, record in costs if own is not None and record.value is not None]
    front: list[TrialRecord] = []
    for _, _, record in sorted(done, key=lambda entry: entry[:2]):
        if not front or badness(record) < badness(front[-1]):
            front.append(record)
    return front
