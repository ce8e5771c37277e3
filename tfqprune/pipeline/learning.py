"""The method of ``compress`` that trains while it decides: one training gives both the plan and the slim model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation import HolisticAllocator
from tfqprune.budget import Budget
from tfqprune.pipeline.line import BACKUP, Line, loss_of
from tfqprune.plan import PruningPlan

#: the method's name, that of its allocator
LEARNED = HolisticAllocator.name

Data = tuple[np.ndarray, np.ndarray]


def learned_variant(
    line: Line,
    budget: Budget,
    train: Data,
    validation: Data,
    criterion: Any,
    limits: Mapping[str, Any],
    *,
    seed: int,
    **training: Any,
) -> tuple[tf.keras.Model, PruningPlan]:
    """Trains the run's model with gates on its units, and makes it slim; an interrupted training goes on.

    Args:
        line: the run.
        budget: what the slim model holds.
        train: (x, y) arrays.
        validation: the same.
        criterion: where gates start.
        limits: ``align`` and ``exclude``.
        seed: of all chance in the training.
        **training: epochs, learning rate and batch size, as for :class:`tfqprune.HolisticAllocator`.

    Returns:
        The slim model with its trained weights, and the plan that leads to its shape.
    """
    folder = line.folder.path / LEARNED
    tf.keras.utils.set_random_seed(seed)
    with line.display.training("pruning while training") as bars:
        allocator = HolisticAllocator(
            budget,
            loss=loss_of(line.model),
            validation=validation,
            callbacks=[*bars, tf.keras.callbacks.BackupAndRestore(folder / BACKUP, delete_checkpoint=False)],
            **training,
        )
        plan = allocator.allocate(line.model, criterion, train, **limits)
    assert allocator.pruning is not None  # allocate has made it
    plan.save(folder / "plan.json")
    line.display.say(f"  {sum(map(len, plan.removed.values()))} of {sum(plan.sizes.values())} units go")
    return allocator.pruning.finish(), plan
