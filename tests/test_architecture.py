"""The house keeps its shape: imports go down the floors, never round in a circle (docs/architecture.md)."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("tfqprune/**/*.py"), *ROOT.glob("tflite_export/**/*.py")])
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}

# Rooms of the ground floor stand on nothing but the errors and the bar that says how far they are.
GROUND = {
    "precision", "models", "construction", "data", "zoo", "report", "samples", "budget", "files", "legacy",
}  # fmt: skip
# On no floor: what everyone uses, and the doors of the house.
EVERYWHERE = {"errors", "progress", "tfqprune", "__main__"}
# The rooms of tfqprune that know tflite_export: those that measure, and those that do the whole job.
MEASURING = {"measuring", "pipeline", "cli"}


def _room(module: str) -> str:
    """``tfqprune.layers.base`` -> ``layers``; all of the other package is one house."""
    parts = module.split(".")
    return "tflite_export" if parts[0] == "tflite_export" else ".".join(parts[1:2]) or "tfqprune"


@functools.cache
def _imports(path: Path) -> set[str]:
    """Modules of the project that a file imports when it runs, at its head or in a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES)


@functools.cache
def _rooms() -> dict[str, set[str]]:
    """Room -> the rooms it imports."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        graph[_room(module)] |= {_room(name) for name in _imports(path)} - {_room(module)}
    return graph


def test_no_circle() -> None:
    graph = _rooms()
    assert {"layers", "channels"} <= set(graph)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@functools.cache
def _floors() -> dict[str, int | None]:
    """Room -> its floor, by the table of the documentation; None for what stands beside the house."""
    table = re.findall(r"^\| (\d|beside) \| (.*?) \|", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
    rooms = [(name.strip("/"), floor) for floor, cell in table for name in re.findall(r"`(.+?)`", cell)]
    assert len({name for name, _ in rooms}) == len(rooms) > 20
    return {name: int(floor) if floor.isdigit() else None for name, floor in rooms}


def test_every_room_has_a_floor() -> None:
    assert set(_floors()) == set(_rooms()) - EVERYWHERE
    assert {name for name, floor in _floors().items() if floor == 1} == GROUND


@pytest.mark.parametrize("room", sorted(name for name, floor in _floors().items() if floor is not None))
def test_no_room_imports_from_above(room: str) -> None:
    floors = _floors()
    above = {name for name in _rooms()[room] - EVERYWHERE if (floors[name] or 0) > floors[room]}
    assert not above
    assert "testing" not in _rooms()[room]


def test_no_circle_among_the_modules_of_a_room() -> None:
    graph = {
        # A package's own __init__ gathers its modules; they do not import it back.
        module: {name for name in _imports(path) if _room(name) == _room(module) and name != module}
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("room", sorted(GROUND))
def test_ground_floor(room: str) -> None:
    assert _rooms()[room] <= {"errors", "progress"}


def test_export_knows_nothing_of_pruning() -> None:
    assert _rooms()["tflite_export"] <= {"tfqprune", "errors", "precision", "samples"}


def test_who_knows_the_export() -> None:
    assert {room for room, below in _rooms().items() if "tflite_export" in below} <= MEASURING


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 450
    assert path.name == "__init__.py" or "from __future__ import annotations" in text
