"""Prune a little, train a little: units go while a model trains, on any schedule of the TF Model Optimization toolkit.

During training the removed units are masked where they are consumed, as in ``tfqprune.masking``, so nothing is traced
anew. A slim model is built to score the units that are left, whenever some go, and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.criteria import Criterion
from tfqprune.criteria.combination import RankCombination
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.errors import CriterionError, PlanError
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import weight_index
from tfqprune.masking import CONSUMED
from tfqprune.plan import PruningPlan, fingerprint, removable, resolve_ratios
from tfqprune.rebuild import Rebuilder, axes_of, values_of
from tfqprune.samples import SAMPLES, take_samples
from tfqprune.scoring import choose_criterion, run_criterion
from tfqprune.slim import TrainedSlimBuilder

Schedule = Callable[[Any], tuple[Any, Any]]


class LiveQuantizer:
    """Quantises the part of a kernel that stays, which may shrink between steps; the rest is zero.

    No Keras layer, so that its variables are not among the layer's weights.

    Args:
        quantizer: the layer's own quantiser.
        axes: axis of the kernel (negative: from the end) -> ids of its channels.
    """

    def __init__(self, quantizer: Callable[[tf.Tensor], tf.Tensor], axes: dict[int, np.ndarray]) -> None:
        self.quantizer, self.axes = quantizer, axes
        self.precision = getattr(quantizer, "precision", None)
        self._kept = {
            axis: tf.Variable(np.arange(len(ids)), shape=[None], dtype=tf.int32, trainable=False)
            for axis, ids in axes.items()
        }
        self._source = {
            axis: tf.Variable(np.arange(len(ids)), dtype=tf.int32, trainable=False) for axis, ids in axes.items()
        }

    def keep(self, alive: np.ndarray) -> None:
        """Says which channels stay, as a bool array over channel ids."""
        for axis, ids in self.axes.items():
            kept = np.flatnonzero(alive[ids])
            source = np.full(len(ids), len(kept), np.int32)  # the zero behind what stays
            source[kept] = np.arange(len(kept))
            self._kept[axis].assign(kept.astype(np.int32))
            self._source[axis].assign(source)

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        values = tf.convert_to_tensor(inputs)
        for axis, kept in self._kept.items():
            values = tf.gather(values, kept, axis=axis)
        values = self.quantizer(values)
        for axis, source in self._source.items():
            paddings = [[0, 1 if position == axis % values.shape.rank else 0] for position in range(values.shape.rank)]
            values = tf.gather(tf.pad(values, paddings), source, axis=axis)
        return tf.ensure_shape(values, inputs.shape)


class _TrainingBuilder(Rebuilder):
    """A copy of the model whose quantised kernels can be masked while it trains."""

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self.quantizers: list[LiveQuantizer] = []

    @property
    def layers(self) -> dict[int, tf.keras.layers.Layer]:
        """The new layers by the identity of the old."""
        return self._layers

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        clone = record.handler.clone(record.layer, record.layer.get_config())
        for weight, quantizer in precision.quantized_weights(record.layer).items():
            roles = record.weight_axes.get(weight, ())
            wide = precision.is_tensor_wide(quantizer)
            axes = {
                axis - len(roles): record.roles[role]
                for axis, role in enumerate(roles)
                if role and (wide or role in CONSUMED)
            }
            if axes:
                live = LiveQuantizer(quantizer, axes)
                setattr(clone, precision.QUANTIZER_OF_WEIGHT[weight], live)
                self.quantizers.append(live)
        return clone

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        return values_of(record)


class GradualPruning(tf.keras.callbacks.Callback):
    """Removes units step by step while ``training_model`` is trained, and builds the slim model at the end.

        gradual = GradualPruning(model, PolynomialDecay(0.0, 0.5, begin_step=0, end_step=1000, frequency=100))
        gradual.training_model.compile(...)
        gradual.training_model.fit(..., callbacks=[gradual])
        slim = gradual.finish()

    Whenever the schedule says so, the units that are left are scored anew on the slim model of that moment, and the
    lowest go until the share of the schedule is reached; what is gone stays gone. Zhu and Gupta, "To prune, or not to
    prune", arXiv 1710.01878, have the schedule for single weights; here it counts the units of each group.

    Compile ``training_model`` with the default of one step an execution: between the steps of a longer one no unit can
    go, and float kernels would read again what is gone.

    Args:
        model: a functional or sequential tf_keras model; it stays as it is.
        schedule: a ``tensorflow_model_optimization.sparsity.keras.PruningSchedule`` (PolynomialDecay,
            ConstantSparsity), or any function from a step to (whether to prune now, share of units that is to be gone).
        criterion: see ``tfqprune.score``.
        data: for criteria that need it; the samples are taken once, when this is made.
        groups: names of groups or member layers that are pruned; by default all that are not frozen.
        samples: how many samples of the data are looked at.
        **options: arguments of the criterion.

    Attributes:
        training_model: a copy of the model, to be compiled and fitted. It computes what the model computes until
            units go. It cannot be saved as a whole; its weights can.
        removed: group name -> slots that are gone, ascending.

    Raises:
        ModelTypeError: no graph model.
        PlanError: no schedule, unknown or frozen groups, or a layer that mixes channels (a layer norm, an activation
            quantiser with a scale over the whole tensor), which cannot be masked while it trains.
        CriterionError: an unknown criterion, one that needs data without data, or "flip_frequency", which is counted
            on kernels that keep their shape.
        DataError: data that does not fit the model.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        schedule: Schedule,
        criterion: Any = "auto",
        data: Any = None,
        *,
        groups: Sequence[str] | None = None,
        samples: int = SAMPLES,
        **options: Any,
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise PlanError(
                "Expected a PruningSchedule, or a function from a step to (prune now, share). "
                f"Received: {schedule!r} (of type {type(schedule).__name__})."
            )
        self.graph = ChannelGraph(model)
        self.schedule = schedule
        # Any ratio above 0 will do: this only finds the groups and refuses frozen or unknown ones.
        named = 0.5 if groups is None else dict.fromkeys(groups, 0.5)
        self._groups = list(resolve_ratios(self.graph, named))
        for record in self.graph.records.values():
            if record.mixed is not None or precision.is_tensor_wide(getattr(record.layer, "input_quantizer", None)):
                raise PlanError(
                    f"Expected layers that treat each channel alone. Received: {record.name!r} "
                    f"({type(record.layer).__name__}), which takes statistics over channels and cannot be masked while "
                    "it trains. Prune this model in one step with tfqprune.prune."
                )
        self._criterion = choose_criterion(self.graph, criterion, data, **options)
        if _counts_flips(self._criterion):
            raise CriterionError(
                "Expected a criterion that scores a network as it is. Received: 'flip_frequency', whose counts belong "
                "to kernels of the full shape, while here each step scores a smaller network. Choose another "
                "criterion, or prune in one step, with tfqprune.prune, after the training that was watched."
            )
        self._samples = take_samples(model, data, samples) if self._criterion.needs_data else None
        self._builder = _TrainingBuilder(self.graph)
        self.training_model = self._builder.build()
        self.removed: dict[str, tuple[int, ...]] = dict.fromkeys(self._groups, ())
        self.step = 0
        self._masks: list[tuple[tf.Variable, tf.Variable, LayerRecord, list[tuple[int, str]]]] = self._float_masks()

    def _float_masks(self) -> list[tuple[tf.Variable, tf.Variable, LayerRecord, list[tuple[int, str]]]]:
        """Weights without a quantiser that read channels: they are set to zero after each step instead."""
        masks = []
        for record in self.graph.records.values():
            live = self._builder.layers[id(record.layer)]
            quantised = {weight_index(live)[weight] for weight in precision.quantized_weights(record.layer)}
            for position, roles in enumerate(axes_of(record)):
                read = [(axis, role) for axis, role in enumerate(roles) if role in CONSUMED]
                if read and position not in quantised:
                    variable = live.weights[position]
                    mask = tf.Variable(tf.ones(variable.shape, variable.dtype), trainable=False)
                    masks.append((variable, mask, record, read))
        return masks

    def set_model(self, model: tf.keras.Model) -> None:
        if model is not self.training_model:
            raise PlanError(
                f"Expected this callback in the fit of its own training_model. Received: model {model.name!r}. "
                "Call gradual.training_model.fit(..., callbacks=[gradual])."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.training_model
        steps = "auto" if model.autotune_steps_per_execution else int(model.steps_per_execution)
        if steps != 1:
            raise PlanError(
                "Expected steps_per_execution=1, as units can only go, and float kernels can only be masked, between "
                f"two executions. Received: {steps!r}. Compile training_model without steps_per_execution."
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now, share = self.schedule(tf.constant(self.step, tf.int64))
        if bool(now):
            self.prune_to(float(share))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += 1
        self._silence()

    def prune_to(self, share: float) -> None:
        """Removes the lowest-scored units until this share of each group is gone.

        Args:
            share: from 0 to below 1; less than is gone already changes nothing.

        Raises:
            PlanError: a share out of range.
        """
        resolve_ratios(self.graph, share)
        missing = {name: removable(self.graph[name], share) - len(self.removed[name]) for name in self._groups}
        if max(missing.values(), default=0) <= 0:
            return
        slim = self.finish()
        scores = run_criterion(ChannelGraph(slim), self._criterion, self._samples)
        for name, count in missing.items():
            if count > 0:
                gone = set(self.removed[name])
                left = [slot for slot in range(self.graph[name].size) if slot not in gone]
                lowest = np.argsort(scores[name], kind="stable")[:count]
                self.removed[name] = tuple(sorted(gone | {left[position] for position in lowest.tolist()}))
        alive = self.graph.alive(self.removed)
        for quantizer in self._builder.quantizers:
            quantizer.keep(alive)
        for _, mask, record, read in self._masks:
            value = np.ones(mask.shape, mask.dtype.as_numpy_dtype)
            for axis, role in read:
                stays = alive[record.roles[role]]
                value = value * stays.reshape([-1 if other == axis else 1 for other in range(value.ndim)])
            mask.assign(value)
        self._silence()

    def _silence(self) -> None:
        if any(self.removed.values()):
            for variable, mask, _, _ in self._masks:
                variable.assign(variable * mask)

    def plan(self) -> PruningPlan:
        """What is gone so far, as a plan for the original model."""
        sizes = {group.name: group.size for group in self.graph.groups}
        removed = {name: slots for name, slots in self.removed.items() if slots}
        return PruningPlan(removed, sizes, fingerprint(self.graph), self._criterion.name, {"steps": self.step})

    def finish(self) -> tf.keras.Model:
        """The slim model with the weights as they are now; it computes what ``training_model`` computes."""
        return TrainedSlimBuilder(self.graph, self.graph.alive(self.removed), self._builder.layers).build()


def _counts_flips(criterion: Criterion) -> bool:
    """Whether a criterion, or one that it combines, is the flip frequency."""
    if isinstance(criterion, RankCombination):
        return any(_counts_flips(part) for part, _ in criterion.parts)
    return isinstance(criterion, FlipFrequency)
