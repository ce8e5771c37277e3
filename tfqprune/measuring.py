"""Costs of a plan: counted from the graph, or measured on the slim model's exported file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from tfqprune.budget import Budget
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
        key = tuple(sorted((name, len(slots)) for name, slots in removed.items() if slots))
        if key not in self._measured:
            slim = SlimBuilder(self.graph, self.graph.alive(dict(removed))).build()
            self._measured[key] = self._measure(slim)
        return self._measured[key]

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


def _checked_latency(value: object) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
        raise BudgetError(f"Expected measure_latency to return milliseconds, a finite number. Received: {value!r}.")
    if float(value) < 0:
        raise BudgetError(f"Expected measure_latency to return milliseconds of at least 0. Received: {value!r}.")
    return float(value)
