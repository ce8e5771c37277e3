"""How several tensors meet value by value, with broadcasting: used by merge layers and operators."""

from __future__ import annotations

import numpy as np

from tfqprune.layers.base import LayerCall
from tfqprune.layers.space import Channels


def meet(call: LayerCall, constants: list[np.ndarray] | None = None) -> list[Channels]:
    """Ties the channels of all inputs where they are added, multiplied, compared.

    Axes are aligned from the right. An input of size 1 along the channel axis is broadcast and
    stays untied. Inputs whose channels lie on different axes are frozen.

    Args:
        call: the call; its inputs may have different ranks.
        constants: arrays that take part too; they must be of size 1 or of full size along the channels.
    """
    rank = len(call.output_shapes[0])
    wide = []
    for channels, shape in zip(call.inputs, call.input_shapes, strict=True):
        if channels.axis is not None:
            wide.append((channels.axis + rank - len(shape), channels))
    if not wide:
        return call.opaque(f"feeds {call.title}, which sees no channels")
    # Tensors that are never cut follow the others.
    wide.sort(key=lambda entry: call.space.is_rigid(entry[1].ids))
    full = [entry for entry in wide if len(entry[1]) > 1] or wide[:1]
    axis, first = full[0]
    for position, shape in enumerate(call.input_shapes):
        aligned = axis - rank + len(shape)
        if aligned > 0 and shape[aligned] != 1:
            call.align(aligned, position)
        own = call.inputs[position]
        if len(own) > 1 and own.axis == aligned and len(own) == len(first):
            continue
        if len(own) <= 1 and (aligned < 0 or shape[aligned] == 1):
            continue
        return call.opaque(f"meets other channels in {call.title} along different axes")
    for constant in constants or []:
        aligned = axis - rank + constant.ndim
        if aligned >= 0 and constant.shape[aligned] not in (1, len(first)):
            return call.opaque(f"meets a constant of another size in {call.title}")
    for other in call.inputs:
        if len(other) == len(first):
            call.space.tie(first.ids, other.ids)
    return [Channels(axis, first.ids)]
