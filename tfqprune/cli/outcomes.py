"""What subcommands that make a slim model write and show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tfqprune.cli.session import Outcome

if TYPE_CHECKING:
    from tfqprune.data import DataSplits
    from tfqprune.plan import PruningPlan


def before_and_after(
    dense: Any,
    slim: Any,
    plan: PruningPlan,
    data: DataSplits | None,
    files: dict[str, Path],
    *,
    how: str | None = None,
    stays: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Outcome:
    """A slim model beside the one that it came from: costs, accuracy on the test data, ratios.

    Args:
        dense: the original.
        slim: what was made of it.
        plan: by which.
        data: to take the accuracy on, or None.
        files: what was written: what -> where.
        how: what made units go; None: the plan's criterion.
        stays: group -> units that could have gone, and why they stay.
        more: further results for machines.
    """
    from tfqprune.pipeline.variants import accuracy, counts
    from tfqprune.report import NetworkReport, VariantRow, tables

    rows = []
    for name, model in (("dense", dense), ("slim", slim)):
        right = None if data is None else accuracy(model, data.test.x, data.test.y)
        rows.append(VariantRow(name, right, **counts(model)))
    removed, units = sum(map(len, plan.removed.values())), sum(plan.sizes.values())
    criterion = plan.criterion or "the plan"
    kept = {"accuracy", "params", "macs", "bops", "memory"}
    return Outcome(
        {
            **{row.name: {key: value for key, value in asdict(row).items() if key in kept} for row in rows},
            "criterion": plan.criterion,
            "removed": removed,
            "units": units,
            "ratios": plan.ratios,
            "files": {what: str(path) for what, path in files.items()},
            **more,
        },
        [
            tables.comparison_table(NetworkReport(dense.name, tuple(rows))),
            f"{removed} of {units} units go, {how or f'ranked by {criterion}'}.",
            *(f"{group} keeps {reason}." for group, reason in stays.items()),
            *(f"{what}: {path}" for what, path in files.items()),
        ],
    )
