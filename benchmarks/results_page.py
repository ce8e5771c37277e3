"""Renders docs/results.md and the README from what the benchmarks kept; with --all every other page with such figures.

    python benchmarks/results_page.py [--all] [--check]

Nothing is measured. A benchmark that has kept nothing yet is named as such in its place. ``--check`` changes nothing
and fails where they are not what the results say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grid
import magnitude
import published
from answers import answers
from search_report import final_table, search_table, setting_name
from tables import commands, render, source

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
DOCUMENT = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
#: what renders the other pages, as a person would
OTHERS = (
    ["export_tables.py"],
    ["engine.py", "--docs"],
    ["scale.py", "--report"],
    ["holistic.py", "--report"],
    ["holistic.py", "--report", "--quick"],
    ["scoring.py", "--report"],
    ["trial_cost.py", "--report"],
    ["search_report.py", str(RESULTS / "search_quick.json")],
    ["search_report.py", str(RESULTS / "search.json")],
    ["criteria_report.py", str(ROOT / "docs" / "criteria.json")],
    ["criteria_report.py", str(ROOT / "docs" / "criteria_quick.json")],
    ["criteria_report.py", str(ROOT / "docs" / "criteria_test.json")],
)


def kept(name: str) -> Any:
    """What a benchmark kept, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def from_all() -> str | None:
    """The answers in short."""
    found = {path.stem: kept(path.stem) for path in sorted(RESULTS.glob("*.json"))}
    return answers(found) if found else None


def from_grid() -> str | None:
    """Methods and budgets."""
    rows = kept("grid")
    return f"{grid.report(rows)}\n\n{source(rows)}" if rows else None


def grid_in_short() -> str | None:
    """Methods at half of the memory, for the README."""
    rows = kept("grid")
    shown = [row for row in rows or [] if grid.in_short(row)]
    return f"{grid.summary(shown)}\n\n{source(shown)}" if shown else None


def from_published() -> str | None:
    """Beside published figures."""
    rows, sizes = kept("published"), kept("size")
    return published.report(rows, sizes) if rows and sizes else None


def from_magnitude() -> str | None:
    """Filters beside single weights; on small data where CIFAR-10 has not been run."""
    rows = kept("magnitude") or kept("magnitude_quick")
    return magnitude.report(rows) if rows else None


def from_search() -> str | None:
    """Searches on the first setting that has any; on small data where CIFAR-10 has not been searched."""
    for content in filter(None, (kept("search"), kept("search_quick"))):
        for name, found in content["settings"].items():
            if not found.get("searches"):
                continue
            setting = setting_name(content["options"]["dataset"], name)
            parts = [f"**{setting}**", search_table(found, content["options"]["trials"])]
            if found.get("final"):
                parts += ["After three epochs of fine-tuning:", final_table(found)]
            return "\n\n".join([*parts, f"Measured by{commands(content)}on {content['processor']}."])
    return None


TABLES: dict[Path, dict[str, Callable[[], str | None]]] = {
    DOCUMENT: {
        "answers": from_all,
        "grid": from_grid,
        "published": from_published,
        "search": from_search,
        "magnitude": from_magnitude,
    },
    README: {"grid in short": grid_in_short},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the other pages, too")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a page is stale")
    given = parser.parse_args()
    for page, tables in TABLES.items():
        made = {name: make() or "Not measured yet." for name, make in tables.items()}
        if not render(page, made, given.check) and given.check:
            raise SystemExit(f"{page.relative_to(ROOT)} is stale: run `make results`.")
    if given.all and not given.check:
        for command in OTHERS:
            if all(Path(part).exists() for part in command if part.endswith(".json")):
                subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True)


if __name__ == "__main__":
    main()
