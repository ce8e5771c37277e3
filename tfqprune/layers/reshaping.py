"""Layers that rearrange: Flatten, Reshape, Permute, RepeatVector."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.layers.base import Kept, LayerCall, LayerHandler, LayerRecord, register_handler
from tfqprune.layers.movement import trace
from tfqprune.layers.running import run, static_value
from tfqprune.layers.space import Channels

K = tf.keras.layers


def move(call: LayerCall) -> list[Channels]:
    """Channels after an operation that only moves data, found by running it on their numbers.

    Positions that it fills with something new make the call opaque; shape tensors among the
    inputs take their static values.
    """
    moving = [index for index, channels in enumerate(call.inputs) if channels.axis is not None]
    fixed: dict[int, np.ndarray] = {}
    for index, tensor in enumerate(call.node.keras_inputs):
        value = None if index in moving else static_value(tensor)
        if value is not None:
            fixed[index] = value
    if not moving or len(fixed) + len(moving) < len(call.inputs):
        return call.opaque(f"feeds {call.title} together with a tensor whose value is not known")

    def function(grids: list[np.ndarray]) -> list[np.ndarray]:
        placed = {**fixed, **dict(zip(moving, grids, strict=True))}
        return run(call, [placed[index] for index in range(len(placed))])

    inputs = [call.inputs[index] for index in moving]
    ids = np.concatenate([channels.ids for channels in inputs])
    outputs = []
    try:
        movements = trace(function, [call.input_shapes[index] for index in moving], inputs)
    except Exception as error:  # sizes that fit no single sample, or are known only when the model runs
        return call.opaque(f"feeds {call.title}, which cannot be run on a single sample ({type(error).__name__})")
    for movement in movements:
        if movement is None or (movement.labels < 0).any():
            return call.opaque(f"feeds {call.title}, which does not keep its channels apart")
        for first, second in movement.ties:
            call.space.tie(ids[first], ids[second])
        outputs.append(Channels(movement.axis, ids[movement.labels]))
    return outputs


@register_handler(K.Flatten, K.Permute, K.RepeatVector)
class MovementHandler(LayerHandler):
    """Nothing in the config counts channels."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return move(call)


@register_handler(K.Reshape)
class ReshapeHandler(LayerHandler):
    """``target_shape`` holds the size of the channel axis."""

    def flow(self, call: LayerCall) -> list[Channels]:
        outputs = move(call)
        # A size that is left open follows a cut by itself, and a shared layer's calls may differ in it.
        if outputs[0].axis is not None and call.layer.target_shape[outputs[0].axis - 1] != -1:
            call.role("out", outputs[0].ids)
            call.record.facts["axis"] = outputs[0].axis - 1
        return outputs

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        shape = list(config["target_shape"])
        if "axis" in record.facts:
            shape[record.facts["axis"]] = len(kept("out"))
        return {**config, "target_shape": tuple(shape)}
