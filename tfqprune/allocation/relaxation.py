"""Budgets without whole units: thousands of ratio vectors projected at once.

Every counted cost is quadratic in the shares that stay (a weight has at most two channel axes), so
a few evaluations of the exact cost determine it for all ratio vectors.
"""

from __future__ import annotations

import numpy as np

from tfqprune.budget import COUNTED
from tfqprune.fitting import LEAST_PREFERENCE, Fitter
from tfqprune.measuring import FOLLOWS

_STEPS = 30  # halvings of the scale


class RelaxedBudget:
    """Costs as functions of real-valued ratios, and projection onto the budget, in bulk.

    Measured costs cannot be relaxed. In their place stands the counted cost that follows them
    (memory for the size of the file, MACs for latency), held to what the uniform solution has.

    Args:
        fitter: the exact search.
        uniform: costs of the uniform solution, for budgets of measured costs.
    """

    def __init__(self, fitter: Fitter, uniform: dict[str, float]) -> None:
        self.names = fitter.names
        self.least = np.array([fitter.levels[group.name][0] / group.size for group in fitter.groups])
        self.most = np.array([fitter.most[name] for name in self.names])
        limits: dict[str, float] = {}
        for name, limit in fitter.limits.limits.items():
            key = name if name in COUNTED else FOLLOWS[name]
            value = limit if name in COUNTED else uniform[key]
            limits[key] = min(value, limits.get(key, np.inf))
        self._limits = limits
        self._terms = self._probe(fitter)

    def _probe(self, fitter: Fitter) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
        """cost(z) = c - b z + z A z for removed shares z, from its values at corners."""
        size, model = len(self.names), fitter.meter.model
        members = [fitter.graph.group_of == group.index for group in fitter.groups]

        def totals(shares: dict[int, float]) -> dict[str, float]:
            alive = np.ones(fitter.graph.unit_count)
            for index, share in shares.items():
                alive[members[index]] = 1 - share
            return model.totals(alive)

        base = totals({})
        single = [totals({index: 1.0}) for index in range(size)]
        half = [totals({index: 0.5}) for index in range(size)]
        terms = {key: (base[key], np.zeros(size), np.zeros((size, size))) for key in self._limits}
        for key, (constant, linear, square) in terms.items():
            for index in range(size):
                # c - b + a at 1 and c - b/2 + a/4 at 1/2.
                square[index, index] = 2 * (single[index][key] - 2 * half[index][key] + constant)
                linear[index] = constant + square[index, index] - single[index][key]
        for first in range(size):
            for second in range(first):
                both = totals({first: 1.0, second: 1.0})
                for key, (constant, _, square) in terms.items():
                    mixed = both[key] - single[first][key] - single[second][key] + constant
                    square[first, second] = square[second, first] = mixed / 2
        return terms

    def loads(self, ratios: np.ndarray) -> np.ndarray:
        """Largest share of a limit that each ratio vector [n, groups] uses, [n]."""
        return np.max(
            [
                (constant - ratios @ linear + np.einsum("ni,ni->n", ratios @ square, ratios)) / self._limits[key]
                for key, (constant, linear, square) in self._terms.items()
            ],
            axis=0,
        )

    def project(self, preferences: np.ndarray) -> np.ndarray:
        """Ratios on the budget for preferences [n, groups], as :meth:`Fitter.project` but unrounded."""
        top = np.maximum(preferences.max(axis=1, keepdims=True), 1e-12)
        wanted = np.maximum(preferences / top, LEAST_PREFERENCE)
        low, high = np.zeros(len(wanted)), np.full(len(wanted), np.log1p(1 / LEAST_PREFERENCE))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            holds = self.loads(self._scaled(wanted, middle)) <= 1
            high, low = np.where(holds, middle, high), np.where(holds, low, middle)
        return self._scaled(wanted, high)

    def _scaled(self, wanted: np.ndarray, exponent: np.ndarray) -> np.ndarray:
        return np.clip(np.expm1(exponent)[:, None] * wanted, self.least, self.most)
