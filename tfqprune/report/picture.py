"""The picture of a network: which layers are tied to which, and what is frozen and why.

One row a layer, from top to bottom, as in the history of a repository: a deep network grows long, never wide. Lines
are tensors. Layers whose channels live and die together have the same colour and letter, and so has the tensor that
ties them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfqprune.report.drawing import COLOURS, PAPER, WIDTH, Plot, make_figure, plain, short
from tfqprune.report.model import GroupRow, NetworkReport, NodeRow

_LANE, _ROW, _LINE = 0.17, 0.235, 0.16  # inches: between lanes, between rows, for each further line of a reason
_REASON = 52  # characters a line
_NAME = 32


@dataclass(frozen=True)
class Lane:
    """A tensor on its way.

    Attributes:
        column: it runs in, from 0.
        start: row of the node that it comes out of.
        ends: rows of the nodes that read it, ascending.
    """

    column: int
    start: int
    ends: tuple[int, ...]


def lay_out(nodes: Sequence[NodeRow]) -> tuple[list[int], dict[str, Lane]]:
    """Gives each node a column, so that no tensor runs through a node that does not read it.

    A node goes on in the column of an input that nobody reads after it, the longest-lived first; else in the first
    column that is free.

    Args:
        nodes: each after those that it reads.

    Returns:
        The column of each node, and the lane of each node that is read.

    Raises:
        ValueError: a node reads one that does not stand before it, or two have one name.
    """
    row_of: dict[str, int] = {}
    for row, node in enumerate(nodes):
        if node.name in row_of or not set(node.inputs) <= set(row_of):
            raise ValueError(f"Expected nodes in order, each with a name of its own. Received: {node.name!r}.")
        row_of[node.name] = row
    readers: dict[str, list[int]] = {}
    for row, node in enumerate(nodes):
        for source in dict.fromkeys(node.inputs):
            readers.setdefault(source, []).append(row)
    running: dict[str, int] = {}  # source -> column, while someone still reads it
    columns: list[int] = []
    for row, node in enumerate(nodes):
        ending = [source for source in dict.fromkeys(node.inputs) if readers[source][-1] == row]
        free = [running.pop(source) for source in sorted(ending, key=row_of.__getitem__)]
        column = min(free) if free else next(n for n in range(len(nodes)) if n not in running.values())
        columns.append(column)
        if node.name in readers:
            running[node.name] = column
    lanes = {name: Lane(columns[row_of[name]], row_of[name], tuple(rows)) for name, rows in readers.items()}
    return columns, lanes


def letters(groups: Sequence[GroupRow]) -> dict[str, str]:
    """A letter for each group that ties several layers: "A" to "Z", then "A2", ..."""
    tied = [group.name for group in groups if len(group.layers) > 1 and group.frozen is None]
    return {name: chr(65 + n % 26) + (str(n // 26 + 1) if n >= 26 else "") for n, name in enumerate(tied)}


@dataclass(frozen=True)
class _Look:
    """How a node and the tensor that comes out of it are drawn."""

    tint: str
    marker: str
    filled: bool
    units: str
    letter: str
    reason: tuple[str, ...]  # below the name


def _looks(network: NetworkReport) -> dict[str, _Look]:
    groups = {group.name: group for group in network.groups}
    letter = letters(network.groups)
    tints = {name: COLOURS[1:][n % len(COLOURS[1:])] for n, name in enumerate(letter)}
    best = network.best.name if network.best.name in network.pruned else None
    told: set[str] = set()
    looks = {}
    for node in network.nodes:
        mine = [groups[name] for name in node.groups if name in groups]
        frozen = [group for group in mine if group.frozen is not None]
        units = " + ".join(_units(group, best) for group in mine) if len(mine) <= 2 else f"{len(mine)} groups"
        # The reason stands at the first node of a frozen group; a layer that nobody knows has its own.
        reasons = [node.why] if node.why else [g.frozen for g in frozen if g.frozen and g.name not in told]
        told |= {group.name for group in frozen}
        reason = textwrap.wrap(f"frozen: {'; '.join(reasons)}", _REASON, max_lines=3) if reasons else []
        one = mine[0].name if len(mine) == 1 else None
        looks[node.name] = _Look(
            tints.get(one or "", COLOURS[0]),
            "s" if frozen and len(frozen) == len(mine) else "o" if len(mine) <= 1 else "D",
            not frozen,
            units,
            letter.get(one or "", ""),
            tuple(reason),
        )
    return looks


def _units(group: GroupRow, best: str | None) -> str:
    kept = group.units if best is None else group.kept.get(best, group.units)
    return str(group.units) if kept == group.units else f"{group.units} → {kept}"


def draw_network(network: NetworkReport) -> Plot | None:
    """The picture, if the network's nodes are known."""
    if not network.nodes:
        return None
    columns, lanes = lay_out(network.nodes)
    looks = _looks(network)
    heights: list[float] = []  # of each row, downwards
    depth = 0.0
    for node in network.nodes:
        heights.append(depth)
        depth += _ROW + _LINE * len(looks[node.name].reason)
    most = max(columns)
    width = max(WIDTH, _LANE * (most + 1) + 3.9)
    figure, axes = make_figure(depth + 0.1, width=width)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(depth - _ROW / 2 + 0.05, -_ROW / 2 - 0.05)
    axes.axis("off")

    def x(column: int) -> float:
        return 0.12 + _LANE * column

    for name, lane in lanes.items():
        _draw_lane(axes, lane, columns, heights, x, looks[name])
    for row, node in enumerate(network.nodes):
        look = looks[node.name]
        face = look.tint if look.filled else PAPER
        axes.scatter([x(columns[row])], [heights[row]], s=46, marker=look.marker, facecolors=face,
                     edgecolors=look.tint, linewidths=1.6, zorder=3)  # fmt: skip
        left = x(most) + 0.2
        axes.text(left, heights[row], short(node.name, _NAME), va="center", fontsize=9)
        axes.text(width - 0.35, heights[row], look.units, va="center", ha="right", fontsize=9)
        axes.text(width - 0.05, heights[row], look.letter, va="center", ha="right", fontsize=9, fontweight="bold")
        for number, line in enumerate(look.reason, start=1):
            axes.text(left, heights[row] + _LINE * number + 0.02, plain(line), va="center", fontsize=8,
                      fontstyle="italic")  # fmt: skip
    tied = letters(network.groups)
    frozen = [group for group in network.groups if group.frozen]
    said = "; ".join(
        f"{tied[group.name]}: {group.units} units of {', '.join(group.layers)}"
        for group in network.groups if group.name in tied
    )  # fmt: skip
    kept = f", before → after {network.best.name}" if network.best.name in network.pruned else ""
    return Plot(
        "The network and its channel groups",
        f"Each row is a layer with the units of its output{kept}; lines are tensors. Layers of one colour and letter "
        "are tied: they lose the same units. Grey: a group of one layer; diamond: several groups side by side; hollow "
        "square: frozen, with the reason at its first layer.",
        f"{len(network.nodes)} layers in {len(network.groups)} groups, {len(frozen)} of them frozen. "
        + (f"Tied, {said}. " if said else "")
        + "The table of channel groups says the same in words.",
        figure,
    )


def _draw_lane(axes: Any, lane: Lane, columns: list[int], heights: list[float], x: Any, look: _Look) -> None:
    """A tensor's line: down its column, with a bend to each node that reads it elsewhere."""
    options = {"color": look.tint, "linewidth": 1.8, "zorder": 1, "solid_capstyle": "round"}
    options["linestyle"] = "-" if look.filled else (0, (2, 1.5))
    here = x(lane.column)
    straight = [row for row in lane.ends if columns[row] == lane.column]
    aside = [row for row in lane.ends if columns[row] != lane.column]
    down = max([*straight, *(row - 1 for row in aside)], default=lane.start)
    axes.plot([here, here], [heights[lane.start], heights[down]], **options)
    for row in aside:
        there = x(columns[row])
        axes.plot([here, there], [heights[row] - _ROW, heights[row]], **options)
        if heights[row] - _ROW > heights[row - 1]:  # below a row of several lines
            axes.plot([here, here], [heights[row - 1], heights[row] - _ROW], **options)
