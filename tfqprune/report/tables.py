"""The same data as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from tfqprune.report import words
from tfqprune.report.model import NetworkReport


def comparison_table(network: NetworkReport) -> Table:
    """The variants of a network side by side, one column each, every value with its change against the first."""
    first = network.variants[0]
    table = Table(title=escape(network.name), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column()
    for row in network.variants:
        table.add_column(escape(row.name), justify="right")
    for column in words.columns(network.variants):
        cells = []
        for row in network.variants:
            value, change = column.cell(row, first)
            cells.append(f"{value} [dim]({change})[/dim]" if change else value)
        table.add_row(column.title, *cells)
    return _whole(table)


def cost_table(name: str, layers: Sequence[Mapping[str, Any]], total: Mapping[str, float]) -> Table:
    """A model's cost, layer by layer.

    Args:
        name: of the model.
        layers: each with name, params, macs, bops, memory (bytes), weight_bits and input_bits.
        total: params, macs, bops and memory of the whole model.
    """
    table = Table(title=f"Model {escape(name)}", title_justify="left", show_footer=True, box=box.SIMPLE_HEAD)
    table.add_column("layer", "total")
    table.add_column("bits w/a", justify="right")
    table.add_column("parameters", words.count(total["params"]), justify="right")
    table.add_column("MACs", words.count(total["macs"]), justify="right")
    table.add_column("BOPs", words.count(total["bops"]), justify="right")
    table.add_column("memory", words.size(total["memory"]), justify="right")
    for layer in layers:
        multiplies = layer["macs"] > 0
        table.add_row(
            escape(layer["name"]),
            f"{layer['weight_bits']}/{layer['input_bits']}" if multiplies else words.MISSING,
            words.count(layer["params"]),
            words.count(layer["macs"]) if multiplies else words.MISSING,
            words.count(layer["bops"]) if multiplies else words.MISSING,
            words.size(layer["memory"]),
        )
    return _whole(table)


def group_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """Channel groups.

    Args:
        groups: each with name, units, layers (names), frozen (None or the reason) and, where they were counted, dead
            units; their column is shown where there are any.
    """
    dead = any(group.get("dead") for group in groups)
    table = Table(title="Channel groups", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group")
    table.add_column("units", justify="right")
    if dead:
        table.add_column("dead", justify="right")
    table.add_column("layers")
    table.add_column("prunable")
    for group in groups:
        names = list(group["layers"])
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        frozen = group["frozen"]
        table.add_row(
            escape(group["name"]),
            str(group["units"]),
            *([str(group["dead"])] if dead else []),
            escape(shown),
            f"no: {escape(frozen)}" if frozen else "yes",
        )
    return _whole(table)


def score_table(criterion: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """What a criterion says of each channel group.

    Args:
        criterion: its name.
        groups: each with name, units and lowest (the units that go first).
    """
    table = Table(title=f"Units by {escape(criterion)}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group")
    table.add_column("units", justify="right")
    table.add_column("lowest first")
    for group in groups:
        table.add_row(escape(group["name"]), str(group["units"]), " ".join(map(str, group["lowest"])) + " ...")
    return _whole(table)


def pairs_table(title: str, pairs: Mapping[str, str]) -> Table:
    """Names and values."""
    table = Table(title=escape(title), title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column()
    table.add_column()
    for name, value in pairs.items():
        table.add_row(escape(name), escape(value))
    return _whole(table)


def _whole(table: Table) -> Table:
    """A table that breaks what a narrow terminal has no room for, rather than cut it."""
    for column in table.columns:
        column.overflow = "fold"
    return table
