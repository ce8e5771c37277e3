"""What a run says while it works: headings, and a bar for each training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfqprune.progress import moves


class Display:
    """Prints what goes on, unless it is told to be quiet.

    Args:
        verbose: 0 says nothing.
        console: where to; standard output by default.
    """

    def __init__(self, verbose: int = 1, console: Console | None = None) -> None:
        self.verbose = verbose
        self.console = console or Console(file=sys.stdout, highlight=False)

    def heading(self, text: str) -> None:
        """A new stage of the work."""
        if self.verbose:
            self.console.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str) -> None:
        """A line."""
        if self.verbose:
            self.console.print(text)

    def show(self, renderable: Any) -> None:
        """A table or another rich object."""
        if self.verbose:
            self.console.print(renderable)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner on a terminal, or in a notebook, while something without a known length goes on."""
        if not self.verbose or not moves(self.console):
            yield
            return
        with self.console.status(f"  {text}"):
            yield

    def callbacks(self, description: str) -> list[tf.keras.callbacks.Callback]:
        """Keras callbacks that show a training."""
        return [EpochBar(description, self.console)] if self.verbose else []

    @contextmanager
    def training(self, description: str) -> Iterator[list[tf.keras.callbacks.Callback]]:
        """The same callbacks, whose bar is taken away however the training ends."""
        bars = self.callbacks(description)
        try:
            yield bars
        finally:
            for bar in bars:
                bar.close()


class EpochBar(tf.keras.callbacks.Callback):
    """A bar over the epochs with loss and accuracy; one line at the end where it cannot move.

    Args:
        description: what is trained.
        console: where to print.
    """

    def __init__(self, description: str, console: Console) -> None:
        super().__init__()
        self.description, self.console = description, console
        self._bar: Progress | None = None
        self._task: Any = None
        self._last = ""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not moves(self.console):
            return
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
            TimeRemainingColumn(), TextColumn("{task.fields[state]}"), console=self.console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(self.description, total=self.params.get("epochs"), state="")
        self._bar.start()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        self._last = ", ".join(
            f"{name.replace('_', ' ')} {logs[name]:.3f}"
            for name in ("loss", "accuracy", "val_accuracy")
            if name in logs
        )
        # Holistic pruning: what is left of each cost, against what may be.
        for name in sorted(name.removesuffix("_target") for name in logs if name.endswith("_target")):
            self._last += f", {name} {logs[name]:.3f} (target {logs[f'{name}_target']:.3f})"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, state=self._last)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.close()
        self.console.print(f"  {self.description}: {self.params.get('epochs')} epochs, {self._last}")

    def close(self) -> None:
        """Takes the bar away; Keras does not call anyone when a training is interrupted."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
