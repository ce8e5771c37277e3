"""Plans by an allocator's name, as several subcommands need them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfqprune.budget import Budget
    from tfqprune.data import DataSplits
    from tfqprune.plan import PruningPlan


def allocated(
    method: str,
    model: Any,
    budget: Budget,
    criterion: str,
    data: DataSplits | None,
    limits: dict[str, Any],
    curves: Path | None = None,
) -> PruningPlan:
    """A plan that holds a budget.

    Args:
        method: name of an allocator that does not train.
        model: to prune.
        budget: what holds.
        criterion: ranks the units.
        data: for the criterion, and for allocators that measure.
        limits: ``align``, ``exclude`` and ``meter``.
        curves: where measured sensitivities are kept, so that an interrupted measurement goes on.
    """
    from tfqprune.allocation import get_allocator

    options: dict[str, Any] = {}
    if method == "sensitivity" and data is not None:
        options = {"validation": data.validation, "path": curves}
    samples = None if data is None else data.train
    return get_allocator(method)(budget, **options).allocate(model, criterion, samples, **limits)
