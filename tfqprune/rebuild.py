"""Builds a model anew, layer by layer, on the same graph: the common part of slim and masked models."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.engine.base_layer import AddLoss, AddMetric

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.construction import call_known, can_skip_tracing, paused_collector
from tfqprune.layers import Channels, LayerCall, LayerRecord
from tfqprune.layers.base import handler_for, weight_index
from tfqprune.layers.running import substitute
from tfqprune.models import is_graph_model, nodes

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Rebuilder(ABC):
    """Walks a model and makes a new one from new layers; the original is only read.

    Args:
        graph: the channel graph of the model.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self._records = {id(record.layer): record for record in graph.records.values()}
        self._layers: dict[int, tf.keras.layers.Layer] = {}
        self._models: dict[int, tf.keras.Model] = {}
        self._valued: set[int] = set()  # layers whose weights were made with their values

    @abstractmethod
    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        """The new layer that takes a layer's place."""

    @abstractmethod
    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        """The values of the new layer's weights, in the order of ``new.weights``."""

    def arguments(self, call: LayerCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments of the new layer's call."""
        return args, kwargs

    def stacks(self, model: tf.keras.Sequential) -> bool:
        """Whether a Sequential model stays one: it gives its layers' calls no arguments."""
        return True

    def input_size(self, tensor: tf.Tensor, axis: int, size: int | None, nested: tf.keras.Model | None) -> int | None:
        """The size of a model input along an axis (batch is 0)."""
        return size

    def output_shape(self, shape: tuple[int | None, ...], channels: Channels) -> tuple[int | None, ...]:
        """The shape of a call's output in the new model."""
        return shape

    def build(self) -> tf.keras.Model:
        """The new model."""
        with paused_collector():
            model = self._model(self.graph.model, nested=False)
            self._set_weights()
        return model

    def _model(self, model: tf.keras.Model, nested: bool) -> tf.keras.Model:
        if id(model) in self._models:
            return self._models[id(model)]
        inputs = [self._input(tensor, model if nested else None) for tensor in model.inputs]
        # What ``add_loss`` and ``add_metric`` of the model made: it does not lie on the way to the outputs.
        extra = [node for node in nodes(model) if isinstance(node.layer, AddLoss | AddMetric)]
        if isinstance(model, tf.keras.Sequential) and self.stacks(model) and not extra:
            self._models[id(model)] = stacked = self._stacked(model, inputs[0])
            return stacked
        table = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
        for node in nodes(model):
            if isinstance(node.layer, AddLoss | AddMetric):
                continue
            values = [table[id(tensor)] for tensor in node.keras_inputs]
            if is_graph_model(node.layer):
                args, kwargs = substitute(node, values)
                outputs = self._model(node.layer, nested=True)(*args, **kwargs)
            else:
                outputs = self._call(node, values)
            for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
                table[id(old)] = new
        self._models[id(model)] = new_model = self._assemble(model, inputs, table)
        for node in extra:
            value = table[id(node.keras_inputs[0])]
            if isinstance(node.layer, AddLoss):
                new_model.add_loss(value)
            else:
                new_model.add_metric(value, name=node.layer.metric_name, aggregation=node.layer.aggregation)
        return new_model

    def _stacked(self, model: tf.keras.Sequential, entry: tf.Tensor) -> tf.keras.Sequential:
        """A Sequential model calls its layers itself: had we called them before, each would have two nodes."""
        parts: list[Any] = [entry._keras_history.layer]
        for layer in model.layers:
            if is_graph_model(layer):
                parts.append(self._model(layer, nested=True))
            else:
                parts.append(self._new(self._records[id(layer)]))
        return self._like(model, tf.keras.Sequential(parts, name=model.name))

    def _assemble(self, model: tf.keras.Model, inputs: list[tf.Tensor], table: dict[int, tf.Tensor]) -> tf.keras.Model:
        by_old = {id(tensor): new_tensor for tensor, new_tensor in zip(model.inputs, inputs, strict=True)}
        structured = tf.nest.map_structure(lambda tensor: by_old[id(tensor)], model._nested_inputs)
        outputs = tf.nest.map_structure(lambda tensor: table[id(tensor)], model._nested_outputs)
        return self._like(model, tf.keras.Model(structured, outputs, name=model.name))

    @staticmethod
    def _like(model: tf.keras.Model, new: tf.keras.Model) -> tf.keras.Model:
        new._trainable = model.trainable  # the setter would overwrite the flags of its layers
        if model._callable_losses:
            warnings.warn(
                f"{model.name!r} has losses by add_loss with a function (an attached penalty is one), which may refer "
                "to weights of that very model: the new model goes without. Add them there anew to train with them.",
                stacklevel=2,
            )
        return new

    def _input(self, tensor: tf.Tensor, nested: tf.keras.Model | None) -> tf.Tensor:
        layer = tensor._keras_history.layer
        shape = [self.input_size(tensor, axis, size, nested) for axis, size in enumerate(tensor.shape)]
        sparse, ragged = getattr(layer, "sparse", False), getattr(layer, "ragged", False)
        return tf.keras.Input(
            shape=shape[1:], batch_size=shape[0], name=layer.name, dtype=tensor.dtype, sparse=sparse, ragged=ragged
        )

    def _new(self, record: LayerRecord) -> tf.keras.layers.Layer:
        """The new layer, made once: it may be called in several places, nested models among them."""
        if id(record.layer) not in self._layers:
            self._layers[id(record.layer)] = self.layer(record)
        return self._layers[id(record.layer)]

    def _call(self, node: Any, values: list[Any]) -> Any:
        record, call = self._records[id(node.layer)], self.graph.calls[id(node)]
        new = self._new(record)
        args, kwargs = substitute(node, values)
        args, kwargs = self.arguments(call, args, kwargs)
        # Only layers known by a handler: what a user's layer does while it is called is not known.
        if (
            handler_for(record.layer) is None
            or type(new) is not type(record.layer)
            or any(part.weights for part in record.layer._flatten_layers(include_self=False))  # built while it is run
            or not can_skip_tracing(new, values)
        ):
            return new(*args, **kwargs)
        specs = [
            tf.TensorSpec(self.output_shape(shape, channels), tensor.dtype)
            for shape, channels, tensor in zip(
                call.output_shapes, call.outputs, tf.nest.flatten(node.outputs), strict=True
            )
        ]
        known = {}
        if not new.built and record.layer.weights:
            names = [weight.name.split("/")[-1].split(":")[0] for weight in record.layer.weights]
            known = dict(zip(names, self.weights(record, new), strict=True))
            if len(known) < len(names):  # two weights of one name
                known = {}
            else:
                self._valued.add(id(node.layer))
        return call_known(new, args, kwargs, tf.nest.pack_sequence_as(node.outputs, specs), known)

    def _set_weights(self) -> None:
        pairs = []
        for key, new in self._layers.items():
            record = self._records[key]
            if record.layer.weights and key not in self._valued:
                _freeze_alike(record.layer, new)
                for variable, value in zip(new.weights, self.weights(record, new), strict=True):
                    pairs.append((getattr(variable, "latent_variable", variable), value))
        tf.keras.backend.batch_set_value(pairs)
        for new in self._layers.values():
            for layer in new._flatten_layers():
                layer.finalize_state()  # as ``set_weights`` does: a Normalization computes with constants made here


def _freeze_alike(old: tf.keras.layers.Layer, new: tf.keras.layers.Layer) -> None:
    """Gives what a user's layer holds the ``trainable`` of the old: weights that train are listed before others."""
    pairs = [list(layer._flatten_layers(include_self=False)) for layer in (old, new)]
    if len(pairs[0]) == len(pairs[1]):
        for before, after in zip(*pairs, strict=True):
            if before.trainable != after.trainable:
                after.trainable = before.trainable


def axes_of(record: LayerRecord) -> list[tuple[str | None, ...]]:
    """The roles of the axes of each of a layer's weights, in the order of ``layer.weights``."""
    index = weight_index(record.layer)
    declared = {index[name]: roles for name, roles in record.weight_axes.items()}
    return [declared.get(position, (None,) * len(weight.shape)) for position, weight in enumerate(record.layer.weights)]


def values_of(record: LayerRecord) -> list[np.ndarray]:
    """The stored (latent) values of a layer's weights."""
    return [precision.variable_value(weight) for weight in record.layer.weights]
