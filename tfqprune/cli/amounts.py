"""Budgets and ratios as they are typed: the one place where they are read."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from tfqprune.budget import COUNTED, MEASURED, Budget, parse_amount
from tfqprune.cli.names import nearest
from tfqprune.errors import BudgetError

COSTS = (*COUNTED, *MEASURED)


def amount(text: str) -> float | str:
    """A plain number as a number, anything else as it stands: "0.5" is a share, "40 MMAC" has its unit."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_budget(entries: Sequence[str]) -> Budget:
    """A budget from ``cost=amount``, ``["memory=0.5", "macs=40 MMAC"]``; a cost given twice counts once, the last.

    Raises:
        typer.BadParameter: an entry of another form, an unknown cost, or an amount that makes no sense.
    """
    bounds: dict[str, float | str] = {}
    for entry in entries:
        name, equals, text = (part.strip() for part in entry.partition("="))
        if name not in COSTS or not equals:
            hint = f" Say how much: {name}=0.5." if name in COSTS else nearest(name, COSTS)
            raise typer.BadParameter(
                f'Expected cost=amount, such as memory=0.5 or macs="40 MMAC", with a cost out of {", ".join(COSTS)}. '
                f"Received: '{entry}'.{hint}",
                param_hint="--budget",
            )
        bounds[name] = amount(text)
        try:
            parse_amount(name, bounds[name])
        except BudgetError as error:
            raise typer.BadParameter(str(error), param_hint="--budget") from error
    if not bounds:
        raise typer.BadParameter("Expected a budget, such as --budget memory=0.5. Received: none.")
    return Budget(**bounds)  # type: ignore[arg-type]


def parse_ratios(entries: Sequence[str]) -> float | dict[str, float]:
    """One ratio for all groups, ``["0.3"]``, or ratios by group or layer, ``["conv1=0.3", "conv2=0.5"]``.

    Raises:
        typer.BadParameter: anything else.
    """
    try:
        if len(entries) == 1 and "=" not in entries[0]:
            return _ratio(entries[0])
        ratios = {}
        for entry in entries:
            name, _, text = entry.rpartition("=")
            if not name:
                raise ValueError
            ratios[name] = _ratio(text)
        return ratios
    except ValueError as error:
        raise typer.BadParameter(
            "Expected one ratio from 0 to below 1, or name=ratio for groups or layers, such as --ratio conv1=0.3. "
            f"Received: {', '.join(entries)}.",
            param_hint="--ratio",
        ) from error


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 0 <= ratio < 1:
        raise ValueError
    return ratio


def complete_budget(incomplete: str) -> list[str]:
    """What the shell is offered for ``--budget``."""
    return [f"{name}=" for name in COSTS if name.startswith(incomplete)]
