"""Channels that say the same whatever comes in: removed, and their constant pushed into what follows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.forward import Consumer, Forward, consumers
from tfqprune.errors import PlanError
from tfqprune.layers import LayerRecord
from tfqprune.plan import PruningPlan, fingerprint
from tfqprune.rebuild import axes_of, values_of
from tfqprune.samples import SAMPLES, Samples, take_samples
from tfqprune.slim import SlimBuilder

_BATCH = 64
_SAME = 1e-6  # relative: constants and codes that differ by no more are the same

#: name of a layer and of its weight -> what is added to it, in its original shape
Shifts = dict[tuple[str, str], np.ndarray]


def remove_dead_channels(
    model: tf.keras.Model, data: Any = None, *, tolerance: float = 1e-3, samples: int = SAMPLES
) -> tuple[tf.keras.Model, PruningPlan]:
    """Removes channels that are constant behind their batch norm, without changing what the model computes.

    Nishikawa, Ikegaya, "Filter Pre-Pruning for Improved Fine-tuning of Quantized Deep Neural Networks", arXiv
    2011.06751 (PfQ), remove filters that disturb the fine-tuning of a quantised network through their batch norm, while
    hardly affecting the inferred result. Read: the abstract. Ours: which they are, and how removal is made exact, not
    nearly so. A unit is dead where the standard
    deviation behind a batch norm that it passes, gamma times sigma over sqrt(sigma^2 + epsilon), is at most
    ``tolerance``, and all kernels that read it see one value, padding included. That value times the sum of the
    kernel's taps goes to the bias of the reading layer, or off the moving mean of the batch norm behind it. Where
    neither is there, where a constant meets padding of another value, or where a quantiser's scale would change, the
    unit stays, and the plan's notes say why.

    Args:
        model: a functional or sequential tf_keras model; it stays as it is.
        data: inputs (see :func:`tfqprune.score`), to see the constants on; None: normal noise, which is as good where
            gamma is 0.
        tolerance: largest standard deviation of a dead channel, at least 0; what varies less is replaced by its mean.
        samples: how many samples are looked at.

    Returns:
        The slim model, uncompiled, and the plan. ``prune(model, plan)`` alone would forget the constants.
        ``plan.notes["left"]`` holds for each group the reason why dead units of it stay.

    Raises:
        ModelTypeError: no graph model.
        PlanError: a tolerance below 0.
        DataError: data that does not fit.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < np.inf:
        raise PlanError(f"Expected a tolerance of at least 0. Received: {tolerance!r}.")
    graph = ChannelGraph(model)
    found = _Search(graph, _inputs(graph, data, samples), float(tolerance)).run()
    sizes = {group.name: group.size for group in graph.groups}
    notes = {"tolerance": float(tolerance), "left": found.left}
    plan = PruningPlan(found.removed, sizes, fingerprint(graph), "dead", notes)
    return _ShiftedBuilder(graph, graph.alive(found.removed), found.shifts).build(), plan


@dataclass
class _Found:
    removed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    shifts: Shifts = field(default_factory=dict)


@dataclass
class _Seen:
    """What a consumer's kernel reads: extremes and mean of each channel, without and with padding."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    count: int
    padded_low: np.ndarray
    padded_high: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count


class _Search:
    """Looks for dead units, group by group."""

    def __init__(self, graph: ChannelGraph, samples: Samples, tolerance: float) -> None:
        self.graph, self.tolerance = graph, tolerance
        self.readers = consumers(graph)
        self.seen: dict[str, _Seen] = {}
        forward = Forward(graph, self.readers, self._look)
        for inputs, _ in samples.batches(_BATCH):
            forward(inputs)

    def run(self) -> _Found:
        found = _Found()
        deviations = self._deviations()
        for group in self.graph.prunable:
            dead = [slot for slot in range(group.size) if deviations[group.name][slot] <= self.tolerance]
            if len(dead) == group.size:
                dead.remove(int(np.argmax(deviations[group.name])))  # no group loses its last unit
            if not dead:
                continue
            reasons: dict[str, int] = defaultdict(int)
            for slot in dead:
                reason = self._try(found, group, slot)
                if reason:
                    reasons[reason] += 1
            if reasons:
                found.left[group.name] = "; ".join(f"{count} units: {reason}" for reason, count in reasons.items())
        return found

    def _deviations(self) -> dict[str, np.ndarray]:
        """The least standard deviation of each unit behind the batch norms that it passes, by group."""
        least = np.full(self.graph.unit_count, np.inf)
        for record in self.graph.records.values():
            layer = record.layer
            if isinstance(layer, tf.keras.layers.BatchNormalization) and "out" in record.roles:
                variance = precision.variable_value(layer.moving_variance).astype(np.float64)
                gamma = 1.0 if layer.gamma is None else np.abs(precision.variable_value(layer.gamma))
                deviation = gamma * np.sqrt(variance / (variance + layer.epsilon))
                np.minimum.at(least, self.graph.unit_index(record.roles["out"]), deviation)
        return {group.name: least[self.graph.units_of(group)] for group in self.graph.prunable}  # by slot

    def _try(self, found: _Found, group: ChannelGroup, slot: int) -> str | None:
        """Adds a unit to what goes, with the shifts that replace it; or says why it stays."""
        removed = {**found.removed, group.name: (*found.removed.get(group.name, ()), slot)}
        reason = self._mixed(group) or self._moved_scale(removed, group)
        if reason:
            return reason
        shifts: Shifts = {}
        for name, reader in self.readers.items():
            numbers, slots = reader.units
            positions = np.flatnonzero((numbers == group.index) & (slots == slot))
            if not len(positions):
                continue
            reason = self._contribution(name, reader, positions, shifts)
            if reason:
                return reason
        found.removed = {**removed, group.name: tuple(sorted(removed[group.name]))}
        for key, value in shifts.items():
            found.shifts[key] = found.shifts.get(key, 0.0) + value
        return None

    def _contribution(self, name: str, reader: Consumer, positions: np.ndarray, shifts: Shifts) -> str | None:
        """What a reader is to be given in place of some of its channels; or why it cannot be."""
        seen = self.seen[name]
        wide = self.tolerance + _SAME * np.abs(seen.mean[positions])
        # A quantiser behind the batch norm may still tell values apart that differ by very little.
        spread = seen.high[positions] - seen.low[positions]
        if (spread > 10 * wide).any():
            return f"{name!r} reads it where it is not constant"
        if (seen.padded_high[positions] - seen.padded_low[positions] > np.maximum(spread, wide)).any():
            return f"its constant meets other values in the padding of {name!r}"
        constant = np.where(np.abs(seen.mean[positions]) > _SAME, seen.mean[positions], 0.0)
        if not constant.any():
            return None
        if reader.kernel is None:
            return f"{name!r} is no plain convolution or dense layer"
        target = self._target(reader.record)
        if target is None:
            return f"{name!r} has no bias, and something else than a batch norm reads its output"
        layer, weight, sign = target
        shifts[layer, weight] = shifts.get((layer, weight), 0.0) + sign * _response(reader, positions, constant)
        return None

    def _target(self, record: LayerRecord) -> tuple[str, str, float] | None:
        """Layer, weight and sign by which a constant can be added to a layer's output."""
        if getattr(record.layer, "use_bias", False):
            return record.name, "bias", 1.0
        outputs = {
            id(tensor)
            for call in self.graph.calls.values()
            if call.record is record
            for tensor in tf.nest.flatten(call.node.outputs)
        }
        after = [
            call.record
            for call in self.graph.calls.values()
            if outputs & {id(tensor) for tensor in call.node.keras_inputs}
        ]
        shown = outputs & {id(tensor) for tensor in self.graph.model.outputs}
        if len(after) != 1 or shown or not isinstance(after[0].layer, tf.keras.layers.BatchNormalization):
            return None
        shared = [call for call in self.graph.calls.values() if call.record is after[0]]
        return (after[0].name, "moving_mean", -1.0) if len(shared) == 1 else None

    def _mixed(self, group: ChannelGroup) -> str | None:
        for record in self.graph.records.values():
            ids = [] if record.mixed is None else [record.mixed.ids]
            if precision.is_tensor_wide(getattr(record.layer, "input_quantizer", None)) and "in" in record.roles:
                ids.append(record.roles["in"])
            if any((self.graph.units(part)[0] == group.index).any() for part in ids):
                return f"{record.name!r} takes statistics over it and other channels"
        return None

    def _moved_scale(self, removed: dict[str, tuple[int, ...]], group: ChannelGroup) -> str | None:
        """The first layer whose deployed kernel would change where it stays."""
        alive = self.graph.alive(removed)
        for record in self.graph.records.values():
            if not any((self.graph.units(ids)[0] == group.index).any() for ids in record.roles.values()):
                continue
            for weight, quantizer in precision.quantized_weights(record.layer).items():
                if not precision.is_tensor_wide(quantizer):
                    continue
                latent = precision.latent(record.layer, weight)
                kept = precision.deployed(record.layer, weight)
                for axis, role in enumerate(record.weight_axes.get(weight, ())):
                    if role:
                        positions = np.flatnonzero(alive[record.roles[role]])
                        latent, kept = np.take(latent, positions, axis), np.take(kept, positions, axis)
                if not np.allclose(precision.quantize(quantizer, latent), kept, rtol=_SAME, atol=_SAME):
                    return f"without it the quantiser of {record.name!r} takes another scale"
        return None

    def _look(self, reader: Consumer, inputs: tf.Tensor, prepared: tf.Tensor) -> tf.Tensor:
        plain = tf.cast(reader.quantise(inputs), tf.float64)
        others = [axis for axis in range(plain.shape.rank) if axis != reader.axis]
        now = _Seen(
            tf.reduce_min(plain, others).numpy(),
            tf.reduce_max(plain, others).numpy(),
            tf.reduce_sum(plain, others).numpy(),
            int(np.prod([plain.shape[axis] for axis in others])),
            tf.cast(tf.reduce_min(prepared, others), tf.float64).numpy(),
            tf.cast(tf.reduce_max(prepared, others), tf.float64).numpy(),
        )
        seen = self.seen.get(reader.name)
        if seen is not None:
            now = _Seen(
                np.minimum(seen.low, now.low),
                np.maximum(seen.high, now.high),
                seen.total + now.total,
                seen.count + now.count,
                np.minimum(seen.padded_low, now.padded_low),
                np.maximum(seen.padded_high, now.padded_high),
            )
        self.seen[reader.name] = now
        return prepared


class _ShiftedBuilder(SlimBuilder):
    """The slim model with constants added to some of its weights."""

    def __init__(self, graph: ChannelGraph, alive: np.ndarray, shifts: Shifts) -> None:
        super().__init__(graph, alive)
        self._shifts = shifts

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        values = super().weights(record, new)
        for position, variable in enumerate(record.layer.weights):
            shift = self._shifts.get((record.name, variable.name.split("/")[-1].split(":")[0]))
            if shift is not None:
                role = axes_of(record)[position][0]
                kept = np.arange(len(shift)) if role is None else self.kept(record, role)
                values[position] = (values[position] + shift[kept]).astype(values_of(record)[position].dtype)
        return values


def _response(reader: Consumer, positions: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant channels add to each output channel: their value times the sum of the kernel's taps."""
    assert reader.kernel is not None
    taps = reader.kernel.astype(np.float64).sum(
        axis=tuple(range(reader.kernel.ndim - 2))
    )  # [inputs of a block, outputs]
    channels = len(reader.record.roles["in"])
    depth, outputs = taps.shape
    blocks = channels // depth if reader.convolution else 1
    result = np.zeros(outputs)
    for position, value in zip(positions.tolist(), constant.tolist(), strict=True):
        block, row = divmod(position, depth)
        mine = slice(block * outputs // blocks, (block + 1) * outputs // blocks)
        result[mine] += value * taps[row, mine]
    return result


def _inputs(graph: ChannelGraph, data: Any, count: int) -> Samples:
    if data is not None:
        return take_samples(graph.model, data, count)
    rng = np.random.default_rng(0)
    shapes = [[16 if size is None else size for size in tensor.shape[1:]] for tensor in graph.model.inputs]
    types = [tensor.dtype.as_numpy_dtype for tensor in graph.model.inputs]
    arrays = [
        rng.normal(size=(min(count, _BATCH), *shape)).astype(kind) for shape, kind in zip(shapes, types, strict=True)
    ]
    return Samples(arrays, None)
