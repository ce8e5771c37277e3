"""Calls a layer on Keras tensors without tracing it, where its outputs are known beforehand.

Keras finds the shapes of a layer's outputs by running the layer in a scratch graph, which is most of
the time that it takes to build a model. A model that is rebuilt with other channel counts knows these
shapes, and the values of the weights, too.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.engine.keras_tensor import KerasTensor


def can_skip_tracing(layer: tf.keras.layers.Layer, inputs: list[Any]) -> bool:
    """Whether a call leaves nothing behind but its outputs: no masks, no losses on activations."""
    return (
        not layer.dynamic
        and getattr(layer, "_activity_regularizer", None) is None
        and not any(getattr(tensor, "_keras_mask", None) is not None for tensor in inputs)
    )


def call_known(
    layer: tf.keras.layers.Layer,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Any,
    values: Mapping[str, np.ndarray],
) -> Any:
    """Calls a layer on Keras tensors; its weights are made with their values.

    Args:
        layer: a layer for which :func:`can_skip_tracing` holds.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        outputs: structure of ``tf.TensorSpec`` of what comes out.
        values: weight name -> initial value; weights not named are initialised as the layer says.

    Returns:
        Keras tensors in the structure of ``outputs``.
    """

    def infer(inputs: Any, own_args: Any, own_kwargs: Any, _masks: Any) -> Any:
        with tf.name_scope(layer._name_scope()):
            layer._maybe_build(inputs)
        layer._set_save_spec(inputs, own_args, own_kwargs)
        return tf.nest.map_structure(KerasTensor, outputs)

    with _instead(layer, "_infer_output_signature", infer), _instead(layer, "add_weight", _valued(layer, values)):
        return layer(*args, **kwargs)


def _valued(layer: tf.keras.layers.Layer, values: Mapping[str, np.ndarray]) -> Any:
    """The layer's ``add_weight``, with initial values by name in place of initialisers."""
    add_weight = layer.add_weight

    def add(name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if name is not None and name in values:
            kwargs["initializer"] = _Constant(values[name])
        return add_weight(name, *args, **kwargs)

    return add


class _Constant:
    """An initialiser that gives one array."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
        if tuple(shape) != self.value.shape:
            raise ValueError(f"Expected a value of shape {tuple(shape)}. Received: shape {self.value.shape}.")
        return tf.constant(self.value, dtype)


@contextmanager
def paused_collector() -> Any:
    """Lets no garbage collection happen inside: a model under construction is all objects that stay.

    With TensorFlow loaded each pass looks at over a million objects; they take a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _instead(layer: tf.keras.layers.Layer, name: str, function: Any) -> Any:
    """Puts a function in the place of a method of one object, past Keras's attribute tracking."""
    layer.__dict__[name] = function
    try:
        yield
    finally:
        layer.__dict__.pop(name, None)
