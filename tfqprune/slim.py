"""The slim model: the same network, physically smaller, with the weights that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.layers import Channels, LayerCall, LayerRecord
from tfqprune.plan import PruningPlan, checked_removal
from tfqprune.rebuild import Arguments, Rebuilder, axes_of, values_of


class SlimBuilder(Rebuilder):
    """Rebuilds a model without the units that a plan removes.

    Args:
        graph: the channel graph of the model.
        alive: bool array over channel ids.
    """

    def __init__(self, graph: ChannelGraph, alive: np.ndarray) -> None:
        super().__init__(graph)
        self.alive = alive

    def kept(self, record: LayerRecord, role: str) -> np.ndarray:
        """Positions of a role that stay, ascending."""
        return np.flatnonzero(self.alive[record.roles[role]])

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        return record.clone(lambda role: self.kept(record, role))

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        values = []
        for value, axes in zip(values_of(record), axes_of(record), strict=True):
            for axis, role in enumerate(axes):
                if role:
                    value = np.take(value, self.kept(record, role), axis=axis)
            values.append(value)
        return values

    def arguments(self, call: LayerCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if call.record.opaque is not None:  # nothing it touches goes
            return args, kwargs
        return call.record.handler.edit_call(call, self.alive, args, kwargs)

    def output_shape(self, shape: tuple[int | None, ...], channels: Channels) -> tuple[int | None, ...]:
        if channels.axis is None or shape[channels.axis] is None:
            return shape
        count = int(self.alive[channels.ids].sum())
        return (*shape[: channels.axis], count, *shape[channels.axis + 1 :])

    def input_size(self, tensor: tf.Tensor, axis: int, size: int | None, nested: tf.keras.Model | None) -> int | None:
        if nested is None or size is None:
            return size
        position = next(index for index, own in enumerate(nested.inputs) if own is tensor)
        channels = self.graph.nested_inputs[id(nested)][position]
        return int(self.alive[channels.ids].sum()) if channels.axis == axis else size


class TrainedSlimBuilder(SlimBuilder):
    """The slim model with the weights of a copy of the model that trained in its original shape.

    Args:
        graph: the channel graph of the model.
        alive: bool array over channel ids.
        trained: the copy's layers, by the identity of the model's own.
    """

    def __init__(self, graph: ChannelGraph, alive: np.ndarray, trained: dict[int, tf.keras.layers.Layer]) -> None:
        super().__init__(graph, alive)
        self._trained = trained

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        return super().weights(replace(record, layer=self._trained[id(record.layer)]), new)


def prune(model: tf.keras.Model, plan: PruningPlan) -> tf.keras.Model:
    """A new, physically smaller model, with the weights of all that stays carried over.

    Layers keep their names, initialisers, quantisers, regularisers and constraints. The original is
    untouched. ``prune(model, plan)`` and ``mask(model, plan)`` compute the same, to float rounding.

    Args:
        model: the model that the plan was made for.
        plan: which units go.

    Returns:
        An uncompiled model of the same kind (Functional or Sequential; a Sequential one with added losses becomes
        Functional).

    Raises:
        ModelTypeError: no graph model.
        PlanError: the plan was made for another model, or is unsound.
    """
    graph = ChannelGraph(model)
    return SlimBuilder(graph, graph.alive(checked_removal(graph, plan))).build()
