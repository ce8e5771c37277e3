"""``compress``: prune to a budget, regain accuracy, export, measure, and report, in one call.

Everything that is finished lies on disk; the same call goes on where it was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation import HolisticAllocator, allocator_names
from tfqprune.allocation.base import unscored
from tfqprune.allocation.identity import data_digest, judging_facts, model_digest
from tfqprune.allocation.project import plain
from tfqprune.budget import Budget, check_budget
from tfqprune.channels import ChannelGraph
from tfqprune.criteria import get_criterion
from tfqprune.dead import dead_hint
from tfqprune.errors import BudgetError, DataError, ModelTypeError, PlanError, seed_number, whole_number
from tfqprune.evaluation import PlanEvaluator
from tfqprune.fitting import Fitter, names_of
from tfqprune.pipeline.display import Display
from tfqprune.pipeline.environment import as_text, command, processor, versions
from tfqprune.pipeline.folder import RunFolder
from tfqprune.pipeline.learning import LEARNED, learned_variant
from tfqprune.pipeline.line import DENSE, TRIED, Line, Variant, loss_of
from tfqprune.pipeline.variants import check_format
from tfqprune.plan import PruningPlan
from tfqprune.recovery import finetune, reestimate_batch_norms
from tfqprune.recovery.training import choose_loss, cosine, prepare
from tfqprune.report import NetworkReport, RunReport, write
from tfqprune.report.tables import comparison_table
from tfqprune.samples import entries_of
from tfqprune.slim import prune

#: the methods of ``compress``: every registered allocator
METHODS = tuple(allocator_names())
#: what lies in the folder of a run beside one folder for each model
HOLDS = ("settings.toml", "report.html", "report.json", "plots")


@dataclass(frozen=True)
class CompressionResult:
    """What :func:`compress` found.

    Attributes:
        variants: the dense model first, then one for each method.
        network: all figures, as the report shows them.
        output_dir: where everything lies.
        report: the report's page, or None if none was asked for.
    """

    variants: tuple[Variant, ...]
    network: NetworkReport
    output_dir: Path
    report: Path | None

    def __getitem__(self, name: str) -> Variant:
        """A variant by its name."""
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def best(self) -> Variant:
        """The pruned variant with the highest accuracy on the test data (the first, where none has one)."""
        return self[self.network.best.name]

    def __str__(self) -> str:
        rows = [
            f"  {variant.name}: accuracy {variant.row.accuracy}, memory {variant.row.memory:,.0f} B, "
            f"file {variant.row.tflite_bytes} B"
            for variant in self.variants
        ]
        return "\n".join([f"CompressionResult of {self.network.name} in {self.output_dir}", *rows])


def compress(
    model: tf.keras.Model,
    train: Any,
    validation: Any,
    *,
    budget: Budget,
    method: str | Sequence[str] = "bayesian",
    output_dir: str | os.PathLike[str],
    test: Any = None,
    criterion: Any = "auto",
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    max_trials: int = 20,
    align: int = 1,
    exclude: Iterable[str] = (),
    format: str = "auto",
    optimize: str = "size",
    seed: int = 0,
    overwrite: bool = False,
    report: bool = True,
    title: str | None = None,
    verbose: int = 1,
    begun: Callable[[Path], None] | None = None,
) -> CompressionResult:
    """Prunes a trained model to a budget, fine-tunes it, exports it and measures the file.

    For each method: rank the units, find the ratios, rebuild slim, re-estimate batch norms, fine-tune, export, compare
    the file with the Keras model, measure its bytes, memory and latency. "holistic" learns the ratios in the epochs
    that the others fine-tune in.

    Args:
        model: a trained, functional or sequential tf_keras model with one input and one output; it is only read.
        train: (x, y) arrays, or anything with ``.x`` and ``.y``.
        validation: the same; trials are judged by it: by the accuracy, or by the loss of a model without one.
        budget: what every pruned model holds; ``tflite_bytes`` and ``latency`` of files in ``format``.
        method: one of ``METHODS``, or several.
        output_dir: a new folder, or the one of the same call, interrupted.
        test: the same as ``train``, for the figures of the result; None: the validation data.
        criterion: ranks units (see :func:`tfqprune.score`).
        epochs: of fine-tuning; 0: batch norms are re-estimated only ("holistic" needs at least 1).
        learning_rate: of the first step of fine-tuning.
        batch_size: of fine-tuning.
        max_trials: of the Bayesian search.
        align: keep a multiple of so many channels in each layer.
        exclude: groups or layers that stay whole.
        format: of the .tflite files (see ``tflite_export.export``).
        optimize: "size" or "speed", where the format is "auto".
        seed: the same seed gives the same plans on the same machine; of "holistic", whose plan comes out of a training,
            where ``tf.config.experimental.enable_op_determinism()`` was called before.
        overwrite: remove what an earlier run left in ``output_dir``.
        report: write ``report.html``, ``report.json`` and plots.
        title: of the network in the report; by default the model's name.
        verbose: 0 prints nothing.
        begun: called with the folder when all has been checked and work begins, to add something of the caller's.

    Returns:
        Models, plans and figures.

    Raises:
        ModelTypeError: no graph model, or one of several inputs or outputs.
        BudgetError: the budget cannot be met (says the smallest reachable) or asks for another format than the run, or
            the method is unknown.
        CriterionError: no such criterion.
        DataError: data that does not fit; numbers for the training that make no sense.
        ExportError: no such format, or one that cannot store the model.
        PlanError: names or align that do not fit the model; max_trials below 1.
        OutputError: the folder holds another run or a finished one, or cannot be written.
    """
    methods = _methods(method)
    budget = check_budget(budget).exported(format, optimize)
    named = isinstance(criterion, str)
    known = None if named and criterion == "auto" else get_criterion(criterion)  # says what it does not know
    whole_number("epochs", epochs, DataError, least=0)
    whole_number("batch_size", batch_size, DataError)
    whole_number("max_trials", max_trials, PlanError)
    seed = seed_number(seed, DataError)
    cosine(learning_rate, 1, 1)  # refuses numbers that make no sense
    learning: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    if LEARNED in methods:
        HolisticAllocator(budget, **learning)  # says what it cannot do
    graph = ChannelGraph(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelTypeError(
            f"Expected a model with one input and one output. Received: {model.name!r} with {len(model.inputs)} and "
            f"{len(model.outputs)}. Take the steps one by one: score, allocate, prune, finetune, export."
        )
    check_format(model, format, optimize)
    limits: dict[str, Any] = {"align": align, "exclude": names_of(exclude)}
    # Whether the budget can be met does not depend on the scores: said before any work and before a folder is made.
    outline = Fitter(graph, unscored(graph), budget, **limits)
    limits["meter"] = outline.meter  # what is measured holds for all methods: their limits are the same
    train_x, train_y = _checked(model, train, "train", epochs)
    validation_x, validation_y = _checked(model, validation, "validation", epochs)
    test_part = (validation_x, validation_y) if test is None else _checked(model, test, "test", epochs)
    metric = "accuracy"
    if TRIED.intersection(methods):
        names = PlanEvaluator(graph, (validation_x, validation_y), loss=loss_of(model)).names()
        metric = metric if metric in names else "loss"
    settings = {
        "model": model_digest(graph), "budget": budget.as_dict(), "epochs": epochs, "learning_rate": learning_rate,
        "batch_size": batch_size, "max_trials": max_trials, "align": align,
        "criterion": criterion if named else plain(known),
        "exclude": list(limits["exclude"]), "format": format, "optimize": optimize, "seed": seed,
        "data": [list(np.shape(part)) for part in (train_x, validation_x, test_part[0])], "methods": methods,
    }  # fmt: skip
    facts = {
        "samples": [data_digest(model, part) for part in ((train_x, train_y), (validation_x, validation_y), test_part)],
        **judging_facts(model, loss_of(model), None),
        "groups": [group.name for group in graph.groups],  # by which plans name what goes
    }
    folder = RunFolder(output_dir, {**settings, **facts}, holds=(DENSE, *METHODS, *HOLDS), overwrite=overwrite)
    if begun is not None:
        begun(folder.path)
    display = Display(verbose)
    if folder.resumed:
        display.say(f"Going on with the run in {folder.path}.")
    line = Line(model, graph, folder, display, test_part, format, optimize, metric)

    display.heading(f"{title or model.name}: dense")
    if hint := dead_hint(graph):
        display.say(f"  [yellow]{hint}[/yellow]")
    variants = [line.variant(DENSE)]
    for name in methods:
        display.heading(f"{title or model.name}: {name} ratios to {budget}")

        def make(name: str = name) -> tuple[tf.keras.Model, PruningPlan]:
            if name == LEARNED:
                slim, plan = learned_variant(
                    line, budget, (train_x, train_y), (validation_x, validation_y), criterion, limits, seed=seed,
                    **learning,
                )  # fmt: skip
                reestimate_batch_norms(slim, (train_x, train_y))
                return slim, plan
            plan = line.plan(name, budget, (train_x, train_y), (validation_x, validation_y), criterion, limits,
                             max_trials, seed)  # fmt: skip
            tf.keras.utils.set_random_seed(seed)
            slim = prune(model, plan)
            reestimate_batch_norms(slim, (train_x, train_y))
            if epochs:
                with display.training("fine-tuning") as bars:
                    finetune(
                        slim, (train_x, train_y), (validation_x, validation_y), epochs, learning_rate=learning_rate,
                        batch_size=batch_size, callbacks=bars, loss=loss_of(model),
                    )  # fmt: skip
                reestimate_batch_norms(slim, (train_x, train_y))
            return slim, plan

        variants.append(_judged(line.variant(name, make), outline.limits.limits.get("tflite_bytes"), display))

    network = line.network(title or model.name, variants, outline)
    page = None
    if report:
        run = RunReport(
            f"{title or model.name} compressed to {budget}",
            (network,),
            created=timestamp(),
            commands=(command(),),
            settings=as_text({**settings, "budget": str(budget)}),
            environment={"processor": processor()},
            versions=versions(),
        )
        page = write(run, folder.path)["html"]
        display.show(comparison_table(network))
        display.say(f"Report: {page}")
    folder.finish()
    return CompressionResult(tuple(variants), network, folder.path, page)


def _judged(variant: Variant, limit: float | None, display: Display) -> Variant:
    """A variant, with a note where its file is above the budget all the same."""
    size = variant.row.tflite_bytes
    if limit is None or size is None or size <= limit:
        return variant
    note = (
        f"The file has {size:,} bytes, above the budget of {limit:,.0f}: it was measured before the training, and "
        "equal values are stored once, so a file can grow where values become different. Ask for a little less."
    )
    display.say(f"  [yellow]{note}[/yellow]")
    return replace(variant, row=replace(variant.row, note=" ".join(filter(None, (variant.row.note, note)))))


def timestamp() -> str:
    """Now, as a reader likes to see it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _methods(given: Any) -> list[str]:
    """Names of methods, each once."""
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise BudgetError(
            f"Expected a method out of {', '.join(METHODS)}, or several. Received: "
            f"{', '.join(map(repr, unknown)) or repr(given)}."
        )
    return list(dict.fromkeys(names))


def _checked(model: tf.keras.Model, data: Any, what: str, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels as arrays that go with the model and, where there is a training, with its loss."""
    x, y = _arrays(data, what)
    try:
        prepared = prepare(model, (x, y), len(x), what, shuffle=False)
        if epochs or prepared.loss is not None:
            choose_loss(model, prepared, None)
    except DataError as error:
        raise type(error)(f"{error} These are the {what} data.") from error
    return x, y


def _arrays(data: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    data = entries_of(data)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError(f"Expected {what} as (x, y) arrays. Received: {type(data).__name__}.")
    try:
        x, y = np.asarray(data[0]), np.asarray(data[1])
    except ValueError as error:
        raise DataError(f"Expected {what} as one array of inputs and one of labels. Received: unequal rows.") from error
    if len(x) != len(y) or not len(x):
        raise DataError(f"Expected {what} with as many labels as inputs, at least one. Received: {len(x)}, {len(y)}.")
    return x, y
