"""Output folders: begun, resumed, refused, overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfqprune.errors import OutputError
from tfqprune.pipeline.folder import RunFolder, read_state, reopen

SETTINGS = {"seed": 0, "budget": {"memory": 0.7}}


def settings_in(path: Path) -> dict[str, object]:
    """Of a run that is not finished."""
    state = read_state(path)
    assert state is not None
    assert state["status"] == "running"
    return state["settings"]


def test_begins_and_goes_on(tmp_path: Path) -> None:
    made = []
    first = RunFolder(tmp_path / "run", SETTINGS)
    assert not first.resumed
    assert first.step("one", lambda: made.append(1) or {"value": 1}) == {"value": 1}
    again = RunFolder(tmp_path / "run", SETTINGS)
    assert again.resumed
    assert again.step("one", lambda: made.append(2) or {"value": 2}) == {"value": 1}
    assert made == [1]


def test_finished_runs_are_refused_and_untouched(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    folder.step("one", lambda: {"value": 1})
    folder.finish()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="finished run"):
        RunFolder(tmp_path / "run", SETTINGS)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_another_run_is_refused_with_what_changed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", SETTINGS)
    with pytest.raises(OutputError, match="one in which seed changed"):
        RunFolder(tmp_path / "run", {**SETTINGS, "seed": 1})


def test_a_finished_run_may_grow(tmp_path: Path) -> None:
    RunFolder(tmp_path, {**SETTINGS, "trials": 3}, grows="trials").finish()
    with pytest.raises(OutputError, match="finished run"):
        RunFolder(tmp_path, {**SETTINGS, "trials": 3}, grows="trials")
    for settings, changed in (({**SETTINGS, "trials": 2}, "trials"), ({**SETTINGS, "trials": 4, "seed": 1}, "seed")):
        with pytest.raises(OutputError, match=f"one in which {changed} changed"):
            RunFolder(tmp_path, settings, grows="trials")
    with pytest.raises(OutputError, match="trials changed"):
        RunFolder(tmp_path, {**SETTINGS, "trials": 4})
    assert RunFolder(tmp_path, {**SETTINGS, "trials": 4}, grows="trials").resumed
    assert settings_in(tmp_path) == {**SETTINGS, "trials": 4}


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        RunFolder(tmp_path, SETTINGS)
    with pytest.raises(OutputError, match="holds other files"):
        RunFolder(tmp_path, SETTINGS, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_overwrite_removes_what_the_run_made_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    RunFolder(tmp_path / "run", SETTINGS, holds=("model", "plots", "link")).finish()
    for name in ("plots", "mine"):
        (tmp_path / "run" / name).mkdir()
        (tmp_path / "run" / name / "file").write_text("text")
    (tmp_path / "run" / "model").write_text("weights")
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    (tmp_path / "far" / "file").write_text("text")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "far")
    RunFolder(tmp_path / "run", {"seed": 1}, holds=("other",), overwrite=True)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"mine", "thesis.tex", "run.json", "steps"}
    assert (tmp_path / "far" / "file").read_text() == "text"


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", SETTINGS).step("one", lambda: {"value": 1})
    folder = RunFolder(tmp_path / "run", {**SETTINGS, "seed": 1}, overwrite=True)
    assert not folder.resumed
    assert folder.step("one", lambda: {"value": 2}) == {"value": 2}
    assert settings_in(tmp_path / "run") == {**SETTINGS, "seed": 1}


def test_overwrites_behind_a_link(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", SETTINGS).step("one", lambda: {"value": 1})
    (tmp_path / "link").symlink_to(tmp_path / "run")
    RunFolder(tmp_path / "link", {**SETTINGS, "seed": 1}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert settings_in(tmp_path / "run") == {**SETTINGS, "seed": 1}
    assert list((tmp_path / "run" / "steps").iterdir()) == []


def test_a_part_of_a_larger_run_is_opened_again(tmp_path: Path) -> None:
    reopen(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    folder = RunFolder(tmp_path, SETTINGS)
    folder.step("one", lambda: {"value": 1})
    folder.finish()
    reopen(tmp_path)
    again = RunFolder(tmp_path, SETTINGS)
    assert again.resumed
    assert again.step("one", lambda: {"value": 2}) == {"value": 1}


def test_files_and_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="which is a file"):
        RunFolder(tmp_path / "file", SETTINGS)
    with pytest.raises(OutputError, match="can be written"):
        RunFolder(tmp_path / "file" / "run", SETTINGS)
