"""Renders what benchmarks/search.py found: curves as SVG, tables into docs/search.md.

python benchmarks/search_report.py benchmarks/results/search_quick.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from pictures import save
from tables import commands, render, table

HERE = Path(__file__).parent
COLOURS = {"random": "tab:gray", "stock": "tab:orange", "tpe": "tab:green", "unguided": "tab:cyan", "ours": "tab:blue"}


def curves(runs: list[dict[str, Any]], trials: int) -> np.ndarray:
    """Best value so far [seeds, trials], in percent; a search that ended early stays where it was."""
    rows = []
    for run in runs:
        best = np.maximum.accumulate(np.array(run["values"]))
        rows.append(np.concatenate([best, np.full(trials - len(best), best[-1])]))
    return 100 * np.array(rows)


def trials_to_reach(runs: list[dict[str, Any]], stock: list[dict[str, Any]]) -> list[int | None]:
    """For each seed: the first trial that is at least as good as the stock's best of the same seed."""
    goals = {run["seed"]: max(run["values"]) for run in stock}
    return [
        next((number for number, value in enumerate(run["values"], 1) if value >= goals[run["seed"]]), None)
        for run in runs
        if run["seed"] in goals
    ]


def _spread(values: Any) -> str:
    """Mean and, of several, standard deviation, in percent."""
    values = np.asarray(values)
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def search_table(found: dict[str, Any], trials: int) -> str:
    """One setting: a row for each method."""
    looks = [number for number in (10, 20, 30, 60, 100) if number <= trials]
    header = [
        "method", *(f"after {number}" for number in looks), "best, all images",
        "suggestion, s (CPU)", "the last", "reaches the stock's",
    ]  # fmt: skip
    rows = []
    for name in ("uniform", "sensitivity"):
        if name in found:
            cell = f"{100 * found[name]['value']:.2f}"
            taken = found[name].get("evaluations", 1)
            title = name if taken == 1 else f"{name} (after {taken} evaluations)"
            rows.append([title, *[cell] * len(looks), f"{100 * found[name]['all']:.2f}", "-", "-", "-"])
    stock = found["searches"].get("stock", [])
    for name, runs in found["searches"].items():
        best = curves(runs, trials)
        reached = [str(number) if number else f"not in {trials}" for number in trials_to_reach(runs, stock)]
        seconds = np.mean([np.mean(run["suggesting"], axis=0) for run in runs], axis=0)
        last = np.mean([run["suggesting"][-1] for run in runs], axis=0)
        rows.append(
            [
                f"{name} ({len(runs)} {'seed' if len(runs) == 1 else 'seeds'})",
                *(_spread(best[:, number - 1]) for number in looks),
                f"{100 * np.mean([run['all'] for run in runs]):.2f}",
                f"{seconds[0]:.3f} ({seconds[1]:.3f})",
                f"{last[0]:.3f} ({last[1]:.3f})",
                "-" if name == "stock" or not reached else ", ".join(reached),
            ]
        )
    return table(header, rows)


def final_table(found: dict[str, Any]) -> str:
    """Accuracy after fine-tuning: mean and deviation over the plans of the seeds."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for key, result in found["final"].items():
        by_method.setdefault(key.split()[0], []).append(result)
    rows = []
    for name, results in by_method.items():
        cells = [_spread([100 * result[split] for result in results]) for split in ("validation", "test")]
        rows.append([f"{name} ({len(results)} plans)" if len(results) > 1 else name, *cells])
    return table(["method", "validation, %", "test, %"], rows)


def fidelity_table(found: dict[str, Any]) -> str:
    """How cheaper trials rank plans, and what they cost."""
    rows = [
        [
            f"{setting} ({result['plans']} plans)", f"{row['calibration']:,}", f"{row['images']:,}",
            f"{row['spearman']:.3f}", f"{100 * row['regret']:.2f}", f"{row['re_estimating_seconds']:.2f}",
            f"{row['evaluating_seconds']:.2f}",
        ]
        for setting, result in found.items()
        for row in result["table"]
    ]  # fmt: skip
    header = [
        "setting", "images re-estimated on", "evaluated on", "Spearman's rho", "lost by its choice, points",
        "re-estimation, s", "evaluation, s",
    ]  # fmt: skip
    return table(header, rows)


def setting_name(dataset: str, name: str) -> str:
    """A setting in words: ``2:0.5`` on CIFAR-10 is "cifar10, DoReFa-2, memory 0.5"."""
    precision, _, memory = name.partition(":")
    return f"{dataset}, {f'DoReFa-{precision}' if precision.isdigit() else precision}, memory {memory}"


def tables(content: dict[str, Any]) -> str:
    """All tables of a run, with their source."""
    options = content["options"]
    parts = []
    for name, found in content["settings"].items():
        if not found.get("searches"):
            continue
        trial = found["trial"]
        parts.append(
            f"**{setting_name(options['dataset'], name)}**: {found['groups']} groups, before pruning "
            f"{100 * found['baseline']:.2f} %; a trial took {trial['seconds']:.2f} s "
            f"({trial['cpu_seconds']:.2f} s of CPU), medians.\n\n{search_table(found, options['trials'])}"
        )
        if found.get("final"):
            parts.append(f"Fine-tuned, {name}:\n\n{final_table(found)}")
    if content.get("fidelity"):
        parts.append(f"How cheaper trials rank plans:\n\n{fidelity_table(content['fidelity'])}")
    used = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    parts.append(f"Measured by{commands(content)}on {content['processor']} ({used}).")
    return "\n\n".join(parts)


def plot(content: dict[str, Any], path: Path) -> None:
    """Best value so far against trials: means over the seeds, with bands from the lowest to the highest."""
    from matplotlib.figure import Figure

    settings = {name: found for name, found in content["settings"].items() if found.get("searches")}
    figure = Figure(figsize=(5 * len(settings), 4), layout="constrained")
    grid = figure.subplots(1, len(settings), squeeze=False)[0]
    for axes, (name, found) in zip(grid, settings.items(), strict=True):
        trials = np.arange(1, content["options"]["trials"] + 1)
        for method, runs in found["searches"].items():
            best = curves(runs, len(trials))
            axes.plot(trials, best.mean(axis=0), color=COLOURS[method], label=method)
            axes.fill_between(trials, best.min(axis=0), best.max(axis=0), color=COLOURS[method], alpha=0.15, lw=0)
        for method, style in (("uniform", ":"), ("sensitivity", "--")):
            axes.axhline(100 * found[method]["value"], color="black", lw=0.8, ls=style, label=method)
        axes.set_title(f"{content['options']['dataset']}, {name}")
        axes.set_xlabel("trials")
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("best accuracy so far, %")
    grid[-1].legend(loc="lower right", fontsize="small")
    save(figure, path)


def report(content: dict[str, Any], docs: Path, stem: str) -> None:
    """Writes the plot, and the tables into the page and to the terminal."""
    text = tables(content)
    print(text)
    docs.mkdir(parents=True, exist_ok=True)
    if any(found.get("searches") for found in content["settings"].values()):
        plot(content, docs / f"{stem}.svg")
    page = docs / "search.md"
    if page.exists():
        render(page, {stem: text})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="written by benchmarks/search.py")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    given = parser.parse_args()
    report(json.loads(given.results.read_text(encoding="utf-8")), given.docs, given.results.stem)


if __name__ == "__main__":
    main()
