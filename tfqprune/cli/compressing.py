"""``tfqprune compress``: the whole job in one command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tfqprune.cli import names
from tfqprune.cli import options as opt
from tfqprune.cli.amounts import parse_budget
from tfqprune.cli.inputs import free_folder, open_data, open_model, require_data, require_model
from tfqprune.cli.session import Outcome, Session


def compress(
    session: Session,
    model: opt.Model,
    data: opt.Data,
    budget: opt.BudgetEntries,
    output: opt.OutputFolder,
    method: Annotated[
        list[str],
        names.choice(
            names.METHODS,
            "--method",
            "-m",
            help="What finds the ratios; repeat it to compare.",
            rich_help_panel="Pruning",
        ),
    ] = ["bayesian"],  # noqa: B006 - typer takes a copy
    criterion: opt.Criterion = "auto",
    trials: opt.Trials = 20,
    align: opt.Align = 1,
    exclude: opt.Exclude = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning.", rich_help_panel="Training")] = 10,
    learning_rate: opt.LearningRate = 1e-3,
    batch_size: opt.BatchSize = 64,
    format: opt.ExportFormat = "auto",
    optimize: opt.Optimize = "size",
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
    overwrite: opt.Overwrite = False,
) -> Outcome:
    """Prune MODEL to a budget, fine-tune, export, measure and report: all in one.

    The folder gets slim models, plans, trials, .tflite files and report.html. Interrupted, the same command goes on.
    """
    bounds = parse_budget(budget)
    require_model(model)
    require_data(data)
    free_folder(output, overwrite, needed=(model, data))
    dense = open_model(session, model, trust)
    splits = open_data(session, data, dense, seed=seed, data_dir=data_dir, limit=limit, resize=resize)
    from tfqprune.pipeline import compress as run

    result = run(
        dense, splits.train, splits.validation, test=splits.test, budget=bounds, method=method, output_dir=output,
        criterion=criterion, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_trials=trials,
        align=align, exclude=tuple(exclude or ()), format=format, optimize=optimize, seed=seed, overwrite=overwrite,
        verbose=session.verbosity, begun=lambda folder: session.save_settings(folder / "settings.toml"),
    )  # fmt: skip
    return Outcome(
        {
            "variants": [asdict(variant.row) for variant in result.variants],
            "best": result.best.name,
            "output": str(result.output_dir),
            "report": str(result.report),
        }
    )
