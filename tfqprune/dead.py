"""Channels that say the same whatever comes in: removed, and their constant pushed into what follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.forward import Consumer, Forward, consumers
from tfqprune.errors import DataError, PlanError, real_number
from tfqprune.layers import LayerRecord
from tfqprune.layers.normalization import is_batch_norm
from tfqprune.layers.running import asked_training
from tfqprune.models import is_graph_model, nodes
from tfqprune.plan import PruningPlan, fingerprint
from tfqprune.rebuild import values_of
from tfqprune.samples import SAMPLES, Samples, own_batch, take_samples
from tfqprune.slim import SlimBuilder

_BATCH = 64
_SAME = 1e-6  # relative: constants and codes that differ by no more are the same
#: largest standard deviation of a dead channel
TOLERANCE = 1e-3

_GROWTH = (1, 2, 4, 8, 16, 32)  # pixels more where a size is open: odd and even behind any number of halvings

#: name of a layer and of its weight -> what is added to it, in its original shape
Shifts = dict[tuple[str, str], np.ndarray]


def remove_dead_channels(
    model: tf.keras.Model, data: Any = None, *, tolerance: float = TOLERANCE, samples: int = SAMPLES
) -> tuple[tf.keras.Model, PruningPlan]:
    """Removes channels that are constant behind their batch norm, without changing what the model computes.

    Nishikawa, Ikegaya, "Filter Pre-Pruning for Improved Fine-tuning of Quantized Deep Neural Networks", arXiv
    2011.06751 (PfQ), remove filters that disturb the fine-tuning of a quantised network through their batch norm, while
    hardly affecting the inferred result. Read: the abstract. Ours: which they are, and how removal is made exact, not
    nearly so. A unit is dead where the standard
    deviation behind a batch norm that it passes, gamma times sigma over sqrt(sigma^2 + epsilon), is at most
    ``tolerance``, and all kernels that read it see one value, padding included. That value times the sum of the
    kernel's taps goes to the bias of the reading layer, or off the moving mean of the batch norm right behind it. Where
    neither is there (an activation between the two is enough), where a constant meets padding of another value, or
    where a quantiser's scale would change, the unit stays, and the plan's notes say why.

    Args:
        model: a functional or sequential tf_keras model; it stays as it is.
        data: inputs (see :func:`tfqprune.score`), to see the constants on; None: noise, before each kernel anew, so
            that only those go that are constant whatever comes in (gamma is 0).
        tolerance: largest standard deviation of a dead channel, at least 0; what varies less is replaced by its mean.
        samples: how many samples are looked at.

    Returns:
        The slim model, uncompiled, and the plan. ``prune(model, plan)`` alone would forget the constants.
        ``plan.notes["left"]`` holds for each group the reason why dead units of it stay.

    Raises:
        ModelTypeError: no graph model.
        PlanError: a tolerance below 0.
        DataError: data that does not fit; without data, a layer that overflows on the noise or looks up indices.
    """
    tolerance = real_number("tolerance", tolerance, PlanError, 0)
    graph = ChannelGraph(model)
    found = _Search(graph, _inputs(graph, data, samples), tolerance, disturb=data is None).run()
    sizes = {group.name: group.size for group in graph.groups}
    notes = {"tolerance": tolerance, "left": found.left}
    plan = PruningPlan(found.removed, sizes, fingerprint(graph), "dead", notes)
    return _ShiftedBuilder(graph, graph.alive(found.removed), found.shifts).build(), plan


def dead_counts(graph: ChannelGraph, tolerance: float = TOLERANCE) -> dict[str, int]:
    """How many units of each prunable group are constant behind every batch norm that they pass, where any are.

    A quick look without a forward pass: :func:`remove_dead_channels` may leave some of them, or find others.

    Args:
        graph: the model's channels.
        tolerance: largest standard deviation of a dead channel, at least 0.
    """
    most = _deviations(graph)[1]
    counts = {group.name: len(_candidates(most[graph.units_of(group)], tolerance)) for group in graph.prunable}
    return {name: count for name, count in counts.items() if count}


def dead_hint(graph: ChannelGraph) -> str | None:
    """What to do about dead channels before anything else is cut; None where there are none."""
    count = sum(dead_counts(graph).values())
    if not count:
        return None
    return (
        f"{count:,} of {sum(group.size for group in graph.prunable):,} prunable units are constant behind their batch "
        "norm. Take them out first, it changes no result: tq.remove_dead_channels(model, data), or tfqprune prune "
        "--dead."
    )


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
    """Looks for dead units, group by group; ``disturb`` adds noise to what the kernels multiply."""

    def __init__(self, graph: ChannelGraph, samples: Samples, tolerance: float, disturb: bool) -> None:
        self.graph, self.tolerance = graph, tolerance
        self.noise = np.random.default_rng(0) if disturb else None
        self.readers = consumers(graph)
        self.seen: dict[str, _Seen] = {}
        forward = Forward(graph, self.readers, self._look)
        for inputs, _ in samples.batches(_BATCH):
            forward(inputs)
        for inputs in _other_sizes(graph.model, samples):
            try:
                forward(inputs)
            except (ValueError, tf.errors.InvalidArgumentError):
                continue  # a size that the model does not take
        self.uses = _uses(graph.model)

    def run(self) -> _Found:
        found = _Found()
        least, most = _deviations(self.graph, self.tolerance)
        for group in self.graph.prunable:
            units = self.graph.units_of(group)
            dead = _candidates(least[units], self.tolerance)
            reasons: dict[str, int] = defaultdict(int)
            for slot in dead:
                reason = self._try(found, group, slot, float(most[units[slot]]))
                if reason:
                    reasons[reason] += 1
            if reasons:
                found.left[group.name] = "; ".join(f"{count} units: {reason}" for reason, count in reasons.items())
        return found

    def _try(self, found: _Found, group: ChannelGroup, slot: int, deviation: float) -> str | None:
        """Adds a unit to what goes, with the shifts that replace it; or says why it stays."""
        removed = {**found.removed, group.name: (*found.removed.get(group.name, ()), slot)}
        reason = self._unsteady(group) or self._moved_scale(removed, group)
        if reason:
            return reason
        shifts: Shifts = {}
        for name, reader in self.readers.items():
            numbers, slots = reader.units
            positions = np.flatnonzero((numbers == group.index) & (slots == slot))
            if not len(positions):
                continue
            reason = self._contribution(name, reader, positions, deviation, shifts)
            if reason:
                return reason
        found.removed = {**removed, group.name: tuple(sorted(removed[group.name]))}
        for key, value in shifts.items():
            found.shifts[key] = found.shifts.get(key, 0.0) + value
        return None

    def _contribution(
        self, name: str, reader: Consumer, positions: np.ndarray, deviation: float, shifts: Shifts
    ) -> str | None:
        """What a reader is to be given in place of some of its channels; or why it cannot be."""
        seen = self.seen[name]
        same = _SAME * (1 + np.abs(seen.mean[positions]))
        # A quantiser behind the batch norm may still tell values apart that differ by very little. Tails are long, so
        # a range may be many deviations; but what does not vary at all behind its batch norm must not vary here.
        spread = seen.high[positions] - seen.low[positions]
        if (spread > min(10 * self.tolerance, 100 * deviation) + same).any():
            return f"{name!r} reads it where it is not constant"
        if (seen.padded_high[positions] - seen.padded_low[positions] > spread + same).any():
            return f"its constant meets other values in the padding of {name!r}"
        constant = np.where(np.abs(seen.mean[positions]) > _SAME, seen.mean[positions], 0.0)
        if reader.kernel is None and (constant.any() or getattr(reader.record.layer, "pad_values", 0.0) != 0):
            return f"{name!r} is no plain convolution or dense layer"
        if not constant.any():
            return None
        target = self._target(reader.record)
        if isinstance(target, str):
            return target
        layer, weight, sign = target
        shifts[layer, weight] = shifts.get((layer, weight), 0.0) + sign * _response(reader, positions, constant)
        return None

    def _target(self, record: LayerRecord) -> tuple[str, str, float] | str:
        """Layer, weight and sign by which a constant can be added to a layer's output; or why it cannot be."""
        layer = record.layer
        if layer.use_bias and layer.bias_constraint is None:
            return record.name, "bias", 1.0
        missing = f"{record.name!r} has {'a constrained' if layer.use_bias else 'no'} bias"
        if layer.activation not in (None, tf.keras.activations.linear):
            return f"{missing}, and its activation comes before any batch norm"
        outputs = [
            tensor
            for call in self.graph.calls.values()
            if call.record is record
            for tensor in tf.nest.flatten(call.node.outputs)
        ]
        users: set[int] = set().union(*(self.uses[id(tensor)] for tensor in outputs))
        after = self.graph.calls.get(users.pop()) if len(users) == 1 else None
        if after is None or not _along_channels(after.record):
            return f"{missing}, and something else than a batch norm reads its output"
        if sum(call.record is after.record for call in self.graph.calls.values()) > 1:
            return f"{missing}, and the batch norm behind it reads other outputs, too"
        return after.name, "moving_mean", -1.0

    def _unsteady(self, group: ChannelGroup) -> str | None:
        """Why no unit of a group can go: a layer makes more of its constants than the search can see."""
        for call in self.graph.calls.values():
            if not any((self.graph.units(channels.ids)[0] == group.index).any() for channels in call.inputs):
                continue
            if call.record.mixed is not None or precision.is_tensor_wide(getattr(call.layer, "input_quantizer", None)):
                return f"{call.name!r} takes statistics over it and other channels"
            training = asked_training(call)
            if isinstance(training, int) and training:
                return f"{call.name!r} is always called as in training"
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
        channels = plain.shape.rank - 1 if reader.dense else reader.axis  # a shared dense layer may see several ranks
        others = [axis for axis in range(plain.shape.rank) if axis != channels]
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
        return prepared if self.noise is None else prepared + self._disturbance(prepared, channels)

    def _disturbance(self, prepared: tf.Tensor, channels: int) -> tf.Tensor:
        """Noise of another size for each sample: what only saturates would look constant on one size."""
        assert self.noise is not None
        shape = [size if axis in (0, channels) else 1 for axis, size in enumerate(prepared.shape)]
        sizes = np.logspace(3, -2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        return tf.cast(sizes * self.noise.normal(size=shape), prepared.dtype)


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
                shifted = values[position] + shift[self.kept(record, "out")]
                values[position] = shifted.astype(values_of(record)[position].dtype)
        return values


def _response(reader: Consumer, positions: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant channels add to each output channel: their value times the sum of the kernel's taps."""
    assert reader.kernel is not None
    taps = _summed(reader.kernel)  # [inputs of a block, outputs]
    if reader.separable:
        filters = _summed(np.asarray(reader.layer.depthwise_kernel))  # [inputs, multiplier]
        taps = np.einsum("im,imo->io", filters, taps.reshape(*filters.shape, -1))
    channels = len(reader.record.roles["in"])
    depth, outputs = taps.shape
    blocks = channels // depth if reader.convolution else 1
    result = np.zeros(outputs)
    for position, value in zip(positions.tolist(), constant.tolist(), strict=True):
        block, row = divmod(position, depth)
        mine = slice(block * outputs // blocks, (block + 1) * outputs // blocks)
        result[mine] += value * taps[row, mine]
    return result


def _summed(kernel: np.ndarray) -> np.ndarray:
    """A kernel's weights summed over all axes but the last two."""
    return kernel.astype(np.float64).sum(axis=tuple(range(kernel.ndim - 2)))


def _deviations(graph: ChannelGraph, limit: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """By unit: the least standard deviation behind the batch norms that it passes, and the largest up to a limit.

    A unit that passes none has infinity for both.
    """
    least, most = np.full(graph.unit_count, np.inf), np.zeros(graph.unit_count)
    for record in graph.records.values():
        if _along_channels(record):
            layer, units = record.layer, graph.unit_index(record.roles["out"])
            variance = precision.variable_value(layer.moving_variance).astype(np.float64)
            gamma = 1.0 if layer.gamma is None else np.abs(precision.variable_value(layer.gamma))
            deviation = gamma * np.sqrt(variance / (variance + layer.epsilon))
            np.minimum.at(least, units, deviation)
            np.maximum.at(most, units, np.where(deviation <= limit, deviation, 0.0))
    return least, np.where(np.isfinite(least), most, np.inf)


def _candidates(deviations: np.ndarray, tolerance: float) -> list[int]:
    """Units of a group that may be dead; no group loses its last one."""
    dead: list[int] = np.flatnonzero(deviations <= tolerance).tolist()
    if len(dead) == len(deviations):
        dead.remove(int(np.argmax(deviations)))
    return dead


def _along_channels(record: LayerRecord) -> bool:
    """Whether a layer is a batch norm of its channels."""
    return is_batch_norm(record.layer) and "out" in record.roles


def _uses(model: tf.keras.Model) -> dict[int, set[int]]:
    """Tensor -> the nodes that read it and the models whose output it is, nested ones too; all by identity."""
    uses: dict[int, set[int]] = defaultdict(set)
    for tensor in model.outputs:
        uses[id(tensor)].add(id(model))
    for node in nodes(model):
        for tensor in node.keras_inputs:
            uses[id(tensor)].add(id(node))
        if is_graph_model(node.layer):
            for key, users in _uses(node.layer).items():
                uses[key] |= users
    return uses


def _inputs(graph: ChannelGraph, data: Any, count: int) -> Samples:
    if data is not None:
        return take_samples(graph.model, data, count)
    for record in graph.records.values():
        if isinstance(record.layer, tf.keras.layers.Embedding):
            raise DataError(
                f"Expected data for a model that looks up indices, for noise is none. Received: none, and embedding "
                f"{record.name!r}. Hand over samples: data=x."
            )
    rng = np.random.default_rng(0)
    shapes = [[16 if size is None else size for size in tensor.shape[1:]] for tensor in graph.model.inputs]
    types = [tensor.dtype.as_numpy_dtype for tensor in graph.model.inputs]
    batch = own_batch(graph.model)
    number = batch or min(count, _BATCH)
    arrays = [rng.normal(size=(number, *shape)).astype(kind) for shape, kind in zip(shapes, types, strict=True)]
    return Samples(arrays, None, batch)


def _other_sizes(model: tf.keras.Model, samples: Samples) -> Iterator[list[tf.Tensor]]:
    """A sample in other sizes where the model leaves them open: padding and what it makes of constants depend on it."""
    if all(size is not None for tensor in model.inputs for size in tensor.shape[1:]):
        return
    for more in _GROWTH:
        widths = [[(0, 0), *((0, more if size is None else 0) for size in tensor.shape[1:])] for tensor in model.inputs]
        yield [
            tf.constant(np.pad(array[: samples.batch or 1], width, mode="wrap"))
            for array, width in zip(samples.inputs, widths, strict=True)
        ]
