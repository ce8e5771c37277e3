"""The callback of holistic pruning: how long there is to learn, when to stop, and what to do when training breaks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import DataError, EvaluationError


class Conductor(tf.keras.callbacks.Callback):
    """Tells the gates how long they have, freezes them in time, and stops at what is no number.

    Its model is a :class:`tfqprune.HolisticPruning`. It comes before all other callbacks, so that they are not called
    with weights that are broken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._good: list[np.ndarray] | None = None  # weights and gates
        self._optimizer: dict[int, np.ndarray] = {}  # identity of a variable -> value

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.params.get("steps"):
            raise DataError(
                "Expected data with a known number of steps in an epoch, so that the budget is reached in time. "
                "Received: data of unknown length. Give steps_per_epoch."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._good is not None:
            return
        # Only now: other callbacks restore what was interrupted when training begins.
        self.model.begin(self.params["steps"] * self.params["epochs"])
        if not all(np.isfinite(value).all() for value in self._keep()):
            raise EvaluationError(
                "Expected weights that are finite. Received: NaN or infinity in them before the first step. Start from "
                "weights, or from a backup, that are sound."
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss) or not self.model.finite:
            received = "gradients or weights that are not" if np.isfinite(loss) else loss
            self._restore()
            raise EvaluationError(
                f"Expected a loss, gradients and weights that are finite. Received: {received} in batch {batch}. "
                "Weights, gates and the optimiser are back at the end of the last good epoch. Try a lower learning "
                "rate, and look for values in the data that are not finite."
            )
        if self.model.learned:
            self.model.freeze()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._keep()

    def _keep(self) -> list[np.ndarray]:
        """Takes the state of the moment for a good one; its weights and gates."""
        self._optimizer = {id(variable): variable.numpy() for variable in self._variables()}
        self._good = self.model.get_weights()
        return self._good

    def _restore(self) -> None:
        self.model.set_weights(self._good)
        for variable in self._variables():
            # What an optimiser of the legacy kind has made at its first step was zero before.
            variable.assign(self._optimizer.get(id(variable), tf.zeros_like(variable)))

    def _variables(self) -> list[tf.Variable]:
        """Those of the optimiser, made now where it can make them before its first step."""
        optimizer = self.model.optimizer
        if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
            return list(optimizer.weights)
        with self.model.distribute_strategy.scope():
            optimizer.build(self.model.network.trainable_variables)
        return list(optimizer.variables)


def broken(network: tf.keras.Model, gradients: Iterable[Any]) -> tf.Tensor:
    """0 where weights and gradients are numbers, and kernels can be squared; else above 0."""
    values = [own for own in [*network.weights, *gradients] if own is not None and own.dtype.is_floating]
    # Of a sparse gradient the values that are there.
    values = [tf.cast(own.values if isinstance(own, tf.IndexedSlices) else own, tf.float32) for own in values]
    # One operation for each kernel, and one for all vectors: a step has to stay cheap.
    sums = [tf.nn.l2_loss(own) for own in values if own.shape.rank > 1]
    sums.append(tf.reduce_sum(tf.concat([tf.reshape(own, [-1]) for own in values if own.shape.rank < 2] or [[0.0]], 0)))
    return tf.math.count_nonzero(~tf.math.is_finite(tf.stack(sums)), dtype=tf.float32)
