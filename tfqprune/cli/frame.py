"""The frame of the command line: what all subcommands share, and what becomes of errors.

Exit codes: 0 done; 1 refused or failed, with one line that says why; 2 wrong arguments; 3 an error inside the
program, with its traceback; 130 interrupted.

A subcommand is a function ``(session, **options) -> Outcome``; its heavy imports happen inside, so that ``--help`` and
wrong arguments are answered at once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tfqprune.cli.config import read_settings
from tfqprune.cli.session import Outcome, Session, plain
from tfqprune.errors import TfqpruneError

Work = Callable[..., Outcome]

_COMMON = "Common"
# What stops a subcommand without being an error: a wish to leave, or wrong arguments that it found itself.
_LEAVING = (typer.Exit, typer.Abort, typer.BadParameter)

#: subcommand -> {name of an option on the command line: name of its parameter}
OPTIONS: dict[str, dict[str, str]] = {}


class Verbosity:
    """Whether tracebacks are wanted, as far as is known before a subcommand is."""

    wanted = False


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the settings of a file the defaults of the subcommand."""
    if path is not None and not context.resilient_parsing:
        found = read_settings(path, str(context.info_name), OPTIONS)
        for parameter in context.command.params:
            value, several = found.get(str(parameter.name)), getattr(parameter, "multiple", False)
            if several and isinstance(value, str):
                found[str(parameter.name)] = [value]
            elif isinstance(value, list) and not several:
                raise typer.BadParameter(f"Expected one value for {parameter.name}. Received: {value} in '{path}'.")
        context.default_map = found
    return path


_SHARED: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", is_eager=True, callback=_read_config, show_default=False, rich_help_panel=_COMMON,
            help="Settings from a TOML file; what the command line says comes first.",
        ),
    ],
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.", rich_help_panel=_COMMON)
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.", rich_help_panel=_COMMON)],
    "verbose": Annotated[
        bool, typer.Option("--verbose", help="Show the traceback behind an error.", rich_help_panel=_COMMON)
    ],
}  # fmt: skip


def add(app: typer.Typer, name: str, work: Work) -> None:
    """Makes a function a subcommand, with the options that all of them have.

    Args:
        app: the application.
        name: of the subcommand.
        work: takes a :class:`Session` and its own options, as typer describes them.
    """
    hints = get_type_hints(work, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(work).parameters.values())[1:]
    ]
    shared = [
        inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=None if key == "config" else False, annotation=annotation
        )
        for key, annotation in _SHARED.items()
    ]
    as_typed = {parameter.name: _typed(parameter) for parameter in own}
    OPTIONS[name] = {typed: parameter for parameter, typed in as_typed.items()} | {
        "json": "as_json", "quiet": "quiet", "verbose": "verbose"
    }  # fmt: skip

    @functools.wraps(work)
    def command(config: Path | None, as_json: bool, quiet: bool, verbose: bool, **options: Any) -> None:
        settings = {as_typed[key]: plain(value) for key, value in options.items()}
        session = Session(name, settings, as_json, quiet, verbose or Verbosity.wanted)
        with guarded(session.verbose):
            with session.streams():
                outcome = work(session, **options)
            session.present(outcome)
        if outcome.exit_code:
            raise typer.Exit(outcome.exit_code)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name=name)(command)


def _typed(parameter: inspect.Parameter) -> str:
    """The name of an option as it is typed, without the dashes; of an argument its own name."""
    info = parameter.annotation.__metadata__[0]
    written = [getattr(info, "default", None), *(getattr(info, "param_decls", None) or ())]
    long = [text for text in written if isinstance(text, str) and text.startswith("--")]
    return (long[0].split("/")[0].removeprefix("--") if long else parameter.name).replace("_", "-")


@contextlib.contextmanager
def guarded(verbose: bool) -> Iterator[None]:
    """Turns errors into what a person reads, and into exit codes."""
    try:
        yield
    except _LEAVING:
        raise
    except (TfqpruneError, OSError) as error:  # a machine's own trouble, a full disk for one, is no error inside
        if verbose:
            traceback.print_exc()
        known = isinstance(error, TfqpruneError)
        said = str(error) if known else f"Expected files that can be read and written. Received: {error}."
        typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(" ".join(said.split()), err=True)
        raise typer.Exit(1) from None
    except Exception:
        traceback.print_exc()
        typer.echo("This is an error inside tfqprune. Please report it with the lines above.", err=True)
        raise typer.Exit(3) from None
