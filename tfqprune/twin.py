"""The evaluation twin: a copy of a model into which a plan is set by assigning arrays.

Kernel quantisers are taken off and deployed kernels written in, so nothing is quantised anew in a
forward pass; batch norms can take new statistics. Its functions are traced once: trying a plan needs
neither a new model nor a new trace. The law: with a plan set, the twin computes what the slim model
computes, to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.errors import DataError, ModelTypeError
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import CONSUMED, register_handler, weight_index
from tfqprune.layers.normalization import BatchNormHandler, is_batch_norm
from tfqprune.plan import PruningPlan, checked_removal
from tfqprune.rebuild import Rebuilder, axes_of, values_of
from tfqprune.recovery.batchnorm import batch_moments, check_statistics

Removed = Mapping[str, tuple[int, ...]]
#: name of a batch norm -> mean and variance of each channel
Statistics = dict[str, tuple[np.ndarray, ...]]


class StatisticsNorm(tf.keras.layers.BatchNormalization):
    """A batch norm that can sum up statistics over batches instead of using its moving ones.

    While ``collecting`` is on at trace time it normalises with the batch's own statistics, as a batch
    norm does in training, and adds them to its sums. Nothing is ever trained: called as in training, it uses
    the batch's own statistics and keeps what it has.

    Args:
        norm: the batch norm to stand in for; only its configuration is read.
    """

    def __init__(self, norm: tf.keras.layers.Layer) -> None:
        super().__init__(
            axis=norm.axis,
            epsilon=norm.epsilon,
            center=norm.center,
            scale=norm.scale,
            fused=False,
            trainable=False,
            name=norm.name,
            dtype=norm.dtype_policy,
        )
        self.collecting = False
        # One that does not train is in inference even where called as in training; that of TensorFlow 1 is not.
        self._learns = norm.trainable or not getattr(norm, "_USE_V2_BEHAVIOR", True)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StatisticsNorm:
        return cls(tf.keras.layers.BatchNormalization.from_config(config))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.others = [axis for axis in range(len(input_shape)) if axis not in self.axis]
        self.wide = [size if axis in self.axis else 1 for axis, size in enumerate(input_shape)]
        # These come last: the weights before them are a batch norm's own, in its order.
        kind = {"initializer": "zeros", "dtype": self.moving_mean.dtype, "experimental_autocast": False}
        self.mean = self.add_weight(name="mean", shape=self.moving_mean.shape, trainable=False, **kind)
        self.squares = self.add_weight(name="squares", shape=self.moving_mean.shape, trainable=False, **kind)
        self.seen = self.add_weight(name="seen", shape=(), trainable=False, **kind)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        values = tf.cast(inputs, self.moving_mean.dtype)
        mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        if self.collecting or (training and self._learns):
            rows, mean, variance = batch_moments(values, self.others, mask, keepdims=len(self.axis) > 1)
            if self.collecting:
                self._add(rows, mean, variance)
        factor = tf.math.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor *= self.gamma
        offset = -mean * factor
        if self.beta is not None:
            offset += self.beta
        return tf.cast(values * tf.reshape(factor, self.wide) + tf.reshape(offset, self.wide), inputs.dtype)

    def _add(self, count: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Takes in a batch, by the formula of Chan et al. for joining two sets of data."""
        seen = tf.convert_to_tensor(self.seen)
        share, delta = count / (seen + count), mean - self.mean
        self.squares.assign_add(variance * count + delta**2 * seen * share)
        self.mean.assign_add(delta * share)
        self.seen.assign_add(count)

    def start(self) -> None:
        """Forgets what was summed up."""
        for total in (self.mean, self.squares, self.seen):
            total.assign(tf.zeros_like(total))

    def collected(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population variance of all that was seen.

        Raises:
            DataError: nothing was seen.
            ActivationError: they are not finite.
        """
        seen = self.seen.numpy()
        if not seen:
            raise DataError("Expected at least one batch of inputs. Received: none. Give inputs, batch by batch.")
        mean, variance = self.mean.numpy(), self.squares.numpy() / seen
        check_statistics(self.name, mean, variance)
        return mean, variance

    def take(self, mean: np.ndarray, variance: np.ndarray) -> None:
        """Makes these the statistics."""
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)


@register_handler(StatisticsNorm)
class StatisticsNormHandler(BatchNormHandler):
    """A twin's model may be looked at as any other; the sums run along the channels as all else does."""

    weights = (*BatchNormHandler.weights, "mean", "squares")


@dataclass
class _Cut:
    """One weight of the twin that depends on the plan."""

    variable: tf.Variable
    latent: np.ndarray
    deployed: np.ndarray
    quantizer: Callable[[tf.Tensor], tf.Tensor] | None  # only where its scale depends on what stays
    axes: list[tuple[int, np.ndarray]]  # axis, channel ids along it
    state: bytes = b""

    def update(self, alive: np.ndarray) -> None:
        """Assigns what the weight deploys to when only ``alive`` (bool over channel ids) stays."""
        masks = [alive[ids] for _, ids in self.axes]
        state = b"".join(np.packbits(mask).tobytes() for mask in masks)
        if state == self.state:
            return
        self.state = state
        if self.quantizer is None or all(mask.all() for mask in masks):
            value = self.deployed
            for (axis, _), mask in zip(self.axes, masks, strict=True):
                value = value * mask.reshape([-1 if other == axis else 1 for other in range(value.ndim)])
        else:
            index = [np.arange(size) for size in self.latent.shape]
            for (axis, _), mask in zip(self.axes, masks, strict=True):
                index[axis] = np.flatnonzero(mask)
            value = np.zeros_like(self.deployed)
            value[np.ix_(*index)] = precision.quantize(self.quantizer, self.latent[np.ix_(*index)])
        self.variable.assign(value.astype(self.deployed.dtype))


class _TwinBuilder(Rebuilder):
    """Rebuilds a model with deployed kernels as plain variables."""

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self.built: list[tuple[LayerRecord, tf.keras.layers.Layer]] = []

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        old = record.layer
        new: tf.keras.layers.Layer
        if is_batch_norm(old):
            new = StatisticsNorm(old)
        else:
            new = record.clone()
            for weight in precision.quantized_weights(old):
                setattr(new, precision.QUANTIZER_OF_WEIGHT[weight], None)
        self.built.append((record, new))
        return new

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        values = deployed_values(record)
        if isinstance(new, StatisticsNorm):
            # Its sums start at zero; what renormalisation has beyond a batch norm's weights matters in training only.
            own = len(new.weights) - 3
            return values[:own] + [np.zeros(weight.shape, "float32") for weight in new.weights[own:]]
        return values


def drop_penalties(model: tf.keras.Model) -> None:
    """Takes regularisers from a model that is only evaluated from now on, so that its loss is that of the data."""
    for layer in model._flatten_layers():
        layer._callable_losses.clear()
        layer.activity_regularizer = None
        layer._losses.clear()  # of the symbolic activities that the model was built with
    model._clear_losses()


def deployed_values(record: LayerRecord) -> list[np.ndarray]:
    """A layer's weights as they are deployed, in the order of ``layer.weights``."""
    values, index = values_of(record), weight_index(record.layer)
    for weight, quantizer in precision.quantized_weights(record.layer).items():
        values[index[weight]] = precision.quantize(quantizer, values[index[weight]])
    return values


def obstacle(graph: ChannelGraph, groups: Iterable[str] | None = None) -> str | None:
    """Why a model can have no twin, and cannot be masked while it trains; None if it can.

    Args:
        graph: the channel graph of the model.
        groups: names of the groups that may lose units; None: all that are not frozen.
    """
    names = [group.name for group in graph.prunable] if groups is None else groups
    open_groups = {graph[name].index for name in names}

    def prunable(ids: np.ndarray) -> bool:
        return bool(open_groups & set(np.unique(graph.units(ids)[0]).tolist()))

    for record in graph.records.values():
        layer = record.layer
        if record.mixed is not None and prunable(record.mixed):
            return f"{record.name!r} takes statistics over channels that may go"
        reader = getattr(layer, "input_quantizer", None)
        if precision.is_tensor_wide(reader) and "in" in record.roles and prunable(record.roles["in"]):
            return f"the input quantiser of {record.name!r} takes its scale over channels that may go"
    return None


class EvaluationTwin:
    """A copy of a model that takes on one plan after another, without a rebuild or a retrace.

    With a plan set it computes what the slim model computes, to float rounding. It has no regularisers: what it holds
    are deployed kernels, those of removed filters too, and their penalty is not the slim model's.

    Args:
        graph: the channel graph of the model, or the model.

    Attributes:
        model: the twin itself, an uncompiled Keras model. Its layers have the original's names, its
            kernels the original's shapes.
        alive: bool array over the channel ids of the graph: what stays under the plan that is set.

    Raises:
        ModelTypeError: no graph model.
    """

    def __init__(self, graph: ChannelGraph | tf.keras.Model) -> None:
        self.graph = graph if isinstance(graph, ChannelGraph) else ChannelGraph(graph)
        self._obstacle = obstacle(self.graph)
        builder = _TwinBuilder(self.graph)
        self.model = builder.build()
        drop_penalties(self.model)
        self._norm_of = {record.name: new for record, new in builder.built if isinstance(new, StatisticsNorm)}
        self._norms = list(self._norm_of.values())
        self._originals = self.statistics()
        self.alive = self.graph.alive({})
        self._cuts = [cut for record, new in builder.built for cut in _cuts(record, new)]
        self._forward = tf.function(lambda inputs: self.model(inputs, training=False), reduce_retracing=True)
        self._collect = tf.function(self._collecting, reduce_retracing=True)

    def set_plan(self, plan: PruningPlan | Removed) -> None:
        """Takes on a plan. Statistics become the original's again.

        Args:
            plan: the plan, or group -> slots that go (``plan.removed``).

        Raises:
            PlanError: the plan was made for another model, or is unsound.
            ModelTypeError: a layer takes statistics or a scale over channels that may go; then only
                the empty plan can be taken on.
        """
        removed = checked_removal(self.graph, plan)
        if self._obstacle and any(removed.values()):
            raise ModelTypeError(
                f"Expected a model that an evaluation twin can stand in for. Received: one in which {self._obstacle}. "
                "Evaluate the slim model instead: tfqprune.prune(model, plan)."
            )
        self.alive = self.graph.alive(removed)
        for cut in self._cuts:
            cut.update(self.alive)
        for name, (mean, variance) in self._originals.items():  # whoever evaluates the model may have changed them
            self._norm_of[name].take(mean, variance)

    def statistics(self) -> Statistics:
        """Mean and variance of each batch norm as they are now, by layer name, over all channels."""
        return {name: (norm.moving_mean.numpy(), norm.moving_variance.numpy()) for name, norm in self._norm_of.items()}

    def __call__(self, inputs: Any) -> Any:
        """The outputs for one batch, in inference."""
        return self._forward(inputs)

    def re_estimate(self, batches: Iterable[Any]) -> None:
        """Gives the batch norms new statistics, as ``reestimate_batch_norms`` gives them to a slim model.

        Each batch is normalised with its own statistics on its way; everything else (dropout) runs as
        in inference. Channels that are gone get statistics nobody reads.

        Args:
            batches: inputs, batch by batch; at least one.

        Raises:
            DataError: no batch.
            ActivationError: NaN or infinity reaches a batch norm, which is named; statistics stay as they were.
        """
        if not self._norms:
            return
        for norm in self._norms:
            norm.start()
        for inputs in batches:
            self._collect(inputs)
        found = [norm.collected() for norm in self._norms]  # all are looked at before any changes
        for norm, (mean, variance) in zip(self._norms, found, strict=True):
            norm.take(mean, variance)

    def _collecting(self, inputs: Any) -> None:
        # Runs while the function is traced: the graph holds the collecting branch of every norm.
        for norm in self._norms:
            norm.collecting = True
        try:
            self.model(inputs, training=False)
        finally:
            for norm in self._norms:
                norm.collecting = False


def _cuts(record: LayerRecord, new: tf.keras.layers.Layer) -> list[_Cut]:
    position_of = weight_index(record.layer)
    quantizers = {
        position_of[weight]: quantizer for weight, quantizer in precision.quantized_weights(record.layer).items()
    }
    cuts = []
    values = zip(new.weights, values_of(record), deployed_values(record), axes_of(record), strict=False)
    for position, (variable, latent, deployed, roles) in enumerate(values):
        quantizer = quantizers.get(position)
        wide = precision.is_tensor_wide(quantizer)
        axes = [(axis, record.roles[role]) for axis, role in enumerate(roles) if role and (role in CONSUMED or wide)]
        if axes:
            cuts.append(_Cut(variable, latent, deployed, quantizer if wide else None, axes))
    return cuts
