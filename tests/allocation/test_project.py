"""The folder of a search: taken for what it is, bound to its facts once something was found out with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tfqprune.allocation.project import Project
from tfqprune.errors import OutputError
from tfqprune.files import write_arrays, write_json


def facts(folder: Path) -> dict:
    return json.loads((folder / "project.json").read_text())["facts"]


@pytest.mark.parametrize("content", ['{"name": "thesis"}', "[1]", "no JSON", '{"facts": {}}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_project_is_not_touched(tmp_path: Path, content: str, overwrite: bool) -> None:
    (tmp_path / "project.json").write_text(content)
    (tmp_path / "oracle.json").write_text("{}")
    with pytest.raises(OutputError, match="Choose another directory or project_name"):
        Project(tmp_path, {"seed": 0}, overwrite=overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "project.json": content,
        "oracle.json": "{}",
    }


def test_overwriting_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    Project(folder, {"seed": 0}).add({"data": "a"})
    (folder / "trial_0").mkdir()
    (folder / "trial_0" / "trial.json").write_text("{}")
    Project(folder, {"seed": 1}, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["project.json"]
    assert facts(folder) == {"seed": 1}


def test_a_link_is_not_overwritten(tmp_path: Path) -> None:
    Project(tmp_path / "search", {"seed": 0})
    (tmp_path / "link").symlink_to(tmp_path / "search")
    with pytest.raises(OutputError, match=r"/link'.*symbolic link\)\. Choose another directory"):
        Project(tmp_path / "link", {"seed": 1}, overwrite=True)
    assert facts(tmp_path / "search") == {"seed": 0}


def test_facts_are_replaced_until_they_bind(tmp_path: Path) -> None:
    Project(tmp_path, {"seed": 0}).add({"data": "a"})
    write_json(tmp_path / "oracle.json", {})
    write_arrays(tmp_path / "scores.npz", {})
    (tmp_path / "notes.txt").touch()
    Project(tmp_path, {"seed": 0}).add({"data": "a"})
    assert (tmp_path / "oracle.json").exists()
    project = Project(tmp_path, {"seed": 1})
    # What an earlier process made of the old facts goes, and nothing else.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "project.json"]
    project.add({"data": "a"})
    (tmp_path / "scores.npz").write_text("")
    project.add({"data": "b"})
    assert facts(tmp_path) == {"seed": 1, "data": "b"}
    assert not (tmp_path / "scores.npz").exists()


@pytest.mark.parametrize("found", ["trial_0/trial.json", "curves.json"])
def test_facts_bind_once_something_was_found_out(tmp_path: Path, found: str) -> None:
    project = Project(tmp_path, {"seed": 0})
    project.add({"data": "a"})
    (tmp_path / found).parent.mkdir(exist_ok=True)
    (tmp_path / found).write_text("{}")
    with pytest.raises(OutputError, match="seed changed"):
        Project(tmp_path, {"seed": 1})
    with pytest.raises(OutputError, match="data changed"):
        project.add({"data": "b"})
    assert facts(tmp_path) == {"seed": 0, "data": "a"}


def test_a_worker_changes_no_facts(tmp_path: Path, monkeypatch) -> None:
    Project(tmp_path, {"seed": 0})
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")
    with pytest.raises(OutputError, match="seed changed"):
        Project(tmp_path, {"seed": 1})


@pytest.mark.parametrize("name", ["oracle.json", "tuner0.json", "trial_0/trial.json", "scores.npz"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    Project(tmp_path, {"seed": 0})
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write_arrays(tmp_path / "scores.npz", {"a": np.arange(3)})
    write_json(tmp_path / "oracle.json", {"a": 1})
    Project(tmp_path, {"seed": 0})
    path.write_bytes((tmp_path / "scores.npz").read_bytes()[:20])
    with pytest.raises(OutputError, match=rf"{name}', which is damaged .*Remove it"):
        Project(tmp_path, {"seed": 0})
    path.unlink()
    Project(tmp_path, {"seed": 0})
