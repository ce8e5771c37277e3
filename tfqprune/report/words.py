"""Numbers as people read them. What was not measured is a dash, never a zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfqprune.report.model import TrialRow, VariantRow

MISSING = "–"


def size(value: float | None) -> str:
    """Bytes: "512 B", "27.9 KiB", "3.36 MiB"."""
    if value is None:
        return MISSING
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} GiB"


def count(value: float | None) -> str:
    """Counts: "650", "176 k", "3.93 M", "12.4 G"."""
    if value is None:
        return MISSING
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{_three(value)}{unit}"
        value /= 1000
    return f"{_three(value)} T"


def percent(value: float | None) -> str:
    """A share from 0 to 1: "97.8 %"."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def milliseconds(value: float | None) -> str:
    """Milliseconds, in microseconds below one: "3.4 ms", "210 µs"."""
    if value is None:
        return MISSING
    return f"{1000 * value:.0f} µs" if value < 1 else f"{_three(value)} ms"


def change(value: float | None, before: float | None, *, points: bool = False) -> str:
    """Against the first variant: "-30.0 %", or for shares "-1.4" percentage points. Empty where nothing compares."""
    if value is None or before is None or (before == 0 and not points):
        return ""
    amount = 100 * (value - before) if points else 100 * (value / before - 1)
    return f"{amount:+.1f}".replace("-", "−") + (" pp" if points else " %")


def _three(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


@dataclass(frozen=True)
class Column:
    """A column of the table of variants.

    Attributes:
        title: heading.
        field: of ``VariantRow``.
        text: how its value is written.
        points: whether a change is given in percentage points.
        compare: whether a change against the first variant says anything.
    """

    title: str
    field: str
    text: Callable[[float | None], str]
    points: bool = False
    compare: bool = True

    def cell(self, row: VariantRow, first: VariantRow) -> tuple[str, str]:
        """The value as text, and its change against the first variant (empty for the first itself)."""
        value = getattr(row, self.field)
        if row is first or not self.compare:
            return self.text(value), ""
        return self.text(value), change(value, getattr(first, self.field), points=self.points)


COLUMNS = (
    Column("Accuracy", "accuracy", percent, points=True),
    Column("Parameters", "params", count),
    Column("MACs", "macs", count),
    Column("BOPs", "bops", count),
    Column("Memory", "memory", size),
    Column(".tflite", "tflite_bytes", size),
    Column("Peak RAM", "ram_bytes", size),
    Column("Latency", "latency_ms", milliseconds),
    Column("Agreement", "agreement", percent, compare=False),
)


def columns(rows: tuple[VariantRow, ...]) -> list[Column]:
    """The columns in which at least one variant has a value; accuracy, memory and .tflite always."""
    always = {"accuracy", "memory", "tflite_bytes"}
    return [
        column
        for column in COLUMNS
        if column.field in always or any(getattr(row, column.field) is not None for row in rows)
    ]


def ratio(units: int, kept: int) -> float:
    """Share of a group's units that is removed."""
    return 1 - kept / units if units else 0.0


#: how a budget names its costs -> heading, axis label, what the axis divides by, how it is written
COSTS: dict[str, tuple[str, str, float, Callable[[float | None], str]]] = {
    "memory": ("Memory", "memory (KiB)", 1024, size),
    "tflite_bytes": (".tflite", ".tflite file (KiB)", 1024, size),
    "params": ("Parameters", "parameters (thousand)", 1e3, count),
    "macs": ("MACs", "MACs (million)", 1e6, count),
    "bops": ("BOPs", "BOPs (million)", 1e6, count),
    "latency": ("Latency", "latency (ms)", 1.0, milliseconds),
}


def costs(trials: Sequence[TrialRow]) -> list[str]:
    """The costs that any trial knows."""
    return [cost for cost in COSTS if any(cost in trial.costs for trial in trials)]


def cost_name(cost: str) -> str:
    """Its heading, "MACs" for "macs"; a cost that is not known here keeps its name."""
    return COSTS[cost][0] if cost in COSTS else cost


def cost_value(cost: str, value: float | None) -> str:
    """A cost with its unit."""
    return COSTS[cost][3](value) if cost in COSTS else MISSING if value is None else f"{value:g}"
