"""Progress bars appear to a person who waits, and to nobody else."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tfqprune import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "patience", "shown"), [(Terminal, 0.0, True), (Terminal, 60.0, False)])
def test_only_after_a_while(monkeypatch: pytest.MonkeyPatch, stream: type, patience: float, shown: bool) -> None:
    output = stream()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    assert list(progress.track(range(3), "reading")) == [0, 1, 2]
    assert ("reading" in output.getvalue()) == shown


def test_not_into_files(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    assert list(progress.track(iter("ab"), "reading", 2)) == ["a", "b"]
    assert output.getvalue() == ""


def test_in_notebooks_where_widgets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = Console(force_jupyter=True)
    if importlib.util.find_spec("ipywidgets") is None:
        assert not progress.moves(notebook)
        (tmp_path / "ipywidgets.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    assert progress.moves(notebook)
    assert not progress.moves(Console(file=io.StringIO(), force_jupyter=False))
    assert progress.moves(Console(file=Terminal(), force_jupyter=False))
