"""The masked model: the original shape, with the plan's units silenced where they are consumed.

A unit is silenced by zeroing the slices of the deployed kernels that read it, never by zeroing what
produces it: sign(0) is +1, padding may be 1, and a batch norm turns 0 into something else. Scales
and statistics that look at a whole tensor are taken over what stays, as the slim model takes them.
"""

from __future__ import annotations

from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.layers import LayerCall, LayerRecord
from tfqprune.layers.base import CONSUMED
from tfqprune.plan import PruningPlan, checked_removal
from tfqprune.rebuild import Arguments, Rebuilder, axes_of, values_of
from tfqprune.slim import SlimBuilder


@lq.utils.register_keras_custom_object  # .h5 files know no other than its plain name
@tf.keras.utils.register_keras_serializable("tfqprune")
class KeptQuantizer(lq.quantizers.Quantizer):
    """Quantises only the part of a tensor that stays; the rest is zero.

    Args:
        quantizer: the quantiser, or its config.
        kept: for each axis (negative: from the end) the positions that stay, as pairs.
        size: for each of these axes its full size.
    """

    def __init__(self, quantizer: Any, kept: list[tuple[int, list[int]]], size: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = lq.quantizers.get(quantizer) if isinstance(quantizer, dict | str) else quantizer
        self.quantizer = precision.unmeasured(given)
        self.kept = [(int(axis), [int(position) for position in positions]) for axis, positions in kept]
        self.size = [int(size_) for size_ in size]
        self.precision = getattr(self.quantizer, "precision", None)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        values = tf.convert_to_tensor(inputs)
        for axis, positions in self.kept:
            values = tf.gather(values, positions, axis=axis)
        if self.quantizer is not None:
            values = self.quantizer(values)
        for (axis, positions), size in zip(self.kept, self.size, strict=True):
            values = _spread(values, positions, size, axis)
        values.set_shape(inputs.shape)
        return values

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "quantizer": lq.quantizers.serialize(self.quantizer),
            "kept": self.kept,
            "size": self.size,
        }


@tf.keras.utils.register_keras_serializable("tfqprune")
class OnKept(tf.keras.layers.Layer):
    """Runs a layer on the channels that stay; the others are zero in its result.

    Which these are is said call by call: a shared layer's inputs may lose different ones.

    Args:
        layer: the layer, built for as many channels as stay.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # steps that are masked stay so for the layers behind
        self.layer = tf.keras.layers.deserialize(layer) if isinstance(layer, dict) else layer

    def call(self, inputs: tf.Tensor, axis: int = -1, positions: list[int] | None = None) -> tf.Tensor:
        """The layer's result.

        Args:
            inputs: all channels.
            axis: the channel axis.
            positions: the channels that stay; None: all.
        """
        if positions is None:
            return self.layer(inputs)
        result = self.layer(tf.gather(inputs, positions, axis=axis))
        return _spread(result, positions, inputs.shape[axis], axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": tf.keras.layers.serialize(self.layer)}


def _spread(values: tf.Tensor, positions: list[int], size: int, axis: int) -> tf.Tensor:
    """Puts values back at their positions along an axis, zeros elsewhere."""
    source = np.full(size, len(positions), np.int32)
    source[positions] = np.arange(len(positions))
    shape = tf.unstack(tf.shape(values))
    shape[axis] = tf.constant(1)
    return tf.gather(tf.concat([values, tf.zeros(tf.stack(shape), values.dtype)], axis), source, axis=axis)


class MaskedBuilder(Rebuilder):
    """Rebuilds a model in its original shape, silencing units at their consumers.

    Args:
        graph: the channel graph of the model.
        alive: bool array over channel ids.
    """

    def __init__(self, graph: ChannelGraph, alive: np.ndarray) -> None:
        super().__init__(graph)
        self.alive = alive
        self._slim = SlimBuilder(graph, alive)

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        layer = record.layer
        if self._mixes_fewer(record):
            return OnKept(self._slim.layer(record), name=layer.name, dtype=layer.dtype)
        clone = record.clone()
        self._quantise_kept(record, clone)
        return clone

    def _mixes_fewer(self, record: LayerRecord) -> bool:
        return record.mixed is not None and not self.alive[record.mixed].all()

    def stacks(self, model: tf.keras.Sequential) -> bool:
        records = (self._records.get(id(layer)) for layer in model.layers)  # None: a nested model
        return not any(record is not None and self._mixes_fewer(record) for record in records)

    def arguments(self, call: LayerCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if call.mixed is None or self.alive[call.mixed.ids].all():
            return args, kwargs
        positions = np.flatnonzero(self.alive[call.mixed.ids]).tolist()
        return args, {**kwargs, "axis": call.mixed.axis, "positions": positions}

    def _quantise_kept(self, record: LayerRecord, clone: tf.keras.layers.Layer) -> None:
        """Stands quantisers of the clone on what stays."""
        axes = {name: roles for name, roles in record.weight_axes.items() if isinstance(name, str)}
        for weight, quantizer in precision.quantized_weights(record.layer).items():
            wide = precision.is_tensor_wide(quantizer)
            cut = [
                (axis - len(axes[weight]), role)
                for axis, role in enumerate(axes.get(weight, ()))
                if role and (wide or role in CONSUMED) and not self.alive[record.roles[role]].all()
            ]
            if cut:
                kept = [(axis, self._slim.kept(record, role).tolist()) for axis, role in cut]
                size = [len(record.roles[role]) for _, role in cut]
                setattr(clone, precision.QUANTIZER_OF_WEIGHT[weight], KeptQuantizer(quantizer, kept, size))
        reader = getattr(record.layer, "input_quantizer", None)
        if precision.is_tensor_wide(reader) and "in" in record.roles and not self.alive[record.roles["in"]].all():
            kept = [(self._input_axis(record), self._slim.kept(record, "in").tolist())]
            clone.input_quantizer = KeptQuantizer(reader, kept, [len(record.roles["in"])])

    def _input_axis(self, record: LayerRecord) -> int:
        return next(
            channels.axis
            for call in self.graph.calls.values()
            if call.record is record
            for channels in call.inputs
            if channels.axis is not None
        )

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        if isinstance(new, OnKept):
            return self._slim.weights(record, new.layer)
        values = []
        for value, axes in zip(values_of(record), axes_of(record), strict=True):
            for axis, role in enumerate(axes):
                if role in CONSUMED:
                    alive = self.alive[record.roles[role]]
                    value = value * alive.reshape([-1 if other == axis else 1 for other in range(value.ndim)])
            values.append(value)
        return values


def mask(model: tf.keras.Model, plan: PruningPlan) -> tf.keras.Model:
    """A copy of the model in its original shape that computes what the slim model computes.

    The input slices of the consumers' deployed kernels are zero for removed units. Quantisers whose
    scale depends on the whole layer, and norms over the channels, are taken over what stays.

    Args:
        model: the model that the plan was made for.
        plan: which units go.

    Returns:
        An uncompiled model; its weights are copies.

    Raises:
        ModelTypeError: no graph model.
        PlanError: the plan was made for another model, or is unsound.
    """
    graph = ChannelGraph(model)
    return MaskedBuilder(graph, graph.alive(checked_removal(graph, plan))).build()
