"""``tfqprune prune``: a slim model by ratio, by budget, by a plan that exists, or without its dead channels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tfqprune.cli import names
from tfqprune.cli import options as opt
from tfqprune.cli.amounts import complete_budget, parse_budget, parse_ratios
from tfqprune.cli.inputs import (
    beside,
    free_file,
    hint_at_dead_channels,
    open_data,
    open_model,
    require_data,
    require_model,
    settings_of,
)
from tfqprune.cli.outcomes import before_and_after
from tfqprune.cli.plans import allocated
from tfqprune.cli.session import Outcome, Session
from tfqprune.errors import PlanError

_SUFFIXES = (".keras",)


def prune(
    session: Session,
    model: opt.Model,
    output: opt.OutputFile,
    ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--ratio",
            "-r",
            metavar="RATIO",
            help="Share of the units that goes: 0.3, or name=0.3 for a group or layer (repeatable).",
            rich_help_panel="Pruning",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="COST=AMOUNT",
            autocompletion=complete_budget,
            help='An upper bound on a cost: memory=0.5, macs="40 MMAC", ...; repeat it for several.',
            rich_help_panel="Pruning",
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A plan made before (plan.json).", rich_help_panel="Pruning")
    ] = None,
    dead: Annotated[
        bool,
        typer.Option(
            "--dead",
            help="Remove channels that are constant behind their batch norm: the results stay the same.",
            rich_help_panel="Pruning",
        ),
    ] = False,
    method: Annotated[
        str,
        names.choice(
            names.ALLOCATORS,
            help="How a budget becomes ratios; search and compress know more.",
            rich_help_panel="Pruning",
        ),
    ] = "uniform",
    criterion: opt.Criterion = "auto",
    align: opt.Align = 1,
    exclude: opt.Exclude = None,
    data: opt.OptionalData = None,
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of fine-tuning after the cut.", rich_help_panel="Training")
    ] = 0,
    learning_rate: opt.LearningRate = 1e-3,
    batch_size: opt.BatchSize = 64,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
    overwrite: opt.Overwrite = False,
) -> Outcome:
    """Make a slim model of MODEL: by --ratio, --budget or --plan, or --dead.

    With --data, the criterion looks at samples, batch norms are re-estimated, and --epochs fine-tunes. The plan is
    written beside the output; after --dead, which moves constants into biases, the model alone is.
    """  # fmt: skip
    ways = (("--ratio", ratio), ("--budget", budget), ("--plan", plan), ("--dead", dead))
    given = [name for name, value in ways if value]
    if len(given) != 1:
        raise typer.BadParameter(
            f"Expected one of --ratio, --budget, --plan and --dead. Received: {' and '.join(given) or 'none of them'}."
        )
    idle = {"--method": method != "uniform"} if not budget else {}
    if plan is not None or dead:
        idle |= {"--criterion": criterion != "auto", "--align": align != 1, "--exclude": bool(exclude)}
    if any(idle.values()):
        said = " and ".join(name for name, there in idle.items() if there)
        raise typer.BadParameter(f"Expected no {said} with {given[0]}, which says what goes. Received: both.")
    ratios = parse_ratios(ratio) if ratio else None
    bounds = parse_budget(budget) if budget else None
    require_model(model)
    require_data(data, "to fine-tune on" if epochs else "to judge groups by" if method == "sensitivity" else "")
    if plan is not None and not plan.is_file():
        raise PlanError(f"Expected a plan. Received: '{plan}', which does not exist.")
    files = {"model": output, "plan": beside(output, "plan.json"), "settings": settings_of(output)}
    if dead:
        del files["plan"]  # prune() by the plan alone would forget the constants
    free_file(output, overwrite, _SUFFIXES)
    for path in list(files.values())[1:]:
        if path != plan:  # a plan may stay where it is
            free_file(path, overwrite)

    dense = open_model(session, model, trust)
    splits = None
    if data is not None:
        splits = open_data(session, data, dense, seed=seed, data_dir=data_dir, limit=limit, resize=resize)
    import tensorflow as tf

    from tfqprune.channels import ChannelGraph
    from tfqprune.dead import remove_dead_channels
    from tfqprune.pipeline.display import Display
    from tfqprune.pipeline.line import save_model
    from tfqprune.plan import PruningPlan
    from tfqprune.recovery import finetune, reestimate_batch_norms
    from tfqprune.scoring import make_plan
    from tfqprune.slim import prune as cut

    if not (dead or plan):
        hint_at_dead_channels(ChannelGraph(dense))
    tf.keras.utils.set_random_seed(seed)
    samples = None if splits is None else splits.train
    if dead:
        slim, made = remove_dead_channels(dense, samples)
    else:
        if plan is not None:
            made = PruningPlan.load(plan)
        elif bounds is not None:
            options: dict[str, Any] = {"align": align, "exclude": tuple(exclude or ())}
            made = allocated(method, dense, bounds, criterion, splits, options)
        else:
            made = make_plan(dense, _without(dense, ratios, exclude or ()), criterion, samples, align)
        slim = cut(dense, made)
    if splits is not None and (epochs or not dead):
        reestimate_batch_norms(slim, splits.train)
        if epochs:
            with Display(session.verbosity).training("fine-tuning") as callbacks:
                finetune(
                    slim, splits.train, splits.validation, epochs, learning_rate=learning_rate, batch_size=batch_size,
                    callbacks=callbacks,
                )  # fmt: skip
            reestimate_batch_norms(slim, splits.train)
    save_model(slim, output)
    if "plan" in files:
        made.save(files["plan"])
    session.save_settings(files["settings"])
    if not dead:
        return before_and_after(dense, slim, made, splits, files)
    stays = made.notes["left"]
    return before_and_after(
        dense, slim, made, splits, files, how="constant behind their batch norm", stays=stays, left=stays
    )


def _without(model: Any, ratios: Any, exclude: Any) -> Any:
    """One ratio, or ratios by name, for all but some groups or layers."""
    if not exclude:
        return ratios
    from tfqprune.channels import ChannelGraph
    from tfqprune.plan import resolve_ratios

    graph = ChannelGraph(model)
    whole = resolve_ratios(graph, dict.fromkeys(exclude, 0.0))
    return {name: ratio for name, ratio in resolve_ratios(graph, ratios).items() if name not in whole}
