"""Holistic pruning in training: costs at every step, curves, starts, alternatives of the gates, targets, replicas."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tflite_export as te
import tfqprune as tq
from tfqprune import zoo
from tfqprune.allocation import Allocator
from tfqprune.allocation.gates import CLOSED_WIDTH, Gates, thresholds_on
from tfqprune.allocation.landing import binding, land
from tfqprune.allocation.relaxation import RelaxedBudget
from tfqprune.costs import COSTS
from tfqprune.errors import BudgetError, DataError, PlanError
from tfqprune.fitting import Fitter
from tfqprune.precision import variable_value
from tfqprune.testing import AllocatorConformance, shake
from tfqprune.testing.criteria import network, samples_for

from .test_processes import Process, ended

K = tf.keras.layers


def mixed() -> tf.keras.Model:
    """Conv 8 in float -> depthwise -> binary conv 8 -> batch norm, beside 4-bit conv 6 -> concatenate -> dense 4."""
    tf.keras.utils.set_random_seed(0)
    image = K.Input((6, 6, 3))
    x = K.DepthwiseConv2D(3, name="depthwise")(K.Conv2D(8, 3, padding="same", name="first")(image))
    binary = lq.layers.QuantConv2D(8, 1, kernel_quantizer="ste_sign", input_quantizer="ste_sign", name="binary")(x)
    weights, activations = (lq.quantizers.DoReFa(4, mode=mode) for mode in ("weights", "activations"))
    four = lq.layers.QuantConv2D(6, 1, kernel_quantizer=weights, input_quantizer=activations, name="four")(x)
    x = K.GlobalAveragePooling2D()(K.Concatenate()([K.BatchNormalization()(binary), four]))
    return shake(tf.keras.Model(image, K.Dense(4, activation="softmax", name="last")(x)))


NETWORKS: dict[str, Callable[[], tf.keras.Model]] = {
    "residual": lambda: network("dorefa_residual"),
    "concatenation": lambda: network("ternary_dense"),
    "grouped and depthwise": lambda: network("grouped"),
    "mixed precision": mixed,
}


def compiled(model: tf.keras.Model, budget: tq.Budget, rate: float = 0.01, **options: Any) -> tq.HolisticPruning:
    hfp = tq.HolisticPruning(model, budget, "latent_l1", **options)
    logits = model.layers[-1].activation is tf.keras.activations.linear
    hfp.compile(tf.keras.optimizers.Adam(rate), tf.keras.losses.SparseCategoricalCrossentropy(logits))
    return hfp


def trained(hfp: tq.HolisticPruning, *callbacks: tf.keras.callbacks.Callback, epochs: int = 6) -> Any:
    inputs, labels = samples_for(hfp.graph.model)
    x = inputs if len(inputs) > 1 else inputs[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Expected targets")
        return hfp.fit(x, labels, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


class CostWatch(tf.keras.callbacks.Callback):
    """Compares what each step says with the cost of the plan that the gates of that step amount to."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.compared, self.seen = 0, set()
        self.whole = tq.cost(self.model.graph.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        graph = self.model.graph
        closed = self.model._gates.indicators().numpy() == 0
        removed = {g.name: tuple(np.flatnonzero(closed[graph.units_of(g)]).tolist()) for g in graph.groups}
        plan = tq.PruningPlan(
            removed, {g.name: g.size for g in graph.groups}, tq.make_plan(graph.model, 0.0, "latent_l1").fingerprint
        )
        self.cost = tq.cost(graph.model, plan)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        for name in COSTS:
            assert logs[name] == pytest.approx(self.cost[name] / self.whole[name], rel=1e-6)
            assert logs[name] <= logs[f"{name}_target"] + 1e-6
            self.compared += 1
        self.seen.add(self.cost.params)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_at_every_step_are_those_of_the_plan(name: str) -> None:
    model = NETWORKS[name]()
    watch = CostWatch()
    hfp = compiled(model, tq.Budget(params=0.8, macs=0.75, bops=0.8, memory=0.7))
    trained(hfp, watch, epochs=4)
    assert watch.compared == 24 * len(COSTS)
    assert len(watch.seen) > 4  # they did change on the way
    slim = tq.cost(hfp.finish())
    assert slim.memory <= 0.7 * tq.cost(model).memory


def test_curves_in_tensorboard(tmp_path: Path) -> None:
    hfp = compiled(network("float"), tq.Budget(params=0.5, macs=0.6))
    history = trained(hfp, tf.keras.callbacks.TensorBoard(tmp_path, write_graph=False)).history
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    for name in ("params", "params_target", "macs", "macs_target"):
        curve = events.Tensors(f"epoch_{name}")
        assert [event.step for event in curve] == list(range(6))
        values = [float(tf.make_ndarray(event.tensor_proto)) for event in curve]
        assert values == pytest.approx(history[name])
        assert values[-1] < values[0]


# "first" has 8 units, of which at most 2 may go, "second" 6, of which 3 or 4 have to.
def test_gates_keep_to_bounds_while_they_learn() -> None:
    closed: list[tuple[int, int]] = []

    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            gone, graph = self.model._gates.indicators().numpy() == 0, self.model.graph
            closed.append(tuple(int(gone[graph.units_of(graph[name])].sum()) for name in ("first", "second")))

    bounds = {"minimum": {"second": 0.5}, "maximum": {"first": 0.25, "second": 0.7}}
    hfp = compiled(network("float"), tq.Budget(params=0.5), **bounds)
    trained(hfp, Watch(), epochs=4)
    assert {first for first, _ in closed} == {0, 1, 2}
    assert {second for _, second in closed} == {3, 4}
    assert tuple(len(hfp.plan().removed.get(name, ())) for name in ("first", "second")) == closed[-1]


def small_binary() -> tf.keras.Model:
    return zoo.build("resnet_digits", precision="binary", input_shape=(8, 8, 1), classes=10, width=0.5)


# What docs/holistic.md says of files. Found: 1,118 bytes of constants for a memory of 1,117.5, 2,754 of tables (in the
# file of the whole model 2,788); in the binary network 3,278 for 3,040 or, with other units gone, 3,619 for 3,033, and
# 5,282 (5,104) of tables.
@pytest.mark.parametrize(("make", "limit", "apart"), [(mixed, "1.1 KiB", 0.01), (small_binary, "3 KiB", 0.25)])
def test_file_follows_memory(make: Callable[[], tf.keras.Model], limit: str, apart: float, tmp_path: Path) -> None:
    model = make()
    hfp = compiled(model, tq.Budget(memory=limit))
    trained(hfp, epochs=4)
    slim = hfp.finish()
    memory = tq.cost(slim).memory
    assert memory <= float(limit.split()[0]) * 1024
    whole, file = (te.export(one, tmp_path / "model.tflite", strict=False) for one in (model, slim))
    constants = sum(file.breakdown.by_kind[kind] for kind in ("weights", "scales", "biases"))
    assert constants == pytest.approx(memory, rel=apart)
    without = whole.bytes - sum(whole.breakdown.by_kind[kind] for kind in ("weights", "scales", "biases"))
    assert file.bytes - constants == pytest.approx(without, rel=0.05)


# -- starts -----------------------------------------------------------------------------------------


def test_starts_from_a_plan() -> None:
    model = network("dorefa_residual")
    # By these scores the last unit would go first; the plan has other ideas.
    scores = {group.name: np.arange(group.size)[::-1] for group in tq.ChannelGraph(model).groups}
    plan = tq.make_plan(model, {"first": 0.25, "inner": 0.5}, "latent_l1")
    hfp = tq.HolisticPruning(model, tq.Budget(params=0.5), scores=scores, start=plan)
    # What the thresholds close on the plan's own cost is the plan.
    limit = tf.constant([tq.cost(model, plan).params], tf.float64)
    gates = hfp._gates
    gates.thresholds.assign(thresholds_on(gates, gates.values, hfp._costs, limit, hfp._even))
    np.testing.assert_array_equal(gates.indicators().numpy() > 0, plan.alive_units(hfp.graph))
    with pytest.raises(PlanError, match="made for another model"):
        tq.HolisticPruning(network("float"), tq.Budget(params=0.5), "latent_l1", start=plan)


def test_hands_its_ratios_to_the_search(
    make_tuner: Callable[..., tq.RatioTuner], model: tf.keras.Model, train: Any, validation: Any
) -> None:
    hfp = tq.HolisticPruning(model, tq.Budget(memory=0.6), "latent_l1")
    hfp.compile("adam", "sparse_categorical_crossentropy")
    hfp.fit(*train, batch_size=8, epochs=5, verbose=0)
    plan = hfp.plan()
    tuner = make_tuner(starts=[plan.ratios], max_trials=2)
    tuner.search(train, validation_data=validation, verbose=0)
    tried = [record.ratios for record in tuner.records()]
    # Beside the uniform solution; the projection that all trials go through may give back a unit.
    near = [max(abs(ratios[name] - plan.ratios[name]) * plan.sizes[name] for name in ratios) for ratios in tried]
    assert min(near) <= 1 + 1e-6


# -- alternatives -------------------------------------------------------------------------------------


# sigmoid(0.3 / 0.1) and sigmoid(-0.1 / 0.1); the last unit of a group passes whole.
def test_soft_factors_by_hand() -> None:
    inputs = K.Input((2,))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(3, name="last")(K.Dense(2, name="first")(inputs))))
    free = np.isin(graph.group_of, [graph["first"].index])
    gates = Gates(graph, free, np.zeros(graph.unit_count), soft=True)
    gates.width.assign(tf.fill([graph.unit_count], 0.1))
    gates.thresholds.assign(tf.fill([graph.unit_count], 0.5))
    mine = graph.units_of(graph["first"])

    def factors(*values: float) -> list[float]:
        all_values = np.zeros(graph.unit_count, np.float32)
        all_values[mine] = values
        gates.values.assign(all_values)
        found = gates.factors().numpy()
        assert (found[~free] == 1).all()
        return found[mine].tolist()

    assert factors(0.8, 0.4) == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(1))], rel=1e-4)
    assert factors(0.4, 0.3) == pytest.approx([1, 1 / (1 + np.exp(2))], rel=1e-4)
    gates.width.assign(tf.fill([graph.unit_count], CLOSED_WIDTH))
    assert factors(1.0, 0.0) == [1, 0]


@pytest.mark.parametrize("options", [{"gate": "soft"}, {"values": "scales"}, {"values": "scales", "gate": "soft"}])
def test_alternatives_hold_the_budget_and_compute_what_was_trained(options: dict[str, str]) -> None:
    model = network("dorefa_residual")
    hfp = compiled(model, tq.Budget(memory=0.6), **options)
    trained(hfp)
    slim = hfp.finish()
    assert 0.4 * tq.cost(model).memory < tq.cost(slim).memory <= 0.6 * tq.cost(model).memory
    x = samples_for(model)[0][0]
    np.testing.assert_allclose(slim(x), hfp(x), rtol=1e-4, atol=1e-5)


# Two batch norms: "first" (mean |gamma| of 1) and "outer", whose sum is one group; "inner" has one of its own. With all
# gates open the gradient of the loss to a gamma is that of the plain model, plus what its gate adds.
def test_scales_are_the_gates() -> None:
    model = tf.keras.models.clone_model(network("dorefa_residual"))
    model.set_weights(network("dorefa_residual").get_weights())
    norms = [layer for layer in model.layers if isinstance(layer, K.BatchNormalization)]
    gammas = [np.abs(variable_value(norm.gamma)) for norm in norms]
    hfp = compiled(model, tq.Budget(memory=0.6), rate=1e-9, values="scales")
    scales = hfp._scales().numpy()
    inner = hfp.graph.units_of(hfp.graph["inner"])
    np.testing.assert_allclose(scales[inner], gammas[1] / gammas[1].mean(), rtol=1e-5)
    stream = hfp.graph.units_of(hfp.graph["first"])
    means = (gammas[0] + gammas[2]) / 2
    np.testing.assert_allclose(scales[stream], means / means.mean(), rtol=1e-5)
    pull = np.zeros(hfp.graph.unit_count, np.float32)
    pull[inner[3]] = 2.0
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in hfp._scales.gradients(tf.constant(pull))]
    assert not gradients[0].any()
    assert not gradients[2].any()
    expected = np.zeros(8)
    expected[3] = 2 * np.sign(variable_value(norms[1].gamma))[3] / gammas[1].mean()
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-5)
    trained(hfp)
    # Scales that hardly move: the smallest of each group are the ones that go.
    for name, slots in hfp.plan().removed.items():
        units = hfp.graph.units_of(hfp.graph[name])
        assert sorted(slots) == sorted(np.argsort(scales[units])[: len(slots)].tolist())


# -- targets ------------------------------------------------------------------------------------------


# 4 x 4, 4 x 4 and 4 x 2 weights. With a and b units of the two groups: 4a + ab + 2b parameters.
def three() -> Fitter:
    inputs = K.Input((4,))
    x = K.Dense(4, use_bias=False, name="second")(K.Dense(4, use_bias=False, name="first")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2, use_bias=False, name="last")(x))
    graph = tq.ChannelGraph(model)
    scores = {group.name: np.arange(group.size) for group in graph.groups}
    return Fitter(graph, scores, tq.Budget(params=20))


# a = 2, b = 3 costs 8 + 6 + 6 = 20; a = 1, b = 4 costs 4 + 4 + 8 = 16, 20 % below what is allowed.
def test_landing_by_hand() -> None:
    fitter = three()
    assert land(fitter, {"first": 3, "second": 0}) == {"first": 2, "second": 1}
    assert land(fitter, {"first": 2, "second": 1}) == {"first": 2, "second": 1}
    assert binding(fitter, {"first": 2, "second": 1}) == ["params"]


# The binary network has three groups, of 16, 32 and 64 units: nothing that it can lose is nearer to both targets.
def test_lands_on_the_nearest_that_three_groups_allow() -> None:
    model = zoo.build("resnet_digits", precision="binary", input_shape=(8, 8, 1), classes=10)
    graph = tq.ChannelGraph(model)
    scores = {group.name: np.arange(group.size) for group in graph.groups}
    fitter = Fitter(graph, scores, tq.Budget(params=0.5, macs=0.5))
    gone = np.array(list(itertools.product(*(range(graph[name].size) for name in fitter.names))))
    ratios = gone / [graph[name].size for name in fitter.names]
    alone = [Fitter(graph, scores, tq.Budget(**{name: 0.5})) for name in ("params", "macs")]
    loads = np.stack([RelaxedBudget(one, {}).loads(ratios) for one in alone])
    lowest = np.where((loads <= 1 + 1e-9).all(axis=0), loads.min(axis=0), 0).max()
    landed = fitter.counted(land(fitter, fitter.project(dict.fromkeys(fitter.names, 1.0)).counts))
    assert min(landed[name] / limit for name, limit in fitter.limits.limits.items()) == pytest.approx(lowest)
    assert lowest < 0.99  # so 1 % below is more than these units allow


# Four groups, with more than 5,000 counts within reach; exchanges between pairs alone end up to 1 % lower, here.
def test_lands_where_no_exchange_of_two_helps() -> None:
    x = inputs = K.Input((16, 16, 3))
    for filters, pool in ((16, 1), (16, 2), (32, 1), (32, 2)):
        x = K.BatchNormalization()(K.Conv2D(filters, 3, padding="same", activation="relu")(x))
        x = K.MaxPooling2D(pool)(x)
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(10)(K.Flatten()(x))))
    scores = {group.name: np.arange(group.size) for group in graph.groups}
    for macs, seed in ((0.4, 0), (0.4, 6), (0.5, 2), (0.5, 7), (0.5, 10)):
        fitter = Fitter(graph, scores, tq.Budget(params=0.5, macs=macs))
        wanted = np.random.default_rng(seed).uniform(0.4, 1, len(fitter.names))
        start = fitter.project(dict(zip(fitter.names, wanted, strict=True))).counts
        landed = land(fitter, start)
        assert fitter.holds(landed)
        assert min(fitter.counted(landed)[name] / limit for name, limit in fitter.limits.limits.items()) >= 0.99
        assert land(fitter, start) == landed


def test_says_which_target_binds() -> None:
    model = network("float")
    hfp = compiled(model, tq.Budget(params=0.9, macs=0.3))
    inputs, labels = samples_for(model)
    with pytest.warns(UserWarning, match=r"can be reached together\. Received: macs binds, and params ends at"):
        hfp.fit(inputs[0], labels, batch_size=4, epochs=6, verbose=0)
    plan = hfp.plan()
    assert plan.notes["binding"] == ["macs"]
    assert tq.cost(model, plan).macs <= 0.3 * tq.cost(model).macs


def test_refused() -> None:
    model, budget = network("float"), tq.Budget(params=0.5)
    with pytest.raises(PlanError, match="gate to be one of hard, soft"):
        tq.HolisticPruning(model, budget, "latent_l1", gate="smooth")
    with pytest.raises(PlanError, match="'second', whose channels pass none"):
        tq.HolisticPruning(model, budget, "latent_l1", values="scales")
    with pytest.raises(PlanError, match="beside a start"):
        tq.HolisticPruning(model, budget, values="scales", start=tq.make_plan(model, 0.5, "latent_l1"))
    with pytest.raises(PlanError, match="Expected scores for group 'second'"):
        tq.HolisticPruning(model, budget, scores={"first": np.zeros(8)})
    with pytest.raises(DataError, match="epochs to be a whole number of at least 1"):
        tq.HolisticAllocator(budget, epochs=0)
    with pytest.raises(DataError, match="learning_rate"):
        tq.HolisticAllocator(budget, learning_rate=0.0)
    with pytest.raises(DataError, match="batch_size"):
        tq.HolisticAllocator(budget, batch_size=0)
    with pytest.raises(BudgetError, match="must be measured"):
        tq.HolisticAllocator(tq.Budget(latency=0.5))
    with pytest.raises(DataError, match="data with labels, for holistic ratios are learned"):
        tq.HolisticAllocator(budget).allocate(model, "latent_l1")


# -- as an allocator, and on several devices --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected targets", "ignore:Expected at least")
class TestHolistic(AllocatorConformance):
    networks = ("float",)

    def make_allocator(self, budget: tq.Budget) -> Allocator:
        return tq.HolisticAllocator(budget, epochs=2, batch_size=8)

    def allocate(self, model: tf.keras.Model, budget: tq.Budget, **options: Any) -> tq.PruningPlan:
        inputs, labels = samples_for(model)
        logits = model.layers[-1].activation is tf.keras.activations.linear
        model.loss = tf.keras.losses.SparseCategoricalCrossentropy(logits)
        return super().allocate(model, budget, data=(inputs[0], labels), **options)


def test_allocator_keeps_what_trained() -> None:
    model = network("float")
    inputs, labels = samples_for(model)
    allocator = tq.HolisticAllocator(tq.Budget(params=0.6), epochs=4, batch_size=4)
    plan = allocator.allocate(model, "latent_l1", (inputs[0], labels))
    assert plan.removed == allocator.pruning.plan().removed
    assert plan.notes["allocator"] == "holistic"
    assert plan.notes["steps"] == 24
    slim = allocator.pruning.finish()
    np.testing.assert_allclose(slim(inputs[0]), allocator.pruning(inputs[0]), rtol=1e-4, atol=1e-5)


def test_excluded_stays_whole() -> None:
    model = network("float")
    inputs, labels = samples_for(model)
    allocator = tq.HolisticAllocator(tq.Budget(params=0.8), epochs=4, batch_size=4)
    plan = allocator.allocate(model, "latent_l1", (inputs[0], labels), exclude=(name for name in ["first"]))
    assert set(plan.removed) == {"second"}
    for excluded in ("first", (name for name in ["first"])):
        hfp = tq.HolisticPruning(model, tq.Budget(params=0.8), "latent_l1", exclude=excluded)
        assert not hfp._gates.free.numpy()[hfp.graph.units_of(hfp.graph["first"])].any()


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(tmp_path: Path) -> None:
    process = Process(tmp_path, "holistic", script=Path(__file__).with_name("holistic_script.py"))
    with ended([process]):
        process.succeed()
    for line in ("replicas 2", "holds True", "steps 40 40", "same plan True", "as trained True", "as one device True"):
        assert line in process.text
