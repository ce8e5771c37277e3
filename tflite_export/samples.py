"""Inputs to compare a model and its file on, where the user gives none."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfqprune.errors import DataError, seed_number, whole_number


def generated_inputs(model: Any, samples: int, seed: int = 0) -> list[np.ndarray]:
    """One array [samples, ...] for each input of a Keras model.

    The first samples are the awkward ones: all zero, all one, all minus one, saturated both ways and mixed, and
    values on the boundaries of 1 to 4 bit levels. The rest is half normal, half uniform on [0, 1]. Whole numbers go
    from 0 to 255, and where they index a table (``Embedding``) to its last row.

    Args:
        model: a Keras model; unknown dimensions beyond the batch are taken as 8.
        samples: how many, at least 1.
        seed: of the random part.

    Raises:
        DataError: ``samples`` is no whole number from 1, or ``seed`` no seed.
    """
    samples = whole_number("samples", samples, DataError)
    rng = np.random.default_rng(seed_number(seed, DataError))
    arrays = []
    for tensor, rows in zip(model.inputs, _table_rows(model)):
        shape = [int(d) if d else 8 for d in tensor.shape[1:]]
        values = np.stack([_sample(rng, i, shape) for i in range(samples)])
        dtype = np.dtype(tensor.dtype.as_numpy_dtype)
        if rows or dtype.kind in "iu":
            values = np.clip(np.rint(values * 64 + 64), 0, 255)
        if rows:
            values = values * (rows - 1) // 255
        arrays.append(values.astype(dtype))
    return arrays


def _table_rows(model: Any) -> list[int | None]:
    """For each input of a model the rows of the smallest table that it indexes, or None.

    An integer input that reaches tables by way of other layers is taken to index the smallest of them.
    """
    import tensorflow as tf

    tables = [layer for layer in model._flatten_layers() if isinstance(layer, tf.keras.layers.Embedding)]
    smallest = min((table.input_dim for table in tables), default=None)
    found: list[int | None] = []
    for tensor in model.inputs:
        own = [
            table.input_dim
            for table in tables
            if any(read is tensor for node in table.inbound_nodes for read in node.keras_inputs)
        ]
        found.append(min(own) if own else smallest if tensor.dtype.is_integer else None)
    return found


def _sample(rng: np.random.Generator, index: int, shape: list[int]) -> np.ndarray:
    constants = {0: 0.0, 1: 1.0, 2: -1.0, 3: 8.0, 4: -8.0}
    if index in constants:
        return np.full(shape, constants[index])
    if index == 5:
        return rng.choice([-8.0, 8.0], size=shape)
    if 6 <= index <= 9:
        levels = 2 ** (index - 5) - 1
        # rounding boundaries of k-bit activations: odd multiples of half a level
        return (2 * rng.integers(0, levels + 1, size=shape) + 1) / (2 * levels)
    return rng.normal(size=shape) if index % 2 else rng.uniform(size=shape)
