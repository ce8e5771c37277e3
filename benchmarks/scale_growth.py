"""Power laws, and where the figures of `benchmarks/scale.py` stand in what it kept; needs no TensorFlow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

Row = dict[str, Any]

MIB = 2**20

FIRST_FITTED = 20  # trials; before, points are random and no process is fitted


@dataclass(frozen=True)
class PowerLaw:
    """``factor * size ** exponent``, with the exponent's standard error."""

    factor: float
    exponent: float
    error: float

    def __call__(self, size: float) -> float:
        return float(self.factor * size**self.exponent)

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Least squares of log value over log size.

    Raises:
        ValueError: fewer than three points (an error needs one more than the two parameters), or some not positive.
    """
    if len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"Expected three positive points or more. Received: sizes {sizes}, values {values}.")
    line = scipy.stats.linregress(np.log(sizes), np.log(values))
    return PowerLaw(math.exp(line.intercept), float(line.slope), float(line.stderr))


def told_law(sizes: Sequence[float], values: Sequence[float]) -> str:
    """An exponent for a table; a dash where there is too little to fit one."""
    try:
        return str(power_law(sizes, values))
    except ValueError:
        return "-"


def of_kind(content: Row, kind: str) -> list[Row]:
    """The parts whose names begin so."""
    return [row for name, row in content["parts"].items() if name.split()[0] == kind]


def family_of(content: Row, family: str) -> list[Row]:
    """The networks of a family, by depth."""
    return sorted((row for row in of_kind(content, "depth") if row["family"] == family), key=lambda row: row["depth"])


def cpu_of(row: Row, step: str) -> float:
    """CPU seconds of a step: the median of its runs."""
    return statistics.median(row["steps"][step]["cpu"])


def memory_of(row: Row, step: str) -> int:
    return int(row["steps"][step]["peak_bytes"])


def searches(content: Row) -> list[Row]:
    """Searches by dimensions, ours before the stock oracle."""
    return sorted(of_kind(content, "trials"), key=lambda row: (row["dimensions"], row["method"]))


def suggestion_law(row: Row) -> PowerLaw:
    """How a suggestion's CPU seconds grow with the trials.

    Raises:
        ValueError: fewer than three points.
    """
    points = [point for point in row["points"] if point["trials"] >= FIRST_FITTED]
    return power_law([point["trials"] for point in points], [statistics.mean(point["cpu"]) for point in points])


def bytes_per_trial(row: Row) -> float:
    """What goes over the wire in a trial, signs of life aside."""
    return sum(statistics.median(values) for name, values in row["bytes"].items() if name != "alive")


def digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
