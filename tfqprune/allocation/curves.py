"""Sensitivity curves: what each group alone costs in accuracy, as a function of its ratio."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.errors import ActivationError, EvaluationError, OutputError
from tfqprune.files import write_json
from tfqprune.fitting import Family, Fitter
from tfqprune.progress import track

#: ratios that each group is tried at, unless told otherwise
LADDER = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
_VERSION = 1

Removed = Mapping[str, tuple[int, ...]]


@dataclass
class SensitivityCurves:
    """Values of a model in which one group alone is pruned.

    Attributes:
        identity: what the curves belong to: digests of model, scores and data.
        baseline: value of the whole model; None: not yet measured.
        ratios: group -> ratios tried, ascending, without 0.
        values: group -> value at each of them (not a number: the trial broke down); larger is better.
    """

    identity: dict[str, Any] = field(default_factory=dict)
    baseline: float | None = None
    ratios: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)

    def changed(self, identity: Mapping[str, Any]) -> list[str]:
        """What of an identity is another one here: names of its entries."""
        return [name for name, value in identity.items() if self.identity.get(name) != value]

    def losses(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Ratios from 0 on, and the loss that is reached at or before each: it never falls."""
        assert self.baseline is not None  # complete curves have one
        drops = np.array([0.0, *(self.baseline - value for value in self.values[group])])
        drops = np.where(np.isnan(drops), np.inf, drops)
        return np.array([0.0, *self.ratios[group]]), np.maximum.accumulate(np.maximum(drops, 0.0))

    def ratio_at(self, group: str, loss: float) -> float:
        """The largest ratio at which a group's loss stays within ``loss``, straight lines between the rungs."""
        ratios, losses = self.losses(group)
        last = int(np.flatnonzero(losses <= loss)[-1])
        if last + 1 == len(ratios) or not math.isfinite(losses[last + 1]):
            return float(ratios[last])
        part = (loss - losses[last]) / (losses[last + 1] - losses[last])
        return float(ratios[last] + part * (ratios[last + 1] - ratios[last]))

    def family(self, names: Sequence[str]) -> Family:
        """Ratios of these groups when the loss of each alone stays under a threshold that grows with the parameter."""
        finite = [loss for name in names for loss in self.losses(name)[1] if math.isfinite(loss)]
        worst = max(finite, default=0.0)
        return lambda parameter: {name: self.ratio_at(name, parameter * worst) for name in names}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the curves as JSON, in one step.

        Raises:
            OutputError: they cannot be written there.
        """
        content = asdict(self)
        content["values"] = {
            name: [value if math.isfinite(value) else None for value in values] for name, values in self.values.items()
        }
        try:
            write_json(path, {"tfqprune_sensitivity": _VERSION, **content})
        except OSError as error:
            raise OutputError(
                f"Expected a place where sensitivity curves can be written. Received: '{path}' "
                f"({error.strerror or error}). Create the folder, or choose another path."
            ) from error
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SensitivityCurves:
        """Reads curves that :meth:`save` wrote.

        Raises:
            OutputError: there is no such file, it is none of them, or of a later version.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["tfqprune_sensitivity"] != _VERSION:
                raise ValueError(f"version {content['tfqprune_sensitivity']}, expected {_VERSION}")
            values = {
                name: [math.nan if value is None else float(value) for value in values]
                for name, values in content["values"].items()
            }
            return cls(dict(content["identity"]), content["baseline"], dict(content["ratios"]), values)
        except OSError as error:
            raise OutputError(
                f"Expected a file with sensitivity curves. Received: '{path}', which cannot be read "
                f"({error.strerror or error})."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"Expected sensitivity curves written by SensitivityCurves.save. Received: {str(path)!r}, which holds "
                f"none ({error})."
            ) from error

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws all curves into an image file (the format follows the name)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for name in self.values:
            axes.plot(
                [0.0, *self.ratios[name]], [float(self.baseline or 0.0), *self.values[name]], marker=".", label=name
            )
        axes.set_xlabel("ratio of this group alone")
        axes.set_ylabel("value")
        axes.legend(fontsize="x-small", ncols=2)
        figure.savefig(path)
        return Path(path)


def measure(
    curves: SensitivityCurves,
    fitter: Fitter,
    evaluate: Callable[[Removed], float],
    ladder: Sequence[float],
    path: str | os.PathLike[str] | None = None,
) -> SensitivityCurves:
    """Fills in what is missing of the curves, group by group.

    Args:
        curves: empty, or begun earlier.
        fitter: knows the groups and which units go at a ratio.
        evaluate: slots that go, by group -> value, larger is better.
        ladder: ratios to try each group at; rounded to whole units, within the group's bounds.
        path: written to after every group, so that nothing is measured twice.

    Raises:
        EvaluationError: ``evaluate`` returned something that is no number, or the whole model's value is not finite.
    """
    if curves.baseline is None:
        curves.baseline = checked_value(evaluate({}))
        if not math.isfinite(curves.baseline):
            raise EvaluationError(
                f"Expected a finite value for the whole model. Received: {curves.baseline}. "
                "Look at the weights and data."
            )
    missing = [group for group in fitter.groups if group.name not in curves.values]
    for group in track(missing, "sensitivity", len(missing)):
        counts = sorted({fitter.counts({group.name: ratio})[group.name] for ratio in ladder} - {0})
        values = [_value(evaluate, fitter.removed({group.name: count})) for count in counts]
        curves.ratios[group.name] = [count / group.size for count in counts]
        curves.values[group.name] = values
        if path is not None:
            curves.save(path)
    return curves


def _value(evaluate: Callable[[Removed], float], removed: Removed) -> float:
    """What a cut is worth; not a number where it breaks the model down."""
    try:
        return checked_value(evaluate(removed))
    except ActivationError:
        return math.nan


def checked_value(value: Any) -> float:
    """A value that an evaluation returned, as a float.

    Raises:
        EvaluationError: it is no real number.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise EvaluationError(
            f"Expected evaluate to return a number, larger for better models. Received: {value!r} "
            f"(of type {type(value).__name__})."
        )
    return float(array.reshape(()))
