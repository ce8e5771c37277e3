"""Prune a little, train a little: units go while a model trains, on any schedule of the TF Model Optimization toolkit.

During training the removed units are masked where they are consumed, as in ``tfqprune.masking``, so nothing is traced
anew. A slim model is built to score the units that are left, whenever some go, and at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.criteria import Criterion
from tfqprune.criteria.combination import RankCombination
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.errors import CriterionError, PlanError, real_number
from tfqprune.fitting import names_of
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import CONSUMED, weight_index
from tfqprune.plan import PruningPlan, fingerprint, removable, resolve_ratios
from tfqprune.rebuild import Rebuilder, axes_of, values_of
from tfqprune.samples import SAMPLES, take_samples
from tfqprune.scoring import choose_criterion, run_criterion
from tfqprune.slim import TrainedSlimBuilder
from tfqprune.twin import obstacle

#: of a unit: a polynomial that ends with the training stops this little short of its target
_HAIR = 0.01
#: where the schedules of the toolkit keep the share they end with
_TARGETS = ("target_sparsity", "final_sparsity")

Schedule = Callable[[Any], tuple[Any, Any]]


class LiveQuantizer:
    """Quantises the part of a kernel that stays, which may shrink between steps; the rest is zero.

    No Keras layer, so that nothing of it is among the layer's weights.

    Args:
        quantizer: the layer's own quantiser.
        axes: axis of the kernel (negative: from the end) -> units of its channels.
        alive: which units of the model stay, a bool variable [units].
    """

    def __init__(
        self, quantizer: Callable[[tf.Tensor], tf.Tensor], axes: dict[int, np.ndarray], alive: tf.Variable
    ) -> None:
        self.quantizer, self.axes, self.alive = precision.unmeasured(quantizer), axes, alive
        self.precision = getattr(quantizer, "precision", None)

    def get_config(self) -> dict[str, Any]:
        raise PlanError(
            "Expected the weights of a training_model to be saved. Received: the whole model, whose masks belong to "
            "the training. Give ModelCheckpoint save_weights_only=True, or save what gradual.finish() returns."
        )

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        values, sources = tf.convert_to_tensor(inputs), []
        for axis, units in self.axes.items():
            stays = tf.gather(self.alive, units)
            kept = tf.where(stays)[:, 0]
            values = tf.gather(values, kept, axis=axis)
            # What is gone is read from the zero behind what stays.
            sources.append((axis, tf.where(stays, tf.cumsum(tf.cast(stays, tf.int32)) - 1, tf.size(kept))))
        values = self.quantizer(values)
        for axis, source in sources:
            paddings = [[0, 1 if position == axis % values.shape.rank else 0] for position in range(values.shape.rank)]
            values = tf.gather(tf.pad(values, paddings), source, axis=axis)
        return tf.ensure_shape(values, inputs.shape)


class _TrainingBuilder(Rebuilder):
    """A copy of the model whose quantised kernels are masked while it trains, by which units are alive."""

    def __init__(self, graph: ChannelGraph, alive: tf.Variable) -> None:
        super().__init__(graph)
        self.alive = alive

    @property
    def layers(self) -> dict[int, tf.keras.layers.Layer]:
        """The new layers by the identity of the old."""
        return self._layers

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        clone = record.clone()
        for weight, quantizer in precision.quantized_weights(record.layer).items():
            roles = record.weight_axes.get(weight, ())
            wide = precision.is_tensor_wide(quantizer)
            axes = {
                axis - len(roles): self.graph.unit_index(record.roles[role])
                for axis, role in enumerate(roles)
                if role and (wide or role in CONSUMED)
            }
            if axes:
                setattr(clone, precision.QUANTIZER_OF_WEIGHT[weight], LiveQuantizer(quantizer, axes, self.alive))
        return clone

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        return values_of(record)


class _ScoredBuilder(TrainedSlimBuilder):
    """The slim model of the moment, with the whole model's units as far as they are left."""

    def layer(self, record: LayerRecord) -> tf.keras.layers.Layer:
        new = super().layer(record)
        # A grouped convolution that is left with one input a group has the shape of one that may lose groups.
        new._tied_blocks = "slot" in record.roles
        return new


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

    The step and what is gone are among the weights of ``training_model``: ``BackupAndRestore`` resumes where the
    training was interrupted, with a new callback for the same model. ``EarlyStopping(restore_best_weights=True)`` may
    bring back units that had gone (:meth:`finish` warns): give it a ``start_from_epoch`` behind the schedule's end.

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

    Raises:
        ModelTypeError: no graph model.
        PlanError: no schedule, unknown or frozen groups, or a layer that mixes channels of theirs (a layer norm, an
            activation quantiser with a scale over the whole tensor), which cannot be masked while it trains.
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
        if not callable(schedule) or isinstance(schedule, type):
            raise PlanError(
                "Expected a PruningSchedule, or a function from a step to (prune now, share). "
                f"Received: {schedule!r} (of type {type(schedule).__name__})."
            )
        self.graph = ChannelGraph(model)
        self.schedule = schedule
        # Any ratio above 0 will do: this only finds the groups and refuses frozen or unknown ones.
        named = 0.5 if groups is None else dict.fromkeys(names_of(groups), 0.5)
        self._groups = list(resolve_ratios(self.graph, named))
        reason = obstacle(self.graph, self._groups)
        if reason:
            raise PlanError(
                f"Expected a model that can be masked while it trains. Received: one in which {reason}. Leave those "
                "groups out, or prune this model in one step with tfqprune.prune."
            )
        self._criterion = choose_criterion(self.graph, criterion, data, **options)
        if _counts_flips(self._criterion):
            raise CriterionError(
                "Expected a criterion that scores a network as it is. Received: 'flip_frequency', whose counts belong "
                "to kernels of the full shape, while here each step scores a smaller network. Choose another "
                "criterion, or prune in one step, with tfqprune.prune, after the training that was watched."
            )
        self._samples = take_samples(model, data, samples) if self._criterion.needs_data else None
        self._alive = tf.Variable(np.ones(self.graph.unit_count, bool), trainable=False, name="alive_units")
        self._step = tf.Variable(tf.constant(0, tf.int64), trainable=False, name="pruning_step")
        self._builder = _TrainingBuilder(self.graph, self._alive)
        self.training_model = self._builder.build()
        # Among its weights, so that whoever brings weights back brings back what was gone with them.
        self.training_model.alive_units, self.training_model.pruning_step = self._alive, self._step
        self._most = 0  # units that were gone in this training
        self._asked = 0.0  # largest share that the schedule asked for
        self._floats = self._float_readers()

    @property
    def step(self) -> int:
        """Training steps so far."""
        return int(self._step.numpy())

    @property
    def removed(self) -> dict[str, tuple[int, ...]]:
        """Group name -> slots that are gone, ascending."""
        alive = self._alive.numpy()
        units = {name: self.graph.units_of(self.graph[name]) for name in self._groups}
        return {name: tuple(np.flatnonzero(~alive[mine]).tolist()) for name, mine in units.items()}

    def _float_readers(self) -> list[tuple[tf.Variable, dict[int, np.ndarray]]]:
        """Weights without a quantiser that read channels, with the units along their axes.

        They are set to zero after each step instead.
        """
        readers = []
        for record in self.graph.records.values():
            live = self._builder.layers[id(record.layer)]
            quantised = {weight_index(live)[weight] for weight in precision.quantized_weights(record.layer)}
            for position, roles in enumerate(axes_of(record)):
                axes = {
                    axis: self.graph.unit_index(record.roles[role])
                    for axis, role in enumerate(roles)
                    if role in CONSUMED
                }
                if axes and position not in quantised:
                    readers.append((live.weights[position], axes))
        return readers

    def set_model(self, model: tf.keras.Model) -> None:
        if model is not self.training_model:
            raise PlanError(
                f"Expected this callback in the fit of its own training_model. Received: model {model.name!r}. "
                "Call gradual.training_model.fit(..., callbacks=[gradual])."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._most = 0
        model = self.training_model
        steps = model.steps_per_execution  # a variable, in a strategy one of each replica
        steps = "auto" if model.autotune_steps_per_execution else int(tf.keras.backend.get_value(steps))
        if steps != 1:
            raise PlanError(
                "Expected steps_per_execution=1, as units can only go, and float kernels can only be masked, between "
                f"two executions. Received: {steps!r}. Compile training_model without steps_per_execution."
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        answer = self.schedule(tf.convert_to_tensor(self._step))
        try:
            now, share = answer
        except (TypeError, ValueError) as error:
            raise PlanError(
                f"Expected the schedule to give (prune now, share) for a step. Received: {answer!r} for step "
                f"{self.step}. Let it give a pair, such as (step % 100 == 0, 0.5)."
            ) from error
        if bool(now):
            share = real_number("the schedule's share", float(share), PlanError, 0, below=1)
            self._asked = max(self._asked, share)
            self.prune_to(share)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step.assign_add(1)
        self._silence()

    def prune_to(self, share: float) -> None:
        """Removes the lowest-scored units until this share of each group is gone.

        Args:
            share: from 0 to below 1; less than is gone already changes nothing.

        Raises:
            PlanError: a share out of range.
        """
        resolve_ratios(self.graph, share)
        removed = self.removed
        missing = {name: self._count(name, share) - len(removed[name]) for name in self._groups}
        if max(missing.values(), default=0) <= 0:
            return
        scores = run_criterion(ChannelGraph(self._slim(_ScoredBuilder)), self._criterion, self._samples)
        for name, count in missing.items():
            if count > 0:
                gone = set(removed[name])
                left = [slot for slot in range(self.graph[name].size) if slot not in gone]
                lowest = np.argsort(scores[name], kind="stable")[:count]
                removed[name] = tuple(sorted(gone | {left[position] for position in lowest.tolist()}))
        self._alive.assign(self.graph.alive_units(removed))
        self._most = self._gone()
        self._silence()

    def _count(self, name: str, share: float) -> int:
        """How many units of a group are to be gone at a share."""
        group = self.graph[name]
        return removable(group, share + _HAIR / group.size)

    def _gone(self) -> int:
        return int(np.count_nonzero(~self._alive.numpy()))

    def _silence(self) -> None:
        if not self._gone():
            return
        for variable, axes in self._floats:
            value = tf.convert_to_tensor(variable)
            for axis, units in axes.items():
                stays = tf.cast(tf.gather(self._alive, units), value.dtype)
                value *= tf.reshape(stays, [-1 if other == axis else 1 for other in range(value.shape.rank)])
            variable.assign(value)

    def plan(self) -> PruningPlan:
        """What is gone so far, as a plan for the original model."""
        self._warn_of_what_came_back()
        sizes = {group.name: group.size for group in self.graph.groups}
        removed = {name: slots for name, slots in self.removed.items() if slots}
        return PruningPlan(removed, sizes, fingerprint(self.graph), self._criterion.name, {"steps": self.step})

    def finish(self) -> tf.keras.Model:
        """The slim model with the weights as they are now; it computes what ``training_model`` computes.

        Warns where fewer units are gone than the schedule aims at, and where units came back.
        """
        self._warn_of_what_came_back()
        self._warn_of_what_is_missing()
        self._silence()  # weights may have come from elsewhere since the last step
        return self._slim()

    def _slim(self, builder: type[TrainedSlimBuilder] = TrainedSlimBuilder) -> tf.keras.Model:
        return builder(self.graph, self.graph.alive(self.removed), self._builder.layers).build()

    def _warn_of_what_is_missing(self) -> None:
        gone = self._gone()
        if gone < self._most:  # they came back, which was said
            return
        target = max(self._asked, *(float(getattr(self.schedule, name, 0)) for name in _TARGETS))
        wanted = sum(self._count(name, target) for name in self._groups)
        if gone < wanted or not (gone or self.step):
            warnings.warn(
                f"Expected a training that reaches the schedule's share of {target:g}. Received: {self.step} steps "
                f"with this callback, in which the schedule asked for {self._asked:g} at most; {gone} units are gone. "
                "Give the callback to training_model.fit, and let the schedule reach its end, at a step at which it "
                "prunes, before the training ends.",
                stacklevel=3,
            )

    def _warn_of_what_came_back(self) -> None:
        gone = self._gone()
        if gone < self._most:
            warnings.warn(
                f"Expected weights from the end of the training, when {self._most} units were gone. Received: those of "
                f"step {self.step}, when {gone} were. Something brought them back, as EarlyStopping does with "
                "restore_best_weights. Give it a start_from_epoch behind the end of the schedule.",
                stacklevel=3,
            )


def _counts_flips(criterion: Criterion) -> bool:
    """Whether a criterion, or one that it combines, is the flip frequency."""
    if isinstance(criterion, RankCombination):
        return any(_counts_flips(part) for part, _ in criterion.parts)
    return isinstance(criterion, FlipFrequency)
