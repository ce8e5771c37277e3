"""Losses: of each sample, for criteria that differentiate it; inferred from labels and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import DataError
from tfqprune.samples import output_names

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def sample_losses(
    model: tf.keras.Model,
    outputs: list[tf.Tensor],
    labels: list[tf.Tensor] | None,
    loss: Any = None,
    known: list[np.ndarray] | None = None,
) -> tf.Tensor:
    """The loss of each sample, summed over the outputs of the model.

    Args:
        model: its compiled loss is used where ``loss`` is None, with its compiled weights.
        outputs: the model's outputs.
        labels: one tensor an output; None: what the model itself holds most likely stands in for them.
        loss: a Keras loss (name, object) or a function of labels and outputs; or several, as for ``compile``.
        known: all labels, where ``labels`` are some of them; see :func:`infer_loss`.

    Returns:
        Float tensor ``[samples]``.

    Raises:
        DataError: labels that do not go with an output, or none where the output is no classification; losses that do
            not go with the outputs.
    """
    compiled = loss is None
    if compiled:
        loss = getattr(model, "loss", None)
    weights = _by_output(model, compiled_arguments(model).get("loss_weights") if compiled else None)
    names, total = output_names(model), tf.zeros(outputs[0].shape[0])
    for index, (output, own, weight) in enumerate(zip(outputs, _by_output(model, loss), weights, strict=True)):
        if loss is not None and own is None:  # this output has no loss
            continue
        output = tf.cast(output, tf.float32)
        name = names[index]
        given = _own_labels(output, name, own) if labels is None else labels[index]
        if given.dtype.is_floating:
            given = tf.cast(given, output.dtype)
        # Labels that stand in are class numbers, whatever labels the compiled loss expects.
        try:
            if own is None or labels is None:
                values = _inferred(given, output, None if labels is None or known is None else known[index])
            else:
                values = _function(own, compiled)(given, output)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise DataError(
                f"The loss cannot be computed from labels of shape {tuple(given.shape)} and output {name!r} of "
                f"shape {tuple(output.shape)}: {error}"
            ) from error
        values = tf.cast(values, tf.float32)
        if values.shape.rank:
            values = tf.reduce_mean(tf.reshape(values, [values.shape[0], -1]), axis=1)
        total += values if weight is None else weight * values
    return total


def check_classes(model: tf.keras.Model, labels: Sequence[np.ndarray], loss: Any) -> None:
    """Checks that class numbers, where a loss takes them, are those of classes that the model has.

    Args:
        model: whose outputs they label.
        labels: one array an output.
        loss: a Keras loss (name, object) or a function; or several, as for ``compile``.

    Raises:
        DataError: a number below 0, or of a class that the output does not have.
    """
    for name, output, own, values in zip(
        output_names(model), model.outputs, _by_output(model, loss), labels, strict=True
    ):
        classes = output.shape[-1]
        if own is None or "sparse" not in loss_name(own) or classes is None:
            continue
        ignored = own.get_config().get("ignore_class") if isinstance(own, tf.keras.losses.Loss) else None
        counted = values if ignored is None else values[values != ignored]
        low, high = (np.min(counted), np.max(counted)) if counted.size else (0, 0)
        if low < 0 or high >= classes:
            raise DataError(
                f"Expected class numbers from 0 to {classes - 1} as labels of output {name!r}. Received: numbers from "
                f"{low:g} to {high:g}. Number the classes from 0, or give the model an output for each."
            )


def compiled_arguments(model: tf.keras.Model) -> dict[str, Any]:
    """What a model's ``compile`` was called with; nothing where it was not."""
    return dict(getattr(getattr(model, "_compile_config", None), "config", None) or {})


def _by_output(model: tf.keras.Model, given: Any) -> list[Any]:
    """Losses or their weights in the form that ``compile`` takes, one an output; None where there is none."""
    if not isinstance(given, Mapping | list | tuple):
        return [given] * len(model.outputs)
    names = output_names(model)
    fits = set(given) <= set(names) if isinstance(given, Mapping) else len(given) == len(names)
    if not fits:
        raise DataError(
            f"Expected losses, and weights, for the outputs {names}. Received: {given!r}. Give one for all, a list "
            "with one for each, or a mapping by their names."
        )
    return [given.get(name) for name in names] if isinstance(given, Mapping) else list(given)


def _function(loss: Any, compiled: bool) -> Loss:
    """A loss that is not averaged over the samples."""
    if isinstance(loss, str):
        loss = tf.keras.losses.get(loss)
    if not callable(loss):
        raise DataError(f"Expected a Keras loss or a function of labels and outputs. Received: {loss!r}.")
    function = loss.call if isinstance(loss, tf.keras.losses.Loss) else loss

    def matched(labels: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        # Two ranks would be spread over each other; a compiled loss gets its labels as ``fit`` hands them over.
        if labels.shape.rank == output.shape.rank - 1 and (
            output.shape[-1] == 1 or (compiled and labels.shape.rank == 1)
        ):
            labels = labels[..., None]
        return function(labels, output)

    return matched


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


def _own_labels(output: tf.Tensor, name: str, loss: Any) -> tf.Tensor:
    """The classes that the model itself holds most likely, where its outputs are classes."""
    if loss is not None and "crossentropy" not in loss_name(loss):
        raise DataError(
            f"Expected labels for output {name!r}, whose loss {loss!r} is no cross-entropy. Received: none. Hand over "
            "data=(x, y)."
        )
    if output.shape.rank < 2 or output.shape[-1] < 2:
        raise DataError(
            f"Expected labels for output {name!r} of shape {tuple(output.shape)}, which is no classification. "
            "Received: none. Hand over data=(x, y)."
        )
    return tf.argmax(output, axis=-1)


def infer_loss(labels: tf.Tensor, output: tf.Tensor, known: np.ndarray | None = None) -> tf.keras.losses.Loss:
    """The usual loss for labels and an output: cross-entropy for classes, squared error otherwise.

    Args:
        labels: class numbers, shares of classes, or values. For one unit whole numbers are classes if all are 0 or 1.
        output: probabilities if its last axis sums to one, else logits or values.
        known: all labels, where ``labels`` are some of them: the others may show that they are no classes.

    Raises:
        ValueError: they do not go together.
    """
    losses = tf.keras.losses
    whole = labels.dtype.is_integer or labels.dtype.is_bool
    shape, wide = labels.shape, output.shape[-1] > 1
    classes = wide and (shape == output.shape[:-1] or shape == [*output.shape[:-1], 1])
    every = labels.numpy() if known is None else known
    low, high = (int(every.min()), int(every.max())) if whole else (0, 0)
    if classes and whole:
        if low < 0 or high >= output.shape[-1]:
            raise ValueError(f"class numbers from {low} to {high}, for {output.shape[-1]} classes.")
        return losses.SparseCategoricalCrossentropy(from_logits=not is_probabilities(output))
    if shape == output.shape or (not wide and shape == output.shape[:-1]):
        if wide and is_probabilities(tf.cast(every, tf.float32)):
            return losses.CategoricalCrossentropy(from_logits=not is_probabilities(output))
        if not wide and whole and low >= 0 and high <= 1:
            return losses.BinaryCrossentropy(from_logits=not within_one(output))
        return losses.MeanSquaredError()
    if classes and bool(tf.reduce_all(labels == tf.round(labels))):
        raise ValueError(
            f"class numbers of type {labels.dtype.name}; cast them to integers, or choose a loss (loss=...)."
        )
    raise ValueError("they do not go together; choose a loss (loss=...), or compile the model with one.")


def _inferred(labels: tf.Tensor, output: tf.Tensor, known: np.ndarray | None) -> tf.Tensor:
    if output.shape[-1] == 1 and labels.shape == output.shape[:-1]:
        labels = labels[..., None]
    loss = infer_loss(labels, output, known)
    return loss.call(
        labels if isinstance(loss, tf.keras.losses.SparseCategoricalCrossentropy) else tf.cast(labels, output.dtype),
        output,
    )
