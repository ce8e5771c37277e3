"""Distances between all pairs of filters, through one matrix product: no array filters x filters x weights."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.layers import LayerRecord
from tfqprune.layers.normalization import is_batch_norm

#: products of integers stay exact in float32 up to this sum
_EXACT = 2**24


def products(rows: np.ndarray) -> np.ndarray:
    """Inner products of all pairs of rows, float64 ``[rows, rows]``."""
    values = np.asarray(rows)
    if values.size and float(np.abs(values).max()) ** 2 * values.shape[1] < _EXACT and _whole(values):
        single = values.astype(np.float32)  # exact here, and twice as fast
        return (single @ single.T).astype(np.float64)
    values = values.astype(np.float64)
    return values @ values.T


def _whole(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu" or bool((values == np.rint(values)).all())


def squared_distances(rows: np.ndarray, *, flipped: bool = False) -> np.ndarray:
    """Squared Euclidean distances of all pairs of rows.

    Args:
        rows: ``[rows, weights]``.
        flipped: take the smaller of the distances to a row and to its negative.

    Returns:
        Float64 array ``[rows, rows]``, symmetric, never negative, its diagonal 0.
    """
    inner = products(rows)
    squares = np.diag(inner)
    distances = squares[:, None] + squares[None, :] - 2 * (np.abs(inner) if flipped else inner)
    np.maximum(distances, 0, out=distances)
    np.fill_diagonal(distances, 0)
    return distances


def batch_norm_follows(graph: ChannelGraph, record: LayerRecord) -> bool:
    """Whether all that a layer puts out goes directly into batch norms, which can turn a sign around."""
    made = {
        id(tensor)
        for call in graph.calls.values()
        if call.record is record
        for tensor in tf.nest.flatten(call.node.outputs)
    }
    readers = [
        call.layer for call in graph.calls.values() if any(id(tensor) in made for tensor in call.node.keras_inputs)
    ]
    ends = any(id(tensor) in made for tensor in graph.model.outputs)
    return bool(readers) and not ends and all(is_batch_norm(layer) for layer in readers)
