"""Progress bars appear to a person who waits, and to nobody else."""

from __future__ import annotations

import io
import sys

import pytest

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
