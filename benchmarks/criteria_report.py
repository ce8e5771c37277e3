"""Renders what benchmarks/criteria.py found: bars as SVG, tables into docs/criteria.md.

python benchmarks/criteria_report.py docs/criteria.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pictures import save
from tables import commands, render, table

from tfqprune.criteria import get_criterion
from tfqprune.criteria.automatic import AUTO

STAGES = {"cut": "cut", "batch_norms": "batch norms re-estimated", "finetuned": "fine-tuned, 1 epoch"}
LABELS = {"rank_combination": "reconstruction + fisher"}  # rows that are called otherwise in the tables
#: precision, scope, ratio -> stage -> criterion -> accuracies of the seeds, in percent
_Values = dict[tuple[str, str, float], dict[str, dict[str, list[float]]]]


def values_of(content: dict[str, Any]) -> _Values:
    """Accuracies by setting, stage and criterion."""
    found: _Values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in content["rows"]:
        setting = (row["precision"], row["scope"], row["ratio"])
        name = LABELS.get(row["criterion"], row["criterion"])
        found[setting][row["stage"]][name].append(100 * row["accuracy"])
    return {setting: found[setting] for setting in sorted(found, key=lambda key: (key[0], key[1] != "inner", key[2]))}


def _name(setting: tuple[str, str, float]) -> str:
    precision, scope, ratio = setting
    bits = f"DoReFa-{precision}" if precision.isdigit() else precision
    groups = {"inner": "groups inside a block", "all": "all groups"}[scope]
    return f"{bits}, {groups}, ratio {ratio:g}"


def _cell(found: list[float], seeds: int) -> str:
    """Mean and, of several seeds, standard deviation; how many there are, if not as many as the row says."""
    if not found:
        return "-"
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    fewer = "" if len(found) == seeds else f" ({len(found)} of {seeds} seeds)"
    return f"{np.mean(found):.1f}{spread}{fewer}"


def _default(precision: str) -> str:
    """What ``auto`` stands for with data."""
    kind: Any = "k-bit" if precision.isdigit() else precision
    return get_criterion(AUTO[kind, True]).name


def _means(by_criterion: dict[str, list[float]]) -> dict[str, float]:
    """Of the criteria that were measured with all seeds."""
    seeds = max(map(len, by_criterion.values()), default=0)
    return {name: float(np.mean(found)) for name, found in by_criterion.items() if len(found) == seeds}


def lead_table(content: dict[str, Any]) -> str:
    """How far `auto`'s choice leads random, and which criterion is ahead, after re-estimation and fine-tuning."""
    rows = []
    for setting, stages in values_of(content).items():
        default = _default(setting[0])
        for stage in ("batch_norms", "finetuned"):
            means = _means(stages[stage])
            if not {"random", default} <= set(means):
                continue
            best = max(means, key=lambda name: means[name])
            rows.append(
                [
                    _name(setting), STAGES[stage], f"{means['random']:.1f}", f"{means[default]:.1f}",
                    f"{means[default] - means['random']:+.1f}", f"{best} ({means[best]:.1f})",
                ]
            )  # fmt: skip
    header = ["network, groups, ratio", "stage", "random, %", "default, %", "lead, points", "best"]
    return table(header, rows) if rows else ""


def tables(content: dict[str, Any]) -> str:
    """All tables of a run, with their source."""
    values = values_of(content)
    lead = lead_table(content)
    parts = ["What the default (`auto` with data) is worth:", lead] if lead else []
    for setting, stages in values.items():
        base = content["baselines"][setting[0]]
        order = sorted(stages["batch_norms"], key=lambda name: -np.mean(stages["batch_norms"][name]))
        rows = [
            [name, *(_cell(stages[stage].get(name, []), seeds) for stage in STAGES), str(seeds)]
            for name in order
            for seeds in [len(stages["batch_norms"][name])]
        ]
        parts.append(
            f"**{_name(setting)}** (before the cut {100 * base['accuracy']:.1f} % after {base['epochs']} epochs):\n\n"
            + table(["criterion", *(f"{title}, %" for title in STAGES.values()), "seeds"], rows)
        )
    used = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    settings = content["settings"]
    parts.append(f"Measured by{commands(content)}on {settings['dataset']}, {settings['split']} split ({used}).")
    return "\n\n".join(parts)


def plot(content: dict[str, Any], path: Path) -> None:
    """Accuracy after the re-estimation of batch norms, criterion by criterion."""
    from matplotlib.figure import Figure

    values = values_of(content)
    figure = Figure(figsize=(3.6 * len(values), 4.8), layout="constrained")
    grid = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (setting, stages) in zip(grid, values.items(), strict=True):
        found, default = stages["batch_norms"], _default(setting[0])
        names = sorted(found, key=lambda name: np.mean(found[name]))
        colours = ["tab:blue" if name == default else "tab:gray" for name in names]
        means, spreads = ([float(of(found[name])) for name in names] for of in (np.mean, np.std))
        axes.barh(names, means, xerr=spreads, color=colours)
        axes.axvline(100 * content["baselines"][setting[0]]["accuracy"], color="black", lw=0.8, ls=":")
        axes.set_title(_name(setting).replace(", ", "\n", 1), fontsize="medium")
        axes.set_xlabel("accuracy, batch norms re-estimated, %")
    save(figure, path)


def report(content: dict[str, Any], folder: Path, stem: str) -> None:
    """Writes the plot, and the tables into the page beside it and to the terminal."""
    text = tables(content)
    print(text)
    plot(content, folder / f"{stem}.svg")
    page = folder / "criteria.md"
    if page.exists():
        render(page, {stem: text})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="written by benchmarks/criteria.py")
    given = parser.parse_args()
    report(json.loads(given.results.read_text(encoding="utf-8")), given.results.parent, given.results.stem)


if __name__ == "__main__":
    main()
