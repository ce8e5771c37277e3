"""Progress bars: shown only to a person, and only when there is something to wait for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

_PATIENCE = 2.0  # seconds before a bar appears


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Passes items on, with a bar on stderr if that is a terminal and the work takes over two seconds.

    Args:
        items: what to go through.
        description: what is going on, in a few words.
        total: how many items there are; by default ``len(items)`` where that is known.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
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
