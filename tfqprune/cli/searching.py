"""``tfqprune search``: ratios for each group under a budget, by trials that are kept and go on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from tfqprune.cli import names
from tfqprune.cli import options as opt
from tfqprune.cli.amounts import parse_budget
from tfqprune.cli.inputs import (
    free_folder,
    hint_at_dead_channels,
    open_data,
    open_model,
    require_data,
    require_model,
    samples_of,
)
from tfqprune.cli.outcomes import before_and_after
from tfqprune.cli.plans import allocated
from tfqprune.cli.session import Outcome, Session
from tfqprune.errors import OutputError

# What may differ where a search goes on.
_FREE = {"output", "overwrite", "trials", "data-dir", "trust"}
# What a search makes in its folder.
_HOLDS = ("settings.toml", "model.keras", "plan.json", "trials", "curves.json")


def search(
    session: Session,
    model: opt.Model,
    data: opt.Data,
    budget: opt.BudgetEntries,
    output: opt.OutputFolder,
    method: Annotated[
        str,
        names.choice(names.SEARCHES, help="What finds the ratios.", rich_help_panel="Pruning"),
    ] = "bayesian",
    trials: opt.Trials = 30,
    evaluation: Annotated[
        str,
        names.choice(
            names.EVALUATIONS,
            rich_help_panel="Pruning",
            help="What a Bayesian trial is judged by: batch norms re-estimated (proxy), or fine-tuned; both: the best.",
        ),
    ] = "proxy",
    sensitivity: Annotated[
        bool | None,
        typer.Option(
            rich_help_panel="Pruning",
            show_default=False,
            help="Have sensitivity curves guide the search; by default if they take no more evaluations than there are "
            "trials.",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel="Pruning",
            show_default=False,
            help="Have these curves guide the search (curves.json of --method sensitivity).",
        ),
    ] = None,
    criterion: opt.Criterion = "auto",
    align: opt.Align = 1,
    exclude: opt.Exclude = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of a trial that is fine-tuned.", rich_help_panel="Training")
    ] = 1,
    learning_rate: opt.LearningRate = 1e-3,
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
    overwrite: opt.Overwrite = False,
) -> Outcome:
    """Find the ratio of each group that keeps MODEL accurate under a budget.

    The folder gets the best plan, its slim model (batch norms re-estimated) and all trials. Interrupted, the same
    command goes on; with more --trials it goes on after its end, too.
    """  # fmt: skip
    if method != "bayesian" and (sensitivity is not None or curves is not None):
        raise typer.BadParameter(
            f"Expected --sensitivity and --curves with --method bayesian, which starts from them. Received: {method}."
        )
    if curves is not None and sensitivity is not None:
        raise typer.BadParameter("Expected --sensitivity or --curves. Received: both.")
    bounds = parse_budget(budget)
    require_model(model)
    require_data(data)
    if curves is not None and not curves.is_file():
        raise OutputError(f"Expected a file with sensitivity curves. Received: '{curves}', which does not exist.")
    free_folder(output, overwrite, may_grow=True, needed=(model, data, curves))
    dense = open_model(session, model, trust)
    splits = open_data(session, data, dense, seed=seed, data_dir=data_dir, limit=limit, resize=resize)
    from tfqprune.allocation import SensitivityCurves
    from tfqprune.allocation.base import unscored
    from tfqprune.allocation.identity import model_digest
    from tfqprune.allocation.starting import check_curves
    from tfqprune.channels import ChannelGraph
    from tfqprune.fitting import Fitter
    from tfqprune.pipeline.folder import RunFolder
    from tfqprune.pipeline.line import save_model

    graph = ChannelGraph(dense)
    hint_at_dead_channels(graph)
    limits: dict[str, Any] = {"align": align, "exclude": tuple(exclude or ())}
    # Refuses a budget that cannot be met, before a folder is made; what it measured is not measured again.
    limits["meter"] = Fitter(graph, unscored(graph), bounds, **limits).meter
    facts = {key: value for key, value in session.settings.items() if key not in _FREE}
    guide: Any = sensitivity
    if curves is not None:  # a mistake here must not bind the folder either
        guide = SensitivityCurves.load(curves)
        check_curves(graph, guide)
    facts |= {"model": model_digest(graph), "samples": samples_of(dense, splits), "trials": trials}
    folder = RunFolder(output, facts, holds=_HOLDS, overwrite=overwrite, grows="trials")
    session.save_settings(folder.path / "settings.toml")
    files = {name: folder.path / file for name, file in (("model", "model.keras"), ("plan", "plan.json"))}
    more: dict[str, Any] = {}
    if method == "bayesian":
        from tfqprune.allocation import RatioTuner

        # Keras-Tuner says what it finds on disk, to whomever.
        with contextlib.nullcontext() if session.verbosity else contextlib.redirect_stdout(None):
            tuner = RatioTuner(
                dense, bounds, criterion, trials, folder.path, "trials", seed=seed, evaluation=evaluation,
                sensitivity=guide, **limits,
            )  # fmt: skip
        tuner.search(
            splits.train, validation_data=splits.validation, epochs=epochs, learning_rate=learning_rate,
            verbose=session.verbosity,
        )  # fmt: skip
        plan, slim = tuner.get_best_plans(1)[0], tuner.get_best_models(1)[0]
        records = tuner.records()
        more["trials"] = [{"status": r.status, "value": r.value, "ratios": r.ratios, **r.metrics} for r in records]
        more["best"] = {
            "trial": int(plan.notes["trial"]) + 1,
            **{name: plan.notes[name] for name in ("value", "tuned") if name in plan.notes},
        }
        files["trials"] = folder.path / "trials" / "trials.csv"
    else:
        from tfqprune.recovery import reestimate_batch_norms
        from tfqprune.slim import prune

        plan = allocated(method, dense, bounds, criterion, splits, limits, folder.path / "curves.json")
        slim = reestimate_batch_norms(prune(dense, plan), splits.train)
    save_model(slim, files["model"])
    plan.save(files["plan"])
    folder.finish()
    return before_and_after(dense, slim, plan, splits, files, **more)
