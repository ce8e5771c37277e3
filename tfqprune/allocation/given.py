"""What holistic pruning is given: a budget it can follow, groups that may give units, and where their gates start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfqprune.budget import Budget, check_budget
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.errors import BudgetError, PlanError
from tfqprune.plan import PruningPlan
from tfqprune.twin import obstacle


def check_counted(budget: Any) -> Budget:
    """The budget, of counted costs alone.

    Raises:
        BudgetError: it is none, or bounds a cost that has to be measured.
    """
    if check_budget(budget).measured:
        raise BudgetError(
            "Expected a budget of costs that have a gradient: params, macs, bops, memory. "
            f"Received: {', '.join(budget.measured)}, which must be measured. memory follows the size of the file."
        )
    return budget


def require_groups(graph: ChannelGraph, giving: list[ChannelGroup]) -> list[ChannelGroup]:
    """The groups that may give units.

    Raises:
        PlanError: there are none.
    """
    if not giving:
        raise PlanError(graph.none_prunable("excluded, or held by bounds"))
    return giving


def check_given(graph: ChannelGraph, giving: list[ChannelGroup], start: Any) -> None:
    """Makes sure that units can be gated while a model trains, and that a start, if any, is a plan for it.

    Raises:
        PlanError: a layer mixes channels that may go, or the start is no plan for this model.
    """
    reason = obstacle(graph, [group.name for group in giving])
    if reason:
        raise PlanError(
            f"Expected a model that can be masked while it trains. Received: one in which {reason}. Exclude those "
            "groups, or prune this model with another allocator."
        )
    if start is not None:
        if not isinstance(start, PruningPlan):
            raise PlanError(
                f"Expected a PruningPlan to start from. Received: {start!r} (of type {type(start).__name__}). Ratios "
                "become one by tfqprune.make_plan(model, ratios)."
            )
        start.check(graph)


def ranked(graph: ChannelGraph, scores: Mapping[str, np.ndarray], start: PruningPlan | None) -> np.ndarray:
    """Numbers between 0 and 1 over the units [units], in each group by the rank of its scores.

    With a start, what it removes lies below one half and what it keeps above, each by its scores.
    """
    values = np.full(graph.unit_count, 1.0, np.float32)
    for group in graph.prunable:
        if group.name not in scores:  # excluded
            continue
        order = np.argsort(scores[group.name], kind="stable")
        parts = [(order, 0.0, 1.0)]
        if start is not None:
            gone = np.isin(order, start.removed.get(group.name, ()))
            parts = [(order[gone], 0.0, 0.5), (order[~gone], 0.5, 0.5)]
        for slots, low, height in parts:
            ranks = (np.arange(len(slots)) + 0.5) / max(len(slots), 1)
            values[graph.units_of(group)[slots]] = low + height * ranks
    return values
