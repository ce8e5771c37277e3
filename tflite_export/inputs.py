"""Models that take pixels as the camera gives them: uint8 in, normalised inside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.convert import check_model
from tfqprune.errors import ExportError


def with_uint8_input(
    model: Any, scale: float | Sequence[float] = 1 / 255, offset: float | Sequence[float] = 0.0
) -> Any:
    """A Keras model with uint8 inputs in front of a float one: it computes ``model(pixels * scale + offset)``.

    Export and verify this model in place of the other; weights are shared, names of inputs and outputs stay.

    Args:
        model: a legacy Keras model with float inputs.
        scale: factor of the pixels, one or one for each channel. For inputs of mean m and deviation s (on 0 to 1) it
            is 1 / (255 s).
        offset: added afterwards, one or one for each channel; for the same inputs -m / s.

    Returns:
        A new functional model; every input is uint8.

    Raises:
        ModelTypeError: no legacy Keras model with a graph of layers.
        ExportError: scale or offset are no finite numbers or do not fit the channels.
    """
    import tensorflow as tf

    check_model(model)
    for name, value in (("scale", scale), ("offset", offset)):
        numbers = np.asarray(value, dtype=float)
        channels = {t.shape[-1] for t in model.inputs}
        if numbers.ndim > 1 or not np.all(np.isfinite(numbers)) or (numbers.ndim == 1 and {numbers.size} != channels):
            raise ExportError(
                f"Expected {name} to be a finite number, or one for each of {sorted(channels, key=str)} channels. "
                f"Received: {value!r}."
            )
    taken = {*model.input_names, *model.output_names}
    if model.name in taken:  # inputs and outputs keep their names, so that the model between them needs another
        name = next(n for i in itertools.count() if (n := f"{model.name}_float{i or ''}") not in taken)
        model = tf.keras.Model(model.inputs, model.outputs, name=name)
    pixels = [
        tf.keras.Input(tensor.shape[1:], dtype="uint8", name=name)
        for tensor, name in zip(model.inputs, model.input_names)
    ]
    floats = [tf.keras.layers.Rescaling(scale, offset, name=f"{p.name}_normalised")(p) for p in pixels]
    outputs = tf.nest.flatten(model(floats if len(floats) > 1 else floats[0]))
    # the nested model's name would become the output's
    named = [tf.keras.layers.Activation("linear", name=n)(o) for o, n in zip(outputs, model.output_names)]
    return tf.keras.Model(pixels, named if len(named) > 1 else named[0], name=f"{model.name}_uint8")
