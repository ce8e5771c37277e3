"""The plots of a report: what each is drawn from, how it is read, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfqprune.report import words
from tfqprune.report.drawing import (
    COLOURS,
    INK,
    Plot,
    bars,
    colour,
    dots,
    label_rows,
    legend,
    make_figure,
    plain,
    style,
)
from tfqprune.report.model import LayerRow, NetworkReport, VariantRow
from tfqprune.report.picture import draw_network
from tfqprune.report.search import draw_curves, draw_progress, draw_trials

MOST_LAYERS = 24
_LEAST = 0.002  # share of all layers that one must have to be shown by itself


def draw(network: NetworkReport) -> dict[str, Plot]:
    """All plots that a network has the data for: name -> plot, in the order of the page."""
    makers = {
        "costs": _costs,
        "speed": _speed,
        "ratios": _ratios,
        "sensitivity": draw_curves,
        "network": draw_network,
        "layers": _layers,
        "file": _file,
        "floor": _floor,
        "trials": draw_trials,
        "progress": draw_progress,
    }
    with style():
        drawn = {name: make(network) for name, make in makers.items()}
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _costs(network: NetworkReport) -> Plot | None:
    """What remains of each cost under every variant, the first being 100 %."""
    first, others = network.variants[0], network.variants[1:]
    columns = [
        column
        for column in words.COLUMNS
        if column.compare and not column.points and getattr(first, column.field)
        if any(getattr(row, column.field) is not None for row in others)
    ]
    if not columns:
        return None

    def share(row: VariantRow, column: words.Column) -> float | None:
        value = getattr(row, column.field)
        return None if value is None else 100 * value / getattr(first, column.field)

    figure, axes = make_figure(0.9 + 0.36 * len(columns))
    series = [(row.name, number, [share(row, column) for column in columns]) for number, row in enumerate(others, 1)]
    most = max(value for _, _, values in series for value in values if value is not None)
    axes.set_xlim(0, max(105.0, most * 1.05))
    axes.axvline(100, color=COLOURS[0], linewidth=1.5, label=plain(first.name))
    dots(axes, [column.title for column in columns], series)
    axes.set_xlabel(f"share of {plain(first.name)} that remains (%)")
    said = "; ".join(
        f"{name}: " + ", ".join(f"{c.title} {v:.0f} %" for c, v in zip(columns, values) if v is not None)
        for name, _, values in series
    )
    return Plot(
        "What remains", f"Further left is smaller or faster; the line is {first.name}.", f"Of {first.name}: {said}.",
        figure,
    )  # fmt: skip


def _speed(network: NetworkReport) -> Plot | None:
    """Latency with its spread, and peak memory, of every variant that was run."""
    rows = [(number, row) for number, row in enumerate(network.variants) if row.latency_ms is not None]
    if not rows:
        return None
    figure, (time, memory) = make_figure(1.3 + 0.5 * len(rows), rows=2)
    panels: tuple[tuple[Any, list[float], list[float], list[str], str], ...] = (
        (
            time,
            [row.latency_ms or 0.0 for _, row in rows],
            [(row.latency_spread_ms or 0.0) / 2 for _, row in rows],
            [words.milliseconds(row.latency_ms) for _, row in rows],
            "median latency of one inference (ms)",
        ),
        (
            memory,
            [(row.ram_bytes or 0) / 1024 for _, row in rows],
            [0.0] * len(rows),
            [words.size(row.ram_bytes) for _, row in rows],
            "peak memory of one inference (KiB)",
        ),
    )
    for axes, values, spread, texts, label in panels:
        axes.barh(range(len(rows)), values, height=0.62, color=[colour(number) for number, _ in rows])
        shown = [(value, row, half) for row, (value, half) in enumerate(zip(values, spread)) if half]
        if shown:
            at, where, halves = zip(*shown)
            axes.errorbar(at, where, xerr=halves, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        for row, (value, half, text) in enumerate(zip(values, spread, texts)):
            axes.annotate(text, (value + half, row), xytext=(6, 0), textcoords="offset points", va="center")
        label_rows(axes, [row.name for _, row in rows])
        axes.set_xlim(0, max(values) * 1.3 or 1.0)
        axes.set_xlabel(label)
    return Plot(
        "Latency and RAM",
        "Whiskers span the middle half of the runs; differences within them say nothing.",
        "; ".join(f"{row.name}: {words.milliseconds(row.latency_ms)}, {words.size(row.ram_bytes)}" for _, row in rows)
        + ".",
        figure,
    )


def _ratios(network: NetworkReport) -> Plot | None:
    """Ratio of every group under every plan."""
    groups = [group for group in network.groups if group.frozen is None]
    pruned = [(row.name, number) for number, row in enumerate(network.variants) if row.name in network.pruned]
    if not groups or not pruned:
        return None
    figure, axes = make_figure(0.9 + 0.26 * len(groups))
    series: list[tuple[str, int, list[float | None]]] = [
        (name, number, [100 * words.ratio(group.units, group.kept.get(name, group.units)) for group in groups])
        for name, number in pruned
    ]
    axes.set_xlim(0, 100)
    dots(axes, [f"{group.name} ({group.units})" for group in groups], series)
    axes.set_xlabel("units removed (%)")
    spans = "; ".join(f"{name}: {min(v or 0 for v in vs):.0f} to {max(v or 0 for v in vs):.0f} %"
                      for name, _, vs in series)  # fmt: skip
    frozen = len(network.groups) - len(groups)
    note = f" {frozen} frozen {'group is' if frozen == 1 else 'groups are'} left out." if frozen else ""
    return Plot(
        "Ratio of each channel group",
        "Share of each group's units that is removed; the number of units stands in brackets." + note,
        f"Ratios over {len(groups)} groups, {spans}.",
        figure,
    )


def _largest(names: Sequence[str], sizes: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Of many layers the largest, in the order of the network, and those that are shown together."""
    worth = _LEAST * sum(sizes[name] for name in names)
    order = sorted(names, key=lambda name: sizes[name], reverse=True)
    chosen = {name for name in order[: MOST_LAYERS - 1] if sizes[name] >= worth}
    if len(names) - len(chosen) <= 1 <= len(chosen):
        return list(names), []
    return [name for name in names if name in chosen], [name for name in names if name not in chosen]


def _with_rest(shown: Sequence[str], rest: Sequence[str], sizes: Mapping[str, float]) -> list[float]:
    """KiB of each layer that is shown, and of the rest together."""
    values = [sizes.get(name, 0.0) / 1024 for name in shown]
    return [*values, sum(sizes.get(name, 0.0) for name in rest) / 1024] if rest else values


def _labels(shown: Sequence[str], rest: Sequence[str]) -> list[str]:
    return [*shown, f"{len(rest)} smaller layers"] if rest else list(shown)


def _layers(network: NetworkReport) -> Plot | None:
    """Size of every layer under every variant, as counted."""
    rows: dict[str, LayerRow] = {layer.name: layer for layer in network.layers}
    variants = [
        (number, row.name)
        for number, row in enumerate(network.variants)
        if any(row.name in layer.sizes for layer in network.layers)
    ]
    if not variants:
        return None
    shown, rest = _largest(list(rows), {name: max(row.sizes.values(), default=0.0) for name, row in rows.items()})
    labels = _labels(shown, rest)
    figure, axes = make_figure(1.0 + 0.08 * len(labels) * (1 + len(variants)))
    sizes = {variant: {name: row.sizes.get(variant, 0.0) for name, row in rows.items()} for _, variant in variants}
    bars(axes, labels, [(name, colour(number), _with_rest(shown, rest, sizes[name])) for number, name in variants])
    axes.set_xlabel("size at deployed precision (KiB)")
    totals = ", ".join(f"{name} {words.size(sum(sizes[name].values()))}" for _, name in variants)
    return Plot(
        "Size of each layer, before and after",
        "Weights at deployed precision, as counted, without the file around them.",
        f"{len(rows)} layers; in all: {totals}.",
        figure,
    )


def _file(network: NetworkReport) -> Plot | None:
    """Where the bytes of each file go, against the floor."""
    rows = [row for row in network.variants if row.file_kinds]
    if not rows:
        return None
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.file_kinds))
    figure, axes = make_figure(1.3 + 0.42 * len(rows))
    tints = dict(zip(kinds, (*COLOURS[1:], COLOURS[0])))
    left = [0.0] * len(rows)
    for kind in kinds:
        values = [row.file_kinds.get(kind, 0) / 1024 for row in rows]
        if any(values):
            axes.barh(range(len(rows)), values, left=left, height=0.62, color=tints.get(kind, COLOURS[0]), label=kind)
        left = [start + value for start, value in zip(left, values)]
    floors = [(row.floor_bytes / 1024, number) for number, row in enumerate(rows) if row.floor_bytes]
    _mark_floors(axes, floors, 0.42)
    label_rows(axes, [row.name for row in rows])
    legend(axes)
    axes.set_xlabel("bytes of the .tflite file (KiB)")
    said = "; ".join(
        f"{row.name}: {words.size(row.tflite_bytes)}"
        + (f", floor {words.size(row.floor_bytes)}" if row.floor_bytes else "")
        for row in rows
    )
    return Plot(
        "Where the bytes of the file go",
        "The floor is what the weights need at their deployed precision; tables and names are the file's own.",
        f"{said}.",
        figure,
    )


def _floor(network: NetworkReport) -> Plot | None:
    """Each layer's bytes in the best variant's file, against its floor."""
    row = network.best
    if not row.file_layers or not row.floor_layers:
        return None
    names = list(dict.fromkeys([*row.floor_layers, *row.file_layers]))
    largest = {name: max(row.file_layers.get(name, 0), row.floor_layers.get(name, 0.0)) for name in names}
    names = [name for name in names if largest[name]]
    shown, rest = _largest(names, largest)
    labels = _labels(shown, rest)
    figure, axes = make_figure(1.0 + 0.22 * len(labels))
    number = network.variants.index(row)
    stored = _with_rest(shown, rest, {name: float(size) for name, size in row.file_layers.items()})
    bars(axes, labels, [("in the file", colour(number), stored)])
    least = _with_rest(shown, rest, row.floor_layers)
    _mark_floors(axes, [(value, place) for place, value in enumerate(least)], 0.42)
    legend(axes)
    axes.set_xlabel(f"constants of {plain(row.name)} (KiB)")
    return Plot(
        f"Size of each layer against the floor, {row.name}",
        "A bar beyond its mark is padding, or a wider type than the weights need.",
        f"{len(names)} layers; {words.size(sum(row.file_layers.values()))} in the file, "
        f"{words.size(sum(row.floor_layers.values()))} at least.",
        figure,
    )


def _mark_floors(axes: Any, floors: Sequence[tuple[float, int]], half: float) -> None:
    """An upright mark on each row."""
    if floors:
        axes.vlines(
            [value for value, _ in floors],
            [row - half for _, row in floors],
            [row + half for _, row in floors],
            color=INK,
            linewidth=2,
            label="floor",
        )
