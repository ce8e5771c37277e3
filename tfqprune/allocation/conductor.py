"""The callback of holistic pruning: how long there is to learn, when to stop, and what to do when training breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import DataError, EvaluationError


class Conductor(tf.keras.callbacks.Callback):
    """Tells the gates how long they have, freezes them in time, and stops at a loss that is no number.

    Its model is a :class:`tfqprune.HolisticPruning`.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        if not steps:
            raise DataError(
                "Expected data with a known number of steps in an epoch, so that the budget is reached in time. "
                "Received: data of unknown length. Give steps_per_epoch."
            )
        self.model.begin(steps * self.params["epochs"])
        self._good = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self.model.set_weights(self._good)
            raise EvaluationError(
                f"Expected a loss that is a number. Received: {loss} in batch {batch}. Weights and gates are back at "
                "the end of the last good epoch. Try a lower learning rate, and look for values in the data that are "
                "not finite."
            )
        if self.model.learned:
            self.model.freeze()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._good = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.model.steps:
            self.model.freeze()
