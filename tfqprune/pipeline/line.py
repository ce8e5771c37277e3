"""The steps of a run on one model: each result is kept in its folder, and read if it is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation import get_allocator
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.evaluation import PlanEvaluator
from tfqprune.fitting import Fitter
from tfqprune.pipeline.display import Display
from tfqprune.pipeline.folder import RunFolder
from tfqprune.pipeline.gathering import group_rows, layer_rows, node_rows, read_curves, read_trials
from tfqprune.pipeline.variants import measure_variant
from tfqprune.plan import PruningPlan
from tfqprune.report import NetworkReport, VariantRow
from tfqprune.slim import prune

DENSE = "dense"
CURVES = "curves.json"
#: state of an unfinished training, in the folder of its variant; it goes when the model is saved
BACKUP = "backup"
#: the methods that try plans out, by a metric on the validation data
TRIED = frozenset({"bayesian", "sensitivity"})


@dataclass(frozen=True)
class Variant:
    """One variant of the model, as it lies in the output folder.

    Attributes:
        name: "dense", or the method.
        model: the Keras model, fine-tuned.
        plan: which units went; None for the dense one.
        row: what was counted and measured.
        folder: with ``model.keras``, ``model.tflite`` and ``plan.json``.
    """

    name: str
    model: tf.keras.Model
    plan: PruningPlan | None
    row: VariantRow
    folder: Path


class Line:
    """The steps of a run on one model; each result is kept in the folder, and read if it is there."""

    def __init__(
        self,
        model: tf.keras.Model,
        graph: ChannelGraph,
        folder: RunFolder,
        display: Display,
        test: tuple[np.ndarray, np.ndarray],
        format: str,
        optimize: str,
        metric: str = "accuracy",
    ) -> None:
        self.model, self.graph, self.folder, self.display = model, graph, folder, display
        self.test, self.format, self.optimize, self.metric = test, format, optimize, metric
        self.costs = CostModel(graph)

    def variant(self, name: str, make: Callable[[], tuple[tf.keras.Model, PruningPlan]] | None = None) -> Variant:
        """A variant with its model, plan and figures: the dense model itself, or what ``make`` makes."""
        folder = self.folder.path / name
        folder.mkdir(exist_ok=True)
        file = folder / "model.keras"
        plan_file = folder / "plan.json"
        made: tf.keras.Model
        plan: PruningPlan | None
        if name == DENSE:
            made, plan = self.model, None
        elif file.exists() and plan_file.exists():
            # Rebuilt: Keras would want to know the user's own layers, and refuses Lambda layers.
            plan = PruningPlan.load(plan_file)
            made = prune(self.model, plan)
            made.load_weights(file)
        else:
            assert make is not None  # only the dense model need not be made
            made, plan = make()
        if not file.exists():
            save_model(made, file)
            shutil.rmtree(folder / BACKUP, ignore_errors=True)
        with self.display.working("exporting, comparing and measuring the file"):
            row = self.folder.step(
                f"{name}-measured",
                lambda: measure_variant(
                    name, made, folder / "model.tflite", *self.test, format=self.format, optimize=self.optimize
                ),
            )
        if row["tflite_bytes"] is not None:
            row["file"] = f"{name}/model.tflite"
        elif row["note"]:
            self.display.say(f"  [yellow]{row['note']}[/yellow]")
        return Variant(name, made, plan, VariantRow(**row), folder)

    def plan(
        self,
        name: str,
        budget: Budget,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        criterion: Any,
        limits: Mapping[str, Any],
        max_trials: int,
        seed: int,
    ) -> PruningPlan:
        """A method's plan, saved before anything is made of it.

        Where the run is about sensitivity, too, its curves guide the Bayesian search.
        """
        file = self.folder.path / name / "plan.json"
        if file.exists():
            return PruningPlan.load(file)
        file.parent.mkdir(exist_ok=True)
        options: dict[str, Any] = {}
        if name == "sensitivity":
            evaluator = PlanEvaluator(self.graph, validation, train, loss=loss_of(self.model))
            options = {"evaluate": evaluator, "path": file.with_name(CURVES), "metric": self.metric}
        elif name == "bayesian":
            options = {
                "validation": validation, "max_trials": max_trials, "seed": seed, "directory": file.parent,
                "loss": loss_of(self.model), "verbose": self.display.verbose, "objective": f"val_{self.metric}",
            }  # fmt: skip
            if "sensitivity" in self.folder.settings["methods"]:
                self.plan("sensitivity", budget, train, validation, criterion, limits, max_trials, seed)
                options["sensitivity"] = self.folder.path / "sensitivity" / CURVES
        plan = get_allocator(name)(budget, **options).allocate(self.model, criterion, train, **limits)
        plan.save(file)
        self.display.say(f"  {sum(map(len, plan.removed.values()))} of {sum(plan.sizes.values())} units go")
        return plan

    def network(self, title: str, variants: Sequence[Variant], outline: Fitter) -> NetworkReport:
        """All figures of the run, for the report."""
        plans = {variant.name: variant.plan for variant in variants if variant.plan is not None}
        curves, baseline = read_curves(self.folder.path / "sensitivity" / CURVES)
        trials = read_trials(self.folder.path / "bayesian" / "trials" / "trials.json")
        if self.metric != "accuracy":  # the report shows shares of right answers; the folder has the files
            curves, baseline, trials = (), None, ()
        return NetworkReport(
            title,
            tuple(variant.row for variant in variants),
            groups=group_rows(self.graph, plans, outline.excluded),
            nodes=node_rows(self.graph),
            layers=layer_rows(self.graph, self.costs, DENSE, plans),
            trials=trials,
            curves=curves,
            baseline=baseline,
            budget=outline.limits.limits,
            plans={name: f"{name}/plan.json" for name in plans},
        )


def save_model(model: tf.keras.Model, file: Path) -> None:
    """Saves a Keras model in one step: an interrupted write leaves no half of a file."""
    part = file.with_name(f"part-{file.name}")
    model.save(part)
    os.replace(part, file)


def loss_of(model: tf.keras.Model) -> Any:
    """The loss that the model is compiled with, or None."""
    return getattr(model, "loss", None)
