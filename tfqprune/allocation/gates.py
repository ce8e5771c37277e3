"""Gates on the units of a model: which are open, what the open ones cost, and a model that trains through them.

A gate sits where a unit is consumed, as in ``tfqprune.masking``: it multiplies the slices of the deployed kernels that
read the unit. Behind a producer it would be lost on a sign, which is +1 for 0, and on a batch norm's offset.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.errors import PlanError
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import CONSUMED, weight_index
from tfqprune.rebuild import Rebuilder, values_of

#: of the search for the thresholds: gates are told apart down to a millionth of their range
_HALVINGS = 20
#: of soft gates that stand still, half a unit from their thresholds: their sigmoids are 0 and 1 to float32
CLOSED_WIDTH = 1e-3


def state(value: Any, name: str) -> tf.Variable:
    """A variable that no optimiser touches and checkpoints hold; all replicas of a strategy have the same."""
    only = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, name=name, aggregation=only)


class Gates:
    """One number for each unit of a graph, and a threshold above which it is open, with a gradient straight through.

    The gate that lies highest above its threshold is open in each group whatever its value: no group loses its last
    unit. Where a group has bounds, as many of the highest are open, and of the lowest closed, as they ask for.

    Args:
        graph: the channel graph of the model.
        free: bool [units]; the gates of the others are always open.
        values: start of the gates [units]; the thresholds start below them all.
        soft: whether what reads a unit is multiplied by a sigmoid of the gate's height above its threshold over
            its ``width``, instead of by 1 or 0. Costs count open gates either way.
        bounds: group name -> the least and the largest number of its units that go; for groups that are missing, from
            none to all but one.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        free: np.ndarray,
        values: np.ndarray,
        soft: bool = False,
        bounds: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.graph, self.soft = graph, soft
        self.free = tf.constant(free.astype(np.float32))
        self.values = state(values.astype(np.float32), "gates")
        lowest = np.full(len(values), values.min() - 1, np.float32)
        self.thresholds = state(lowest, "thresholds")
        self.width = state(np.full(len(values), CLOSED_WIDTH, np.float32), "width")
        self._group = tf.constant(graph.group_of.astype(np.int32))
        self._groups = len(graph.groups)
        sizes, whole = [group.size for group in graph.groups], [(0, group.size - 1) for group in graph.groups]
        gone = [(bounds or {}).get(group.name, usual) for group, usual in zip(graph.groups, whole)]
        self._least, self._most = (
            tf.constant([size - own[end] for size, own in zip(sizes, gone)], tf.int32) for end in (1, 0)
        )
        self._table = _padded(graph, free) if gone != whole else None

    def indicators(self, values: tf.Tensor | None = None) -> tf.Tensor:
        """1 for open and 0 for closed gates [units]; the gradient is that of the gates themselves.

        Args:
            values: what to take for the values of the gates; None: their own.
        """
        values = tf.convert_to_tensor(self.values if values is None else values)
        return self.opened(values - self.thresholds) + self.free * (values - tf.stop_gradient(values))

    def factors(self) -> tf.Tensor:
        """What the kernels that read each unit are multiplied by [units]: the indicators, or soft ones."""
        indicators = self.indicators()
        if not self.soft:
            return indicators
        height = tf.convert_to_tensor(self.values) - self.thresholds
        # What must be open or closed is so in full, however low or high its gate: the last unit of a group, for one.
        held = (self.free == 0) | ((indicators > 0) != (height > 0))
        return tf.where(held, indicators, tf.sigmoid(height / self.width))

    def opened(self, height: tf.Tensor) -> tf.Tensor:
        """1 where a gate that high above its threshold is open, 0 elsewhere [units]; without a gradient."""
        place = self._places(height) if self._table is not None else self._highest_first(height)
        least, most = tf.gather(self._least, self._group), tf.gather(self._most, self._group)
        is_open = ((height > 0) & (place < most)) | (place < least) | (self.free == 0)
        return tf.stop_gradient(tf.cast(is_open, height.dtype))

    def _highest_first(self, height: tf.Tensor) -> tf.Tensor:
        """0 for the highest gate of each group, 1 for all others [units]: enough where no group has bounds."""
        count = height.shape[0]
        highest = tf.gather(tf.math.unsorted_segment_max(height, self._group, self._groups), self._group)
        place = tf.where(height >= highest, tf.range(count), count)
        first = tf.gather(tf.math.unsorted_segment_min(place, self._group, self._groups), self._group)
        return tf.cast(tf.range(count) != first, tf.int32)

    def _places(self, height: tf.Tensor) -> tf.Tensor:
        """Place of each gate in its group, 0 for the highest; of equal ones the first comes first [units]."""
        rows = tf.gather(tf.concat([height, [-np.inf]], 0), self._table)
        units = tf.gather(self._table, tf.argsort(rows, direction="DESCENDING", stable=True), batch_dims=1)
        places = tf.broadcast_to(tf.range(tf.shape(units)[1]), tf.shape(units))
        count = height.shape[0]
        return tf.scatter_nd(units[..., tf.newaxis], places, [count + 1])[:count]

    def unit(self, gradient: tf.Tensor) -> tf.Tensor:
        """A gradient to the gates over its root mean square among those that are free [..., units]."""
        square = tf.reduce_sum(self.free * gradient**2, -1, keepdims=True) / tf.reduce_sum(self.free)
        return self.free * gradient * tf.math.rsqrt(tf.maximum(square, 1e-20))


def _padded(graph: ChannelGraph, free: np.ndarray) -> tf.Tensor:
    """The units of each free group, filled up with the number of all units [groups, units of the largest]."""
    units = [mine for mine in map(graph.units_of, graph.groups) if free[mine].any()]
    rows = np.full((len(units), max(map(len, units))), graph.unit_count, np.int32)
    for row, mine in zip(rows, units):
        row[: len(mine)] = mine
    return tf.constant(rows)


class GateCosts:
    """Shares of a model's costs that are left, as differentiable functions of indicators.

    The same sums as ``CostModel.totals``, in float64, so that whole numbers are exact.

    Args:
        model: the costs to follow.
        names: which of them.
    """

    def __init__(self, model: CostModel, names: tuple[str, ...]) -> None:
        terms, channels = model.terms, model.channels
        weights = {
            "params": terms.counted,
            "macs": terms.reuse,
            "bops": terms.reuse * terms.product_bits,
            "memory": terms.counted * terms.bits / 8,
        }
        self.names = names
        self._factors = tf.constant(np.array([terms.constant * weights[name] for name in names]), tf.float64)
        self._units = tf.constant(channels.indices, tf.int32)
        self._rows = tf.constant(np.repeat(np.arange(channels.shape[0]), np.diff(channels.indptr)), tf.int32)
        self._count = channels.shape[0]
        # The last entry, 1, stands for "no further channel axis" (index -1).
        self._first, self._second = (np.where(index < 0, self._count, index) for index in (terms.first, terms.second))

    def __call__(self, indicators: tf.Tensor) -> tf.Tensor:
        """Costs in the order of ``names``, float64."""
        read = tf.gather(tf.cast(indicators, tf.float64), self._units)
        kept = tf.concat([tf.math.unsorted_segment_sum(read, self._rows, self._count), [1.0]], 0)
        return tf.linalg.matvec(self._factors, tf.gather(kept, self._first) * tf.gather(kept, self._second))


def thresholds_on(
    gates: Gates, values: tf.Tensor, costs: GateCosts, limits: tf.Tensor, direction: tf.Tensor
) -> tf.Tensor:
    """The lowest thresholds along a direction at which no cost of the open gates is above its limit [units].

    Args:
        gates: the gates.
        values: what to take for their values [units].
        costs: the costs that are bounded.
        limits: the most that each may be, float64.
        direction: thresholds are a multiple of it [units]; above zero.
    """
    reach = tf.reduce_max(tf.abs(values) / direction) + 1.0

    def halved(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        middle = (low + high) / 2
        holds = tf.reduce_all(costs(gates.opened(values - middle * direction)) <= limits)
        return tf.where(holds, low, middle), tf.where(holds, middle, high)

    # From all open to all closed but one of each group.
    _, high = tf.while_loop(lambda *_: True, halved, (-reach, reach), maximum_iterations=_HALVINGS)
    return high * direction


class GatedQuantizer:
    """A quantiser behind which gates multiply what reads closed units.

    A quantiser whose scale is taken over the whole kernel takes it over what is open, as the slim model does. No Keras
    layer, so that nothing of it is among the layer's weights.

    Args:
        quantizer: the layer's own quantiser.
        gates: the gates.
        read: axis of the kernel (negative: from the end) -> units of its channels, where the kernel reads them.
        made: the same for axes along which it produces them, where the scale depends on them.
        wide: whether the scale depends on the whole kernel.
    """

    def __init__(
        self,
        quantizer: Callable[[tf.Tensor], tf.Tensor],
        gates: Gates,
        read: dict[int, np.ndarray],
        made: dict[int, np.ndarray],
        wide: bool,
    ) -> None:
        self.quantizer, self.gates = precision.unmeasured(quantizer), gates
        self.read, self.made, self.wide = read, made, wide
        self.precision = getattr(quantizer, "precision", None)

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        latent = tf.convert_to_tensor(inputs)
        values = self.quantizer(latent)
        if self.wide:
            values = self._on_open(latent, values, tf.stop_gradient(self.gates.indicators()))
        return gated(values, self.gates.factors(), self.read)

    def _on_open(self, latent: tf.Tensor, full: tf.Tensor, opened: tf.Tensor) -> tf.Tensor:
        """Quantised over what is open; the rest as it is quantised among all, so that its gates have a gradient."""
        part, sources = latent, []
        for axis, units in {**self.read, **self.made}.items():
            stays = tf.gather(opened, units) > 0
            kept = tf.where(stays)[:, 0]
            part = tf.gather(part, kept, axis=axis)
            # A closed channel points at the last kept one; what stands there is replaced below.
            place = tf.cumsum(tf.cast(stays, tf.int32)) - 1
            sources.append((axis, tf.maximum(place, 0)))
        part = self.quantizer(part)
        for axis, place in sources:
            part = tf.gather(part, place, axis=axis)
        part = tf.ensure_shape(part, full.shape)
        all_open = gated(tf.ones_like(full), opened, {**self.read, **self.made})
        return tf.where(all_open > 0, part, full)


def gated(values: tf.Tensor, factors: tf.Tensor, axes: dict[int, np.ndarray]) -> tf.Tensor:
    """Values times the factors of the units along some of their axes (negative: from the end)."""
    for axis, units in axes.items():
        shape = [1] * values.shape.rank
        shape[axis] = -1
        values = values * tf.reshape(tf.cast(tf.gather(factors, units), values.dtype), shape)
    return values


class GatedBuilder(Rebuilder):
    """A copy of the model whose consumers read through gates.

    Args:
        graph: the channel graph of the model.
        gates: one for each of its units.

    Raises:
        PlanError: (from ``build``) a layer reads channels by a kernel that it does not hold as an attribute.
    """

    def __init__(self, graph: ChannelGraph, gates: Gates) -> None:
        super().__init__(graph)
        self.gates = gates

    @property
    def layers(self) -> dict[int, tf.keras.layers.Layer]:
        """The new layers by the identity of the old."""
        return self._layers

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        clone = record.clone()
        quantised = precision.quantized_weights(record.layer)
        through: dict[str, dict[int, np.ndarray]] = {}
        for weight, roles in record.weight_axes.items():
            axes = {
                axis - len(roles): (role, self.graph.unit_index(record.roles[role]))
                for axis, role in enumerate(roles)
                if role
            }
            read = {axis: units for axis, (role, units) in axes.items() if role in CONSUMED}
            if isinstance(weight, str) and weight in quantised:
                wide = precision.is_tensor_wide(quantised[weight])
                made = {axis: units for axis, (_, units) in axes.items() if wide and axis not in read}
                quantizer = GatedQuantizer(quantised[weight], self.gates, read, made, wide)
                setattr(clone, precision.QUANTIZER_OF_WEIGHT[weight], quantizer)
            elif read:
                through.update(dict.fromkeys(_attributes(record, weight), read))
        if through:
            _read_through(clone, self.gates, through)
        return clone

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        return values_of(record)


def _attributes(record: LayerRecord, weight: str | int) -> list[str]:
    """The attributes of a layer that hold a weight, which may be known by its variable's name or its position alone.

    Raises:
        PlanError: there are none.
    """
    own, variable = vars(record.layer), record.layer.weights[weight_index(record.layer)[weight]]
    names = [weight] if isinstance(weight, str) and weight in own else []
    names = names or [name for name, value in own.items() if value is variable]
    if not names:
        raise PlanError(
            f"Expected layers that hold the kernels by which they read channels as attributes. Received: "
            f"{record.name!r} ({type(record.layer).__name__}), whose weight {weight!r} is none. Set it as an attribute "
            "in build(), exclude what it reads, or prune this model with another allocator."
        )
    return names


def _read_through(layer: tf.keras.layers.Layer, gates: Gates, through: dict[str, dict[int, np.ndarray]]) -> None:
    """Lets a layer see its float kernels times the gates while it is called; its variables stay what they are."""
    inner = layer.call

    @functools.wraps(inner)
    @tf.autograph.experimental.do_not_convert
    def call(*args: Any, **kwargs: Any) -> Any:
        own, factors = layer.__dict__, gates.factors()
        kernels = {weight: own[weight] for weight in through}
        # Past Keras's attribute tracking, which would take the variables for gone.
        own.update({weight: gated(kernels[weight] * 1, factors, axes) for weight, axes in through.items()})
        try:
            return inner(*args, **kwargs)
        finally:
            own.update(kernels)

    layer.__dict__["call"] = call
