"""``tfqprune train-prune``: ratios learned while the model trains (holistic pruning)."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

import typer

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
from tfqprune.cli.session import Outcome, Session

# What may differ where a run goes on.
_FREE = {"output", "overwrite", "data-dir", "trust"}
# What a run makes in its folder.
_HOLDS = ("settings.toml", "model.keras", "plan.json", "backup")


def train_prune(
    session: Session,
    model: opt.Model,
    data: opt.Data,
    budget: opt.BudgetEntries,
    output: opt.OutputFolder,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.", rich_help_panel="Training")] = 20,
    share: Annotated[
        float, typer.Option(help="Of all steps, in which ratios are learned.", rich_help_panel="Training")
    ] = 0.6,
    learning_rate: opt.LearningRate = 1e-3,
    batch_size: opt.BatchSize = 64,
    criterion: opt.Criterion = "auto",
    align: opt.Align = 1,
    exclude: opt.Exclude = None,
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
    overwrite: opt.Overwrite = False,
) -> Outcome:
    """Train MODEL further and learn which units to give up, until a budget holds (holistic pruning).

    For costs with a gradient: params, macs, bops, memory. The folder gets the plan and the trained slim model.
    Interrupted, the same command goes on after the last epoch.
    """  # fmt: skip
    bounds = parse_budget(budget)
    if not 0 < share <= 1:
        raise typer.BadParameter(f"Expected a share above 0 and at most 1. Received: {share}.", param_hint="--share")
    require_model(model)
    require_data(data)
    free_folder(output, overwrite, needed=(model, data))
    dense = open_model(session, model, trust)
    splits = open_data(session, data, dense, seed=seed, data_dir=data_dir, limit=limit, resize=resize)
    import tensorflow as tf

    from tfqprune.allocation import HolisticAllocator
    from tfqprune.allocation.base import unscored
    from tfqprune.allocation.identity import model_digest
    from tfqprune.channels import ChannelGraph
    from tfqprune.fitting import Fitter
    from tfqprune.pipeline.display import Display
    from tfqprune.pipeline.folder import RunFolder
    from tfqprune.pipeline.line import save_model
    from tfqprune.recovery import reestimate_batch_norms

    tf.keras.utils.set_random_seed(seed)
    graph = ChannelGraph(dense)
    hint_at_dead_channels(graph)
    limits: dict[str, Any] = {"align": align, "exclude": tuple(exclude or ())}
    # What cannot be done is said before a folder is made.
    Fitter(graph, unscored(graph), bounds, **limits)
    training: dict[str, Any] = {
        "epochs": epochs, "share": share, "learning_rate": learning_rate, "batch_size": batch_size,
        "validation": splits.validation,
    }  # fmt: skip
    HolisticAllocator(bounds, **training)
    facts = {key: value for key, value in session.settings.items() if key not in _FREE}
    facts |= {"model": model_digest(graph), "samples": samples_of(dense, splits)}
    folder = RunFolder(output, facts, holds=_HOLDS, overwrite=overwrite)
    session.save_settings(folder.path / "settings.toml")
    backup = folder.path / "backup"
    keeping = tf.keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False)  # until the model is saved
    with Display(session.verbosity).training("training and pruning") as bars:
        allocator = HolisticAllocator(bounds, **training, callbacks=[keeping, *bars])
        plan = allocator.allocate(dense, criterion, splits.train, **limits)
    assert allocator.pruning is not None  # allocate has made it
    slim = reestimate_batch_norms(allocator.pruning.finish(), splits.train)
    files = {name: folder.path / file for name, file in (("model", "model.keras"), ("plan", "plan.json"))}
    save_model(slim, files["model"])
    plan.save(files["plan"])
    folder.finish()
    shutil.rmtree(backup, ignore_errors=True)
    return before_and_after(dense, slim, plan, splits, files)
