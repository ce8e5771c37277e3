"""``tfqprune train-prune``: ratios learned while the model trains (holistic pruning)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tfqprune.cli import options as opt
from tfqprune.cli.amounts import parse_budget
from tfqprune.cli.inputs import free_folder, open_data, open_model, require_data, require_model
from tfqprune.cli.outcomes import before_and_after
from tfqprune.cli.session import Outcome, Session

# What may differ where a run goes on.
_FREE = {"output", "overwrite", "data-dir", "trust"}


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
    free_folder(output, overwrite)
    dense = open_model(session, model, trust)
    splits = open_data(session, data, dense, seed=seed, data_dir=data_dir, limit=limit, resize=resize)
    import tensorflow as tf

    from tfqprune.allocation import HolisticPruning
    from tfqprune.allocation.identity import model_digest
    from tfqprune.channels import ChannelGraph
    from tfqprune.pipeline.display import Display
    from tfqprune.pipeline.folder import RunFolder
    from tfqprune.pipeline.line import save_model
    from tfqprune.recovery import reestimate_batch_norms
    from tfqprune.recovery.training import choose_loss, cosine, default_metrics, fresh_optimizer, prepare

    tf.keras.utils.set_random_seed(seed)
    with session.working("building the model with gates"):
        hfp = HolisticPruning(
            dense, bounds, criterion, splits.train, share=share, align=align, exclude=tuple(exclude or ())
        )
    facts = {key: value for key, value in session.settings.items() if key not in _FREE}
    folder = RunFolder(output, {**facts, "model": model_digest(ChannelGraph(dense))}, overwrite=overwrite)
    session.save_settings(folder.path / "settings.toml")
    batches = prepare(dense, splits.train, batch_size, "train")
    held_out = prepare(dense, splits.validation, batch_size, "validation", shuffle=False)
    loss = choose_loss(dense, batches, None)
    hfp.compile(
        fresh_optimizer("adam", cosine(learning_rate, batches.steps, epochs)), loss, metrics=default_metrics(loss)
    )
    backup = tf.keras.callbacks.BackupAndRestore(str(folder.path / "backup"))
    with Display(session.verbosity).training("training and pruning") as callbacks:
        hfp.fit(
            batches.dataset, validation_data=held_out.dataset, epochs=epochs, verbose=0,
            callbacks=[backup, *callbacks],
        )  # fmt: skip
    plan = hfp.plan()
    slim = reestimate_batch_norms(hfp.finish(), splits.train)
    files = {name: folder.path / file for name, file in (("slim model", "model.keras"), ("plan", "plan.json"))}
    save_model(slim, files["slim model"])
    plan.save(files["plan"])
    folder.finish()
    learned: dict[str, Any] = {"learned": plan.notes.get("learned"), "steps": plan.notes.get("steps")}
    return before_and_after(dense, slim, plan, splits, files, **learned)
