"""Trials in TensorBoard: metrics and costs as scalars, ratios as hyperparameters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from keras_tuner.engine.trial import Trial

from tfqprune.allocation.oracle import ratios_of


def log_trial(callbacks: Sequence[Any], trial: Trial, metrics: Mapping[str, float]) -> None:
    """Writes a trial into the folder of each TensorBoard callback, under the trial's id.

    Args:
        callbacks: Keras callbacks; those that are no TensorBoard are left alone.
        trial: the trial.
        metrics: what it measured.
    """
    for callback in callbacks:
        if not isinstance(callback, tf.keras.callbacks.TensorBoard):
            continue
        # Slow to import, and needed by those alone who look at TensorBoard.
        from tensorboard.plugins.hparams import api  # type: ignore[import-untyped]

        with tf.summary.create_file_writer(os.path.join(callback.log_dir, trial.trial_id)).as_default():
            api.hparams(ratios_of(trial), trial_id=trial.trial_id)
            for name, value in metrics.items():
                tf.summary.scalar(name, value, step=int(trial.trial_id))
