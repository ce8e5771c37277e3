"""The command ``tfqprune`` with all its subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

import tfqprune
from tfqprune.cli import (
    compressing,
    demo,
    doctor,
    exporting,
    measuring,
    pruning,
    reporting,
    searching,
    sizing,
    summary,
    training,
    verifying,
)
from tfqprune.cli.frame import Verbosity, add

app = typer.Typer(
    name="tfqprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    Verbosity.wanted = verbose


add(app, "summary", summary.summary)
add(app, "prune", pruning.prune)
add(app, "search", searching.search)
add(app, "train-prune", training.train_prune)
add(app, "compress", compressing.compress)
add(app, "export", exporting.export)
add(app, "verify", verifying.verify)
add(app, "benchmark", measuring.benchmark)
add(app, "size", sizing.size)
add(app, "report", reporting.report)
add(app, "demo", demo.demo)
add(app, "doctor", doctor.doctor)


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    app(prog_name="tfqprune")
