"""Options that several subcommands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfqprune.cli import names
from tfqprune.cli.amounts import complete_budget

_DATA, _PRUNING, _TRAINING = "Data", "Pruning", "Training"

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A .keras or .h5 file, or a SavedModel folder.", show_default=False)
]
TfliteFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file.", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load Lambda layers and unknown modules: runs code from the model's file.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left at the output.")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.", show_default=False)]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="New folder, or that of the same run, interrupted.", show_default=False
    ),
]

_DATA_HELP = (
    "A set's name (digits, cifar10, ...: TensorFlow Datasets), a folder of images by class, a .npz file with x and y, "
    "or module:function."
)
Data = Annotated[
    str, typer.Option("--data", "-d", metavar="DATA", help=_DATA_HELP, show_default=False, rich_help_panel=_DATA)
]
OptionalData = Annotated[
    str | None,
    typer.Option("--data", "-d", metavar="DATA", help=_DATA_HELP, show_default=False, rich_help_panel=_DATA),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of TensorFlow Datasets; else TFDS_DATA_DIR, else its own.", rich_help_panel=_DATA),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="At most so many samples in each part of the data.", rich_help_panel=_DATA)
]
Resize = Annotated[
    bool, typer.Option("--resize", help="Resize the images of a folder to the model's input.", rich_help_panel=_DATA)
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of splits, search and training.")]

_BUDGET_HELP = 'An upper bound on a cost: memory=0.5, macs="40 MMAC", ...; repeat it for several.'
BudgetEntries = Annotated[
    list[str],
    typer.Option(
        "--budget", "-b", metavar="COST=AMOUNT", help=_BUDGET_HELP, autocompletion=complete_budget,
        show_default=False, rich_help_panel=_PRUNING,
    ),
]  # fmt: skip
Criterion = Annotated[
    str,
    names.choice(names.CRITERIA, metavar="NAME", help="What ranks the units.", rich_help_panel=_PRUNING),
]
Align = Annotated[
    int, typer.Option(min=1, help="Keep a multiple of so many channels in each layer.", rich_help_panel=_PRUNING)
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A group or layer that stays whole; repeatable.", rich_help_panel=_PRUNING),
]
Trials = Annotated[int, typer.Option(min=1, help="Trials of the Bayesian search.", rich_help_panel=_PRUNING)]
ExportFormat = Annotated[
    str,
    names.choice(names.FORMATS, "--format", "-f", metavar="NAME", help="Of the .tflite file."),
]
Optimize = Annotated[
    str,
    names.choice(names.PURPOSES, help='What the format "auto" goes by.'),
]


def _above_zero(value: float) -> float:
    if not 0 < value < 1e6:
        raise typer.BadParameter(f"Expected a number above 0. Received: {value:g}.")
    return value


LearningRate = Annotated[
    float, typer.Option(callback=_above_zero, help="Of the first step.", rich_help_panel=_TRAINING)
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a batch of training.", rich_help_panel=_TRAINING)]
Runtime = Annotated[
    str | None,
    names.choice(names.RUNTIMES, help="By default the one that the file needs."),
]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Threads of the runtime.")]
Xnnpack = Annotated[
    bool | None,
    typer.Option(
        "--xnnpack/--no-xnnpack", help="LiteRT's XNNPACK; by default what suits the file.", show_default=False
    ),
]
