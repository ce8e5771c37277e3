"""Merge layers: value by value (add, multiply, ...) or one behind the other (concatenate)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfqprune.layers.base import LayerCall, LayerHandler, register_handler
from tfqprune.layers.elementwise import meet
from tfqprune.layers.space import Channels

K = tf.keras.layers


@register_handler(K.Add, K.Subtract, K.Multiply, K.Average, K.Maximum, K.Minimum)
class MergeHandler(LayerHandler):
    """Value by value, with broadcasting."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.reads_arrays():
            return call.opaque(f"meets a constant in {call.title}")
        return meet(call)


@register_handler(K.Dot)
class DotHandler(LayerHandler):
    """Frozen: its result has no channels of its own."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return call.opaque(f"feeds {call.title}, which sums products over positions of two tensors")


def concatenate(call: LayerCall, axis: int) -> list[Channels]:
    """Strings ids together along the channels, or ties them where another axis is joined."""
    if call.reads_arrays():
        return call.opaque(f"meets a constant in {call.title}")
    movable = [channels.axis for channels in call.inputs if not call.space.is_rigid(channels.ids)]
    if movable and movable[0] is not None:
        for index in range(len(call.inputs)):
            call.align(movable[0], index)
    axes = {channels.axis for channels in call.inputs}
    if len(axes) > 1 or None in axes:
        return call.opaque(f"meets other channels in {call.title} along different axes")
    if axes == {axis}:
        return [Channels(axis, np.concatenate([channels.ids for channels in call.inputs]))]
    first = call.inputs[0]
    for other in call.inputs[1:]:
        call.space.tie(first.ids, other.ids)
    return [first]


@register_handler(K.Concatenate)
class ConcatenateHandler(LayerHandler):
    """Strings channels together, or ties them where another axis is joined."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return concatenate(call, call.layer.axis % len(call.input_shapes[0]))
