"""Holistic pruning: costs of gates by hand, the budget held exactly, what is trained is what comes out."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.allocation.gates import GateCosts, GatedBuilder, Gates, thresholds_on
from tfqprune.costs import COSTS, CostModel
from tfqprune.errors import BudgetError, DataError, EvaluationError, ModelTypeError, PlanError
from tfqprune.layers import Channels, LayerHandler
from tfqprune.layers.base import _HANDLERS
from tfqprune.masking import mask
from tfqprune.precision import variable_value
from tfqprune.testing.criteria import network, samples_for

K = tf.keras.layers
NETWORKS = ["float", "binary_residual", "dorefa_residual", "grouped", "ternary_dense"]


def gates_of(graph: tq.ChannelGraph, seed: int = 0) -> Gates:
    """Gates with random values, about half of them above their thresholds."""
    free = np.isin(graph.group_of, [group.index for group in graph.prunable])
    gates = Gates(graph, free, np.random.default_rng(seed).random(graph.unit_count))
    gates.thresholds.assign(np.full(graph.unit_count, 0.5, np.float32))
    return gates


def removed_by(graph: tq.ChannelGraph, gates: Gates) -> dict[str, tuple[int, ...]]:
    closed = gates.indicators().numpy() == 0
    return {
        group.name: tuple(sorted(graph.slot_of[(graph.group_of == group.index) & closed].tolist()))
        for group in graph.prunable
    }


def fed(model: tf.keras.Model) -> tuple[Any, np.ndarray]:
    inputs, labels = samples_for(model)
    return (inputs if len(inputs) > 1 else inputs[0]), labels


def holistic(name: str, budget: tq.Budget, **options: Any) -> tq.HolisticPruning:
    hfp = tq.HolisticPruning(network(name), budget, "latent_l1", **options)
    hfp.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.SparseCategoricalCrossentropy(name == "grouped"))
    return hfp


# -- gates and their costs ------------------------------------------------------------------------


# dense 4 -> dense 3 on 2 inputs, with biases: params 2a + a + 3a + 3 for a open units, so 27 for 4 and 15 for 2; MACs
# 2a + 3a. The gradient of each open or closed unit is 6 and 5.
def test_costs_and_their_gradient_by_hand() -> None:
    inputs = K.Input((2,))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(3, name="last")(K.Dense(4, name="first")(inputs))))
    gates = gates_of(graph)
    mine = graph.group_of == graph["first"].index
    values = gates.values.numpy()
    values[mine] = [0.9, 0.1, 0.2, 0.7]
    gates.values.assign(values)
    costs = GateCosts(CostModel(graph), ("params", "macs"))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(gates.values)
        params, macs = tf.unstack(costs(gates.indicators()))
    assert (float(params), float(macs)) == (15, 10)
    np.testing.assert_array_equal(tape.gradient(params, gates.values), np.where(mine, 6, 0))
    np.testing.assert_array_equal(tape.gradient(macs, gates.values), np.where(mine, 5, 0))


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_the_masked_plan(name: str) -> None:
    graph = tq.ChannelGraph(network(name))
    costs = GateCosts(CostModel(graph), COSTS)
    for seed in range(3):
        gates = gates_of(graph, seed)
        alive = graph.alive_units(removed_by(graph, gates))
        assert not alive.all()
        totals = CostModel(graph).totals(alive)
        assert costs(gates.indicators()).numpy().tolist() == [totals[name] for name in COSTS]


@pytest.mark.parametrize("name", NETWORKS)
def test_gated_is_masked(name: str) -> None:
    model = network(name)
    graph = tq.ChannelGraph(model)
    gates = gates_of(graph)
    removed = removed_by(graph, gates)
    assert any(removed.values())
    trained = GatedBuilder(graph, gates).build()
    sizes = {group.name: group.size for group in graph.groups}
    plan = tq.PruningPlan(removed, sizes, tq.make_plan(model, 0.0, "latent_l1").fingerprint)
    x, _ = fed(model)
    np.testing.assert_allclose(trained(x), mask(model, plan)(x), rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(gates.values)
        total = tf.reduce_sum(trained(x)[:, 0])
    slope = tape.gradient(total, gates.values).numpy()
    closed = gates.indicators().numpy() == 0
    assert np.abs(slope[closed]).max() > 0  # a closed gate can open again
    assert not slope[gates.free.numpy() == 0].any()


def test_scale_is_taken_over_what_is_open() -> None:
    model = tq.prune(network("dorefa_residual"), tq.make_plan(network("dorefa_residual"), 0.0, "latent_l1"))  # a copy
    kernel = model.get_layer("inner").kernel
    latent, widest = variable_value(kernel).copy(), 3
    latent[..., widest] *= 20  # DoReFa divides by the largest |tanh w| of the layer: close the filter that holds it
    getattr(kernel, "latent_variable", kernel).assign(latent)
    graph = tq.ChannelGraph(model)
    gates = gates_of(graph)
    values = np.ones(graph.unit_count, np.float32)
    values[(graph.group_of == graph["inner"].index) & (graph.slot_of == widest)] = 0
    gates.values.assign(values)
    plan = replace(tq.make_plan(model, 0.0, "latent_l1"), removed={"inner": (widest,)})
    x, _ = fed(model)
    np.testing.assert_allclose(GatedBuilder(graph, gates).build()(x), mask(model, plan)(x), rtol=1e-5, atol=1e-6)


def test_last_unit_stays() -> None:
    graph = tq.ChannelGraph(network("float"))
    gates = gates_of(graph)
    gates.values.assign(tf.zeros_like(gates.values))
    assert {name: len(slots) for name, slots in removed_by(graph, gates).items()} == {"first": 7, "second": 5}


# As above, 6 parameters a unit and 3 beside: 4 units 27, 3 units 21, 2 units 15, 1 unit 9.
@pytest.mark.parametrize(("limit", "left"), [(27, 4), (26, 3), (21, 3), (15.5, 2), (9, 1)])
def test_lowest_thresholds_that_hold(limit: float, left: int) -> None:
    inputs = K.Input((2,))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(3, name="last")(K.Dense(4, name="first")(inputs))))
    gates = gates_of(graph)
    costs = GateCosts(CostModel(graph), ("params",))
    direction = tf.ones(graph.unit_count)
    thresholds = thresholds_on(gates, gates.values, costs, tf.constant([limit], tf.float64), direction)
    height = (gates.values - thresholds).numpy()[graph.group_of == graph["first"].index]
    assert np.count_nonzero(height > 0) in ({left} if left > 1 else {0, 1})
    assert float(costs(gates.opened(gates.values - thresholds))[0]) == 6 * left + 3


# Four gates, of which one or two may be closed.
def test_bounds_by_hand() -> None:
    inputs = K.Input((2,))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(3, name="last")(K.Dense(4, name="first")(inputs))))
    mine = graph.units_of(graph["first"])
    free = np.isin(np.arange(graph.unit_count), mine)

    def factors(values: list[float], threshold: float, soft: bool = False) -> list[float]:
        gates = Gates(graph, free, np.zeros(graph.unit_count), soft, {"first": (1, 2)})
        gates.values.assign(np.where(free, 0, 1).astype(np.float32))
        gates.values.scatter_nd_update(mine[:, None], np.float32(values))
        gates.thresholds.assign(np.full(graph.unit_count, threshold, np.float32))
        gates.width.assign(np.full(graph.unit_count, 0.1, np.float32))
        found = gates.factors().numpy()
        assert (found[~free] == 1).all()
        return found[mine].tolist()

    assert factors([0.9, 0.1, 0.2, 0.7], 0.0) == [1, 0, 1, 1]  # one is closed, though all are above
    assert factors([0.9, 0.1, 0.2, 0.7], 0.15) == [1, 0, 1, 1]
    assert factors([0.9, 0.1, 0.2, 0.7], 1.0) == [1, 0, 0, 1]  # two are open, though none is above
    assert factors([0.5, 0.5, 0.5, 0.5], 0.0) == [1, 1, 1, 0]
    open_ones = [1 / (1 + np.exp(-height / 0.1)) for height in (0.9, 0.2, 0.7)]
    assert factors([0.9, 0.1, 0.2, 0.7], 0.0, soft=True) == pytest.approx([open_ones[0], 0, *open_ones[1:]], rel=1e-4)
    assert factors([0.9, 0.1, 0.2, 0.7], 1.0, soft=True)[::3] == [1, 1]


# -- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_holds_the_budget_and_computes_what_was_trained(name: str) -> None:
    model = network(name)
    before = [variable_value(weight) for weight in model.weights]
    whole = tq.cost(model)
    x, labels = fed(model)
    hfp = holistic(name, tq.Budget(params=0.6, macs=0.5))
    np.testing.assert_allclose(hfp(x), model(x), rtol=1e-5, atol=1e-6)  # all gates are open at first
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Expected at least")  # it comes as far as the budget
        logs = hfp.fit(x, labels, batch_size=4, epochs=6, verbose=0).history  # 36 steps, 21 of them learn
    plan = hfp.plan()
    slim = hfp.finish()
    cost = tq.cost(slim)
    assert cost.params <= 0.6 * whole.params
    assert cost.macs <= 0.5 * whole.macs
    assert logs["params"][-1] == pytest.approx(cost.params / whole.params)
    assert logs["macs"][-1] == pytest.approx(cost.macs / whole.macs)
    # The last target is the budget; the sixth step of an epoch starts after 5 of 0.8 x 21 in which it is reached.
    assert logs["macs_target"][0] == pytest.approx(1 - 0.5 * 5 / 16.8)
    assert logs["macs_target"][-1] == 0.5
    assert all(now <= target + 1e-6 for now, target in zip(logs["macs"], logs["macs_target"]))
    graph = tq.ChannelGraph(model)
    for group, slots in plan.removed.items():
        less = graph.alive_units({**plan.removed, group: slots[1:]})
        totals = CostModel(graph).totals(less)
        assert totals["params"] > 0.6 * whole.params or totals["macs"] > 0.5 * whole.macs
    np.testing.assert_allclose(slim(x), hfp(x), rtol=1e-4, atol=1e-5)
    assert tq.cost(tq.prune(model, plan)).params == cost.params
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable_value(weight), value)


# The labels depend on inputs 0 and 1 alone, and unit u of the first layer is input u.
def test_keeps_what_the_loss_needs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    labels = (x[:, :2].sum(axis=1) > 0).astype(int)
    inputs = K.Input((8,))
    first = K.Dense(8, use_bias=False, name="first")
    model = tf.keras.Model(inputs, K.Dense(2, name="last")(first(inputs)))
    first.set_weights([np.eye(8, dtype="float32")])  # all of the same norm
    model.get_layer("last").set_weights([np.tile(np.float32([-0.5, 0.5]), (8, 1)), np.zeros(2, "float32")])
    hfp = tq.HolisticPruning(model, tq.Budget(params=0.3), "latent_l1")
    hfp.compile(tf.keras.optimizers.SGD(0.05), tf.keras.losses.SparseCategoricalCrossentropy(True))
    hfp.fit(x, labels, batch_size=16, epochs=8, shuffle=False, verbose=0)
    # 8 x 8 + 8 x 2 + 2 = 82 parameters, 24.6 of them allowed: 10 a unit and 2 beside, so 2 units.
    assert hfp.plan().kept["first"] == (0, 1)


#: trains twice from one seed, in a process of its own: that operations repeat holds for all that follows
TWICE = """
import numpy as np
import tensorflow as tf
import tfqprune as tq
from tfqprune import zoo

tf.config.experimental.enable_op_determinism()
for _ in range(2):
    tf.keras.utils.set_random_seed(3)
    model = zoo.build({name!r}, precision=2)
    x = np.random.normal(size=(256, *model.input_shape[1:])).astype("float32")
    hfp = tq.HolisticPruning(model, tq.Budget(memory=0.6), "latent_l1")
    hfp.compile("adam", "sparse_categorical_crossentropy")
    hfp.fit(x, np.random.randint(0, 10, 256), batch_size=32, epochs=2, verbose=0)
    print(list(hfp.plan().removed.values()))
"""


@pytest.mark.parametrize("name", ["resnet_digits", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_same_seed_same_plan_where_operations_repeat(name: str) -> None:
    command = [sys.executable, "-c", TWICE.format(name=name)]
    first, again = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert first == again
    assert first != "[]"


def test_says_how_far_too_few_steps_came() -> None:
    model = network("float")
    x, labels = fed(model)
    hfp = holistic("float", tq.Budget(params=0.5), share=1.0)
    with pytest.raises(PlanError, match="Call fit first"):
        hfp.plan()
    with pytest.warns(UserWarning, match=r"Received: 1 steps; .* \(budget: 449 parameters\)"):
        hfp.fit(x, labels, batch_size=24, verbose=0)
    assert tq.cost(model, hfp.plan()).params <= 0.5 * tq.cost(model).params
    assert hfp.plan().notes["steps"] == 1


# -- numbers that are none ------------------------------------------------------------------------


def spoilt(x: np.ndarray) -> np.ndarray:
    """The inputs, the last of them not a number."""
    x = x.copy()
    x[-1] = np.nan
    return x


def is_finite(hfp: tq.HolisticPruning) -> bool:
    """Whether weights, gates and the optimiser hold numbers only."""
    return all(np.isfinite(np.asarray(value)).all() for value in [*hfp.get_weights(), *hfp.optimizer.variables()])


# Moments of Adam that took in NaN would make every later step one.
@pytest.mark.parametrize("kind", [tf.keras.optimizers.Adam, tf.keras.optimizers.legacy.Adam])
def test_stops_at_a_loss_that_is_no_number_and_goes_on_with_sound_data(kind: Any) -> None:
    x, labels = fed(network("grouped"))
    hfp = holistic("grouped", tq.Budget(params=0.5), share=1.0)
    hfp.compile(kind(0.01), tf.keras.losses.SparseCategoricalCrossentropy(True))
    before = hfp.network.get_weights()
    with pytest.raises(EvaluationError, match=r"Received: nan in batch 2\. .* last good epoch"):
        hfp.fit(spoilt(x), labels, batch_size=8, shuffle=False, verbose=0)
    for value, old in zip(hfp.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert is_finite(hfp)
    assert hfp.optimizer.iterations == 0
    with pytest.warns(UserWarning, match="Received: 3 steps"):
        losses = hfp.fit(x, labels, batch_size=8, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_stops_at_a_step_that_breaks_the_weights() -> None:
    x, labels = fed(network("float"))
    hfp = holistic("float", tq.Budget(params=0.5))
    hfp.compile(tf.keras.optimizers.SGD(1e38), "sparse_categorical_crossentropy")
    # The only step: its loss is that of the weights before it.
    with pytest.raises(EvaluationError, match="Received: gradients or weights that are not in batch 0"):
        hfp.fit(x, labels, batch_size=24, verbose=0)
    assert np.isfinite(hfp(x)).all()


# A relu takes NaN for 0, so that the loss stays a number while gradients do not.
def test_keeps_no_state_that_the_loss_takes_for_good(tmp_path: Path) -> None:
    x, labels = fed(network("float"))
    twice = np.concatenate([x, spoilt(x)]), np.concatenate([labels, labels])
    batches = tf.data.Dataset.from_tensor_slices(twice).batch(8)  # three sound ones, and three with a broken last one
    states = []
    hfp = holistic("float", tq.Budget(params=0.5))
    callbacks = [
        tf.keras.callbacks.BackupAndRestore(tmp_path),
        tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: states.append(hfp.get_weights())),
    ]
    with pytest.warns(UserWarning, match="Received: 3 steps"), pytest.raises(EvaluationError, match="not in batch 2"):
        hfp.fit(batches, steps_per_epoch=3, epochs=2, verbose=0, callbacks=callbacks)
    assert len(states) == 1
    for value, old in zip(hfp.get_weights(), states[0], strict=True):
        np.testing.assert_array_equal(value, old)
    assert is_finite(hfp)
    resumed = holistic("float", tq.Budget(params=0.5))
    losses = resumed.fit(x, labels, batch_size=8, epochs=2, verbose=0, callbacks=callbacks[0]).history["loss"]
    assert len(losses) == 1  # the first epoch was in the backup
    assert np.isfinite(losses).all()


def test_starts_from_numbers() -> None:
    x, labels = fed(network("float"))
    hfp = holistic("float", tq.Budget(params=0.5))
    hfp.network.layers[1].kernel.assign(hfp.network.layers[1].kernel * np.nan)
    with pytest.raises(EvaluationError, match="before the first step"):
        hfp.fit(x, labels, verbose=0)


# -- like any Keras model -------------------------------------------------------------------------


def test_losses_by_the_names_of_outputs() -> None:
    inputs = K.Input((6,))
    hidden = K.Dense(8, activation="relu")(inputs)
    model = tf.keras.Model(inputs, [K.Dense(2, name="one")(hidden), K.Dense(3, name="other")(hidden)])
    hfp = tq.HolisticPruning(model, tq.Budget(params=0.7), "latent_l1")
    hfp.compile("sgd", {"one": "mse", "other": "mae"}, metrics={"other": "mse"})
    labels = {"one": np.zeros((16, 2)), "other": np.zeros((16, 3))}
    history = tf.keras.callbacks.History()
    with pytest.warns(UserWarning, match="Received: 1 steps"):
        hfp.fit(np.ones((16, 6)), labels, verbose=0, callbacks=history)  # one callback, no list
    assert {"one_loss", "other_loss", "other_mse", "params"} <= set(history.history)


# Six ones through kernels of ones: hidden units of 6, outputs of 24. The loss is 1e-10 times their mean square, so the
# gradient of each output is 1e-10 * 24, of each hidden unit and each weight before it 2 * 1e-10 * 24 = 4.8e-9: 0 in
# float16, whose smallest number is 6e-8. A step of 1e8 times that takes 0.48 off.
def test_float16_scales_its_loss() -> None:
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = K.Input((6,))
        hidden = K.Dense(4, use_bias=False, kernel_initializer="ones", name="first")(inputs)
        last = K.Dense(2, use_bias=False, kernel_initializer="ones", dtype="float32")
        model = tf.keras.Model(inputs, last(hidden))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    hfp = tq.HolisticPruning(model, tq.Budget(params=0.5), "latent_l1")
    hfp.compile(tf.keras.optimizers.SGD(1e8), "mse", loss_weights=1e-10)
    with pytest.warns(UserWarning, match="Received: 1 steps"):
        hfp.fit(np.ones((4, 6)), np.zeros((4, 2)), verbose=0)
    np.testing.assert_allclose(hfp.network.get_layer("first").kernel, np.full((6, 4), 0.52), rtol=1e-3)


def test_cannot_be_saved_as_a_model(tmp_path: Path) -> None:
    hfp = holistic("float", tq.Budget(params=0.5))
    hfp(fed(network("float"))[0])
    for name in ("model.keras", "model.h5", "model"):
        with pytest.raises(ModelTypeError, match=r"Save the slim model that finish\(\) returns, or .* save_weights"):
            hfp.save(tmp_path / name)
    for name in ("model.keras", "model"):
        with pytest.raises(ModelTypeError, match="save_weights"):
            tf.keras.models.save_model(hfp, tmp_path / name)
    hfp.save_weights(tmp_path / "state.weights.h5")
    assert [path.name for path in tmp_path.glob("*.*")] == ["state.weights.h5"]


# The best epoch by this measure is the first, in which no gate was closed for good.
def test_stands_still_with_what_early_stopping_brings_back() -> None:
    x, labels = fed(network("float"))
    hfp = holistic("float", tq.Budget(params=0.5))
    stop = tf.keras.callbacks.EarlyStopping("params", mode="max", patience=5, restore_best_weights=True)
    with pytest.warns(UserWarning, match="the gates had come to"):
        hfp.fit(x, labels, batch_size=4, epochs=6, verbose=0, callbacks=[stop])
    assert stop.best_epoch == 0
    assert hfp.frozen
    np.testing.assert_allclose(hfp.finish()(x), hfp(x), rtol=1e-4, atol=1e-5)


# -- going on -------------------------------------------------------------------------------------


class Interrupt(tf.keras.callbacks.Callback):
    """Stops training like a person at the keyboard, after the fourth step of the second epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if (self.epoch, batch) == (1, 3):
            raise KeyboardInterrupt


def test_resumes_after_an_interruption(tmp_path: Path) -> None:
    model = network("float")
    x, labels = fed(model)

    def trained(*callbacks: tf.keras.callbacks.Callback) -> tq.HolisticPruning:
        hfp = holistic("float", tq.Budget(params=0.5))
        with contextlib.suppress(KeyboardInterrupt):
            hfp.fit(x, labels, batch_size=4, epochs=6, shuffle=False, verbose=0, callbacks=list(callbacks))
        return hfp

    whole = trained()
    stopped = trained(tf.keras.callbacks.BackupAndRestore(tmp_path), Interrupt())
    assert not stopped.frozen
    assert stopped.plan().notes["steps"] == 10
    assert stopped.plan().notes["learned"]["params"] > 0.6  # not there yet, but the plan is
    assert tq.cost(model, stopped.plan()).params <= 0.5 * tq.cost(model).params
    resumed = trained(tf.keras.callbacks.BackupAndRestore(tmp_path))
    assert resumed.plan().notes == whole.plan().notes
    assert resumed.plan().removed == whole.plan().removed
    np.testing.assert_allclose(resumed(x), whole(x), rtol=1e-4, atol=1e-5)


def test_weights_hold_the_state_of_the_gates() -> None:
    x, labels = fed(network("float"))
    hfp, other = (holistic("float", tq.Budget(params=0.5)) for _ in range(2))
    hfp.fit(x, labels, batch_size=4, epochs=6, verbose=0)
    other(x)
    other.set_weights(hfp.get_weights())
    assert other.frozen
    assert other.plan().removed == hfp.plan().removed
    np.testing.assert_array_equal(other(x), hfp(x))


def test_layer_norm_over_what_stays() -> None:
    inputs = K.Input((3,))
    x = K.Dense(4, name="outer")(K.Dense(8, activation="relu", name="inner")(inputs))
    model = tf.keras.Model(inputs, K.LayerNormalization()(K.Dense(2)(x)))
    within = tf.keras.Model(inputs, K.Dense(2)(K.LayerNormalization()(x)))
    data, labels = np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), np.zeros((8, 2))
    for whole, excluded in ((model, ()), (within, "outer")):
        hfp = tq.HolisticPruning(whole, tq.Budget(params=0.7), "latent_l1", exclude=excluded)
        hfp.compile("adam", "mse")
        with pytest.warns(UserWarning, match="at least 20 steps"):
            hfp.fit(data, labels, batch_size=4, epochs=3, verbose=0)
        assert hfp.plan().removed["inner"]
        np.testing.assert_allclose(hfp(data), hfp.finish()(data), rtol=1e-5, atol=1e-6)


class Own(K.Layer):
    """A dense layer of a user's, whose kernel is an attribute of another name than its variable, or in a list."""

    def __init__(self, units: int, hidden: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.hidden = units, hidden

    def build(self, shape):
        kernel = self.add_weight(name="kernel", shape=(int(shape[-1]), self.units))
        if self.hidden:
            self.all = [kernel]
        else:
            self.w = kernel

    def call(self, inputs):
        return tf.matmul(inputs, self.all[0] if self.hidden else self.w)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "hidden": self.hidden}


@pytest.mark.parametrize("key", ["kernel", 0])
def test_kernels_of_other_names(key: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(LayerHandler):
        def flow(self, call):
            call.role("in", call.inputs[0].ids)
            call.mint("out", call.layer.units)
            call.weight(key, ("in", "out"), 1)
            return [Channels(call.inputs[0].axis, call.record.roles["out"])]

        def resize(self, record, config, kept):
            return {**config, "units": len(kept("out"))}

    monkeypatch.setitem(_HANDLERS, Own, Handler())
    tf.keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    for hidden in (False, True):
        inputs = K.Input((6,))
        model = tf.keras.Model(inputs, K.Dense(2)(Own(8, hidden, name="own")(K.Dense(8, name="first")(inputs))))
        if hidden:
            with pytest.raises(PlanError, match=rf"Received: 'own' \(Own\), whose weight {key!r} is none"):
                tq.HolisticPruning(model, tq.Budget(params=0.6), "latent_l1")
            continue
        graph = tq.ChannelGraph(model)
        gates = gates_of(graph)
        removed = removed_by(graph, gates)
        assert set(removed) == {"first", "own"}
        trained = GatedBuilder(graph, gates).build()
        sizes = {group.name: group.size for group in graph.groups}
        plan = tq.PruningPlan(removed, sizes, tq.make_plan(model, 0.0, "latent_l1").fingerprint)
        np.testing.assert_allclose(trained(x), mask(model, plan)(x), rtol=1e-5, atol=1e-6)


def test_refused() -> None:
    model = network("float")
    with pytest.raises(BudgetError, match="is the smallest reachable"):
        tq.HolisticPruning(model, tq.Budget(params=0.01))
    with pytest.raises(BudgetError, match="Received: tflite_bytes, which must be measured"):
        tq.HolisticPruning(model, tq.Budget(tflite_bytes=0.5))
    with pytest.raises(BudgetError, match=r"Expected a tfqprune\.Budget"):
        tq.HolisticPruning(model, 0.5)
    for share in (0, 1.5, True):
        with pytest.raises(PlanError, match=r"share \(of the training steps\) to be .* above 0 and at most 1"):
            tq.HolisticPruning(model, tq.Budget(params=0.5), share=share)
    tq.HolisticPruning(model, tq.Budget(params=0.8), "latent_l1", share=np.float32(0.5))
    # A budget that the whole model holds, and nothing that may go.
    for limits in ({"exclude": ["first", "second"]}, {"maximum": 0.0}):
        with pytest.raises(PlanError, match=r"can be pruned\. Received: none .*'first': excluded, or held by bounds"):
            tq.HolisticPruning(model, tq.Budget(params=1.0), **limits)
    inputs = K.Input((3,))
    with pytest.raises(PlanError, match=r"groups that can be pruned\. Received: none \(.*model output"):
        tq.HolisticPruning(tf.keras.Model(inputs, K.Dense(2)(inputs)), tq.Budget(params=0.5))
    x = K.LayerNormalization(name="norm")(K.Dense(4)(inputs))
    with pytest.raises(PlanError, match="'norm' takes statistics over channels that may go"):
        tq.HolisticPruning(tf.keras.Model(inputs, K.Dense(2)(x)), tq.Budget(params=0.8), "latent_l1")
    for start in ({"first": 0.5}, 0.5):
        with pytest.raises(PlanError, match=r"Expected a PruningPlan to start from\. Received: .*make_plan"):
            tq.HolisticPruning(model, tq.Budget(params=0.5), start=start)
    tq.HolisticPruning(model, tq.Budget(params=0.8), exclude="second", scores={"first": np.arange(8)})
    with pytest.raises(PlanError, match=r"numbers as scores for group 'first'.*NaN among them"):
        tq.HolisticPruning(
            model, tq.Budget(params=0.5), scores={"first": np.full(8, np.nan), "second": np.full(8, np.nan)}
        )
    endless = tf.data.Dataset.from_generator(
        lambda: iter([samples_for(model)]),
        output_signature=(tf.TensorSpec((None, 6, 6, 3)), tf.TensorSpec((None,), tf.int64)),
    )
    with pytest.raises(DataError, match="Give steps_per_epoch"):
        holistic("float", tq.Budget(params=0.5)).fit(endless, verbose=0)
