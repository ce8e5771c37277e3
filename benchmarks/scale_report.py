"""Fits, tables, plots and the plan of docs/scale.md, from what benchmarks/scale.py kept; needs no TensorFlow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from tables import render as render_tables
from tables import source, table

Row = dict[str, Any]

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
FIRST_FITTED = 20  # trials; before, points are random and no process is fitted
SMALLEST_FITTED = 2**20  # bytes; below, memory grows by pages and chance
# The plan: trials and validation images; one row each.
PLANS = ((100, 5_000), (200, 10_000), (500, 10_000), (500, 50_000))
WORKERS = (1, 4, 16, 50)
TRIALS_PER_WORKER = 10  # as docs/distributed_search.md advises
SIGN_OF_LIFE = 60 / 5  # seconds between two of them, with the default worker_timeout
IMAGENET_TRAIN = 1_281_167  # images of ILSVRC 2012
PROMOTED = 3  # default of RatioTuner
MIB = 2**20


@dataclass(frozen=True)
class PowerLaw:
    """``factor * size ** exponent``, with the exponent's standard error."""

    factor: float
    exponent: float
    error: float

    def __call__(self, size: float) -> float:
        return float(self.factor * size**self.exponent)

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Least squares of log value over log size.

    Raises:
        ValueError: fewer than three points (an error needs one more than the two parameters), or some not positive.
    """
    if len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"Expected three positive points or more. Received: sizes {sizes}, values {values}.")
    line = scipy.stats.linregress(np.log(sizes), np.log(values))
    return PowerLaw(math.exp(line.intercept), float(line.slope), float(line.stderr))


def told_law(sizes: Sequence[float], values: Sequence[float]) -> str:
    """An exponent for a table; a dash where there is too little to fit one."""
    try:
        return str(power_law(sizes, values))
    except ValueError:
        return "-"


def of_kind(content: Row, kind: str) -> list[Row]:
    """The parts whose names begin so."""
    return [row for name, row in content["parts"].items() if name.split()[0] == kind]


def family_of(content: Row, family: str) -> list[Row]:
    """The networks of a family, by depth."""
    return sorted((row for row in of_kind(content, "depth") if row["family"] == family), key=lambda row: row["depth"])


def cpu_of(row: Row, step: str) -> float:
    """CPU seconds of a step: the median of its runs."""
    return statistics.median(row["steps"][step]["cpu"])


def memory_of(row: Row, step: str) -> int:
    return int(row["steps"][step]["peak_bytes"])


# -- tables -----------------------------------------------------------------------------------


def digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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


def searches(content: Row) -> list[Row]:
    """Searches by dimensions, ours before the stock oracle."""
    return sorted(of_kind(content, "trials"), key=lambda row: (row["dimensions"], row["method"]))


def suggestion_law(row: Row) -> PowerLaw:
    """How a suggestion's CPU seconds grow with the trials.

    Raises:
        ValueError: fewer than three points.
    """
    points = [point for point in row["points"] if point["trials"] >= FIRST_FITTED]
    return power_law([point["trials"] for point in points], [statistics.mean(point["cpu"]) for point in points])


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
        lines.append([title, *cells, fitted, digits(last["total_cpu"]) if row["method"] == "ours" else "-"])
        if row["method"] == "ours":
            disk = [point["disk_bytes"] for point in row["points"]]
            cells = [f"{points[look]['disk_bytes'] / 1024:,.0f}" if look in points else "-" for look in looks]
            most = max(point["peak_bytes"] for point in row["points"])
            further.append([title, *cells, told_law(list(points), disk), f"{most / MIB:.1f}"])
    after = [f"after {look}" for look in looks]
    first = table(["suggestion, CPU seconds", *after, "exponent", "all of them, s"], lines)
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


def bytes_per_trial(row: Row) -> float:
    """What goes over the wire in a trial, signs of life aside."""
    return sum(statistics.median(values) for name, values in row["bytes"].items() if name != "alive")


# -- the plan ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Basis:
    """What a search at 224 x 224 pixels rests on; times are CPU seconds of all cores.

    Attributes:
        row: the measurement.
    """

    row: Row

    def of_image(self, step: str) -> float:
        """CPU seconds an image."""
        return cpu_of(self.row, step) / float(self.row["images"])

    def trial(self, validation: int) -> float:
        """CPU seconds of a trial on so many validation images."""
        batch_norms = self.row["calibration"] * self.of_image("re_estimating")
        return cpu_of(self.row, "assigning") + batch_norms + validation * self.of_image("evaluating")

    @property
    def cores(self) -> int:
        return int(self.row["processor"].rsplit(",", 1)[1].split()[0])


def suggesting(content: Row, dimensions: int, trials: int) -> float:
    """CPU seconds of all suggestions of a search, by the fitted law.

    Raises:
        ValueError: that many dimensions were not measured, or too briefly.
    """
    rows = [row for row in searches(content) if row["method"] == "ours" and row["dimensions"] == dimensions]
    if not rows:
        raise ValueError(f"Expected a search with {dimensions} dimensions. Received: none.")
    law = suggestion_law(rows[0])
    return sum(law(number) for number in range(1, trials + 1))


def hours(basis: Basis, trials: int, validation: int, workers: int, chief: float) -> float:
    """Hours of a search on workers whose cores do nothing else.

    Trials run in rounds, after the twin was built; the chief's ``chief`` seconds for suggestions come one after the
    other, as if no worker did anything meanwhile.
    """
    rounds = math.ceil(trials / workers)
    return ((rounds * basis.trial(validation) + cpu_of(basis.row, "twin")) / basis.cores + chief) / 3600


def basis_table(content: Row) -> str:
    """The measured figures of the plan."""
    found = [Basis(row) for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"])]
    lines = [
        ["groups (dimensions)", *(str(basis.row["groups"]) for basis in found)],
        ["building and tracing the twin, once a worker, s", *(digits(cpu_of(basis.row, "twin")) for basis in found)],
        ["setting a plan, s", *(digits(cpu_of(basis.row, "assigning")) for basis in found)],
        ["re-estimating batch norms, s an image", *(digits(basis.of_image("re_estimating")) for basis in found)],
        ["evaluating, s an image", *(digits(basis.of_image("evaluating")) for basis in found)],
        ["training the slim model, s an image", *(digits(basis.of_image("training")) for basis in found)],
        ["a trial's statistics on disk, KiB", *(f"{basis.row['statistics_bytes'] / 1024:,.0f}" for basis in found)],
        ["whole process with all of this, MiB", *(f"{basis.row['peak_rss'] / MIB:,.0f}" for basis in found)],
    ]
    return table(["CPU seconds, all cores", *(f"ResNet-{basis.row['depth']}" for basis in found)], lines)


def plan_table(content: Row) -> str:
    """Hours for trials, images and workers; the arithmetic stands in the page."""
    lines = []
    for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"]):
        basis = Basis(row)
        for trials, validation in PLANS:
            trial = basis.trial(validation)
            try:
                chief = suggesting(content, row["groups"], trials)
            except ValueError:
                chief = None
            shared = [
                "-"
                if workers * TRIALS_PER_WORKER > trials
                else digits(hours(basis, trials, validation, workers, chief or 0.0))
                for workers in WORKERS
            ]
            lines.append(
                [
                    f"ResNet-{row['depth']}, {trials} trials, {validation:,} images", digits(trial),
                    digits(trials * trial / 3600), "-" if chief is None else digits(chief / 3600), *shared,
                    *_moved(content, row, trials, trial / basis.cores, validation),
                ]
            )  # fmt: skip
    header = [
        "search", "a trial, CPU s", "all trials, core-hours", "suggestions, hours",
        *(f"{workers} worker{'s' * (workers > 1)}, hours" for workers in WORKERS),
        "traffic, MB", "folder, MB", "images of a worker, GB",
    ]  # fmt: skip
    return table(header, lines)


def _moved(content: Row, row: Row, trials: int, seconds: float, validation: int) -> list[str]:
    """Megabytes over the wire and on disk, gigabytes of images in a worker's memory (float32)."""
    images = (row["calibration"] + validation) * row["side"] ** 2 * 3 * 4
    kept = f"{trials * row['statistics_bytes'] / 1e6:,.0f}"
    traffic = [own for own in of_kind(content, "traffic") if own["dimensions"] == row["groups"]]
    if not traffic:
        return ["-", kept, f"{images / 1e9:.1f}"]
    alive = statistics.median(traffic[0]["bytes"]["alive"]) * seconds / SIGN_OF_LIFE
    wire = trials * (bytes_per_trial(traffic[0]) + alive)
    return [f"{wire / 1e6:.2g}", kept, f"{images / 1e9:.1f}"]


def tuning_table(content: Row) -> str:
    """Fine-tuning the best few for an epoch of ImageNet on cores like these."""
    lines = []
    for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"]):
        epoch = IMAGENET_TRAIN * Basis(row).of_image("training") / 3600
        most = max(Basis(row).trial(validation) * trials for trials, validation in PLANS) / 3600
        cells = [digits(epoch), digits(PROMOTED * epoch), digits(PROMOTED * epoch / most)]
        lines.append([f"ResNet-{row['depth']}", *cells])
    header = [
        "slim model", "an epoch, core-hours", f"{PROMOTED} plans, one epoch, core-hours", "of the largest search above",
    ]  # fmt: skip
    return table(header, lines)


# -- everything -------------------------------------------------------------------------------


def measured_where(rows: Iterable[Row]) -> str:
    """Commands and versions, machine and load."""
    found = list(rows)
    loads = [load for row in found for load in row["load_average"]]
    where = ", ".join(sorted({row["processor"] for row in found}))
    return f"{source(found)} On {where}; load average between {min(loads):.1f} and {max(loads):.1f}."


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
        made["scale_source"] = measured_where(content["parts"].values())
    return made


def report(content: Row) -> str:
    """All tables, as Markdown.

    Args:
        content: what ``benchmarks/results/scale.json`` holds.
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
    with _figure(path, rows=len(families), columns=2, size=(11, 4.6 * len(families))) as grid:
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
    with _figure(path, rows=1, columns=2, size=(11, 4.6)) as grid:
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
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    yield grid
    for axes in grid.flat:
        axes.legend(fontsize="x-small", title="exponent ± standard error", title_fontsize="x-small")
    with rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


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
