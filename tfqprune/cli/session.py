"""One call of a subcommand: what all of them share, and how what they found is shown."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

_ONCE = {"overwrite", "trust"}  # options that no settings file repeats unasked


@dataclass(frozen=True)
class Outcome:
    """What a subcommand found.

    Attributes:
        data: the same for machines, as plain values.
        shown: for people: lines, and tables of rich.
        exit_code: of the process.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[Any] = ()
    exit_code: int = 0


@dataclass
class Session:
    """What the options that all subcommands share have said.

    Attributes:
        command: name of the subcommand.
        settings: value of each of its own options and arguments, as plain values, by their names on the command line.
        as_json: print JSON.
        quiet: print nothing but errors (and JSON, if asked for).
        verbose: show tracebacks and warnings in full.
    """

    command: str
    settings: dict[str, Any]
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def verbosity(self) -> int:
        """How much the work says by itself: nothing where machines read, except to a person who looks on."""
        return 0 if self.quiet or (self.as_json and not sys.stderr.isatty()) else 1

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner with the time so far, on a terminal only, while something without a known length goes on."""
        if not self.verbosity or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        # A way to the terminal of its own: standard error may be held back while the work goes on.
        with (
            os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal,
            Progress(*columns, console=Console(file=terminal), transient=True) as spinner,
        ):
            spinner.add_task(text, total=None)
            yield

    def load_tensorflow(self) -> None:
        """Imports TensorFlow and larq; nothing of them before, so that wrong arguments are answered at once."""
        from tfqprune.cli.quiet import load_tensorflow

        with self.working("loading TensorFlow"):
            load_tensorflow()

    @contextlib.contextmanager
    def streams(self) -> Iterator[None]:
        """Keeps standard output for JSON, and warnings to one line, while the work goes on."""
        with contextlib.ExitStack() as stack:
            if self.as_json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if not self.verbose:
                stack.enter_context(warnings.catch_warnings())
                warnings.showwarning = self._warn
            yield

    def _warn(self, message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not self.quiet and issubclass(category, UserWarning):
            typer.secho("Warning: ", fg="yellow", bold=True, err=True, nl=False)
            typer.echo(" ".join(str(message).split()), err=True)

    def present(self, outcome: Outcome) -> None:
        """Prints what was found, for a person or a machine."""
        if self.as_json:
            # JSON has no NaN and no infinity: null stands for what is no number.
            known = json.loads(json.dumps(outcome.data, default=_plain), parse_constant=lambda _: None)
            typer.echo(json.dumps(known, indent=2))
        elif not self.quiet:
            from rich.console import Console
            from rich.text import Text

            console = Console(highlight=False)
            for entry in outcome.shown:
                console.print(Text(entry) if isinstance(entry, str) else entry)

    def save_settings(self, path: Path) -> None:
        """Writes the settings in effect as TOML; ``--config`` reads them.

        Leave to destroy and to run code is given for one call: it is not among them.
        """
        import tomli_w

        from tfqprune.files import write_text

        given = {name: value for name, value in self.settings.items() if value is not None and name not in _ONCE}
        write_text(path, tomli_w.dumps({self.command: given}))


def _plain(value: Any) -> Any:
    """What JSON does not know by itself: numpy's numbers, paths."""
    return value.item() if hasattr(value, "item") else str(value)


def plain(value: Any) -> Any:
    """A value of an option as TOML and JSON know it."""
    if isinstance(value, Path):
        return str(value)
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
