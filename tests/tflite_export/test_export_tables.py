"""The tables of docs/export.md are what the kept results say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_is_rendered_from_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "export_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
