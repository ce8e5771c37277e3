"""Rows of results by key, on disk after each one: a benchmark that was stopped goes on where it was.

Several processes may fill one file, each with rows of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nets import versions
from tables import render

from tfqprune.files import write_json

HERE = Path(__file__).parent


def command() -> str:
    """The command that this program was started with."""
    return shlex.join(["python", *sys.argv])


@contextlib.contextmanager
def changing(path: Path, empty: Any) -> Iterator[Any]:
    """The content of a JSON file, written back when the block ends; processes that change it wait for each other.

    Args:
        path: of the file.
        empty: its content where it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # locked in place of the file: no lock stays behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
        yield content
        write_json(path, content)
    finally:
        os.close(folder)


class Rows:
    """Rows in one JSON file.

    Args:
        path: of the file; it is read where it is there.
        key: names of the entries that tell one row from another.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The row of a key, or None."""
        return next((row for row in self.rows if all(row[name] == key[name] for name in self.key)), None)

    def once(self, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a key; made, with its command and versions, unless it is there."""
        known = self.find(key)
        if known is not None:
            return known
        began = time.perf_counter()
        row = {**key, **make(), "seconds": round(time.perf_counter() - began, 1)}
        with changing(self.path, []) as self.rows:
            self.rows.append({**row, "command": command(), "versions": versions()})
        print({name: value for name, value in row.items() if name not in ("dataset", "limit")}, flush=True)
        return self.rows[-1]

    def publish(self, text: str, page: str) -> None:
        """Prints tables of these rows; into a page of the documentation, too, if the rows are those that are kept.

        Args:
            text: the tables, in Markdown.
            page: its name in docs/; the place in it has the name of the rows' file.
        """
        print(text)
        if self.rows and self.path.parent == HERE / "results":
            render(HERE.parent / "docs" / page, {self.path.stem: text})
