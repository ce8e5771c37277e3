"""What a model must be to have a graph, and how its nodes are walked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfqprune.errors import ModelTypeError

#: a tensor's static shape
Shape = tuple[int | None, ...]


def is_keras_model(model: Any) -> bool:
    """Whether an object is a legacy Keras model of any kind."""
    return isinstance(model, tf.keras.Model)


def is_graph_model(layer: Any) -> bool:
    """Whether an object is a functional or sequential Keras model (a graph of layers)."""
    return isinstance(layer, tf.keras.Model) and bool(getattr(layer, "_is_graph_network", False))


def check_model(model: Any) -> tf.keras.Model:
    """Returns the model if it has a graph of legacy Keras layers.

    Raises:
        ModelTypeError: it is no Keras model, one of Keras 3, not built, or subclassed.
    """
    if not is_keras_model(model):
        keras: Any = sys.modules.get("keras")
        if keras is not None and isinstance(model, getattr(keras, "Model", ())):
            raise ModelTypeError(
                f"Expected a legacy Keras (tf_keras) model. Received: {getattr(model, 'name', '')!r}, a model of Keras "
                f"{keras.__version__}. Build it with tf_keras: set TF_USE_LEGACY_KERAS=1 before TensorFlow is "
                "imported, or use `import tf_keras as keras`."
            )
        raise ModelTypeError(f"Expected a tf_keras model. Received: {model!r} (of type {type(model).__name__}).")
    if not is_graph_model(model):
        if isinstance(model, tf.keras.Sequential):
            raise ModelTypeError(
                f"Expected a model with a known input. Received: Sequential {model.name!r}, which has not been "
                "built. Give its first layer an input_shape, or begin it with tf.keras.Input."
            )
        raise ModelTypeError(
            f"Expected a functional or sequential model. Received: {model.name!r} (of type {type(model).__name__}), "
            "a subclassed model, whose graph cannot be read. Write it with the functional API: "
            "tf.keras.Model(inputs, outputs)."
        )
    for layer in model.layers:
        for weight in layer.weights:
            shape = getattr(weight, "shape", None)  # a table of strings or numbers has none
            if shape is None or None in tuple(shape):
                raise ModelTypeError(
                    f"Expected layers whose weights are arrays. Received: {layer.name!r} (of type "
                    f"{type(layer).__name__}), which looks values up. Look them up before the model, in the input "
                    "pipeline, and give the model their numbers."
                )
            if 0 in tuple(shape):
                raise ModelTypeError(
                    f"Expected layers with at least one channel. Received: {layer.name!r}, whose weight "
                    f"{weight.name!r} has shape {tuple(weight.shape)}."
                )
    return model


def nodes(model: tf.keras.Model) -> Iterator[Any]:
    """The calls of a model's layers, inputs left out, each after those it depends on."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def feed(model: tf.keras.Model, node: Any) -> list[Any]:
    """The tensors that a node feeds a nested model, in the order of that model's inputs."""
    value = node.call_args[0] if node.call_args else node.call_kwargs["inputs"]
    if isinstance(value, dict):
        names = [tensor._keras_history.layer.name for tensor in model.inputs]
        if set(names) == set(value):
            return [value[name] for name in names]
    return list(tf.nest.flatten(value))


def shapes_within(model: tf.keras.Model, given: list[Shape]) -> dict[int, Shape]:
    """The static shapes of a model's tensors, by identity, where it is called on inputs of given shapes.

    A model whose inputs leave sizes open (a backbone without ``input_shape``) knows them once another model calls it.
    """
    tensors = [*model.inputs, *(tensor for node in nodes(model) for tensor in tf.nest.flatten(node.outputs))]
    shapes: dict[int, Shape] = {id(tensor): tuple(tensor.shape) for tensor in tensors}
    if all(shape[1:] == shapes[id(tensor)][1:] for shape, tensor in zip(given, model.inputs, strict=True)):
        return shapes
    specs = [tf.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(given, model.inputs, strict=True)]
    try:
        every = tf.keras.Model(model.inputs, tensors)
        traced = tf.function(lambda *inputs: every(list(inputs)), autograph=False).get_concrete_function(*specs)
    except Exception:  # a user's layer may raise anything when traced once more; what is known without stays
        return shapes
    for tensor, seen in zip(tensors, tf.nest.flatten(traced.structured_outputs), strict=True):
        if seen.shape.rank is not None:
            shapes[id(tensor)] = tuple(seen.shape)
    return shapes
