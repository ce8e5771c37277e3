"""Costs of a plan: counted from the graph, or measured on the slim model's exported file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfqprune.budget import Budget, Limits
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.errors import BudgetError
from tfqprune.slim import SlimBuilder

Removed = Mapping[str, tuple[int, ...]]


class Meter:
    """Says what a model costs once a plan's units are gone.

    Measured costs are remembered by the number of units that stay in each group: which of them
    stay changes neither the size of the file nor the time it takes.

    Args:
        graph: the channel graph of the model.
        budget: says which costs to measure, and how.
    """

    def __init__(self, graph: ChannelGraph, budget: Budget) -> None:
        self.graph = graph
        self.budget = budget
        self.model = CostModel(graph)
        self._measured: dict[tuple[tuple[str, int], ...], dict[str, float]] = {}
        #: all costs of every model that was measured
        self.observations: list[dict[str, float]] = []
        self._lines: Lines = {}

    def counted(self, removed: Removed) -> dict[str, float]:
        """Parameters, MACs, BOPs and memory (bytes); microseconds a call."""
        return self.model.totals(self.graph.alive_units(dict(removed)))

    def measured(self, removed: Removed) -> dict[str, float]:
        """The costs of the budget that need the slim model: bytes, milliseconds.

        Raises:
            BudgetError: ``measure_latency`` returned something that is no time.
            ExportError: the slim model cannot be exported.
        """
        if not self.budget.measured:
            return {}
        key = _key(removed)
        if key not in self._measured:
            slim = SlimBuilder(self.graph, self.graph.alive(dict(removed))).build()
            self._measured[key] = self._measure(slim)
            self.observations.append({**self.counted(removed), **self._measured[key]})
            self._lines = lines(self.budget.measured, self.observations)
        return self._measured[key]

    def expected(self, removed: Removed) -> dict[str, float]:
        """As :meth:`costs` without measuring: measured costs as remembered, or else estimated (:func:`lines`)."""
        counted = self.counted(removed)
        known = self._measured.get(_key(removed))
        return {**counted, **(self._estimated(counted) if known is None else known)}

    def _estimated(self, counted: Mapping[str, float]) -> dict[str, float]:
        return {name: fixed + slope * counted[FOLLOWS[name]] for name, (fixed, slope) in self._lines.items()}

    def costs(self, removed: Removed) -> dict[str, float]:
        """Counted and measured costs together."""
        return {**self.counted(removed), **self.measured(removed)}

    def _measure(self, slim: tf.keras.Model) -> dict[str, float]:
        budget, costs = self.budget, {}
        if "latency" in budget.measured and budget.measure_latency is not None:
            costs["latency"] = _checked_latency(budget.measure_latency(slim))
        if "tflite_bytes" in budget.measured or ("latency" in budget.measured and not costs):
            # Only here: of tfqprune's ground floors nothing knows the exporter, and it loads slowly.
            import tflite_export

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "slim.tflite"
                result = tflite_export.export(
                    slim, path, format=budget.tflite_format, optimize=budget.tflite_optimize, samples=1, strict=False
                )
                if "tflite_bytes" in budget.measured:
                    costs["tflite_bytes"] = float(result.bytes)
                if "latency" in budget.measured and "latency" not in costs:
                    costs["latency"] = float(tflite_export.benchmark(path).latency_ms)
        return costs


#: measured cost -> the counted cost that it follows
FOLLOWS = {"tflite_bytes": "memory", "latency": "macs"}


#: measured cost -> what is measured where nothing is counted, and what each counted unit adds
Lines = dict[str, tuple[float, float]]


def metered_graph(model: tf.keras.Model, budget: Budget, meter: Meter | None) -> ChannelGraph:
    """The channel graph of a model: a meter's, where there is one.

    Raises:
        BudgetError: the meter is of another model or budget.
        ModelTypeError: no graph model.
    """
    if meter is None:
        return ChannelGraph(model)
    if meter.graph.model is not model or meter.budget != budget:
        raise BudgetError(
            f"Expected a meter of this model and of {budget}. Received: one of {meter.graph.model.name!r} and "
            f"{meter.budget}. Take the meter of a Fitter of both, or none."
        )
    return meter.graph


def lines(names: Iterable[str], observations: Sequence[Mapping[str, float]]) -> Lines:
    """Measured costs as straight lines over the counted ones, on the cautious side.

    A file is the memory of its weights and the largest rest that was seen. A latency is a fixed part and time in
    proportion to the multiplications, by the median over pairs of models of which one is far larger; the line is
    raised until one in ten observations (rounded up, of three or more) lies above it: a machine that was busy for a
    moment does not spoil the estimate, models that are slow again and again do raise it.

    Args:
        names: measured costs.
        observations: all costs of models that were measured, at least one.
    """
    found: Lines = {}
    for name in names:
        counted, cost = (np.array([seen[key] for seen in observations], float) for key in (FOLLOWS[name], name))
        if name == "latency":
            found[name] = _line(counted, cost)
        else:
            found[name] = float((cost - counted).max()), 1.0
    return found


def _line(counted: np.ndarray, cost: np.ndarray) -> tuple[float, float]:
    """Fixed part and slope of a cautious line through observations, see :func:`lines`."""
    small, large = np.nonzero(counted[None, :] - counted[:, None] > np.ptp(counted) / 2)
    fixed = 0.0
    if len(small):
        slopes = (cost[large] - cost[small]) / (counted[large] - counted[small])
        fixed = float(np.clip(np.median(cost[small] - counted[small] * slopes), 0.0, cost.min()))
    slope = float(np.median((cost - fixed) / np.maximum(counted, 1)))
    line = fixed + slope * counted
    excess = np.sort(np.divide(cost, line, out=np.ones_like(line), where=line > 0))[::-1]
    raised = max(float(excess[-(-len(excess) // 10) if len(excess) > 2 else 0]), 1.0)
    return raised * fixed, raised * slope


#: measurements in a row on the same side of the limit, after which the line is no longer believed
_SAME_SIDE = 3


class StandIn:
    """Limits on counted costs that stand in for limits on measured ones.

    At first the size of the file is taken to follow the memory of the weights at a distance, latency to
    be in proportion to the multiplications. As soon as one model held the budget, the limit is looked for on
    the straight line between the largest that held it and the smallest that broke it.

    Args:
        limits: the budget, with all costs of the original model.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = {name: limit for name, limit in limits.limits.items() if name in FOLLOWS}
        #: counted and measured cost of the smallest model that broke a limit, of the largest that held all
        self._broke: dict[str, tuple[float, float]] = {}
        self._held: dict[str, tuple[float, float]] = {}
        self._last, self._in_a_row = False, 0
        self.learn(limits.original, limits.holds(limits.original))

    def _cap(self, name: str) -> float:
        """The counted cost at which the limit is expected to be met."""
        limit = self._limits[name]
        if name not in self._broke:
            return math.inf
        large, above = self._broke[name]
        if name not in self._held:
            expected = large * limit / above if name == "latency" else large + limit - above
            # Where much is fixed, estimates come down slowly from above; a model that holds is worth more than a guess.
            return expected if self._in_a_row < _SAME_SIDE else min(expected, large / 2)
        small, within = self._held[name]
        if small >= large:
            return small  # a small model that is slower than a larger one: what held is all that is sure
        # A line that is always wrong on the same side comes closer slowly; then halve what is left.
        share = (limit - within) / (above - within) if self._in_a_row < _SAME_SIDE else 0.5
        return small + share * (large - small)

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether counted costs are within what stands in for the measured ones."""
        return all(costs[FOLLOWS[name]] <= self._cap(name) for name in self._limits)

    def learn(self, costs: Mapping[str, float], held: bool) -> bool:
        """Takes in a measurement (all costs of a model); says whether it is the best one that held."""
        self._in_a_row = self._in_a_row + 1 if held == self._last else 1
        self._last = held
        better = held
        for name, limit in self._limits.items():
            pair = costs[FOLLOWS[name]], costs[name]
            if costs[name] > limit:
                self._broke[name] = min(self._broke.get(name, pair), pair)
            elif held:
                better = better and pair >= self._held.get(name, pair)
                self._held[name] = max(self._held.get(name, pair), pair)
        return better


def _key(removed: Removed) -> tuple[tuple[str, int], ...]:
    """Units that go, by group: all that size and time depend on."""
    return tuple(sorted((name, len(slots)) for name, slots in removed.items() if slots))


def _checked_latency(value: object) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
        raise BudgetError(f"Expected measure_latency to return milliseconds, a finite number. Received: {value!r}.")
    if float(value) < 0:
        raise BudgetError(f"Expected measure_latency to return milliseconds of at least 0. Received: {value!r}.")
    return float(value)
