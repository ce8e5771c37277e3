"""Losses: of each sample, for criteria that differentiate it; inferred from labels and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import DataError

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def sample_losses(
    model: tf.keras.Model, outputs: list[tf.Tensor], labels: list[tf.Tensor] | None, loss: Any = None
) -> tf.Tensor:
    """The loss of each sample, summed over the outputs of the model.

    Args:
        model: its compiled loss is used where ``loss`` is None and it has one of a single kind.
        outputs: the model's outputs.
        labels: one tensor an output; None: what the model itself holds most likely stands in for them.
        loss: a Keras loss (name, object) or a function of labels and outputs.

    Returns:
        Float tensor ``[samples]``.

    Raises:
        DataError: labels that do not go with an output, or none where the output is no classification.
    """
    if loss is None and isinstance(getattr(model, "loss", None), str | tf.keras.losses.Loss):
        loss = model.loss
    total = tf.zeros(outputs[0].shape[0])
    for index, output in enumerate(outputs):
        output = tf.cast(output, tf.float32)
        name = model.outputs[index]._keras_history.layer.name
        given = _own_labels(output, name) if labels is None else labels[index]
        if given.dtype.is_floating:
            given = tf.cast(given, output.dtype)
        # Labels that stand in are class numbers, whatever labels the compiled loss expects.
        function = _inferred if loss is None or labels is None else _function(loss)
        try:
            values = function(given, output)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise DataError(
                f"The loss cannot be computed from labels of shape {tuple(given.shape)} and output {name!r} of "
                f"shape {tuple(output.shape)}: {error}"
            ) from error
        values = tf.cast(values, tf.float32)
        if values.shape.rank:
            values = tf.reduce_mean(tf.reshape(values, [values.shape[0], -1]), axis=1)
        total += values
    return total


def _function(loss: Any) -> Loss:
    """A loss that is not averaged over the samples."""
    if isinstance(loss, str):
        loss = tf.keras.losses.get(loss)
    if isinstance(loss, tf.keras.losses.Loss):
        return loss.call
    if not callable(loss):
        raise DataError(f"Expected a Keras loss or a function of labels and outputs. Received: {loss!r}.")
    return loss


def is_probabilities(output: tf.Tensor) -> bool:
    """Whether an output's last axis holds probabilities that sum to one."""
    values = tf.cast(output, tf.float32).numpy()
    # bfloat16 rounds each probability by up to 1/512 of it
    return bool((values >= 0).all() and np.allclose(values.sum(axis=-1), 1, atol=1e-2))


def within_one(output: tf.Tensor) -> bool:
    """Whether all values lie from 0 to 1, as those of a sigmoid do."""
    return bool(tf.reduce_all((output >= 0) & (output <= 1)))


def loss_name(loss: Any) -> str:
    """The name of a Keras loss (string, object, function), in small letters without underscores."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name.lower().replace("_", "")


def _own_labels(output: tf.Tensor, name: str) -> tf.Tensor:
    if output.shape.rank < 2 or output.shape[-1] < 2:
        raise DataError(
            f"Expected labels for output {name!r} of shape {tuple(output.shape)}, which is no classification. "
            "Received: none. Hand over data=(x, y)."
        )
    return tf.argmax(output, axis=-1)


def infer_loss(labels: tf.Tensor, output: tf.Tensor) -> tf.keras.losses.Loss:
    """The usual loss for labels and an output: cross-entropy for classes, squared error otherwise.

    Args:
        labels: class numbers, shares of classes, or values.
        output: probabilities if its last axis sums to one, else logits or values.

    Raises:
        ValueError: they do not go together.
    """
    losses = tf.keras.losses
    whole = labels.dtype.is_integer or labels.dtype.is_bool
    shape, wide = labels.shape, output.shape[-1] > 1
    classes = wide and (shape == output.shape[:-1] or shape == [*output.shape[:-1], 1])
    if classes and whole:
        labels = tf.cast(labels, tf.int64)  # booleans have no smallest
        low, high = int(tf.reduce_min(labels)), int(tf.reduce_max(labels))
        if low < 0 or high >= output.shape[-1]:
            raise ValueError(f"class numbers from {low} to {high}, for {output.shape[-1]} classes.")
        return losses.SparseCategoricalCrossentropy(from_logits=not is_probabilities(output))
    if shape == output.shape or (not wide and shape == output.shape[:-1]):
        if wide and is_probabilities(tf.cast(labels, tf.float32)):
            return losses.CategoricalCrossentropy(from_logits=not is_probabilities(output))
        if not wide and whole:
            return losses.BinaryCrossentropy(from_logits=not within_one(output))
        return losses.MeanSquaredError()
    if classes and bool(tf.reduce_all(labels == tf.round(labels))):
        raise ValueError(
            f"class numbers of type {labels.dtype.name}; cast them to integers, or choose a loss (loss=...)."
        )
    raise ValueError("they do not go together; choose a loss (loss=...), or compile the model with one.")


def _inferred(labels: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    if output.shape[-1] == 1 and labels.shape == output.shape[:-1]:
        labels = labels[..., None]
    loss = infer_loss(labels, output)
    return loss.call(
        labels if isinstance(loss, tf.keras.losses.SparseCategoricalCrossentropy) else tf.cast(labels, output.dtype),
        output,
    )
