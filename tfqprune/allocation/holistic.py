"""Ratios learned by gradient descent while a model trains, towards exact targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from tfqprune.allocation.conductor import Conductor, broken
from tfqprune.allocation.gates import CLOSED_WIDTH, GateCosts, GatedBuilder, Gates, state, thresholds_on
from tfqprune.allocation.given import check_counted, check_given, ranked, require_groups
from tfqprune.allocation.landing import binding, land
from tfqprune.allocation.scales import UnitScales
from tfqprune.budget import Budget, format_cost
from tfqprune.channels import ChannelGraph
from tfqprune.errors import ModelTypeError, PlanError, real_number
from tfqprune.fitting import Bounds, Fitter, names_of
from tfqprune.plan import PruningPlan
from tfqprune.scoring import score_graph
from tfqprune.slim import TrainedSlimBuilder

_RAMP = 0.8  # share of the learning steps over which the target falls from the original cost to the budget
_TRAVEL = 1.0  # how far a gate moves over all learning steps under a steady gradient of 1
_MEMORY = 0.9  # of running means
_LEAST_PUSH = 0.05  # on a unit that hardly costs anything, in root mean squares over all units
_FAR = 0.1  # of the way to the budget: more than this left is worth a warning
_ENOUGH = 20  # steps: fewer say little of the gates' gradients
_HELD = 0.05  # below its target: a cost that ends further below because another binds is worth a warning
_WIDTHS = (0.3, 0.01)  # of soft gates, at the first and the last learning step
_GATES = ("hard", "soft")
_VALUES = ("own", "scales")
_LossScaleOptimizer = tf.keras.mixed_precision.LossScaleOptimizer


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
    ``values="scales"`` and ``gate="soft"`` are the alternatives that docs/holistic.md measures.

    In place of a penalty with a factor to tune stands its dual: the sum of all its steps so far is a
    threshold for each gate, along the costs' gradient at the original model, and its size is found by bisection after
    every step, so that the costs of the open gates are as close below their targets of the moment as the order of the
    gates allows. (Along the gradient of the moment the first group to be cut would be cut ever further: what it loses
    makes its neighbours cheaper.) The targets fall in a straight line from the original costs to the budget. Of several
    costs the one that binds leads.

    After ``share`` of all steps whole units are fitted onto the budget, ranked by their gates, and a few exchanged
    between groups where a cost would end more than 1 % below its target; from then on gates stand still, and the
    weights go on with what is left. ``minimum`` and ``maximum`` hold at every step; that kept channels are multiples of
    ``align`` only from there on. Logs hold the share that is left of each bounded cost
    (``params``) and its target at the time (``params_target``), so progress bar and TensorBoard show them.

    Weights can be saved and restored, the state of the gates with them (``BackupAndRestore`` resumes;
    ``EarlyStopping(restore_best_weights=True)`` may bring back gates from before they stood still: give it a
    ``start_from_epoch`` after ``share`` of the epochs); the whole cannot be saved as a model: save what :meth:`finish`
    returns. Under a ``tf.distribute`` strategy, construct and compile it
    in the strategy's scope. The same seed gives the same plan where training repeats: that takes
    ``tf.config.experimental.enable_op_determinism()``.

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
        scores: scores that exist already, instead of ``criterion``.
        start: a plan for the model; gates start so that thresholds meet its units first, in all groups at once.
        values: ``"own"``: gates are numbers of their own; ``"scales"``: they are the mean |gamma| of the batch norms
            that a unit passes, relative to its group at the start, and the optimiser of the weights moves them.
        gate: ``"hard"``: what reads a unit is multiplied by 1 or 0, with a gradient straight through; ``"soft"``: by a
            sigmoid that narrows to a step while gates are learned.

    Attributes:
        network: the copy of the model that trains.

    Raises:
        ModelTypeError: no graph model.
        BudgetError: the budget is above the original, cannot be met, or has to be measured.
        PlanError: nothing can be pruned; a layer that takes statistics over channels that may go (a layer norm), or
            reads them by a kernel that is none of its attributes; names, bounds, ``align``, ``share``, ``values``,
            ``gate`` or ``scores`` that make no sense; a start that is no plan for this model; scales that are asked for
            where there are none.
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
        scores: Mapping[str, np.ndarray] | None = None,
        start: PruningPlan | None = None,
        values: str = "own",
        gate: str = "hard",
    ) -> None:
        # As the model itself: mixed precision scales its loss, and each layer casts its inputs.
        policy = getattr(model, "dtype_policy", None)
        super().__init__(name=f"{getattr(model, 'name', 'model')}_holistic", dtype=policy, autocast=False)
        share = real_number("share (of the training steps)", share, PlanError, above=0, high=1)
        for name, value, known in (("values", values, _VALUES), ("gate", gate, _GATES)):
            if value not in known:
                raise PlanError(f"Expected {name} to be one of {', '.join(known)}. Received: {value!r}.")
        if start is not None and values == "scales":
            raise PlanError("Expected values='own' beside a start. Received: values='scales', which start as they are.")
        self.graph = ChannelGraph(model)
        require_groups(self.graph, self.graph.prunable)
        self._budget, self._share = check_counted(budget), share
        limits: dict[str, Any] = {"align": align, "minimum": minimum, "maximum": maximum, "exclude": names_of(exclude)}
        flat = {group.name: np.zeros(group.size) for group in self.graph.groups}
        first = Fitter(self.graph, flat, budget, **limits)  # what cannot be met is said before anything else
        self._fitter_of: Callable[[Mapping[str, np.ndarray]], Fitter] = lambda scores: Fitter(
            self.graph, scores, budget, meter=first.meter, **limits
        )
        giving = require_groups(self.graph, [group for group in first.groups if first.most[group.name]])
        check_given(self.graph, giving, start)
        names = budget.names
        self._costs = GateCosts(first.meter.model, names)
        self._original = np.array([first.limits.original[name] for name in names])
        self._limits = np.array([first.limits.limits[name] for name in names])
        free = np.isin(self.graph.group_of, [group.index for group in giving])
        if scores is None:
            scores = score_graph(self.graph, criterion, data)
        self._fitter_of(scores)  # given scores that do not fit are refused
        bounds = {name: (int(levels[0]), int(levels[-1])) for name, levels in first.levels.items()}
        self._gates = Gates(self.graph, free, np.zeros(self.graph.unit_count), gate == "soft", bounds)
        self._pushes = self._gates.unit(self._gradients())
        even = np.full(len(names), 1 / len(names), np.float32)
        self._even = self._direction(tf.constant(even))
        self._builder = GatedBuilder(self.graph, self._gates)
        self.network = self._builder.build()
        self._scales = UnitScales(self.graph, self._builder.layers, free) if values == "scales" else None
        ranks = ranked(self.graph, scores, start) if self._scales is None else self._scales()
        self._gates.values.assign(self._even * ranks)
        self._values, self._thresholds = self._gates.values, self._gates.thresholds
        self._thresholds.assign(tf.fill([self.graph.unit_count], tf.reduce_min(self._values) - 1))
        self._mean = state(tf.zeros_like(self._values), "gate_gradients")
        self._weights = state(even, "cost_weights")
        self._clock = state(tf.constant(0, tf.int64), "steps")
        self._horizon = state(tf.constant(1, tf.int64), "learning_steps")
        self._frozen = state(False, "frozen")
        self._learned = state(tf.ones(len(names)), "learned_costs")
        self._finite = state(True, "finite")
        self.output_names = self.network.output_names  # losses and metrics may go by them
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
        callbacks: tf.keras.callbacks.Callback | Iterable[tf.keras.callbacks.Callback] | None = None,
        **options: Any,
    ) -> tf.keras.callbacks.History:
        """As ``fit`` of any Keras model; of all steps, the first ``share`` also learn the gates.

        Raises:
            DataError: the number of steps in an epoch cannot be known.
            EvaluationError: the loss, a gradient or a weight is no longer a number; weights, gates and the optimiser
                are those of the last good epoch.
        """
        given = [callbacks] if isinstance(callbacks, tf.keras.callbacks.Callback) else callbacks or ()
        # The Conductor comes first: no callback sees, or keeps, weights that are no numbers.
        history = super().fit(x, y, batch_size, epochs, verbose, [Conductor(), *given], **options)
        if self.steps:
            self.freeze()  # after callbacks that bring back weights at the end
        return history

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        scaler = self.optimizer if isinstance(self.optimizer, _LossScaleOptimizer) else None
        with tf.GradientTape() as tape:
            tape.watch(self._values)
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted, weight)
            if scaler is not None:
                loss = scaler.get_scaled_loss(loss)
        variables = self.network.trainable_variables
        gradients = tape.gradient(loss, [*variables, self._values])
        if scaler is not None:
            gradients = scaler.get_unscaled_gradients(gradients)
        *gradients, pull = gradients
        if self._scales is not None:
            gradients = self._with_scales(gradients, variables, pull)
        self.optimizer.apply_gradients(zip(gradients, variables))
        # Scaling the loss skips steps whose gradients overflow: there only the weights tell.
        wrong = broken(self.network, gradients if scaler is None else ())
        if tf.distribute.has_strategy():
            # Each replica holds its share of the loss; their gates take the same steps.
            context = tf.distribute.get_replica_context()
            pull, wrong = context.all_reduce(tf.distribute.ReduceOp.SUM, [pull, wrong])
        self._finite.assign(tf.convert_to_tensor(self._finite) & (wrong == 0))
        return {**self.compute_metrics(x, y, predicted, weight), **self._steer(pull)}

    def _with_scales(self, gradients: list[Any], variables: list[Any], pull: tf.Tensor) -> list[Any]:
        """Gradients with what the gates' own gradients add to the scales that they stand for."""
        assert self._scales is not None
        moving = tf.cast(~tf.convert_to_tensor(self._frozen), pull.dtype) * self._even
        extra = {id(v): g for v, g in zip(self._scales.variables, self._scales.gradients(pull * moving))}
        return [
            gradient + extra[id(variable)] if gradient is not None and id(variable) in extra else gradient
            for gradient, variable in zip(gradients, variables)
        ]

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
        if self._scales is None:
            values = self._values - _TRAVEL / tf.cast(self._horizon, tf.float32) * mean
        else:
            values = self._even * self._scales()
        load = tf.stack(shares) / tf.cast(target, tf.float32)
        weights = _MEMORY * self._weights + (1 - _MEMORY) * tf.one_hot(tf.argmax(load), len(shares))
        thresholds = thresholds_on(gates, values, costs, following * self._original, self._direction(weights))
        for variable, value in (
            (self._mean, mean), (self._values, values), (self._weights, weights), (self._thresholds, thresholds)
        ):  # fmt: skip
            variable.assign(tf.where(learning, value, variable))
        if gates.soft:
            gates.width.assign(tf.where(learning, self._width(self._clock), gates.width))
        self._clock.assign_add(1)
        logs = {}
        for index, name in enumerate(costs.names):
            logs[name], logs[f"{name}_target"] = shares[index], target[index]
        return logs

    def _gradients(self) -> tf.Tensor:
        """Gradients of all costs to the indicators, all gates open [costs, units]."""
        indicators = tf.ones_like(self._gates.values)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(indicators)
            costs = tf.unstack(self._costs(indicators))
        return tf.stack([tape.gradient(cost, indicators) for cost in costs])

    def _direction(self, weights: tf.Tensor) -> tf.Tensor:
        """The costs' gradients in one, by how much each cost counts [units]."""
        return tf.maximum(tf.linalg.matvec(self._pushes, weights, transpose_a=True), _LEAST_PUSH)

    def _width(self, clock: tf.Tensor) -> tf.Tensor:
        """Over which height soft gates open after so many steps [units]."""
        part = tf.cast(clock, tf.float32) / tf.cast(self._horizon, tf.float32)
        first, last = _WIDTHS
        return self._even * first * (last / first) ** part

    def _target(self, clock: tf.Tensor) -> tf.Tensor:
        """The share of each cost that may be left after so many steps, float64."""
        part = tf.math.minimum(
            tf.ones([], tf.float64), tf.cast(clock, tf.float64) / (_RAMP * tf.cast(self._horizon, tf.float64))
        )
        way = self._limits / self._original - 1
        return 1 + way * tf.where(self._frozen, tf.ones_like(part), part)

    # -- the outcome ------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Training steps so far."""
        return int(self._clock.numpy())

    @property
    def finite(self) -> bool:
        """Whether gradients and weights have been numbers after every step so far."""
        return bool(self._finite.numpy())

    @property
    def learned(self) -> bool:
        """Whether the steps that learn the gates are done."""
        return self.steps >= int(self._horizon.numpy())

    def begin(self, steps: int) -> None:
        """Says how many steps there will be in all; ``fit`` does so by itself."""
        self._finite.assign(True)
        self._horizon.assign(max(int(self._share * steps), 1))
        if self._gates.soft and not self.frozen:
            self._gates.width.assign(self._width(tf.convert_to_tensor(self._clock)))

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
        fitter = self._fitter_of(self._ranks())
        counts = self._landed(fitter)
        alive = fitter.alive_units(counts)
        shares = self._costs(self._gates.indicators()).numpy() / self._original
        self._learned.assign(shares)
        way = 1 - self._limits / self._original
        left = np.divide(shares - (1 - way), way, out=np.zeros_like(way), where=way > 0)
        steps = self.steps
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
        self._warn_of_held_costs(fitter, counts)
        self._values.assign(alive.astype(np.float32))
        self._gates.width.assign(np.full(len(alive), CLOSED_WIDTH, np.float32))
        self._thresholds.assign(np.full(len(alive), 0.5, np.float32))
        self._frozen.assign(True)

    def _warn_of_held_costs(self, fitter: Fitter, counts: Mapping[str, int]) -> None:
        costs, held = fitter.counted(counts), binding(fitter, counts)
        limits = fitter.limits.limits
        short = [name for name in limits if name not in held and costs[name] < (1 - _HELD) * limits[name]]
        if held and short:
            ends = "; ".join(
                f"{name} ends at {format_cost(name, costs[name])} (budget: {format_cost(name, limits[name])})"
                for name in short
            )
            warnings.warn(
                f"Expected targets that can be reached together. Received: {', '.join(held)} binds, and {ends}. The "
                f"plan holds the budget. Allow more {' and '.join(held)}, or ask for less {' and '.join(short)}.",
                stacklevel=4,
            )

    def plan(self) -> PruningPlan:
        """A plan for the original model that holds the budget, as large as whole units allow.

        Its notes say what was ``learned`` (shares that the gates had left before whole units were fitted), which costs
        are ``binding``, and after how many ``steps``. Its ratios are a start for other allocators:
        ``RatioTuner(..., starts=[hfp.plan().ratios])``.

        Raises:
            PlanError: before any training.
        """
        if not self.steps:
            raise PlanError(
                "Expected a plan to be asked for after training. Received: a fit of 0 steps. Call fit first."
            )
        fitter = self._fitter_of(self._ranks())
        counts = self._landed(fitter)
        learned = (
            self._learned.numpy() if self.frozen else self._costs(self._gates.indicators()).numpy() / self._original
        )
        notes = {
            "allocator": "holistic",
            "budget": self._budget.as_dict(),
            "binding": binding(fitter, counts),
            "costs": fitter.counted(counts),
            "learned": {name: float(share) for name, share in zip(self._costs.names, learned)},
            "steps": self.steps,
        }
        return fitter.plan(counts, "holistic", notes)

    def finish(self) -> tf.keras.Model:
        """The slim model of the plan, with the trained weights; an uncompiled model like the original.

        Raises:
            PlanError: before any training.
        """
        alive = self.graph.alive(self.plan().removed)
        return TrainedSlimBuilder(self.graph, alive, self._builder.layers).build()

    def save(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: what could be written could not be loaded.

        Raises:
            ModelTypeError: always; it says what can be saved instead.
        """
        raise ModelTypeError(
            "Expected a model that can be loaded again. Received: one in holistic pruning, which holds a graph and a "
            "budget. Save the slim model that finish() returns, or the state of the training with save_weights()."
        )

    def get_config(self) -> NoReturn:
        """Refused like :meth:`save`, for Keras's own functions that save."""
        self.save()

    def _landed(self, fitter: Fitter) -> dict[str, int]:
        """How many units go, by group: the closed ones where gates stand still, else fitted onto the budget."""
        closed = self._gates.indicators().numpy() == 0
        counts = {name: int(closed[self.graph.units_of(self.graph[name])].sum()) for name in fitter.names}
        return counts if self.frozen else land(fitter, fitter.project(fitter.ratios(counts)).counts)

    def _ranks(self) -> dict[str, np.ndarray]:
        """Rank of each unit by the height of its gate; equal gates by what the loss would have of them."""
        heights, wanted = (self._values - self._thresholds).numpy(), -self._mean.numpy()
        ranks = {}
        for group in self.graph.groups:
            units = self.graph.units_of(group)
            order = np.lexsort((wanted[units], heights[units]))
            ranks[group.name] = np.argsort(order).astype(np.float64)
        return ranks
