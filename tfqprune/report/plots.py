"""The plots of a report, drawn with matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfqprune.report import words
from tfqprune.report.model import GroupRow, LayerRow, NetworkReport, TrialRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#8a8f98", "#2f7ed8", "#e07b00", "#1a9850", "#9b59b6", "#d6455d")
# Ink is drawn in a colour that nothing else has, and becomes the page's own text colour in the SVG.
_INK = "#010203"
_MOST_LAYERS = 40

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


def draw(network: NetworkReport) -> dict[str, Figure]:
    """All plots that a network has the data for: name -> figure."""
    from matplotlib import rc_context

    figures: dict[str, Figure] = {}
    with rc_context(_STYLE):
        pruned = [variant.name for variant in network.variants if any(variant.name in g.kept for g in network.groups)]
        if pruned:
            figures["ratios"] = _ratios(network.groups, pruned)
        sized = [variant.name for variant in network.variants if any(variant.name in r.sizes for r in network.layers)]
        if sized:
            figures["layers"] = _layers(network.layers, sized)
        scored = [trial for trial in network.trials if trial.score is not None and trial.size is not None]
        if scored:
            figures["trials"] = _trials(scored, network.size_budget)
        if any(trial.score is not None for trial in network.trials):
            figures["progress"] = _progress(network.trials)
    return figures


def svg(figure: Figure, salt: str) -> str:
    """A figure as an SVG element whose text and lines take the colour of the page around it.

    Args:
        figure: to write.
        salt: different for every figure of a page, so that their inner identifiers differ.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None}, bbox_inches="tight")
    whole = text.getvalue()
    return whole[whole.index("<svg") :].replace(_INK, "currentColor")


def png(figure: Figure) -> bytes:
    """A figure as PNG on white, 150 dots an inch."""
    from matplotlib import rc_context

    data = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(data, format="png", dpi=150, facecolor="white", bbox_inches="tight")
    return data.getvalue()


def _figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, height))
    return figure, figure.subplots()


def _plain(name: str) -> str:
    """A name that matplotlib does not read as a formula."""
    return name.replace("$", r"\$")


def _bars(axes: Any, labels: Sequence[str], series: dict[str, list[float]], colours: Sequence[str]) -> None:
    """Horizontal bars, one cluster a label, from top to bottom in the order given."""
    thickness = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        positions = [row + (number - (len(series) - 1) / 2) * thickness for row in range(len(labels))]
        axes.barh(positions, values, height=thickness * 0.92, color=colours[number], label=_plain(name))
    axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if len(series) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(series)))


def _ratios(groups: Sequence[GroupRow], pruned: Sequence[str]) -> Figure:
    """Ratio of every group under every plan; frozen groups are named as such."""
    figure, axes = _figure(1.0 + 0.16 * len(groups) * (1 + len(pruned)))
    labels = [f"{group.name} ({group.units}{', frozen' if group.frozen else ''})" for group in groups]
    series = {
        name: [100 * words.ratio(group.units, group.kept.get(name, group.units)) for group in groups] for name in pruned
    }
    _bars(axes, labels, series, _COLOURS[1:])
    axes.set_xlim(0, 100)
    axes.set_xlabel("units removed (%)")
    return figure


def _layers(layers: Sequence[LayerRow], names: Sequence[str]) -> Figure:
    """Size of every layer under every variant; of many layers the largest, and the rest together."""
    shown, rest = list(layers), []
    if len(layers) > _MOST_LAYERS:
        largest = sorted(layers, key=lambda layer: max(layer.sizes.values(), default=0.0), reverse=True)
        chosen = {id(layer) for layer in largest[: _MOST_LAYERS - 1]}
        shown = [layer for layer in layers if id(layer) in chosen]
        rest = [layer for layer in layers if id(layer) not in chosen]
    labels = [layer.name for layer in shown]
    series = {name: [layer.sizes.get(name, 0.0) / 1024 for layer in shown] for name in names}
    if rest:
        labels.append(f"{len(rest)} smaller layers")
        for name in names:
            series[name].append(sum(layer.sizes.get(name, 0.0) for layer in rest) / 1024)
    figure, axes = _figure(1.0 + 0.13 * len(labels) * (1 + len(names)))
    _bars(axes, labels, series, _COLOURS)
    axes.set_xlabel("size at deployed precision (KiB)")
    return figure


def _trials(trials: Sequence[TrialRow], budget: float | None) -> Figure:
    """Accuracy against size of every trial; hollow ones missed the budget, the star is the best that met it."""
    figure, axes = _figure(4.0)
    for feasible, label in ((True, "within the budget"), (False, "over the budget")):
        mine = [trial for trial in trials if trial.feasible is feasible]
        if mine:
            axes.scatter(
                [(trial.size or 0) / 1024 for trial in mine],
                [100 * (trial.score or 0) for trial in mine],
                s=34,
                facecolors=_COLOURS[1] if feasible else "none",
                edgecolors=_COLOURS[1] if feasible else _COLOURS[0],
                label=label,
            )
    best = max((trial for trial in trials if trial.feasible), key=lambda trial: trial.score or 0, default=None)
    if best is not None:
        point = ((best.size or 0) / 1024, 100 * (best.score or 0))
        axes.scatter(*zip(point), s=190, marker="*", color=_COLOURS[2], zorder=3, label=f"best: trial {best.number}")
    if budget is not None:
        axes.axvline(budget / 1024, color=_INK, linestyle="--", linewidth=1, label="budget")
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_xlabel("size at deployed precision (KiB)")
    axes.set_ylabel("validation accuracy (%)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def best_so_far(trials: Sequence[TrialRow]) -> list[tuple[int, float]]:
    """(trial number, best score among the trials up to it that met the budget); from the first that did."""
    steps: list[tuple[int, float]] = []
    for trial in trials:
        previous = steps[-1][1] if steps else None
        counts = trial.feasible and trial.score is not None
        if counts or previous is not None:
            candidates = [score for score in (previous, trial.score if counts else None) if score is not None]
            steps.append((trial.number, max(candidates)))
    return steps


def _progress(trials: Sequence[TrialRow]) -> Figure:
    """Accuracy of the trials in their order, and the best so far."""
    figure, axes = _figure(3.2)
    for feasible in (True, False):
        mine = [trial for trial in trials if trial.score is not None and trial.feasible is feasible]
        axes.scatter(
            [trial.number for trial in mine],
            [100 * (trial.score or 0) for trial in mine],
            s=26,
            facecolors=_COLOURS[1] if feasible else "none",
            edgecolors=_COLOURS[1] if feasible else _COLOURS[0],
            label=("within the budget" if feasible else "over the budget") if mine else None,
        )
    steps = best_so_far(trials)
    if steps:
        axes.step(
            [number for number, _ in steps],
            [100 * score for _, score in steps],
            where="post",
            color=_COLOURS[2],
            label="best so far",
        )
    axes.grid()
    axes.set_axisbelow(True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure
