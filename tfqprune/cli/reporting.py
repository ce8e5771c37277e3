"""``tfqprune report``: the report of a run, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqprune.cli.session import Outcome, Session


def report(
    session: Session,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder of compress or demo.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where it goes; by default DIR itself.")
    ] = None,
) -> Outcome:
    """Write report.html and the plots of a run again, from the figures in its report.json."""
    from tfqprune.report import read, tables, write

    run = read(folder)
    with session.working("drawing"):
        written = write(run, output or folder)
    return Outcome(
        {what: str(path) for what, path in written.items()},
        [*(tables.comparison_table(network) for network in run.networks), f"Report: {written['html']}"],
    )
