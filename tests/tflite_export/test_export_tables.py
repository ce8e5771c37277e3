"""The tables of docs/export.md are what the kept results say, and these are what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def test_the_document_is_rendered_from_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "export_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def entry(files: dict[str, int], **own: Any) -> dict[str, Any]:
    """What size.py keeps of one network."""
    return {
        "command": "first", "versions": {"python": "3.11", "larq": "0.14"}, "seed": 0, "net": "resnet20",
        "precision": "k=2", "pruned": False, "samples": 64, "floor_bytes": 1000,
        "files": [{"file": name, "bytes": size} for name, size in files.items()], **own,
    }  # fmt: skip


def test_further_formats_join_the_rows_that_are_kept(load_benchmark: Callable[[str], ModuleType]) -> None:
    old = entry({"packed": 10, "TF converter": 90})
    new = entry({"packed": 11, "fast": 40}, command="second", versions={"python": "3.12", "larq": "0.14"})
    found = load_benchmark("size").merged(old, new)
    assert {row["file"]: row["bytes"] for row in found["files"]} == {"packed": 11, "TF converter": 90, "fast": 40}
    assert found["command"] == "first, then second"
    assert found["versions"] == {"python": "3.11, then 3.12", "larq": "0.14"}


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("samples", 8), ("floor_bytes", 999)])
def test_rows_of_other_settings_are_not_merged(
    load_benchmark: Callable[[str], ModuleType], key: str, value: int
) -> None:
    with pytest.raises(SystemExit, match=f"Expected {key} .*Received: {value}"):
        load_benchmark("size").merged(entry({"packed": 10}), entry({"packed": 11}, **{key: value}))


@pytest.mark.parametrize("name", ["size", "latency"])
def test_quick_results_stay_apart(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    program = load_benchmark(name)

    def measure(*arguments: Any) -> dict[str, Any]:
        return entry({}, align=1, formats={})

    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "measure", measure)
    monkeypatch.setattr(program, "files", lambda *arguments: ({}, 0), raising=False)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick"])
    program.main()
    assert [path.name for path in (tmp_path / "results").iterdir()] == [f"{name}_quick.json"]
    assert json.loads((tmp_path / "results" / f"{name}_quick.json").read_text(encoding="utf-8"))["nets"]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--output", str(tmp_path / "own.json")])
    program.main()
    assert (tmp_path / "own.json").exists()
