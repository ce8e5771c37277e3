"""Plots of what was tried: trials of a search, and the sensitivity of each group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tfqprune.report import words
from tfqprune.report.drawing import COLOURS, INK, Plot, colour, legend, make_figure, plain, short
from tfqprune.report.model import NetworkReport, TrialRow

_PANELS = 2  # costs that trials are drawn against
_ACROSS = 2  # sensitivity panels beside each other


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


def shown_costs(network: NetworkReport) -> list[str]:
    """The costs that trials are drawn against: those of the budget first, then others that differ between trials."""
    known = words.costs(network.trials)
    varied = [cost for cost in known if len({trial.costs.get(cost) for trial in network.trials}) > 1]
    order = [cost for cost in network.budget if cost in known] + [cost for cost in ("memory", "macs") if cost in varied]
    return list(dict.fromkeys([*order, *known]))[:_PANELS]


def _lowest(scores: Sequence[float]) -> float:
    """Where the axis of scores begins: trials that broke down must not press the others together."""
    ordered = sorted(scores)
    best, middle = ordered[-1], ordered[len(ordered) // 2]
    begin = best - max(4 * (best - middle), 0.05)
    return max(begin, 0.0) if ordered[0] < begin else ordered[0]


def _scatter(axes: Any, points: Sequence[tuple[float, TrialRow]], lowest: float) -> None:
    """Trials as points; hollow ones missed the budget, triangles at the bottom lie below the axis."""
    for feasible, label in ((True, "within the budget"), (False, "over the budget")):
        for below in (False, True):
            mine = [
                (x, max(100 * (t.score or 0.0), 100 * lowest))
                for x, t in points
                if t.feasible is feasible and ((t.score or 0.0) < lowest) is below
            ]
            if mine:
                axes.scatter(
                    *zip(*mine),
                    s=30,
                    marker="v" if below else "o",
                    facecolors=COLOURS[1] if feasible else "none",
                    edgecolors=COLOURS[1] if feasible else COLOURS[0],
                    label="further down" if below else label,
                    clip_on=False,
                    zorder=3,
                )
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_ylabel("validation accuracy (%)")


def draw_trials(network: NetworkReport) -> Plot | None:
    """Accuracy against cost of every trial, with the Pareto front; the star is the best that met the budget."""
    costs = shown_costs(network)
    scored = [trial for trial in network.trials if trial.score is not None]
    if not costs or not scored:
        return None
    lowest = _lowest([trial.score or 0.0 for trial in scored])
    best = max((trial for trial in scored if trial.feasible), key=lambda trial: trial.score or 0.0, default=None)
    figure, panels = make_figure(0.7 + 2.6 * len(costs), rows=len(costs), squeeze=False)
    for number, (cost, axes) in enumerate(zip(costs, panels[:, 0])):
        _, label, unit, _ = words.COSTS[cost]
        _scatter(axes, [(trial.costs[cost] / unit, trial) for trial in scored if cost in trial.costs], lowest)
        front = sorted((t.costs[cost] / unit, 100 * (t.score or 0.0)) for t in scored if cost in t.front)
        front = [point for point in front if point[1] >= 100 * lowest]
        if front:
            axes.step(*zip(*front), where="post", color=COLOURS[3], label="Pareto front")
        if best is not None and cost in best.costs:
            point = (best.costs[cost] / unit, 100 * (best.score or 0.0))
            axes.scatter(*zip(point), s=170, marker="*", color=COLOURS[2], zorder=4, label=f"best: trial {best.number}")
        if cost in network.budget:
            axes.axvline(network.budget[cost] / unit, color=INK, linestyle="--", linewidth=1, label="budget")
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=6)
        if number == 0:
            legend(axes)
    fronts = "; ".join(
        f"Pareto front over {cost}: trials {', '.join(str(t.number) for t in scored if cost in t.front)}"
        for cost in costs
        if any(cost in t.front for t in scored)
    )
    said = f"best: trial {best.number}, {words.percent(best.score)}" if best else "none met the budget"
    return Plot(
        "All trials: accuracy against cost",
        "Up and to the left is better. On the Pareto front no other trial is both cheaper and more accurate. "
        "Validation images, before fine-tuning.",
        f"{len(network.trials)} trials, {said}. {fronts}.".replace(". .", "."),
        figure,
    )


def draw_progress(network: NetworkReport) -> Plot | None:
    """Accuracy of the trials in their order, and the best so far."""
    scored = [trial for trial in network.trials if trial.score is not None]
    if not scored:
        return None
    figure, axes = make_figure(2.8)
    _scatter(axes, [(trial.number, trial) for trial in scored], _lowest([trial.score or 0.0 for trial in scored]))
    steps = best_so_far(network.trials)
    if steps:
        axes.step(
            [number for number, _ in steps], [100 * score for _, score in steps], where="post", color=COLOURS[2],
            label="best so far",
        )  # fmt: skip
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    legend(axes)
    risen = [steps[0], *(now for before, now in pairwise(steps) if now[1] > before[1])] if steps else []
    said = ", ".join(f"{words.percent(score)} from trial {number}" for number, score in risen)
    return Plot(
        "All trials in their order, and the best so far",
        "A line that still rises at the end says that more trials may find more.",
        f"Best so far: {said or 'none met the budget'}.",
        figure,
    )


def draw_curves(network: NetworkReport) -> Plot | None:
    """What each group alone costs, with the ratios that were chosen for it."""
    if not network.curves or network.baseline is None:
        return None
    base = 100 * network.baseline
    count = len(network.curves)
    rows = -(-count // _ACROSS)
    figure, panels = make_figure(
        0.8 + 1.15 * rows, rows, _ACROSS, sharex=True, sharey=True, squeeze=False
    )  # fmt: skip
    units = {group.name: group for group in network.groups}
    flat = panels.flatten()
    for axes, curve in zip(flat, network.curves):
        points = [(100 * r, 100 * s) for r, s in zip(curve.ratios, curve.scores) if s is not None]
        axes.axhline(base, color=INK, alpha=0.3, linewidth=1)
        axes.plot(*zip((0.0, base), *points), marker=".", color=INK, label="this group alone")
        group = units.get(curve.group)
        for number, row in enumerate(network.variants):
            if group is not None and row.name in network.pruned:
                chosen = 100 * words.ratio(group.units, group.kept.get(row.name, group.units))
                axes.axvline(chosen, color=colour(number), linestyle=(0, (4, 1 + number)), label=plain(row.name))
        axes.set_title(short(curve.group, 22), fontsize=9, loc="left", pad=3)
        axes.set_xlim(0, 100)
        axes.grid()
    for axes in flat[count:]:
        axes.set_visible(False)
    for axes in flat[max(0, count - _ACROSS) : count]:
        axes.tick_params(labelbottom=True)
    legend(flat[0])
    figure.supxlabel("units of this group removed (%)", fontsize=9.5)
    figure.supylabel("validation accuracy (%)", fontsize=9.5)
    drops = sorted(
        ((base - 100 * min((s for s in curve.scores if s is not None), default=network.baseline), curve.group)
         for curve in network.curves), reverse=True,
    )  # fmt: skip
    said = ", ".join(f"{name} {drop:.1f}" for drop, name in drops[:5])
    return Plot(
        "Sensitivity of each channel group",
        "Accuracy when this group alone is pruned, before fine-tuning; upright lines are the ratios chosen for it.",
        f"Largest loss of accuracy in points, most sensitive first: {said}.",
        figure,
    )
