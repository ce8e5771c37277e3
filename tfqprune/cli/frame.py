"""The frame of the command line: global options, and what becomes of errors.

Exit codes: 0 done; 1 refused or failed, with one line that says why; 2 wrong arguments; 3 an error inside the
program, with its traceback; 130 interrupted.

A command is a module of this package with one function; heavy imports happen inside that function, so that ``--help``
and wrong arguments are answered at once.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import Annotated

import typer

import tfqprune
from tfqprune.cli import demo, doctor, summary
from tfqprune.errors import TfqpruneError

app = typer.Typer(
    name="tfqprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class _Settings:
    """What the global options said."""

    verbose: bool = False


_SETTINGS = _Settings()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tfqprune {tfqprune.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the traceback behind an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Prune the filters of binary and k-bit Keras networks, and pack them into small .tflite files."""
    _SETTINGS.verbose = verbose


app.command(name="summary")(summary.summary)
app.command(name="demo")(demo.demo)
app.command(name="doctor")(doctor.doctor)


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    _SETTINGS.verbose = False
    try:
        app(prog_name="tfqprune")
    except TfqpruneError as error:
        if _SETTINGS.verbose:
            traceback.print_exc()
        typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(" ".join(str(error).split()), err=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        typer.echo("This is an error inside tfqprune. Please report it with the lines above.", err=True)
        sys.exit(3)
