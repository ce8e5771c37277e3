"""Batch norms after a cut: their statistics taken anew, all other weights untouched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import ActivationError, DataError, ModelTypeError, whole_number
from tfqprune.layers.normalization import is_batch_norm
from tfqprune.models import check_model, is_keras_model
from tfqprune.progress import track
from tfqprune.samples import take_samples


@dataclass
class _Moments:
    """Running mean and variance over rows seen so far, float64 ``[channels]``."""

    count: float = 0
    mean: Any = 0.0
    squares: Any = 0.0  # sum of squared deviations from the mean

    def add(self, count: float, mean: np.ndarray, variance: np.ndarray) -> None:
        """Takes in a batch, by the formula of Chan et al. for joining two sets of data."""
        total = self.count + count
        with np.errstate(invalid="ignore"):  # infinities are looked for at the end, where the layer is known
            delta = mean - self.mean
            self.squares = self.squares + variance * count + delta**2 * (self.count * count / total)
            self.mean = self.mean + delta * (count / total)
        self.count = total


def reestimate_batch_norms(
    model: tf.keras.Model, data: Any, batches: int | None = 32, *, batch_size: int = 128
) -> tf.keras.Model:
    """Takes the statistics of all batch norms anew, from the data, in place.

    Each batch passes the model with the batch norms on the batch's own statistics and every other layer in inference
    mode (no dropout). A norm's new mean and variance are those of all rows it saw, over all batches: the exact mean and
    population variance, not a moving average. No other weight changes, and nothing changes if an error occurs. Frozen
    batch norms (``trainable=False``) are re-estimated, too; a subclass that computes something of its own keeps its
    statistics, with a warning.

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, call this PreciseBN.

    Args:
        model: a functional or sequential tf_keras model; slim, masked, dense, or the ``model`` of an evaluation twin.
        data: an array ``[samples, ...]``, a pair (x, y) whose y is ignored, a list or mapping of arrays for several
            inputs, an object with ``x`` and ``y``, or a tf.data.Dataset. Batches are taken in the order of the samples,
            in a random one where labels show that they are sorted by class. Shuffle what is sorted without labels:
            each batch would have statistics of its own class.
        batches: at most so many batches are used; None: all there are (not for endless data sets).
        batch_size: samples in a batch; a batched data set is cut anew.

    Returns:
        The same model.

    Raises:
        ModelTypeError: no graph model.
        DataError: data that does not fit, or too small a number.
        ActivationError: NaN or infinity reaches a batch norm, which is named.
    """
    if not is_keras_model(model) and is_keras_model(getattr(model, "model", None)):
        raise ModelTypeError(
            f"Expected a tf_keras model. Received: an object of type {type(model).__name__}, which holds one. "
            "Pass its attribute `model`."
        )
    check_model(model)
    batches = None if batches is None else whole_number("batches", batches, DataError)
    batch_size = whole_number("batch_size", batch_size, DataError)
    layers = [layer for layer in model._flatten_layers() if is_batch_norm(layer)]
    _warn_of_unknown(model)
    count = 2**31 if batches is None else batches * batch_size
    if (
        batches is None
        and isinstance(data, tf.data.Dataset)
        and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    ):
        raise DataError("Expected a number of batches for an endless data set. Received: batches=None.")
    samples = take_samples(model, data, count).mixed()
    if not layers:
        return model
    structure = model._nested_inputs if hasattr(model, "_nested_inputs") else model.inputs
    moments = {id(layer): _Moments() for layer in layers}
    with _own_statistics(layers, moments):
        steps = track(samples.batches(batch_size), "batch norms", samples.steps(batch_size))
        for inputs, _ in steps:
            model(tf.nest.pack_sequence_as(structure, inputs), training=False)
    pairs = []
    for layer in layers:
        found = moments[id(layer)]
        if not found.count:
            continue
        variance = found.squares / found.count
        check_statistics(layer.name, found.mean, variance)
        pairs += [(layer.moving_mean, found.mean), (layer.moving_variance, variance)]
    tf.keras.backend.batch_set_value(
        [(variable, np.asarray(value, np.float32).reshape(variable.shape)) for variable, value in pairs]
    )
    return model


def batch_moments(
    values: tf.Tensor, axes: list[int], mask: tf.Tensor | None, keepdims: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Statistics of one batch as a batch norm takes them in training.

    Args:
        values: what the batch norm reads.
        axes: those that are summed over.
        mask: Keras' mask of the first axes (samples, steps), whose False entries do not count; or None.
        keepdims: whether those axes stay, with length 1.

    Returns:
        How many rows counted (a number), their mean and their population variance.
    """
    if mask is None:
        rows = tf.cast(tf.reduce_prod(tf.gather(tf.shape(values), axes)), values.dtype)
        return rows, *tf.nn.moments(values, axes, keepdims=keepdims)
    weights = tf.reshape(
        tf.cast(mask, values.dtype), tf.concat([tf.shape(mask), [1] * (values.shape.rank - mask.shape.rank)], 0)
    )
    inner = [size for axis, size in enumerate(tf.unstack(tf.shape(values))) if axis in axes and axis >= mask.shape.rank]
    rows = tf.reduce_sum(weights) * tf.cast(tf.reduce_prod(inner), values.dtype)
    return rows, *tf.nn.weighted_moments(values, axes, weights, keepdims=keepdims)


def _warn_of_unknown(model: tf.keras.Model) -> None:
    """Names the layers that have statistics, but cannot be re-estimated: what they compute is not known."""
    unknown = [
        f"{layer.name!r} ({type(layer).__name__})"
        for layer in model._flatten_layers()
        if hasattr(layer, "moving_variance") and not is_batch_norm(layer)
    ]
    if unknown:
        warnings.warn(
            "Expected batch norms that compute what BatchNormalization does, to re-estimate them. Received: "
            f"{', '.join(unknown)}, which may do more and keep their statistics. Put what they do besides into a layer "
            "of its own, or fine-tune the model.",
            stacklevel=3,
        )


def check_statistics(name: str, mean: np.ndarray, variance: np.ndarray) -> None:
    """Checks what a batch norm has seen.

    Args:
        name: the batch norm's.
        mean: of the rows it saw.
        variance: the same.

    Raises:
        ActivationError: NaN or infinity is among them.
    """
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise ActivationError(
            f"Expected finite activations. Received: NaN or infinity at batch norm {name!r}. "
            "Look at the model's weights and the range of the data."
        )


@contextmanager
def _own_statistics(layers: list[Any], moments: dict[int, _Moments]) -> Iterator[None]:
    """Lets batch norms use and record each batch's statistics, whatever mode the model runs in."""
    for layer in layers:
        layer.__dict__["call"] = _recorder(layer, moments[id(layer)])
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def _recorder(layer: Any, moments: _Moments) -> Any:
    """A batch norm's ``call`` on the batch's own statistics."""

    def call(inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        values = tf.cast(inputs, tf.float32)
        axes = [axis % values.shape.rank for axis in tf.nest.flatten(layer.axis)]
        others = [axis for axis in range(values.shape.rank) if axis not in axes]
        shape = [size if axis in axes else 1 for axis, size in enumerate(values.shape)]
        scale = None if layer.gamma is None else tf.reshape(tf.cast(layer.gamma, tf.float32), shape)
        offset = None if layer.beta is None else tf.reshape(tf.cast(layer.beta, tf.float32), shape)
        rows, mean, variance = batch_moments(values, others, mask, keepdims=True)
        moments.add(float(rows), *(np.ravel(value).astype(np.float64) for value in (mean, variance)))
        result = tf.nn.batch_normalization(values, mean, variance, offset, scale, layer.epsilon)
        return tf.cast(result, inputs.dtype)

    return call
