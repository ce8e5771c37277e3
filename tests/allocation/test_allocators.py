"""The allocators: the suite for all of them, and each by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras_tuner
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.allocation import Allocator, SensitivityCurves, allocator_names, get_allocator, register_allocator
from tfqprune.allocation.base import unscored
from tfqprune.allocation.curves import measure
from tfqprune.allocation.identity import model_digest
from tfqprune.errors import ActivationError, BudgetError, DataError, EvaluationError, OutputError, PlanError
from tfqprune.evaluation import PlanEvaluator
from tfqprune.fitting import Fitter
from tfqprune.testing import AllocatorConformance
from tfqprune.testing.criteria import network

K = tf.keras.layers


class TestUniform(AllocatorConformance):
    def make_allocator(self, budget: tq.Budget) -> Allocator:
        return tq.UniformAllocator(budget)


class TestSensitivity(AllocatorConformance):
    networks = ("float", "dorefa_residual")

    def make_allocator(self, budget: tq.Budget) -> Allocator:
        # Made-up curves: the first group loses a tenth at every rung, the others half as much each.
        curves = SensitivityCurves(baseline=1.0)
        for number, name in enumerate(("first", "second", "inner", "outer")):
            curves.ratios[name] = [0.25, 0.5, 0.75]
            curves.values[name] = [1 - 0.1 / 2**number * rung for rung in (1, 2, 3)]
        return tq.SensitivityAllocator(budget, curves=curves)


class TestBayesian(AllocatorConformance):
    networks = ("dorefa_residual",)  # each budget of each network is a search, with twins to trace
    budgets = ({"params": 0.5, "macs": 0.6},)

    def make_allocator(self, budget: tq.Budget) -> Allocator:
        samples = noise()
        return tq.BayesianAllocator(budget, validation=samples, train=samples, max_trials=3, num_random=1, verbose=0)


def test_the_tuner_outlives_the_search() -> None:
    allocator = tq.BayesianAllocator(tq.Budget(memory=0.8), validation=noise(), train=noise(), max_trials=1, verbose=0)
    plan = allocator.allocate(network("dorefa_residual"), "latent_l1")
    tuner = allocator.tuner
    assert [own.removed for own in tuner.get_front_plans()] == [plan.removed]
    assert tq.cost(tuner.get_best_models()[0]).memory == plan.notes["costs"]["memory"]


def test_costs_that_cannot_be_counted_are_not_written(tmp_path: Path) -> None:
    image = K.Input((None, None, 3))
    features = K.GlobalAveragePooling2D()(K.Conv2D(8, 3, name="first")(image))
    model = tf.keras.Model(image, K.Dense(2)(features))
    plan = tq.UniformAllocator(tq.Budget(memory=0.6)).allocate(model, "latent_l1")
    assert plan.notes["costs"].keys() >= {"params", "memory"}
    assert not plan.notes["costs"].keys() & {"macs", "bops"}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(plan.save(tmp_path / "plan.json").read_text(), parse_constant=refuse)


def noise() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels for the networks of the suite."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 6, 6, 3)).astype("float32"), rng.integers(0, 4, 16)


def test_registry() -> None:
    assert {"bayesian", "holistic", "sensitivity", "uniform"} <= set(allocator_names())
    assert get_allocator("uniform") is tq.UniformAllocator
    with pytest.raises(BudgetError, match=r"one of bayesian, holistic, .*uniform"):
        get_allocator("unifrom")
    with pytest.raises(ValueError, match="a name that is free"):

        @register_allocator("uniform")
        class Other(Allocator):
            def fit(self, model, fitter):
                return fitter.fit(lambda ratio: {})


def test_excludes_by_one_name_and_by_names_that_are_read_once() -> None:
    for excluded in ("inner", (name for name in ["inner"])):
        plan = tq.UniformAllocator(tq.Budget(memory=0.8)).allocate(
            network("dorefa_residual"), "latent_l1", exclude=excluded
        )
        assert set(plan.removed) == {"first"}


def test_budget_of_another_type() -> None:
    with pytest.raises(BudgetError, match=r"as in Budget\(memory=0.5\)"):
        tq.UniformAllocator(0.5)


def test_plan_says_where_it_comes_from(tmp_path: Path) -> None:
    plan = tq.UniformAllocator(tq.Budget(memory=0.6)).allocate(network("dorefa_residual"), "latent_l1")
    assert plan.criterion == "latent_l1"
    assert plan.notes["allocator"] == "uniform"
    assert plan.notes["budget"] == {"memory": 0.6}
    assert plan.notes["costs"]["memory"] == tq.cost(network("dorefa_residual"), plan).memory
    assert tq.PruningPlan.load(plan.save(tmp_path / "plan.json")).removed == plan.removed


def test_layer_and_group_names_mean_the_same() -> None:
    # "outer" is added to "first": they are one group.
    model = network("dorefa_residual")
    allocator = tq.UniformAllocator(tq.Budget(memory=0.8))
    assert allocator.allocate(model, exclude=["outer"]).removed == allocator.allocate(model, exclude=["first"]).removed


# -- identity ---------------------------------------------------------------------------------


def nameless(
    activation: str = "relu",
    bits: int = 2,
    factor: float = 2.0,
    shift: float = 1.0,
    skip: bool = True,
    size: int = 6,
    last: Callable = tf.nn.relu,
) -> tf.keras.Model:
    """A network whose names are all Keras's own, with calls of every kind; the same weights, whatever is asked for."""
    image = K.Input((size, size, 3))
    x = K.Conv2D(4, 3, padding="same", activation=activation)(image)
    inner = tf.keras.Sequential(
        [
            lq.layers.QuantConv2D(4, 3, padding="same", kernel_quantizer=lq.quantizers.DoReFa(bits, mode="weights")),
            K.Lambda(lambda y: last(y) + shift),
        ]
    )
    y = tf.nn.relu(inner(inner(x))) * factor
    y = K.Add()([y, x if skip else y])[:, 1:]
    model = tf.keras.Model(image, K.Dense(2)(tf.reduce_mean(tf.cast(y, tf.float32), [1, 2])))
    model.set_weights([np.full(weight.shape, 0.5, "float32") for weight in model.get_weights()])
    return model


def digest(model: tf.keras.Model) -> str:
    return model_digest(tq.ChannelGraph(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "tanh"},
        {"bits": 4},
        {"factor": 3.0},
        {"shift": 2.0},
        {"skip": False},
        {"size": 8},
        {"last": tf.nn.tanh},
    ],
)
def test_digest_changes_with_what_is_computed(changes: dict) -> None:
    tf.keras.backend.reset_uids()
    one = nameless()
    tf.keras.backend.reset_uids()
    other = nameless(**changes)
    assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    assert [weight.shape for weight in one.weights] == [weight.shape for weight in other.weights]
    assert digest(one) != digest(other)


def test_digest_is_that_of_the_same_model_built_again() -> None:
    first, again = nameless(), nameless()
    assert first.layers[1].name != again.layers[1].name  # conv2d_1, conv2d_2
    assert digest(first) == digest(again)
    again.layers[1].kernel.assign_add(tf.ones_like(again.layers[1].kernel))
    assert digest(first) != digest(again)
    # In another process strings have other hashes and objects other addresses.
    script = "import tfqprune, test_allocators as own; print(own.digest(own.nameless()))"
    here = Path(__file__)
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": f"{here.parents[2]}{os.pathsep}{here.parent}"}
    other = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(first)


def test_digest_of_a_layer_without_a_config() -> None:
    class Doubled(K.Layer):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return x * self.factor

    image = K.Input((3,))
    assert digest(tf.keras.Model(image, Doubled(2.0)(image))) == digest(tf.keras.Model(image, Doubled(2.0)(image)))


# -- bayesian ---------------------------------------------------------------------------------


def test_best_trial_becomes_the_plan(tmp_path: Path) -> None:
    model, (x, y) = network("dorefa_residual"), noise()
    allocator = tq.BayesianAllocator(
        tq.Budget(memory=0.8), validation=(x, y), max_trials=4, directory=tmp_path, verbose=0
    )
    plan = allocator.allocate(model, "latent_l1", x)
    assert plan.notes["allocator"] == "bayesian"
    assert plan.criterion == "latent_l1"
    records = allocator.tuner.records()
    best = max(records, key=lambda record: record.value)
    assert (plan.notes["trial"], plan.notes["value"]) == (best.trial, best.value)
    assert {name: plan.ratios[name] for name in best.ratios} == best.ratios
    # Another allocator takes the search up where it ended: with no trials left, it has the same result.
    again = tq.BayesianAllocator(tq.Budget(memory=0.8), validation=(x, y), max_trials=4, directory=tmp_path, verbose=0)
    assert again.allocate(model, "latent_l1", x).removed == plan.removed
    with pytest.raises(OutputError, match="levels changed"):
        again.allocate(model, "latent_l1", x, exclude=["inner"])


def test_bayesian_needs_data() -> None:
    with pytest.raises(DataError, match="train="):
        tq.BayesianAllocator(tq.Budget(memory=0.7), validation=noise()).allocate(
            network("dorefa_residual"), "latent_l1"
        )


# -- sensitivity ------------------------------------------------------------------------------


def test_ratio_at_a_loss_by_hand() -> None:
    curves = SensitivityCurves(
        baseline=0.9, ratios={"a": [0.2, 0.4, 0.6], "b": [0.5]}, values={"a": [0.9, 0.8, 0.85], "b": [float("nan")]}
    )
    # Losses of a: 0 to 0.2, then 0.1 at 0.4 and, as it never falls, at 0.6.
    assert curves.losses("a")[1].tolist() == pytest.approx([0, 0, 0.1, 0.1])
    assert curves.ratio_at("a", 0.0) == pytest.approx(0.2)
    assert curves.ratio_at("a", 0.05) == pytest.approx(0.3)
    assert curves.ratio_at("a", 0.2) == pytest.approx(0.6)
    # b broke down at its only rung: nothing is known in between, so it stays whole.
    assert curves.ratio_at("b", 10.0) == 0.0
    family = curves.family(["a", "b"])
    assert family(0.5) == {"a": pytest.approx(0.3), "b": 0.0}


def test_sensitive_group_stays_whole() -> None:
    model = network("float")
    calls = []

    def evaluate(twin: tf.keras.Model) -> float:
        """Accuracy falls with the units that "first" has lost; what the others lose does not matter."""
        kernel = twin.get_layer("second").kernel.numpy()  # (3, 3, first, second)
        calls.append(1)
        return float(np.count_nonzero(np.abs(kernel).sum(axis=(0, 1, 3))) / 8)

    allocator = tq.SensitivityAllocator(tq.Budget(params=0.8), evaluate=evaluate, ladder=(0.25, 0.5))
    plan = allocator.allocate(model, "latent_l1")
    assert set(plan.removed) == {"second"}
    assert allocator.curves.baseline == 1.0
    assert allocator.curves.values == {"first": [0.75, 0.5], "second": [1.0, 1.0]}
    assert len(calls) == 5  # the whole model, two groups at two rungs
    assert plan.notes["baseline"] == 1.0


def test_cut_that_breaks_the_model_down_is_not_taken() -> None:
    model = network("float")
    x = noise()[0]

    def evaluate(twin: tf.keras.Model) -> float:
        """Re-estimates batch norms on values that overflow as soon as "first" has lost a unit."""
        kernel = twin.get_layer("second").kernel.numpy()  # (3, 3, first, second)
        whole = np.abs(kernel).sum(axis=(0, 1, 3)).all()
        tq.reestimate_batch_norms(twin, x if whole else x * np.float32(1e30))
        return 1.0

    allocator = tq.SensitivityAllocator(tq.Budget(params=0.8), evaluate=evaluate, ladder=(0.25, 0.5))
    plan = allocator.allocate(model, "latent_l1")
    assert np.isnan(allocator.curves.values["first"]).all()
    assert set(plan.removed) == {"second"}
    with pytest.raises(ActivationError, match="at batch norm"):  # the whole model
        tq.SensitivityAllocator(tq.Budget(params=0.8), validation=noise(), calibration=x * 1e30).allocate(model)


def test_curves_are_measured_once(tmp_path: Path) -> None:
    model, path = network("float"), tmp_path / "curves.json"
    calls = []

    def evaluate(twin: tf.keras.Model) -> float:
        calls.append(1)
        return 0.5

    def allocate(memory: float) -> tq.PruningPlan:
        allocator = tq.SensitivityAllocator(tq.Budget(memory=memory), evaluate=evaluate, path=path)
        return allocator.allocate(model, "latent_l1")

    allocate(0.8)
    first = len(calls)
    # The whole model; of the six rungs, 8 units lose 1, 2, 3, 4, 6 and 7, and 6 units 0 (left out), 1, 2, 3, 4 and 5.
    assert first == 1 + 6 + 5
    allocate(0.5)
    assert len(calls) == first
    curves = SensitivityCurves.load(path)
    assert SensitivityCurves.load(curves.save(tmp_path / "copy.json")) == curves
    with pytest.raises(OutputError, match=r"file with sensitivity curves\. Received: '.*none\.json'.*No such file"):
        SensitivityCurves.load(tmp_path / "none.json")
    with pytest.raises(OutputError, match="place where sensitivity curves can be written"):
        curves.save(tmp_path / "none" / "curves.json")
    assert curves.plot(tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "bounds", "changed"),
    [
        ({"ladder": (0.25, 0.5)}, {}, "ladder"),
        ({}, {"maximum": 0.5}, "levels"),
        ({}, {"align": 2}, "levels"),
        ({"calibration_samples": 8}, {}, "calibration samples"),
        ({"calibration": noise()[0][:8]}, {}, "calibration"),
        ({}, {"name": "dorefa_residual"}, "model, scores, levels"),
    ],
)
def test_curves_of_something_else_are_neither_used_nor_lost(
    tmp_path: Path, options: dict, bounds: dict, changed: str
) -> None:
    path, calls = tmp_path / "curves.json", []

    def allocate(options: dict, name: str = "float", **bounds) -> None:
        options = {"ladder": (0.5,), "evaluate": lambda twin: calls.append(twin) or 1.0, **options}
        allocator = tq.SensitivityAllocator(tq.Budget(memory=0.8), path=path, **options)
        allocator.allocate(network(name), "latent_l1", noise()[0], **bounds)

    allocate({})
    before = path.read_bytes()
    calls.clear()
    with pytest.raises(OutputError, match=f"begun with. Received: {changed} changed. Choose another path"):
        allocate(options, **bounds)
    assert not calls
    assert path.read_bytes() == before


def test_first_samples_of_a_data_set_belong_to_the_curves(tmp_path: Path) -> None:
    def allocate(shift: float) -> None:
        data = tf.data.Dataset.from_tensor_slices(noise()[0] + shift).batch(8)
        allocator = tq.SensitivityAllocator(
            tq.Budget(memory=0.8), lambda twin: 1.0, calibration=data, ladder=(0.5,), path=tmp_path / "curves.json"
        )
        allocator.allocate(network("float"), "latent_l1")

    allocate(0)
    allocate(0)
    with pytest.raises(OutputError, match="Received: calibration changed"):
        allocate(1)


def test_metric_of_a_plan_evaluator_belongs_to_its_curves(tmp_path: Path) -> None:
    model = network("float")
    evaluator = PlanEvaluator(tq.ChannelGraph(model), noise())

    def curves(metric: str, name: str) -> SensitivityCurves:
        allocator = tq.SensitivityAllocator(
            tq.Budget(memory=0.8), evaluator, metric=metric, ladder=(0.5,), path=tmp_path / name
        )
        allocator.allocate(model, "latent_l1")
        return allocator.curves

    assert curves("accuracy", "a.json").baseline == evaluator({})["accuracy"]
    with pytest.raises(OutputError, match="metric changed"):
        curves("loss", "a.json")
    assert curves("loss", "b.json").baseline == -evaluator({})["loss"]


@pytest.mark.parametrize(
    ("metric", "name", "sign"),
    [
        ("mae", "mae", -1),
        ("binary_accuracy", "binary_accuracy", 1),
        (keras_tuner.Objective("val_mine", "min"), "mine", -1),
    ],
)
def test_the_way_a_metric_goes(metric: object, name: str, sign: int) -> None:
    def mine(labels: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(values) + 1

    model = tf.keras.models.clone_model(network("float"))  # the network itself is for all tests
    model.compile("sgd", "mse", ["mae", "binary_accuracy", mine])
    x = noise()[0]
    data = x, np.round(np.random.default_rng(1).random((len(x), model.output_shape[-1])))
    evaluator = PlanEvaluator(tq.ChannelGraph(model), data)
    allocator = tq.SensitivityAllocator(tq.Budget(memory=0.8), evaluator, metric=metric, ladder=(0.5,))
    allocator.allocate(model, "latent_l1")
    assert allocator.curves.baseline == sign * evaluator({})[name] != 0
    with pytest.raises(PlanError, match=r"keras_tuner.Objective\('val_mine', 'max'\)"):
        tq.SensitivityAllocator(tq.Budget(memory=0.8), evaluator, metric="mine")


def test_a_meter_measures_for_several_allocators() -> None:
    model, measured = network("float"), []

    def device(slim: tf.keras.Model) -> float:
        measured.append(slim)
        return 100.0 / len(measured)  # another reading each time

    budget = tq.Budget(latency=0.5, measure_latency=device)
    graph = tq.ChannelGraph(model)
    fitter = Fitter(graph, unscored(graph), budget)
    for allocator in (tq.UniformAllocator(budget), tq.SlimmingAllocator(budget)):
        plan = allocator.allocate(model, "latent_l1", meter=fitter.meter)
        assert plan.notes["costs"]["latency"] <= 50  # half of what was read at first
    assert [slim.count_params() for slim in measured].count(model.count_params()) == 1
    for other in (tq.Budget(latency=0.6, measure_latency=device), tq.Budget(memory=0.5)):
        with pytest.raises(BudgetError, match="Expected a meter of this model and of"):
            tq.UniformAllocator(other).allocate(model, meter=fitter.meter)
    with pytest.raises(BudgetError, match="Expected a meter of this model and of"):
        tq.UniformAllocator(budget).allocate(network("dorefa_residual"), meter=fitter.meter)


def test_path_of_curves_is_looked_at_first(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "curves.json", tmp_path):
        with pytest.raises(OutputError, match="in a folder that exists"):
            tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=len, path=path)


def test_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    model, path = network("float"), tmp_path / "curves.json"
    graph = tq.ChannelGraph(model)
    scores = {group.name: np.arange(group.size) for group in graph.groups}
    fitter = Fitter(graph, scores, tq.Budget(memory=0.5))
    seen = []

    def evaluate(removed):
        if "second" in removed and len(seen) < 4:
            raise KeyboardInterrupt
        seen.append(dict(removed))
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        measure(SensitivityCurves(), fitter, evaluate, (0.25, 0.5), path)
    assert list(SensitivityCurves.load(path).values) == ["first"]
    seen.append({})
    measure(SensitivityCurves.load(path), fitter, evaluate, (0.25, 0.5), path)
    assert [list(removed) for removed in seen[4:]] == [["second"], ["second"]]


@pytest.mark.parametrize("nonsense", ["good", None, [0.5, 0.5], {"accuracy": 0.5}, True])
def test_evaluate_must_return_a_number(nonsense: object) -> None:
    allocator = tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=lambda model: nonsense)
    with pytest.raises(EvaluationError, match="Expected evaluate to return a number"):
        allocator.allocate(network("float"), "latent_l1")


def test_whole_model_must_have_a_value() -> None:
    allocator = tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=lambda model: float("nan"))
    with pytest.raises(EvaluationError, match="finite value for the whole model"):
        allocator.allocate(network("float"), "latent_l1")


def test_one_source_of_sensitivity() -> None:
    with pytest.raises(EvaluationError, match="one of evaluate"):
        tq.SensitivityAllocator(tq.Budget(memory=0.5))
    with pytest.raises(EvaluationError, match="2 of them"):
        tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=len, curves=SensitivityCurves())
    with pytest.raises(EvaluationError, match="function of a model"):
        tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=0.5)
    with pytest.raises(PlanError, match="between 0 and 1"):
        tq.SensitivityAllocator(tq.Budget(memory=0.5), evaluate=len, ladder=(0.5, 1.0))
    with pytest.raises(PlanError, match="curves for all groups"):
        tq.SensitivityAllocator(tq.Budget(memory=0.5), curves=SensitivityCurves(baseline=1.0)).allocate(
            network("float"), "latent_l1"
        )


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", json.dumps({"tfqprune_sensitivity": 99})):
        (tmp_path / "curves.json").write_text(content)
        with pytest.raises(OutputError, match="written by SensitivityCurves"):
            SensitivityCurves.load(tmp_path / "curves.json")
