"""What a trial is worth: by proxy, or by fine-tuning the slim model."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.errors import OutputError
from tfqprune.evaluation import CALIBRATION_BATCH, PlanEvaluator, compile_like, set_statistics, with_accuracy
from tfqprune.files import write_arrays, write_json
from tfqprune.fitting import Fitter
from tfqprune.recovery import finetune, reestimate_batch_norms
from tfqprune.slim import SlimBuilder
from tfqprune.twin import Statistics, drop_penalties

_STATISTICS = "statistics.npz"
_WEIGHTS = "slim.weights.h5"
_TUNED = "tuned.json"

Counts = Mapping[str, int]


class Judge:
    """Evaluates plans, and keeps in the trial's folder what is needed to have the model again.

    Args:
        fitter: turns numbers of units into slots.
        train: training data.
        validation: validation data.
        evaluator: of the proxy.
        epochs / learning_rate / batch_size / optimizer / loss / metrics: of fine-tuning.
        calibration_samples: training samples that batch norms are re-estimated on.
        strategy: a ``tf.distribute`` strategy for fine-tuning, or None.
        seed: of shuffling and dropout; the trial's number is added.
    """

    def __init__(
        self,
        fitter: Fitter,
        train: Any,
        validation: Any,
        evaluator: PlanEvaluator,
        *,
        epochs: int,
        learning_rate: float,
        batch_size: int,
        optimizer: Any,
        loss: Any,
        metrics: Any,
        calibration_samples: int,
        strategy: Any,
        seed: int,
    ) -> None:
        self.fitter, self.train, self.validation, self.evaluator = fitter, train, validation, evaluator
        self.epochs, self.learning_rate, self.batch_size = epochs, learning_rate, batch_size
        self.optimizer, self.loss, self.metrics = optimizer, loss, metrics
        self.calibration_batches = -(-calibration_samples // CALIBRATION_BATCH)
        self.strategy, self.seed = strategy, seed

    def proxy(self, counts: Counts, folder: Path) -> dict[str, float]:
        """Metrics on the validation data, batch norms re-estimated, nothing trained."""
        results, statistics = self.evaluator.evaluate(self.fitter.removed(counts))
        arrays = {f"{name}:{part}": value for name, values in statistics.items() for part, value in enumerate(values)}
        write_arrays(folder / _STATISTICS, arrays)
        return {f"val_{name}": value for name, value in results.items()}

    def tuned(self, counts: Counts, folder: Path, number: int, callbacks: Sequence[Any] = ()) -> dict[str, float]:
        """Metrics of the slim model on the validation data after fine-tuning.

        Batch norms are re-estimated before and after.
        """
        tf.keras.utils.set_random_seed(self.seed + number)
        graph = self.fitter.graph
        with contextlib.nullcontext() if self.strategy is None else self.strategy.scope():
            slim = SlimBuilder(graph, graph.alive(self.fitter.removed(counts))).build()
            if self.loss is None:
                compile_like(slim, graph.model)
            reestimate_batch_norms(slim, self.train, self.calibration_batches, batch_size=CALIBRATION_BATCH)
            optimizer = self.optimizer or getattr(graph.model, "optimizer", None) or "adam"
            finetune(
                slim,
                self.train,
                self.validation,
                self.epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                optimizer=optimizer,
                loss=self.loss,
                metrics=self.metrics,
                callbacks=callbacks,
            )
            reestimate_batch_norms(slim, self.train, self.calibration_batches, batch_size=CALIBRATION_BATCH)
            drop_penalties(slim)  # as in the proxy, whose metrics these are
            compile_like(slim, graph.model, loss=self.loss, metrics=self.metrics)
            results = slim.evaluate(self.evaluator.validation, verbose=0, return_dict=True)
        metrics = {f"val_{name}": float(value) for name, value in with_accuracy(results).items()}
        slim.save_weights(folder / f".{_WEIGHTS}")
        os.replace(folder / f".{_WEIGHTS}", folder / _WEIGHTS)
        write_json(folder / _TUNED, metrics)
        return metrics


def tuned_metrics(folder: Path) -> dict[str, float] | None:
    """What a trial's fine-tuned model achieved; empty where fine-tuning failed, None where there was none."""
    path = folder / _TUNED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def give_up_tuning(folder: Path) -> None:
    """Notes that a trial cannot be fine-tuned: its model stays the one that was judged by proxy."""
    (folder / _WEIGHTS).unlink(missing_ok=True)
    write_json(folder / _TUNED, {})


def restore(graph: ChannelGraph, removed: Mapping[str, tuple[int, ...]], folder: Path) -> tf.keras.Model:
    """The slim model of a trial as it was judged: with its fine-tuned weights, or its batch-norm statistics.

    Raises:
        OutputError: the folder holds neither.
    """
    slim = SlimBuilder(graph, graph.alive(dict(removed))).build()
    if (folder / _WEIGHTS).exists():
        slim.load_weights(folder / _WEIGHTS)
    elif (folder / _STATISTICS).exists():
        set_statistics(graph, slim, _load_statistics(folder / _STATISTICS))
    else:
        raise OutputError(
            f"Expected what the trial left in {str(folder)!r}. Received: neither {_WEIGHTS} nor {_STATISTICS}. "
            "If it ran on another machine, let all workers share the directory, or prune by get_best_plans()."
        )
    return slim


def _load_statistics(path: Path) -> Statistics:
    with np.load(path) as arrays:
        names = dict.fromkeys(name.rsplit(":", 1)[0] for name in arrays.files)
        return {name: (arrays[f"{name}:0"], arrays[f"{name}:1"]) for name in names}
