"""The demonstration: two small residual networks, from training to measured .tflite files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import zoo
from tfqprune.allocation.base import unscored
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.costs import cost
from tfqprune.data import DataSplits, load
from tfqprune.fitting import Fitter
from tfqprune.pipeline.compression import HOLDS, CompressionResult, compress, timestamp
from tfqprune.pipeline.display import Display
from tfqprune.pipeline.environment import as_text, command, processor, versions
from tfqprune.pipeline.folder import RunFolder, read_state, reopen
from tfqprune.pipeline.line import save_model
from tfqprune.recovery import finetune
from tfqprune.report import RunReport, write
from tfqprune.report.tables import comparison_table, cost_table, score_table
from tfqprune.scoring import choose_criterion, run_criterion

#: networks of the demonstration: name -> precision
NETWORKS: dict[str, str | int] = {"binary": "binary", "dorefa2": 2}


@dataclass(frozen=True)
class DemoSettings:
    """What a demonstration does.

    Attributes:
        dataset: "digits", or a name of TensorFlow Datasets.
        budget: share of memory that pruned networks may use.
        epochs: of training.
        finetune_epochs: of fine-tuning after a cut.
        trials: of the Bayesian search.
        batch_size: of all training.
        learning_rate: of the first step of training; fine-tuning begins with a third of it.
        quantize_ends: quantise the first convolution and the last dense layer, too.
        limit: at most so many images in each part of the data; None: all.
        seed: of everything.
    """

    dataset: str = "digits"
    budget: float | str = 0.7
    epochs: int = 40
    finetune_epochs: int = 15
    trials: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-3
    quantize_ends: bool = False
    limit: int | None = None
    seed: int = 0


def demonstrate(
    settings: DemoSettings | None = None,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    verbose: int = 1,
    begun: Callable[[Path], None] | None = None,
) -> dict[str, CompressionResult]:
    """Trains two networks and compresses each with one uniform ratio and with Bayesian ratios.

    Args:
        settings: what to do.
        output_dir: a new folder, or that of the same demonstration, interrupted; None: the next free
            ``runs/demo-<dataset>-<n>``.
        data_dir: folder of TensorFlow Datasets.
        overwrite: remove what an earlier demonstration left in ``output_dir``.
        verbose: 0 prints nothing.
        begun: called with the folder when work begins, as by ``compress``.

    Returns:
        Network name -> result. The folder holds models, plans, trials, .tflite files and ``report.html``.

    Raises:
        DataError: the data set is unknown or cannot be had.
        BudgetError: the budget cannot be met (said before training).
        OutputError: the folder holds something else or cannot be written (said before training).
    """
    settings = settings or DemoSettings()
    budget = Budget(memory=settings.budget)
    data = load(settings.dataset, seed=settings.seed, data_dir=data_dir, limit=settings.limit)
    networks = {name: _build(precision, data, settings) for name, precision in NETWORKS.items()}
    for model in networks.values():
        graph = ChannelGraph(model)
        Fitter(graph, unscored(graph), budget)  # refuses a budget that cannot be met
    path = Path(output_dir) if output_dir is not None else _next_folder(settings)
    folder = RunFolder(path, asdict(settings), holds=(*NETWORKS, *HOLDS), overwrite=overwrite)
    if begun is not None:
        begun(folder.path)
    # The same seed gives the same weights, whatever the order in which threads finish.
    tf.config.experimental.enable_op_determinism()
    display = Display(verbose)
    display.say(
        f"{data.name}: {len(data.train):,} images to train on, {len(data.validation):,} to choose by, "
        f"{len(data.test):,} to report on; {data.num_classes} classes of {'x'.join(map(str, data.input_shape))}."
    )
    display.say(f"{'Going on with' if folder.resumed else 'Results go to'} {folder.path}.")
    results = {name: _network(name, model, data, settings, folder, display) for name, model in networks.items()}
    report = RunReport(
        f"tfqprune on {data.name}",
        tuple(result.network for result in results.values()),
        description=(
            f"Two residual networks trained on {data.name}, pruned to {budget} with one uniform ratio and with "
            "Bayesian ratios for each group, rebuilt slim, fine-tuned, exported and measured. Accuracy is that of the "
            "Keras model on test images; agreement compares the file with it."
        ),
        created=timestamp(),
        commands=(command(),),
        settings=as_text(asdict(settings)),
        environment={"processor": processor()},
        versions=versions(),
    )
    page = write(_inside(report, results), folder.path)["html"]
    display.heading("Dense, uniform and Bayesian, on test images")
    for result in results.values():
        display.show(comparison_table(result.network))
    display.say(f"Everything is in {folder.path}: .tflite files, slim Keras models, plans, trials.\nReport: {page}")
    folder.finish()
    return results


def _build(precision: str | int, data: DataSplits, settings: DemoSettings) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(settings.seed)
    small = min(data.input_shape[:2]) < 16
    return zoo.build(
        "resnet_digits" if small else "resnet20",
        precision=precision,
        input_shape=data.input_shape,
        classes=data.num_classes,
        quantize_ends=settings.quantize_ends,
    )


def _network(
    name: str, model: tf.keras.Model, data: DataSplits, settings: DemoSettings, folder: RunFolder, display: Display
) -> CompressionResult:
    """One network: train (or load what an interrupted run trained), look at it, compress it."""
    home = folder.path / name
    home.mkdir(exist_ok=True)
    file = home / "trained.keras"
    display.heading(f"{name}: {model.name}")
    total = cost(model)
    display.show(cost_table(model.name, [asdict(layer) for layer in total.layers], total.as_dict()))
    if not file.exists():
        with display.training("training") as bars:
            finetune(
                model, data.train, data.validation, settings.epochs, learning_rate=settings.learning_rate,
                batch_size=settings.batch_size, callbacks=bars,
            )  # fmt: skip
        save_model(model, file)
    model = tf.keras.models.load_model(file, compile=False)  # in every session the same one
    graph = ChannelGraph(model)
    criterion = choose_criterion(graph, "auto", data.train)
    scores = run_criterion(graph, criterion, data.train)
    display.show(score_table(criterion.name, _summaries(graph, scores)))
    reopen(home / "compressed")  # finished in an earlier session: all of it is read
    return compress(
        model,
        data.train,
        data.validation,
        test=data.test,
        budget=Budget(memory=settings.budget),
        method=("uniform", "bayesian"),
        output_dir=home / "compressed",
        epochs=settings.finetune_epochs,
        learning_rate=settings.learning_rate / 3,
        batch_size=settings.batch_size,
        max_trials=settings.trials,
        seed=settings.seed,
        report=False,
        title=name,
        verbose=display.verbose,
    )


def _summaries(graph: ChannelGraph, scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Group by group, what a table of scores shows."""
    return [
        {"name": group.name, "units": group.size, "lowest": np.argsort(scores[group.name], kind="stable")[:8].tolist()}
        for group in graph.prunable
    ]


def _inside(report: RunReport, results: Mapping[str, CompressionResult]) -> RunReport:
    """The report with file names relative to its own folder, one floor above those of the networks."""
    networks = []
    for name, result in results.items():
        base = f"{name}/compressed/"
        network = result.network
        networks.append(
            replace(
                network,
                variants=tuple(replace(row, file=row.file and base + row.file) for row in network.variants),
                plans={method: base + plan for method, plan in network.plans.items()},
            )
        )
    return replace(report, networks=tuple(networks))


def _next_folder(settings: DemoSettings) -> Path:
    """The folder of the same demonstration if it was interrupted, else a new one."""
    number = 1
    while True:
        path = Path("runs") / f"demo-{settings.dataset.replace('/', '-')}-{number}"
        state = read_state(path)
        if not path.exists() or (state and state["status"] != "finished" and state["settings"] == asdict(settings)):
            return path
        number += 1
