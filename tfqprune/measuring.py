"""Costs of a plan: counted from the graph, or measured on the slim model's exported file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

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
        return self._measured[key]

    def expected(self, removed: Removed) -> dict[str, float]:
        """As :meth:`costs` without measuring: measured costs as remembered, or else estimated (:func:`estimate`)."""
        counted = self.counted(removed)
        known = self._measured.get(_key(removed))
        return {**counted, **(estimate(self.budget.measured, counted, self.observations) if known is None else known)}

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
                result = tflite_export.export(slim, path, format=budget.tflite_format, samples=1, strict=False)
                if "tflite_bytes" in budget.measured:
                    costs["tflite_bytes"] = float(result.bytes)
                if "latency" in budget.measured and "latency" not in costs:
                    costs["latency"] = float(tflite_export.benchmark(path).latency_ms)
        return costs


#: measured cost -> the counted cost that it follows
FOLLOWS = {"tflite_bytes": "memory", "latency": "macs"}


def estimate(
    names: Iterable[str], counted: Mapping[str, float], observations: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Measured costs by the counted ones, on the cautious side.

    A file is the memory of its weights and a rest, latency is in proportion to the multiplications. The largest rest
    and the largest proportion among the observations count; both grow with the counted cost.

    Args:
        names: measured costs.
        counted: costs of a model that was not measured.
        observations: all costs of models that were, at least one.
    """
    found = {}
    for name in names:
        own = counted[FOLLOWS[name]]
        known = [(costs[FOLLOWS[name]], costs[name]) for costs in observations]
        if name == "latency":
            found[name] = own * max(cost / counted for counted, cost in known if counted) if own else 0.0
        else:
            found[name] = own + max(cost - counted for counted, cost in known)
    return found


class StandIn:
    """Limits on counted costs that stand in for limits on measured ones.

    The size of the file follows the memory of the weights at a distance, latency follows the
    multiplications in proportion; each measurement corrects distance and proportion.

    Args:
        limits: the budget.
        original: all costs of the original model.
    """

    FOLLOWS: ClassVar[dict[str, str]] = FOLLOWS

    def __init__(self, limits: Limits, original: Mapping[str, float]) -> None:
        self._limits = {name: limit for name, limit in limits.limits.items() if name in FOLLOWS}
        #: the least counted cost that broke a limit, the largest of a model that held all
        self._broken = dict.fromkeys(self._limits, math.inf)
        self._held = dict.fromkeys(self._limits, 0.0)
        self._last = dict(original)

    def _cap(self, name: str) -> float:
        """The counted cost at which the limit is expected to be met."""
        counted, measured = self._last[FOLLOWS[name]], self._last[name]
        cap = counted + self._limits[name] - measured
        if name == "latency":
            cap = counted * self._limits[name] / measured if measured else math.inf
        if cap >= self._broken[name] or cap <= self._held[name]:
            # The last step went wrong; halve what is left between what held and what broke.
            return (self._held[name] + min(self._broken[name], 2 * max(self._held[name], counted))) / 2
        return cap

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether counted costs are within what stands in for the measured ones."""
        return all(costs[FOLLOWS[name]] <= self._cap(name) for name in self._limits)

    def expects(self, costs: Mapping[str, float]) -> bool:
        """Whether a model with these counted costs, close to the last measured one, is worth measuring."""
        for name, limit in self._limits.items():
            counted, measured = self._last[FOLLOWS[name]], self._last[name]
            change = costs[FOLLOWS[name]] - counted
            expected = measured * (1 + change / counted) if name == "latency" else measured + change
            if expected > limit:
                return False
        return True

    def learn(self, costs: Mapping[str, float], held: bool) -> bool:
        """Takes in a measurement (all costs of a model); says whether it is the best one that held."""
        self._last = dict(costs)
        better = held
        for name, limit in self._limits.items():
            counted = costs[FOLLOWS[name]]
            if costs[name] > limit:
                self._broken[name] = min(self._broken[name], counted)
            elif held:
                better = better and counted >= self._held[name]
                self._held[name] = max(self._held[name], counted)
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
