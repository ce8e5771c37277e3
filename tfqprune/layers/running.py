"""Runs one call of the graph on arrays, as the graph would, for trials and probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.layers.base import LayerCall


def substitute(node: Any, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The node's arguments with its Keras tensors (in the order of ``node.keras_inputs``) replaced."""
    stacks: dict[str, list[Any]] = defaultdict(list)
    for tensor, value in zip(node.keras_inputs, values, strict=True):
        stacks[str(id(tensor))].insert(0, value)  # map_arguments pops from the end
    args, kwargs = node.map_arguments(stacks)
    return tuple(args), dict(kwargs)


def asked_training(call: LayerCall) -> Any:
    """The value of ``training`` that the model passes to this call, with its name or without; None: it passes none."""
    spec, given = call.layer._call_spec, (call.node.call_args, call.node.call_kwargs)
    if not spec.arg_was_passed("training", *given, inputs_in_args=True):
        return None
    return spec.get_arg_value("training", *given, inputs_in_args=True)


def inference(layer: tf.keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The layer's outputs in inference mode, whatever mode its call in the model asks for."""
    if getattr(layer, "_expects_training_arg", False):
        # by Keras's own list of the arguments: in the model it may stand without its name
        args, kwargs = layer._call_spec.set_arg_value("training", False, args, kwargs, inputs_in_args=True)
    return layer(*args, **kwargs)


def static_value(tensor: Any) -> np.ndarray | None:
    """The value of a shape tensor as far as it is known (a batch counts as 1), else None."""
    value = getattr(tensor, "_inferred_value", None)
    if value is None:
        return None
    known = np.asarray([1 if size is None else size for size in value])
    return known.reshape(tuple(tensor.shape)).astype(tensor.dtype.as_numpy_dtype)


def run(call: LayerCall, arrays: Sequence[np.ndarray], layer: tf.keras.layers.Layer | None = None) -> list[np.ndarray]:
    """Runs a call eagerly in inference mode.

    Args:
        call: the call; its arguments other than Keras tensors are used as they are.
        arrays: one array for each Keras tensor of the call.
        layer: a layer to run in its place (a slimmer clone).

    Returns:
        The outputs, flat.
    """
    layer = layer or call.layer
    tensors = [tf.cast(array, tensor.dtype) for array, tensor in zip(arrays, call.node.keras_inputs, strict=True)]
    args, kwargs = substitute(call.node, tensors)
    return [np.asarray(output) for output in tf.nest.flatten(inference(layer, args, kwargs))]
