"""Ratios learned by gradient descent while a model trains, towards exact targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation.gates import GateCosts, GatedBuilder, Gates, thresholds_on
from tfqprune.budget import Budget, format_cost
from tfqprune.channels import ChannelGraph
from tfqprune.errors import BudgetError, DataError, EvaluationError, PlanError
from tfqprune.fitting import Bounds, Fitter
from tfqprune.layers import LayerRecord
from tfqprune.plan import PruningPlan, fingerprint
from tfqprune.scoring import score_graph
from tfqprune.slim import SlimBuilder

_RAMP = 0.8  # share of the learning steps over which the target falls from the original cost to the budget
_TRAVEL = 1.0  # how far a gate moves over all learning steps under a steady gradient of 1
_MEMORY = 0.9  # of running means
_LEAST_PUSH = 0.05  # on a unit that hardly costs anything, in root mean squares over all units
_FAR = 0.1  # of the way to the budget: more than this left is worth a warning
_ENOUGH = 20  # steps: fewer say little of the gates' gradients


class HolisticPruning(tf.keras.Model):
    """Trains a model and learns which units to give up, so that several costs end exactly on a budget.

        hfp = HolisticPruning(model, Budget(params=0.5, macs=0.4))
        hfp.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        hfp.fit(x, y, epochs=10)
        plan, slim = hfp.plan(), hfp.finish()

    Enderich, Timm, Burgard, "Holistic Filter Pruning for Efficient Deep Neural Networks", arXiv 2009.08169: after each
    forward pass the current parameters and multiplications are compared with separate targets, and gradient descent
    shares the budget among the layers. All else is ours, a reconstruction that may differ from theirs: one gate for
    each unit of a channel group, so that layers that are tied share it; it is open above a threshold, with a gradient
    straight through; it multiplies the deployed kernels that read the unit (a scale before a sign does nothing), for
    batch-normalised and other networks alike. BOPs and memory may be bounded, too. Gates start where a criterion ranks
    their units, in all groups alike, so training departs from equal ratios. They have steps of their own, apart from
    the optimiser of the weights: the gradient of the loss to them over its root mean square, averaged over ten steps.

    In place of a penalty with a factor to tune stands its dual: the sum of all its steps so far is a
    threshold for each gate, along the costs' gradient at the original model, and its size is found by bisection after
    every step, so that the costs of the open gates are as close below their targets of the moment as the order of the
    gates allows. (Along the gradient of the moment the first group to be cut would be cut ever further: what it loses
    makes its neighbours cheaper.) The targets fall in a straight line from the original costs to the budget. Of several
    costs the one that binds leads.

    After ``share`` of all steps whole units are fitted onto the budget, ranked by their gates; from then on gates stand
    still, and the weights go on with what is left. Logs hold the share that is left of each bounded cost
    (``params``) and its target at the time (``params_target``), so progress bar and TensorBoard show them.

    Weights can be saved and restored, the state of the gates with them (``BackupAndRestore`` resumes); the whole cannot
    be saved as a model: save what :meth:`finish` returns.

    Args:
        model: a functional or sequential tf_keras model; it stays as it is.
        budget: what must hold; of the costs that need no measuring.
        criterion: where the gates start (see :func:`tfqprune.score`).
        data: for a criterion that needs it.
        share: of all training steps, in which the gates are learned.
        align: keep a multiple of so many channels in each layer.
        minimum: the least ratio, one or by group or member layer name.
        maximum: the largest ratio, likewise; None: all but one unit.
        exclude: groups or layers that stay whole.

    Attributes:
        network: the copy of the model that trains.

    Raises:
        ModelTypeError: no graph model.
        BudgetError: the budget is above the original, cannot be met, or has to be measured.
        PlanError: nothing can be pruned; a layer that takes statistics over channels (a layer norm); names, bounds,
            ``align`` or ``share`` that make no sense.
        CriterionError: an unknown criterion, or one that needs data, without data.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        budget: Budget,
        criterion: Any = "auto",
        data: Any = None,
        *,
        share: float = 0.6,
        align: int = 1,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
    ) -> None:
        super().__init__(name=f"{getattr(model, 'name', 'model')}_holistic")
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise PlanError(f"Expected a share of the training steps above 0 and at most 1. Received: {share!r}.")
        self.graph = ChannelGraph(model)
        if not self.graph.prunable:
            whole = "; ".join(f"{group.name!r}: {group.frozen}" for group in self.graph.groups)
            raise PlanError(
                f"Expected a model with groups that can be pruned. Received: none ({whole or 'no groups'})."
            )
        self._budget, self._share = _counted(budget), float(share)
        limits: dict[str, Any] = {"align": align, "minimum": minimum, "maximum": maximum, "exclude": tuple(exclude)}
        flat = {group.name: np.zeros(group.size) for group in self.graph.groups}
        first = Fitter(self.graph, flat, budget, **limits)  # what cannot be met is said before anything else
        self._fitter_of: Callable[[Mapping[str, np.ndarray]], Fitter] = lambda scores: Fitter(
            self.graph, scores, budget, meter=first.meter, **limits
        )
        names = budget.names
        self._costs = GateCosts(first.meter.model, names)
        self._original = np.array([first.limits.original[name] for name in names])
        self._limits = np.array([first.limits.limits[name] for name in names])
        free = np.isin(self.graph.group_of, [group.index for group in first.groups])
        scores = score_graph(self.graph, criterion, data)
        self._gates = Gates(self.graph, free, np.zeros(self.graph.unit_count))
        self._pushes = self._gates.unit(self._gradients())
        even = tf.fill([len(names)], 1 / len(names))
        self._gates.values.assign(self._direction(even) * _ranked(self.graph, scores))
        self._builder = GatedBuilder(self.graph, self._gates)
        self.network = self._builder.build()
        # Non-trainable: the optimiser of the weights leaves them alone, checkpoints hold them.
        self._values, self._thresholds = self._gates.values, self._gates.thresholds
        self._mean = tf.Variable(tf.zeros_like(self._values), trainable=False, name="gate_gradients")
        self._weights = tf.Variable(even, trainable=False, name="cost_weights")
        self._clock = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps")
        self._horizon = tf.Variable(1, dtype=tf.int64, trainable=False, name="learning_steps")
        self._frozen = tf.Variable(False, trainable=False, name="frozen")
        self._learned = tf.Variable(tf.ones(len(names)), trainable=False, name="learned_costs")
        self.built = True  # all variables are there, so that checkpoints may be restored before the first call

    # -- training ---------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return self.network(inputs, training=training)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Iterable[tf.keras.callbacks.Callback] | None = None,
        **options: Any,
    ) -> tf.keras.callbacks.History:
        """As ``fit`` of any Keras model; of all steps, the first ``share`` also learn the gates.

        Raises:
            DataError: the number of steps in an epoch cannot be known.
            EvaluationError: the loss is no longer a number; weights and gates are those of the last good epoch.
        """
        own = [*(callbacks or ()), _Conductor()]
        return super().fit(x, y, batch_size, epochs, verbose, own, **options)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            tape.watch(self._values)
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted, weight)
        variables = self.network.trainable_variables
        *gradients, pull = tape.gradient(loss, [*variables, self._values])
        self.optimizer.apply_gradients(zip(gradients, variables))
        return {**self.compute_metrics(x, y, predicted, weight), **self._steer(pull)}

    def _steer(self, pull: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of the gates, and of the thresholds that hold the costs to their targets.

        Args:
            pull: gradient of the loss to the gates.

        Returns:
            What is left of each cost, and what should be.
        """
        gates, costs = self._gates, self._costs
        shares = tf.unstack(tf.cast(costs(gates.indicators()) / self._original, tf.float32))
        target, following = self._target(self._clock), self._target(self._clock + 1)

        learning = (self._clock < self._horizon) & ~self._frozen & tf.reduce_all(tf.math.is_finite(pull))
        mean = _MEMORY * self._mean + (1 - _MEMORY) * gates.unit(pull)
        values = self._values - _TRAVEL / tf.cast(self._horizon, tf.float32) * mean
        load = tf.stack(shares) / tf.cast(target, tf.float32)
        weights = _MEMORY * self._weights + (1 - _MEMORY) * tf.one_hot(tf.argmax(load), len(shares))
        thresholds = thresholds_on(gates, values, costs, following * self._original, self._direction(weights))
        for variable, value in (
            (self._mean, mean), (self._values, values), (self._weights, weights), (self._thresholds, thresholds)
        ):  # fmt: skip
            variable.assign(tf.where(learning, value, variable))
        self._clock.assign_add(1)
        logs = {}
        for index, name in enumerate(costs.names):
            logs[name], logs[f"{name}_target"] = shares[index], target[index]
        return logs

    def _gradients(self) -> tf.Tensor:
        """Gradients of all costs to the gates, all of them open [costs, units]."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self._gates.values)
            costs = tf.unstack(self._costs(self._gates.indicators()))
        return tf.stack([tape.gradient(cost, self._gates.values) for cost in costs])

    def _direction(self, weights: tf.Tensor) -> tf.Tensor:
        """The costs' gradients in one, by how much each cost counts [units]."""
        return tf.maximum(tf.linalg.matvec(self._pushes, weights, transpose_a=True), _LEAST_PUSH)

    def _target(self, clock: tf.Tensor) -> tf.Tensor:
        """The share of each cost that may be left after so many steps, float64."""
        part = tf.math.minimum(
            tf.ones([], tf.float64), tf.cast(clock, tf.float64) / (_RAMP * tf.cast(self._horizon, tf.float64))
        )
        way = self._limits / self._original - 1
        return 1 + way * tf.where(self._frozen, tf.ones_like(part), part)

    # -- the outcome ------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether the gates stand still, on the budget."""
        return bool(self._frozen.numpy())

    def freeze(self) -> None:
        """Fits whole units onto the budget, ranked by their gates, and lets the gates stand still.

        ``fit`` does so by itself. Where the gates had not come near the budget, a warning says how far they had.
        """
        if self.frozen:
            return
        alive = self.graph.alive_units(self._removed())
        shares = self._costs(self._gates.indicators()).numpy() / self._original
        self._learned.assign(shares)
        way = 1 - self._limits / self._original
        left = np.divide(shares - (1 - way), way, out=np.zeros_like(way), where=way > 0)
        steps = int(self._clock.numpy())
        if left.max() > _FAR or steps < _ENOUGH:
            reached = ", ".join(
                f"{format_cost(name, share * whole)} (budget: {format_cost(name, limit)})"
                for name, share, whole, limit in zip(self._costs.names, shares, self._original, self._limits)
            )
            warnings.warn(
                f"Expected at least {_ENOUGH} steps that learn, and time to reach the budget. Received: {steps} steps; "
                f"the gates had come to {reached}. The plan holds the budget, but rests on the criterion more than on "
                "training. Train for more epochs.",
                stacklevel=2,
            )
        self._values.assign(alive.astype(np.float32))
        self._thresholds.assign(np.full(len(alive), 0.5, np.float32))
        self._frozen.assign(True)

    def plan(self) -> PruningPlan:
        """A plan for the original model that holds the budget, as large as whole units allow.

        Raises:
            PlanError: before any training.
        """
        steps = int(self._clock.numpy())
        if not steps:
            raise PlanError(
                "Expected a plan to be asked for after training. Received: a fit of 0 steps. Call fit first."
            )
        removed = self._removed()
        sizes = {group.name: group.size for group in self.graph.groups}
        costs = self._fitter_of(self._ranks()).meter.model.totals(self.graph.alive_units(removed))
        learned = (
            self._learned.numpy() if self.frozen else self._costs(self._gates.indicators()).numpy() / self._original
        )
        notes = {
            "allocator": "holistic",
            "budget": self._budget.as_dict(),
            "costs": costs,
            "learned": {name: float(share) for name, share in zip(self._costs.names, learned)},
            "steps": steps,
        }
        return PruningPlan(removed, sizes, fingerprint(self.graph), "holistic", notes)

    def finish(self) -> tf.keras.Model:
        """The slim model of the plan, with the trained weights; an uncompiled model like the original.

        Raises:
            PlanError: before any training.
        """
        alive = self.graph.alive(self.plan().removed)
        return _TrainedSlimBuilder(self.graph, alive, self._builder.layers).build()

    def _removed(self) -> dict[str, tuple[int, ...]]:
        """The slots that go: the closed ones where gates stand still, else fitted onto the budget."""
        if not self.frozen:
            closed = self._closed()
            ratios = {name: len(slots) / self.graph[name].size for name, slots in closed.items()}
            fitter = self._fitter_of(self._ranks())
            return fitter.removed(fitter.project(ratios).counts)
        return {name: slots for name, slots in self._closed().items() if slots}

    def _closed(self) -> dict[str, tuple[int, ...]]:
        opened = self._gates.indicators().numpy() > 0
        return {
            group.name: tuple(np.flatnonzero(~opened[_units(self.graph, group.index)]).tolist())
            for group in self.graph.groups
        }

    def _ranks(self) -> dict[str, np.ndarray]:
        """Rank of each unit by the height of its gate; equal gates by what the loss would have of them."""
        heights, wanted = (self._values - self._thresholds).numpy(), -self._mean.numpy()
        ranks = {}
        for group in self.graph.groups:
            units = _units(self.graph, group.index)
            order = np.lexsort((wanted[units], heights[units]))
            ranks[group.name] = np.argsort(order).astype(np.float64)
        return ranks


class _Conductor(tf.keras.callbacks.Callback):
    """Tells the gates how long they have, freezes them in time, and stops at a loss that is no number."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        if not steps:
            raise DataError(
                "Expected data with a known number of steps in an epoch, so that the budget is reached in time. "
                "Received: data of unknown length. Give steps_per_epoch."
            )
        learning = self.model._share * steps * self.params["epochs"]
        self.model._horizon.assign(max(int(learning), 1))
        self._good = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self.model.set_weights(self._good)
            raise EvaluationError(
                f"Expected a loss that is a number. Received: {loss} in batch {batch}. Weights and gates are back at "
                "the end of the last good epoch. Try a lower learning rate, and look for values in the data that are "
                "not finite."
            )
        if self.model._clock.numpy() >= self.model._horizon.numpy():
            self.model.freeze()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._good = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.model._clock.numpy():
            self.model.freeze()


class _TrainedSlimBuilder(SlimBuilder):
    """The slim model with the weights of the model that trained."""

    def __init__(self, graph: ChannelGraph, alive: np.ndarray, trained: dict[int, tf.keras.layers.Layer]) -> None:
        super().__init__(graph, alive)
        self._trained = trained

    def weights(self, record: LayerRecord, new: tf.keras.layers.Layer) -> list[np.ndarray]:
        return super().weights(replace(record, layer=self._trained[id(record.layer)]), new)


def _counted(budget: Budget) -> Budget:
    """The budget, of counted costs alone.

    Raises:
        BudgetError: it is none, or bounds a cost that has to be measured.
    """
    if not isinstance(budget, Budget):
        raise BudgetError(
            f"Expected a tfqprune.Budget, as in Budget(params=0.5). Received: {budget!r} (of type "
            f"{type(budget).__name__})."
        )
    if budget.measured:
        raise BudgetError(
            "Expected a budget of costs that have a gradient: params, macs, bops, memory. "
            f"Received: {', '.join(budget.measured)}, which must be measured. memory follows the size of the file."
        )
    return budget


def _units(graph: ChannelGraph, index: int) -> np.ndarray:
    """Numbers of a group's units in the graph, by slot."""
    mine = np.flatnonzero(graph.group_of == index)
    return mine[np.argsort(graph.slot_of[mine])]


def _ranked(graph: ChannelGraph, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Numbers between 0 and 1 over the units [units], in each group by the rank of its scores."""
    values = np.full(graph.unit_count, 1.0, np.float32)
    for group in graph.prunable:
        order = np.argsort(scores[group.name], kind="stable")
        values[_units(graph, group.index)[order]] = (np.arange(group.size) + 0.5) / group.size
    return values
