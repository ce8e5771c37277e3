"""Fits ratios to a budget: the largest model that still holds it.

A family of ratio vectors with one parameter (the same ratio for all groups, preferences times a
scale, sensitivity under a threshold) is bisected until the budget just holds; then units are given
back, one at a time, until the next one would break it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfqprune.budget import Budget, Limits, format_cost
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.errors import BudgetError, PlanError, whole_number
from tfqprune.measuring import Meter, StandIn
from tfqprune.plan import PruningPlan, alignment, fingerprint, order_of_removal, resolve_ratios

Bounds = float | Mapping[str, float]
Family = Callable[[float], Mapping[str, float]]

#: a preference below this counts as this, so that every scale up to all-at-maximum is reached
LEAST_PREFERENCE = 1e-3
_STEPS = 50  # of the bisection: far below the width of one unit
_MEASUREMENTS = 8  # of slim models, before units are given back


@dataclass(frozen=True)
class Fit:
    """Ratios that hold a budget.

    Attributes:
        counts: group -> number of units that go.
        ratios: group -> share of units that goes, exactly ``counts / size``.
        costs: what the slim model costs.
        parameter: where on the family the bisection ended; not a number where there was none.
    """

    counts: dict[str, int]
    ratios: dict[str, float]
    costs: dict[str, float]
    parameter: float


class Fitter:
    """Everything that decides which units go, except for how much each group gives.

    Args:
        graph: the channel graph of the model.
        scores: group -> score of each unit; low goes first.
        budget: what must hold.
        align: keep a multiple of so many channels in each layer of a group.
        minimum: the least ratio, one for all groups or by group or member layer name.
        maximum: the largest ratio, likewise; None: all but one unit.
        exclude: groups or layers that stay whole.
        meter: of the same graph and budget; it remembers what it measured.

    Raises:
        BudgetError: the budget is above the original, or cannot be met.
        ExportError: costs have to be measured, and the model cannot be exported.
        PlanError: unknown names, ratios out of range, a minimum above the maximum, align below 1,
            scores missing, of the wrong length or no numbers.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        scores: Mapping[str, np.ndarray],
        budget: Budget,
        *,
        align: int = 1,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
        meter: Meter | None = None,
    ) -> None:
        align = whole_number("align", align, PlanError)
        if not isinstance(scores, Mapping):
            raise PlanError(
                "Expected scores by group, such as tfqprune.score returns. Received: an object of type "
                f"{type(scores).__name__}."
            )
        self.graph = graph
        self.budget = budget
        self.align = align
        self.scores = dict(scores)
        self.meter = meter or Meter(graph, budget)
        self.limits: Limits = budget.resolve(self.meter.costs({}))
        self.excluded = frozenset(resolve_ratios(graph, dict.fromkeys(names_of(exclude), 0.0)))
        self.groups = [group for group in graph.prunable if group.name not in self.excluded]
        low = resolve_ratios(graph, minimum)
        high = {} if maximum is None else resolve_ratios(graph, maximum)
        self.levels = {
            group.name: _levels(group, self.align, low.get(group.name, 0.0), high.get(group.name))
            for group in self.groups
        }
        self.orders = {group.name: order_of_removal(group, scores) for group in self.groups}
        self._units = {group.name: self._units_of(group) for group in self.groups}
        self.check_reachable()

    # -- counts -------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The groups that may give units, in the order of the model."""
        return [group.name for group in self.groups]

    @property
    def most(self) -> dict[str, float]:
        """The largest possible ratio of each group."""
        return {group.name: int(self.levels[group.name][-1]) / group.size for group in self.groups}

    def counts(self, ratios: Mapping[str, float]) -> dict[str, int]:
        """Units that go at these ratios: the largest allowed number that is not above the ratio."""
        return {group.name: self._level(group, ratios.get(group.name, 0.0)) for group in self.groups}

    def nearest(self, ratios: Mapping[str, float]) -> dict[str, int]:
        """The allowed numbers nearest to these ratios, for ratios that went through a lossy channel."""
        counts = {}
        for group in self.groups:
            levels = self.levels[group.name]
            counts[group.name] = int(levels[np.argmin(np.abs(levels - ratios.get(group.name, 0.0) * group.size))])
        return counts

    def removed(self, counts: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The slots that go, by group, ascending."""
        return {name: tuple(sorted(self.orders[name][:count].tolist())) for name, count in counts.items() if count}

    def ratios(self, counts: Mapping[str, int]) -> dict[str, float]:
        """The ratios that these numbers of units are."""
        return {group.name: counts[group.name] / group.size for group in self.groups}

    # -- costs --------------------------------------------------------------------------------

    def alive_units(self, counts: Mapping[str, int]) -> np.ndarray:
        """Bool array over the graph's units."""
        alive = np.ones(self.graph.unit_count, bool)
        for name, count in counts.items():
            alive[self._units[name][:count]] = False
        return alive

    def costs(self, counts: Mapping[str, int], *, measure: bool = True) -> dict[str, float]:
        """What the slim model costs.

        Args:
            counts: units that go, by group.
            measure: False: costs that were not measured yet are estimated, on the cautious side.
        """
        if not measure:
            return self.meter.expected(self.removed(counts))
        return {**self.meter.model.totals(self.alive_units(counts)), **self.meter.measured(self.removed(counts))}

    def counted(self, counts: Mapping[str, int]) -> dict[str, float]:
        """The costs that need no measuring."""
        return self.meter.model.totals(self.alive_units(counts))

    def holds(self, counts: Mapping[str, int]) -> bool:
        """Whether the budget holds."""
        return self.limits.holds(self.counted(counts)) and self.limits.holds(self.meter.measured(self.removed(counts)))

    def expects(self, counts: Mapping[str, int]) -> bool:
        """Whether the budget can be expected to hold, by what was measured so far."""
        return self.limits.holds(self.costs(counts, measure=False))

    def check_reachable(self) -> None:
        """Makes sure that some plan holds the counted costs of the budget.

        Raises:
            BudgetError: none does; it names the smallest reachable costs and what stays whole.
        """
        counts = {name: int(levels[-1]) for name, levels in self.levels.items()}
        if not self.limits.holds(self.counted(counts)):
            raise self._unreachable(self.counted(counts))

    def _unreachable(self, costs: Mapping[str, float]) -> BudgetError:
        """What to say of a budget that these costs, the smallest there are, do not hold."""
        short = [
            f"{name} of {format_cost(name, self.limits.limits[name])}, where "
            f"{format_cost(name, costs[name])} is the smallest reachable"
            for name in self.limits.broken(costs)
        ]
        whole = [f"{group.name!r} ({group.frozen})" for group in self.graph.groups if group.frozen]
        whole += [f"{name!r} (excluded)" for name in sorted(self.excluded)]
        capped = [
            f"{group.name!r} (at most {levels[-1]} of {group.size} units go)"
            for group in self.groups
            if (levels := self.levels[group.name])[-1] < group.size - 1
        ]
        return BudgetError(
            f"Expected a budget that can be met. Received: {'; '.join(short)}."
            f" What stays whole: {', '.join(whole) or 'nothing'}."
            + (f" Limited: {', '.join(capped)}." if capped else "")
            + " Allow more, or free more groups."
        )

    # -- the search ---------------------------------------------------------------------------

    def fit(self, family: Family, *, measure: bool = True) -> Fit:
        """The largest model of a family within the budget, as far as whole units allow.

        Units are given back at the end until the next one would break the budget; the group that lies
        furthest above what the family wants for it comes first.

        Args:
            family: ratios by group for a parameter from 0 to 1; none may fall as it grows. Where
                even 1 does not meet the budget, all ratios go on towards their maximum alike.
            measure: False: costs that take seconds to measure are estimated, on the cautious side, from
                what was measured before; the caller has to make sure of them.

        Returns:
            A :class:`Fit` that holds the budget.
        """
        most = self.most

        def extended(parameter: float) -> Mapping[str, float]:
            wanted = family(min(parameter, 1.0))
            if parameter <= 1:
                return wanted
            part = parameter - 1
            return {name: (1 - part) * wanted.get(name, 0.0) + part * most[name] for name in self.names}

        if self.budget.measured and measure:
            counts, parameter = self._fit_measured(extended)
        else:
            counts, parameter = self._largest(extended, self.expects if self.budget.measured else self.holds)
        return self.fitted(counts, parameter, measure=measure)

    def fitted(self, counts: Mapping[str, int], parameter: float = math.nan, *, measure: bool = True) -> Fit:
        """Numbers of units as a :class:`Fit`; that they hold the budget is the caller's to know."""
        return Fit(dict(counts), self.ratios(counts), self.costs(counts, measure=measure), parameter)

    def _largest(self, family: Family, holds: Callable[[dict[str, int]], bool]) -> tuple[dict[str, int], float]:
        """Bisects a family over [0, 2]; at 2 all groups are at their maximum."""
        low, high = 0.0, 2.0
        best = self.counts(family(0.0))
        if holds(best):
            high = 0.0
        else:
            best = self.counts(self.most)
            for _ in range(_STEPS):
                middle = (low + high) / 2
                counts = self.counts(family(middle))
                if holds(counts):
                    high, best = middle, counts
                else:
                    low = middle
        if holds(best):
            best = self.give_back(best, family(high), holds)
        return best, high

    def _fit_measured(self, family: Family) -> tuple[dict[str, int], float]:
        """As :meth:`_largest`, for costs that take seconds to measure.

        Limits on counted costs stand in for the measured ones; what is measured at the solution
        corrects them. At the end every further unit that could be given back is measured, too.

        Raises:
            BudgetError: the smallest model does not hold the budget.
        """
        stand_in = StandIn(self.limits)

        def holds(counts: dict[str, int]) -> bool:
            costs = self.counted(counts)
            return self.limits.holds(costs) and stand_in.holds(costs)

        best: tuple[dict[str, int], float] | None = None
        tried: list[dict[str, int]] = []
        while len(tried) < _MEASUREMENTS:
            counts, parameter = self._largest(family, holds)
            if counts in tried:
                break
            tried.append(counts)
            costs = self.costs(counts)
            if stand_in.learn(costs, self.limits.holds(costs)):
                best = counts, parameter
        # A toy with next to no units may be a model that no format can store: it is measured where all else broke.
        counts, parameter = best or (self._thinnest(), 2.0)
        return self.give_back(counts, family(parameter), leap=True), parameter

    def _thinnest(self) -> dict[str, int]:
        """The smallest model there is.

        Raises:
            BudgetError: it does not hold the budget.
        """
        counts = self.counts(self.most)
        costs = self.costs(counts)
        if not self.limits.holds(costs):
            raise self._unreachable(costs)
        return counts

    def project(self, preferences: Mapping[str, float], *, measure: bool = True) -> Fit:
        """Scales preferences onto the budget: ``ratio = min(maximum, scale * preference)``.

        Args:
            preferences: group -> how much of it should go relative to the others, from 0.
            measure: as for :meth:`fit`.

        Raises:
            PlanError: a preference is negative or not finite.
        """
        wanted = {name: float(preferences.get(name, 0.0)) for name in self.names}
        for name, value in wanted.items():
            if not np.isfinite(value) or value < 0:
                raise PlanError(f"Expected preferences of at least 0. Received: {value!r} for group {name!r}.")
        top = max(wanted.values(), default=0.0) or 1.0
        floor = {name: max(value / top, LEAST_PREFERENCE) for name, value in wanted.items()}
        most = self.most

        def family(parameter: float) -> dict[str, float]:
            # From scale 0 to the scale at which the least preferred group is at its maximum, on a
            # logarithmic course, so that the bisection is as fine for small scales as for large.
            scale = np.expm1(parameter * np.log1p(1 / LEAST_PREFERENCE))
            return {name: min(scale * floor[name], most[name]) for name in floor}

        return self.fit(family, measure=measure)

    def give_back(
        self,
        counts: Mapping[str, int],
        wanted: Mapping[str, float],
        holds: Callable[[dict[str, int]], bool] | None = None,
        *,
        leap: bool = False,
    ) -> dict[str, int]:
        """Gives units back until every further one would break the budget.

        Args:
            counts: units that go, by group.
            wanted: ratios; the group furthest above what is wanted for it comes first.
            holds: what must stay true; None: :meth:`holds`.
            leap: ask ``holds`` seldom: a group's steps double while it holds, and then halve.
        """
        holds = holds or self.holds
        counts = dict(counts)
        sizes = {group.name: group.size for group in self.groups}
        strides = dict.fromkeys(self.names, 1)
        broke = dict.fromkeys(self.names, -1)  # what breaks the budget now will break it after others got units, too
        open_names = list(self.names)
        while open_names:
            # The first of the groups furthest above what is wanted for them.
            name = max(open_names, key=lambda name: counts[name] / sizes[name] - wanted.get(name, 0.0))
            levels = self.levels[name]
            position = int(np.searchsorted(levels, counts[name]))
            step = min(strides[name], (position - broke[name]) // 2)
            if step == 0:
                open_names.remove(name)
            elif holds(less := {**counts, name: int(levels[position - step])}):
                counts = less
                strides[name] *= 2 if leap else 1
            else:
                broke[name] = position - step
        return counts

    def plan(
        self, fit: Fit | Mapping[str, int], criterion: str = "", notes: Mapping[str, Any] | None = None
    ) -> PruningPlan:
        """The plan of a fit, or of numbers of units; costs that cannot be counted are left out of its notes."""
        counts = fit.counts if isinstance(fit, Fit) else fit
        notes = dict(notes or {})
        if "costs" in notes:  # not a number where the input has no fixed size, which no JSON can hold
            notes["costs"] = {name: cost for name, cost in notes["costs"].items() if math.isfinite(cost)}
        sizes = {group.name: group.size for group in self.graph.groups}
        return PruningPlan(self.removed(counts), sizes, fingerprint(self.graph), criterion, notes)

    # -- pieces -------------------------------------------------------------------------------

    def _level(self, group: ChannelGroup, ratio: float) -> int:
        levels = self.levels[group.name]
        position = int(np.searchsorted(levels, np.floor(ratio * group.size + 1e-9), side="right")) - 1
        return int(levels[max(position, 0)])

    def _units_of(self, group: ChannelGroup) -> np.ndarray:
        """Numbers of a group's units in the graph, those that go first before the others."""
        return self.graph.units_of(group)[self.orders[group.name]]


def names_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names that may be read more than once; a string is one name."""
    return (names,) if isinstance(names, str) else tuple(names)


def _levels(group: ChannelGroup, align: int, low: float, high: float | None) -> np.ndarray:
    """The numbers of units that may go: aligned, within the bounds, never all."""
    step = alignment(group, align)
    kept = np.arange(step, group.size, step)
    levels = np.unique(np.concatenate([[0], group.size - kept]))
    least = int(np.ceil(low * group.size - 1e-9))
    most = group.size - 1 if high is None else int(np.floor(high * group.size + 1e-9))
    allowed = levels[(levels >= least) & (levels <= most)]
    if not len(allowed):
        raise PlanError(
            f"Expected bounds for group {group.name!r} ({group.size} units) that some number of units meets. "
            f"Received: from {least} to {most} units, of {', '.join(map(str, levels))} that the alignment allows."
        )
    return allowed
