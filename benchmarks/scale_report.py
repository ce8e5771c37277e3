"""Tables and plots of docs/scale.md, from what `benchmarks/scale.py` kept; needs no TensorFlow."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pictures import save
from scale_growth import (
    FIRST_FITTED,
    MIB,
    Row,
    bytes_per_trial,
    cpu_of,
    digits,
    family_of,
    memory_of,
    of_kind,
    power_law,
    searches,
    suggestion_law,
    told_law,
)
from scale_plan import basis_table, plan_table, tuning_table
from tables import render as render_tables
from tables import source, table

FAMILIES = {
    "cifar": "CIFAR ResNets, DoReFa-2, {side} x {side} pixels",
    "imagenet": "ResNets of tf.keras.applications, float, {side} x {side} pixels",
}
STEPS = {
    "graph": "graph (`ChannelGraph`)",
    "latent_l1": "scores, `latent_l1`",
    "scores": "scores, default, {scored} images",
    "allocation": "uniform allocation",
    "twin": "evaluation twin, built and traced",
    "trial": "trial, {tried} + {tried} images",
    "assigning": "of it, setting the plan",
    "rebuild": "slim model (`tq.prune`)",
    "export": "export, `{format}`",
}
SMALLEST_FITTED = 2**20  # bytes; below, memory grows by pages and chance


# -- tables -----------------------------------------------------------------------------------


def depth_table(content: Row, family: str, memory: bool) -> str:
    """A row for each step, a column for each network, the exponent last."""
    rows = family_of(content, family)
    layers = [row["layers"] for row in rows]
    lines = []
    for step, title in STEPS.items():
        values = [memory_of(row, step) if memory else cpu_of(row, step) for row in rows]
        fitted = told_law(layers, values) if not memory or min(values) >= SMALLEST_FITTED else "-"
        cells = [f"{value / MIB:.1f}" if memory else digits(value) for value in values]
        lines.append([title.format(**rows[0]), *cells, fitted])
    if memory:
        values = [row["weights_bytes"] for row in rows]
        lines.append(["(the weights)", *(f"{value / MIB:.1f}" for value in values), told_law(layers, values)])
        values = [row["peak_rss"] for row in rows]
        lines.append(
            ["(whole process, at most)", *(f"{value / MIB:,.0f}" for value in values), told_law(layers, values)]
        )
    else:
        values = [row["units"] for row in rows]
        lines.append(["(units that can go)", *(f"{value:,}" for value in values), told_law(layers, values)])
    header = [
        "MiB" if memory else "CPU seconds",
        *(f"ResNet-{row['depth']}, {row['layers']} layers" for row in rows), "exponent",
    ]  # fmt: skip
    return f"**{FAMILIES[family].format(**rows[0])}**\n\n{table(header, lines)}"


def trials_table(content: Row) -> str:
    """Suggestions, their sum, and what a search occupies."""
    rows = searches(content)
    looks = sorted({point["trials"] for row in rows for point in row["points"]})
    lines, further = [], []
    for row in rows:
        points = {point["trials"]: point for point in row["points"]}
        title = f"{row['method']}, {row['dimensions']} dimensions"
        cells = [digits(statistics.mean(points[look]["cpu"])) if look in points else "-" for look in looks]
        try:
            fitted = str(suggestion_law(row))
        except ValueError:
            fitted = "-"
        last = row["points"][-1]
        whole = digits(last["total_cpu"]) if row["method"] == "ours" else "-"
        lines.append([title, *cells, fitted, digits(max(last["cpu"])), whole])
        if row["method"] == "ours":
            disk = [point["disk_bytes"] for point in row["points"]]
            cells = [f"{points[look]['disk_bytes'] / 1024:,.0f}" if look in points else "-" for look in looks]
            most = max(point["peak_bytes"] for point in row["points"])
            further.append([title, *cells, told_law(list(points), disk), f"{most / MIB:.1f}"])
    after = [f"after {look}" for look in looks]
    first = table(["suggestion, CPU seconds", *after, "exponent", "dearest of the last, s", "all of them, s"], lines)
    second = table(["folder, KiB", *after, "exponent", "a suggestion's memory, MiB, at most"], further)
    return f"{first}\n\n{second}"


def traffic_table(content: Row) -> str:
    """Bytes between chief and worker, medians over trials."""
    rows = sorted(of_kind(content, "traffic"), key=lambda row: row["dimensions"])
    names = {"ask": "asks for a trial", "look_up": "looks it up", "report": "reports", "end": "ends it"}
    lines = []
    for row in rows:
        medians = {name: statistics.median(values) for name, values in row["bytes"].items()}
        lines.append(
            [
                str(row["dimensions"]), *(f"{medians[name]:,.0f}" for name in names),
                f"{bytes_per_trial(row):,.0f}", f"{medians['alive']:,.0f}",
            ]
        )  # fmt: skip
    return table(["dimensions", *names.values(), "a trial, bytes", "a sign of life, bytes"], lines)


# -- everything -------------------------------------------------------------------------------


def measured_where(rows: Iterable[Row], missing: Sequence[str]) -> str:
    """Commands and versions, machine and load, and what is still to be measured."""
    found = list(rows)
    loads = [load for row in found for load in row["load_average"]]
    where = ", ".join(sorted({row["processor"] for row in found}))
    left = f" Not run to its end: {', '.join(missing)}; `python benchmarks/scale.py` goes on." if missing else ""
    return f"{source(found)} On {where}; load average between {min(loads):.1f} and {max(loads):.1f}.{left}"


def tables(content: Row) -> dict[str, str]:
    """Every table of the page that there are figures for, by name."""
    made: dict[str, str] = {}
    families = [family for family in FAMILIES if family_of(content, family)]
    if families:
        made["scale_time"] = "\n\n".join(depth_table(content, family, memory=False) for family in families)
        made["scale_memory"] = "\n\n".join(depth_table(content, family, memory=True) for family in families)
    for name, kind, make in (
        ("scale_trials", "trials", trials_table), ("scale_traffic", "traffic", traffic_table),
        ("scale_basis", "pixels", basis_table), ("scale_plan", "pixels", plan_table),
        ("scale_tuning", "pixels", tuning_table),
    ):  # fmt: skip
        if of_kind(content, kind):
            made[name] = make(content)
    if content["parts"]:
        made["scale_source"] = measured_where(content["parts"].values(), content.get("missing", ()))
    return made


def report(content: Row) -> str:
    """All tables, as Markdown.

    Args:
        content: what ``benchmarks/results/scale.json`` holds; under ``missing``, parts that it has not, or not whole.
    """
    return "\n\n".join(tables(content).values())


def render(content: Row, docs: Path, *, check: bool = False) -> None:
    """Writes tables and plots into the page's folder.

    Raises:
        SystemExit: with ``check``, the page is not what the results say.
    """
    current = render_tables(docs / "scale.md", tables(content), check)
    if check:
        raise SystemExit(0 if current else "docs/scale.md is stale: run `python benchmarks/scale.py --report`.")
    plot_depth(content, docs / "scale_depth.svg")
    plot_trials(content, docs / "scale_trials.svg")


# -- plots ------------------------------------------------------------------------------------


def plot_depth(content: Row, path: Path) -> None:
    """Time and memory over layers, both logarithmic, with the fitted lines."""
    from matplotlib import colormaps

    families = [family for family in FAMILIES if family_of(content, family)]
    with _figure(path, rows=len(families), columns=2, size=(13, 4 * len(families))) as grid:
        for line, family in zip(grid, families, strict=True):
            rows = family_of(content, family)
            layers = [row["layers"] for row in rows]
            for axes, value, name, unit in (
                (line[0], cpu_of, "CPU seconds", 1), (line[1], memory_of, "extra memory, MiB", MIB),
            ):  # fmt: skip
                for number, step in enumerate(STEPS):
                    values = [value(row, step) for row in rows]
                    if unit == MIB and min(values) < SMALLEST_FITTED:
                        continue
                    title = STEPS[step].format(**rows[0]).replace("`", "").split(" (")[0]
                    _line(axes, layers, [v / unit for v in values], title, colormaps["tab10"](number))
                axes.set_title(FAMILIES[family].format(**rows[0]), fontsize="medium")
                axes.set_xlabel("layers")
                axes.set_ylabel(name)
                axes.set_xticks(layers, [str(number) for number in layers])
                axes.set_xticks([], minor=True)


def plot_trials(content: Row, path: Path) -> None:
    """Seconds of a suggestion and size of the folder over trials, both logarithmic."""
    rows = searches(content)
    if not rows:
        return
    colours = {9: "tab:green", 18: "tab:blue", 37: "tab:purple"}
    with _figure(path, rows=1, columns=2, size=(13, 4)) as grid:
        for row in rows:
            title = f"{row['method']}, {row['dimensions']} dimensions"
            style = {"color": colours.get(row["dimensions"]), "dashed": row["method"] == "stock"}
            trials = [point["trials"] for point in row["points"]]
            means = [statistics.mean(point["cpu"]) for point in row["points"]]
            _line(grid[0][0], trials, means, title, style["color"], first=FIRST_FITTED, dashed=style["dashed"])
            if row["method"] == "ours":
                disk = [point["disk_bytes"] / MIB for point in row["points"]]
                _line(grid[0][1], trials, disk, title, style["color"])
        for axes, name in zip(grid[0], ("a suggestion, CPU seconds", "folder of the search, MiB"), strict=True):
            axes.set_xlabel("trials")
            axes.set_ylabel(name)
            ticks = sorted({point["trials"] for row in rows for point in row["points"]})
            axes.set_xticks(ticks, [str(number) for number in ticks])
            axes.set_xticks([], minor=True)


@contextmanager
def _figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """A grid of logarithmic axes, written on leaving; the same input gives the same bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    yield grid
    for axes in grid.flat:
        axes.legend(
            fontsize="x-small", title="exponent ± standard error", title_fontsize="x-small", frameon=False,
            loc="upper left", bbox_to_anchor=(1.0, 1.0),
        )  # fmt: skip
    save(figure, path)


def _line(
    axes: Any, sizes: Sequence[float], values: Sequence[float], title: str, colour: Any,
    *, first: float = 0, dashed: bool = False,
) -> None:  # fmt: skip
    """Marks at what was measured, and the fitted line from ``first`` on."""
    marks = {"marker": "s" if dashed else "o", "color": colour, "ls": "none", "markersize": 4}
    fitted = [(size, value) for size, value in zip(sizes, values, strict=True) if size >= first]
    try:
        law = power_law(*zip(*fitted, strict=True))
    except (ValueError, TypeError):
        axes.plot(sizes, values, label=title, **marks)
        return
    axes.plot(sizes, values, label=f"{title}: {law}", **marks)
    ends = [fitted[0][0], fitted[-1][0]]
    axes.plot(ends, [law(end) for end in ends], color=colour, lw=1, ls="--" if dashed else "-")
