"""The suite that the author of an allocator subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation.base import Allocator
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel, cost
from tfqprune.errors import BudgetError
from tfqprune.plan import PruningPlan, alignment, plan_from_ratios
from tfqprune.slim import prune
from tfqprune.testing.criteria import network

#: budgets that every allocator is put to, on every network
BUDGETS: tuple[dict[str, Any], ...] = (
    {"memory": 0.7},
    {"params": 0.5, "macs": 0.6},
    {"bops": 0.35},
)


class AllocatorConformance(ABC):
    """Puts one allocator through everything that is asked of all of them.

    Subclass it in a test module (name the subclass ``Test...``), and say how the allocator is made::

        class TestMyAllocator(AllocatorConformance):
            def make_allocator(self, budget):
                return MyAllocator(budget)
    """

    networks: tuple[str, ...] = ("float", "dorefa_residual", "grouped")
    #: fewer, for an allocator that is slow
    budgets: tuple[dict[str, Any], ...] = BUDGETS

    @abstractmethod
    def make_allocator(self, budget: Budget) -> Allocator:
        """A fresh allocator."""

    def allocate(self, model: tf.keras.Model, budget: Budget, **options: Any) -> PruningPlan:
        """The allocator's plan, with random scores that are always the same."""
        rng = np.random.default_rng(3)
        scores = {group.name: rng.random(group.size) for group in ChannelGraph(model).groups}
        return self.make_allocator(budget).allocate(model, scores=scores, **options)

    def test_holds_the_budget(self) -> None:
        """The slim model is never above any limit."""
        for name in self.networks:
            model = network(name)
            whole = cost(model)
            for limits in self.budgets:
                slim = cost(prune(model, self.allocate(model, Budget(**limits))))
                for key, share in limits.items():
                    assert slim[key] <= share * whole[key], (
                        f"{name}: {key} of {slim[key]} above {share} of {whole[key]}"
                    )

    def test_as_large_as_can_be(self) -> None:
        """Giving back any one more unit would break the budget, whichever unit it is."""
        for name in self.networks:
            model = network(name)
            graph = ChannelGraph(model)
            costs, whole = CostModel(graph), CostModel(graph).totals()
            for limits in self.budgets:
                removed = self.allocate(model, Budget(**limits)).removed
                assert removed, f"{name}: nothing is removed under {limits}"
                for group, slots in removed.items():
                    for slot in slots:
                        less = {**removed, group: tuple(other for other in slots if other != slot)}
                        totals = costs.totals(graph.alive_units(less))
                        broken = any(totals[key] > share * whole[key] for key, share in limits.items())
                        assert broken, f"{name}: {group}[{slot}] could stay under {limits}"

    def test_same_again(self) -> None:
        """The same arguments give the same plan."""
        model = network("dorefa_residual")
        first, again = (self.allocate(model, Budget(memory=0.6)) for _ in range(2))
        assert first.removed == again.removed

    def test_leaves_room_for_no_more(self) -> None:
        """A budget of everything removes nothing that matters to the cost."""
        model = network("float")
        plan = self.allocate(model, Budget(params=1.0))
        assert cost(prune(model, plan)).params == cost(model).params

    def test_says_what_cannot_be_met(self) -> None:
        """A budget out of reach is an error that names the smallest reachable cost and what is frozen."""
        model = network("float")
        message = ""
        try:
            self.allocate(model, Budget(params=0.01))
        except BudgetError as error:
            message = str(error)
        smallest = cost(model, _thinnest(model)).params
        assert f"{smallest:,} parameters is the smallest reachable" in message
        assert "'last' (" in message

    def test_keeps_to_alignment_bounds_and_exclusions(self) -> None:
        """Kept channels are multiples of ``align`` (or all), ratios within bounds, excluded groups whole."""
        model = network("dorefa_residual")
        graph = ChannelGraph(model)
        plan = self.allocate(model, Budget(memory=0.7), align=2, maximum=0.75, minimum={"inner": 0.25})
        for group in graph.prunable:
            kept = len(plan.kept[group.name])
            assert kept == group.size or kept % alignment(group, 2) == 0
            assert plan.ratios[group.name] <= 0.75
        assert plan.ratios["inner"] >= 0.25
        plan = self.allocate(model, Budget(memory=0.8), exclude=["first"])
        assert plan.ratios["first"] == 0


def _thinnest(model: tf.keras.Model) -> PruningPlan:
    graph = ChannelGraph(model)
    ratios = {group.name: (group.size - 1) / group.size for group in graph.prunable}
    return plan_from_ratios(graph, ratios, {group.name: np.zeros(group.size) for group in graph.groups})
