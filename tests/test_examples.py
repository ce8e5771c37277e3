"""The examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_smallest_example() -> None:
    """The script of the README is the file, which has fewer than 15 lines of code."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(import tfqprune as tq\n.*?)```", text, re.DOTALL)
    assert shown is not None
    code = (ROOT / "examples" / "smallest.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert shown.group(1) == code
    assert len(code.splitlines()) < 15


@pytest.mark.slow
def test_smallest(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "smallest.py")],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bayesian: accuracy 0.9" in done.stdout
    assert (tmp_path / "runs" / "smallest" / "report.html").exists()
