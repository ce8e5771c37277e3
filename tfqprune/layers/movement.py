"""Where channels go in an operation that only moves data, found by sending their numbers through it.

Reshape, transpose, depth-to-space, a stack, a slice: run the operation itself on an array whose
values are channel numbers, and read off the output which channel each position holds. No index
algebra of our own is needed, and none can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfqprune.layers.space import Channels

#: stands for an unknown size in trial runs: divisible by 2, 3, 4, 6.
TRIAL_SIZE = 12
#: numbers are sent digit by digit: any type of tensor holds whole numbers below this (bfloat16 to 256, int8 to 127)
_BASE = 128

Function = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Movement:
    """Where the channels of the inputs are found in one output.

    Attributes:
        axis: the output axis that the channels run along.
        labels: for each position of that axis, the index of an input channel (inputs strung
            together), or -1 for a position filled with something new (padding).
        ties: pairs of label arrays that share a position and so live and die together.
    """

    axis: int
    labels: np.ndarray
    ties: tuple[tuple[np.ndarray, np.ndarray], ...]


def trial_shape(shape: Sequence[int | None]) -> tuple[int, ...]:
    """A concrete shape for a trial run: batch 1, unknown sizes replaced."""
    return (1, *(TRIAL_SIZE if size is None else size for size in shape[1:]))


def labelled(shape: Sequence[int | None], axis: int, labels: np.ndarray) -> np.ndarray:
    """A float array of ``trial_shape(shape)`` whose values are the labels along ``axis``."""
    concrete = trial_shape(shape)
    view = labels.astype("float32").reshape([-1 if position == axis else 1 for position in range(len(concrete))])
    return np.broadcast_to(view, concrete).copy()


def trace(
    function: Function, shapes: Sequence[Sequence[int | None]], inputs: Sequence[Channels]
) -> list[Movement | None]:
    """Sends channel numbers through an operation.

    Args:
        function: the operation on a list of arrays; returns a list of arrays.
        shapes: static input shapes, batch first.
        inputs: their channels; all must have a channel axis.

    Returns:
        For each output the movement, or None where the output holds other values than labels.
    """
    offset, numbers = 1, []  # label 0 is kept free: it is what padding brings in
    for channels in inputs:
        numbers.append(np.arange(offset, offset + len(channels)))
        offset += len(channels)
    runs, place = [], 1
    while place < offset:
        grids = []
        for shape, channels, labels in zip(shapes, inputs, numbers, strict=True):
            assert channels.axis is not None
            grids.append(labelled(shape, channels.axis, labels // place % _BASE))
        runs.append(function(grids))
        place *= _BASE
    return [_read(digits, offset, len(inputs) == 1) for digits in zip(*runs, strict=True)]


def _read(digits: Sequence[np.ndarray], limit: int, last: bool) -> Movement | None:
    """From what became of each digit of the labels, the lowest first, to the movement."""
    labels = np.zeros((), np.int64)
    for place, output in enumerate(digits):
        kind = tf.as_dtype(output.dtype)  # it knows bfloat16, which NumPy does not
        if output.ndim < 2 or not (kind.is_floating or kind.is_integer) or not output.size:
            return None
        if (output[1:] != output[:1]).any():
            return None  # channels were moved to the batch
        grid = output[0].astype(np.float64)
        whole = np.rint(grid)
        if not np.array_equal(whole, grid) or whole.min() < 0 or whole.max() >= _BASE:
            return None
        labels = labels + whole.astype(np.int64) * _BASE**place
    if labels.max() >= limit:
        return None
    axis, lines = _channel_axis(labels - 1, last)
    first = lines[0]
    ties = []
    for line in lines[1:]:
        if not np.array_equal(line, first):
            if ((line < 0) != (first < 0)).any():
                return None  # one position holds a channel here and padding there
            ties.append((first[first >= 0], line[line >= 0]))
    return Movement(axis + 1, first, tuple(ties))


def _channel_axis(labels: np.ndarray, last: bool) -> tuple[int, np.ndarray]:
    """The axis to follow the channels along, and the distinct lines of labels along it.

    Where labels vary along one axis only, it is that one. A reshape of a vector spreads them over
    several: channels are last then. A stack of tensors does, too: there the axis that ties least.
    A single channel varies along none: it runs along the only axis of size 1, if there is one.
    """
    varying = [axis for axis in range(labels.ndim) if (np.take(labels, [0], axis) != labels).any()]
    if not varying:
        varying = [axis for axis in range(labels.ndim) if labels.shape[axis] == 1]
        varying = varying if len(varying) == 1 else []
    if len(varying) > 1 and not last:
        return min(((axis, _lines(labels, axis)) for axis in varying), key=lambda choice: len(choice[1]))
    axis = varying[0] if len(varying) == 1 else labels.ndim - 1
    return axis, _lines(labels, axis)


def _lines(labels: np.ndarray, axis: int) -> np.ndarray:
    """The distinct lines of labels along an axis, the first one first."""
    lines = np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])
    others = lines[(lines != lines[0]).any(axis=1)]
    return np.concatenate([lines[:1], np.unique(others, axis=0)]) if len(others) else lines[:1]
