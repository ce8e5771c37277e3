"""Progress bars: shown only to a person, and only when there is something to wait for."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

_PATIENCE = 2.0  # seconds before a bar appears


def moves(console: Console) -> bool:
    """Whether a bar can move there: on a terminal, or in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Passes items on, with a bar if stderr is a terminal or a notebook and the work takes over two seconds.

    Args:
        items: what to go through.
        description: what is going on, in a few words.
        total: how many items there are; by default ``len(items)`` where that is known.
    """
    if not sys.stderr.isatty() and "ipykernel" not in sys.modules:
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not moves(console):
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    bar = Progress(console=console, transient=True)
    task = bar.add_task(description, total=total)
    began, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            bar.advance(task)
            if not shown and time.monotonic() - began > _PATIENCE:
                bar.start()
                shown = True
    finally:
        if shown:
            bar.stop()
