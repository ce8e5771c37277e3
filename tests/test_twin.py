"""The evaluation twin computes what the slim model computes, with and without new batch-norm statistics."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.errors import ActivationError, DataError, EvaluationError, ModelTypeError, PlanError
from tfqprune.evaluation import PlanEvaluator, set_statistics, with_accuracy
from tfqprune.recovery import reestimate_batch_norms
from tfqprune.testing import random_plan, shake
from tfqprune.testing.criteria import NETWORKS, network, samples_for
from tfqprune.testing.law import random_inputs
from tfqprune.twin import EvaluationTwin, obstacle

K = tf.keras.layers


def fed(model: tf.keras.Model, arrays: list[np.ndarray]):
    return arrays if len(arrays) > 1 else arrays[0]


def assert_close(ours, theirs, tolerance: float = 1e-5) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


QUANTISERS = {
    "dorefa3": lambda: lq.quantizers.DoReFa(3, mode="weights"),
    "twn": lambda: lq.quantizers.SteTern(ternary_weight_networks=True),
    "magnitude_aware": lambda: lq.quantizers.MagnitudeAwareSign(),
}


def tensor_wide(quantizer) -> tf.keras.Model:
    """Quantised conv 6 -> quantised depthwise -> batch norm -> quantised separable 4 -> batch norm -> dense."""
    image = K.Input((6, 6, 3))
    x = lq.layers.QuantConv2D(6, 3, kernel_quantizer=quantizer(), name="one")(image)
    x = lq.layers.QuantDepthwiseConv2D(3, depthwise_quantizer=quantizer(), padding="same", name="two")(x)
    x = K.BatchNormalization(scale=False)(x)
    x = lq.layers.QuantSeparableConv2D(
        4, 3, depthwise_quantizer=quantizer(), pointwise_quantizer=quantizer(), name="three"
    )(x)
    x = K.Dropout(0.5)(K.BatchNormalization(center=False)(x))
    return shake(tf.keras.Model(image, K.Dense(3)(K.Flatten()(x))))


@pytest.mark.parametrize("name", [*NETWORKS, *QUANTISERS])
def test_computes_what_the_slim_model_computes(name: str) -> None:
    model = network(name) if name in NETWORKS else tensor_wide(QUANTISERS[name])
    graph = tq.ChannelGraph(model)
    twin = EvaluationTwin(graph)
    inputs = fed(model, random_inputs(model, batch=8))
    for seed in (1, 2):
        plan = random_plan(graph, 0.5, seed)
        slim = tq.prune(model, plan)
        twin.set_plan(plan.removed)
        assert_close(twin(inputs), slim(inputs, training=False))
        twin.re_estimate([inputs, inputs])
        reestimate_batch_norms(slim, inputs, batches=1, batch_size=8)
        assert_close(twin(inputs), slim(inputs, training=False))
    # Another plan begins with the original's statistics again, and nothing of the last one stays.
    twin.set_plan({})
    assert_close(twin(inputs), model(inputs, training=False))


def test_statistics_over_several_batches() -> None:
    model = network("binary_residual")
    graph = tq.ChannelGraph(model)
    plan = random_plan(graph, 0.3)
    x = samples_for(model)[0][0]
    evaluator = PlanEvaluator(graph, (x, np.zeros(24, int)), x)
    slim = reestimate_batch_norms(tq.prune(model, plan), x)
    assert_close(evaluator.model(plan.removed)(x), slim(x), 1e-4)


def test_re_estimated_by_the_public_function() -> None:
    """On the twin's model it does what the twin's own method does, and what it does to the slim model."""
    model = network("dorefa_residual")
    graph = tq.ChannelGraph(model)
    plan, (x,) = random_plan(graph, 0.4), samples_for(model)[0]
    twin = tq.EvaluationTwin(graph)
    twin.set_plan(plan)
    twin.re_estimate([x[:16], x[16:]])
    own = twin.statistics()
    twin.set_plan(plan)
    others = {weight.name: weight.numpy() for weight in twin.model.weights if "moving" not in weight.name}
    assert tq.reestimate_batch_norms(twin.model, x, batch_size=16) is twin.model
    for name, values in twin.statistics().items():
        np.testing.assert_allclose(values[0], own[name][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values[1], own[name][1], rtol=1e-4, atol=1e-5)
    for weight in twin.model.weights:
        np.testing.assert_array_equal(weight.numpy(), others.get(weight.name, weight.numpy()))
    slim = tq.reestimate_batch_norms(tq.prune(model, plan), x, batch_size=16)
    assert_close(twin(x), slim(x), 1e-4)
    # The next plan begins with the original's statistics, whoever changed them.
    twin.set_plan({})
    assert_close(twin(x), model(x))
    with pytest.raises(ModelTypeError, match=r"Received: an object of type EvaluationTwin.* attribute `model`"):
        tq.reestimate_batch_norms(twin, x)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_called_in_a_mode_of_its_own(mode: bool, trainable: bool) -> None:
    inputs = K.Input((6,))
    x = K.BatchNormalization(trainable=trainable)(K.Dense(8)(inputs), mode)  # by position
    model = shake(tf.keras.Model(inputs, K.Dense(2)(x)))
    graph, values = tq.ChannelGraph(model), random_inputs(model, batch=16)[0]
    plan, twin = random_plan(graph, 0.5), EvaluationTwin(graph)
    twin.set_plan(plan)
    before = twin.statistics()
    assert_close(twin(values), tq.prune(model, plan)(values, training=False))
    for name, statistics in twin.statistics().items():
        np.testing.assert_array_equal(statistics, before[name])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_batch_norms_of_other_precision(policy: str) -> None:
    image = K.Input((4, 4, 3))
    norm = K.BatchNormalization(dtype=tf.keras.mixed_precision.Policy(policy))
    model = shake(tf.keras.Model(image, K.Flatten(dtype="float32")(norm(K.Conv2D(4, 3)(image)))))
    twin = EvaluationTwin(model)
    inputs = random_inputs(model, batch=8)[0]
    # bfloat16 has 8 bits of mantissa: the last one is worth 2^-8 of a value.
    assert_close(twin(inputs), model(inputs), 2**-8)
    twin.re_estimate([inputs])
    assert_close(twin(inputs), tq.reestimate_batch_norms(model, inputs)(inputs), 2**-7)


class NormRelu(K.BatchNormalization):
    """More than a batch norm."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.nn.relu(super().call(inputs, training=training))


def with_norm(norm: type[tf.keras.layers.Layer]) -> tf.keras.Model:
    """Conv 6 -> the batch norm -> conv 4 -> one of Keras's own -> dense 3."""
    image = K.Input((6, 6, 3))
    x = K.Conv2D(4, 3, name="two")(norm(name="norm")(K.Conv2D(6, 3, name="one")(image)))
    return shake(tf.keras.Model(image, K.Dense(3)(K.Flatten()(K.BatchNormalization(name="own")(x)))))


@pytest.mark.parametrize(
    ("norm", "known"), [(NormRelu, False), (tf.compat.v1.keras.layers.BatchNormalization, True)], ids=["own", "v1"]
)
def test_batch_norms_are_those_whose_handler_knows_them(norm: type, known: bool) -> None:
    """A user's own is left alone, in the twin as in the slim model; one of TensorFlow 1 takes new statistics."""
    model = with_norm(norm)
    graph, x = tq.ChannelGraph(model), random_inputs(model, batch=8)[0]
    evaluator = PlanEvaluator(graph, (x, np.eye(3)[np.zeros(8, int)]), x, loss="mse")
    twin = EvaluationTwin(graph)
    assert_close(twin(x), model(x))
    assert ("norm" in twin.statistics()) == known
    plan = tq.make_plan(model, {"one": 0.5}, "latent_l1")
    slim = tq.prune(model, plan)
    _, statistics = evaluator.evaluate(plan)
    set_statistics(graph, slim, statistics)
    assert_close(evaluator.model(plan)(x), slim(x))


@pytest.mark.parametrize("trainable", [True, False])
def test_batch_norm_of_tensorflow_1_called_as_in_training(trainable: bool) -> None:
    inputs = K.Input((6,))
    x = tf.compat.v1.keras.layers.BatchNormalization(trainable=trainable)(K.Dense(8)(inputs), True)
    model = shake(tf.keras.Model(inputs, K.Dense(2)(x)))
    values = random_inputs(model, batch=16)[0]
    assert_close(EvaluationTwin(model)(values), model(values, training=False))


def test_the_twin_is_a_model_like_any_other() -> None:
    twin = EvaluationTwin(with_norm(K.BatchNormalization)).model
    plan, x = random_plan(tq.ChannelGraph(twin), 0.5), random_inputs(twin, batch=4)[0]
    assert any(plan.removed.values())
    assert_close(tq.prune(twin, plan)(x), tq.mask(twin, plan)(x))


def exploding() -> tf.keras.Model:
    """Conv 4 -> exp -> batch norm -> dense 3: large inputs overflow on the way."""
    image = K.Input((6, 6, 3))
    x = K.Activation("exponential")(K.Conv2D(4, 3, name="one")(K.BatchNormalization(name="first")(image)))
    return tf.keras.Model(image, K.Dense(3, activation="softmax")(K.Flatten()(K.BatchNormalization(name="bn")(x))))


def test_activations_that_are_not_finite_are_named() -> None:
    model = exploding()
    model.get_layer("one").kernel.assign_add(tf.fill((3, 3, 3, 4), 1e3))
    graph = tq.ChannelGraph(model)
    x, y = random_inputs(model, batch=8)[0], np.zeros(8, int)
    with pytest.raises(ActivationError, match="NaN or infinity at batch norm 'bn'"):
        PlanEvaluator(graph, (x, y), x)({})
    twin = EvaluationTwin(graph)
    before = twin.statistics()
    with pytest.raises(DataError, match="NaN or infinity at batch norm 'bn'"):
        twin.re_estimate([x])
    for name, values in twin.statistics().items():  # those of "first", too, which were sound
        np.testing.assert_array_equal(values, before[name])


def test_re_estimation_needs_a_batch() -> None:
    twin = EvaluationTwin(network("float"))
    before = twin.statistics()
    for batches in ([], iter(())):
        with pytest.raises(DataError, match="at least one batch"):
            twin.re_estimate(batches)
    for name, values in twin.statistics().items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"nine": (0,)}, "'nine', a group that the model does not have"),
        ({"one": (6,)}, "slots from 0 to 5 for group 'one'"),
        ({"one": (0.5,)}, "whole slot numbers"),
        ({"one": tuple(range(6))}, "removes all 6 units of group 'one'"),
        ([("one", (0,))], "Expected a PruningPlan, or its `removed`"),
    ],
)
@pytest.mark.parametrize(
    "make", [lambda: tensor_wide(QUANTISERS["dorefa3"]), lambda: normed()], ids=["twin", "no_twin"]
)
def test_plans_are_checked(plan, message: str, make) -> None:
    graph = tq.ChannelGraph(make())
    evaluator = PlanEvaluator(graph)
    assert (evaluator.twin is None) == (obstacle(graph) is not None)
    with pytest.raises(PlanError, match=message):
        evaluator.model(plan)


def test_a_plan_itself_is_taken() -> None:
    model = network("float")
    graph = tq.ChannelGraph(model)
    plan, x = random_plan(graph, 0.5), random_inputs(model, batch=4)[0]
    evaluator = PlanEvaluator(graph, (x, np.zeros(4, int)))
    assert evaluator(plan) == evaluator(plan.removed)
    twin = EvaluationTwin(graph)
    twin.set_plan(plan)
    assert_close(twin(x), tq.prune(model, plan)(x))
    with pytest.raises(PlanError, match="made for another model"):
        EvaluationTwin(network("dorefa_residual")).set_plan(plan)


def test_traced_once() -> None:
    model = network("dorefa_residual")
    graph = tq.ChannelGraph(model)
    twin = EvaluationTwin(graph)
    x = tf.constant(random_inputs(model)[0])
    for seed in range(3):
        twin.set_plan(random_plan(graph, 0.5, seed).removed)
        twin.re_estimate([x])
        twin(x)
    assert twin._forward.experimental_get_tracing_count() == 1
    assert twin._collect.experimental_get_tracing_count() == 1


def test_original_is_only_read() -> None:
    model = network("dorefa_residual")
    before = model.get_weights()
    graph = tq.ChannelGraph(model)
    twin = EvaluationTwin(graph)
    twin.set_plan(random_plan(graph, 0.5).removed)
    twin.re_estimate([random_inputs(model)[0]])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def normed() -> tf.keras.Model:
    image = K.Input((6, 6, 3))
    x = K.LayerNormalization(name="mixing")(K.BatchNormalization()(K.Conv2D(6, 3, name="one")(image)))
    model = tf.keras.Model(image, K.Dense(3, activation="softmax")(K.Flatten()(x)))
    return shake(model)


def test_what_it_cannot_do() -> None:
    graph = tq.ChannelGraph(normed())
    assert obstacle(graph) == "'mixing' takes statistics over channels that may go"
    twin = EvaluationTwin(graph)
    twin.set_plan({})
    with pytest.raises(ModelTypeError, match="'mixing' takes statistics"):
        twin.set_plan({"one": (1,)})
    image = K.Input((6, 6, 3))
    wide = lq.layers.QuantConv2D(4, 3, input_quantizer=lq.quantizers.SteTern(ternary_weight_networks=True), name="two")
    reader = tf.keras.Model(image, K.Dense(2)(K.Flatten()(wide(K.Conv2D(4, 3, name="one")(image)))))
    assert "the input quantiser of 'two'" in str(obstacle(tq.ChannelGraph(reader)))
    # A shared layer's first call mixes what may go, its last one the model's output.
    inputs, shared = K.Input((4,)), K.UnitNormalization(name="shared")
    output = shared(K.Dense(3)(shared(K.Dense(8)(inputs))))
    assert "'shared' takes statistics" in str(obstacle(tq.ChannelGraph(tf.keras.Model(inputs, output))))


@pytest.mark.parametrize("make", [lambda: network("dorefa_residual"), normed], ids=["twin", "no_twin"])
def test_evaluator_judges_the_slim_model(make) -> None:
    """Accuracy and loss are those of the slim model with re-estimated batch norms, twin or not."""
    model = make()
    graph = tq.ChannelGraph(model)
    x, y = random_inputs(model, batch=40)[0], np.random.default_rng(0).integers(0, 3, 40)
    evaluator = PlanEvaluator(graph, (x, y), x)
    assert (evaluator.twin is None) == (evaluator.reason is not None)
    plan = random_plan(graph, 0.4)
    results, statistics = evaluator.evaluate(plan.removed)
    slim = reestimate_batch_norms(tq.prune(model, plan), x)
    slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = slim.evaluate(x, y, verbose=0, return_dict=True)
    assert results["accuracy"] == pytest.approx(expected["accuracy"])
    assert results["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    norms = [layer for layer in slim.layers if isinstance(layer, K.BatchNormalization)]
    assert len(statistics) == len(norms) > 0
    for layer in norms:
        np.testing.assert_allclose(statistics[layer.name][0], layer.moving_mean.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics[layer.name][1], layer.moving_variance.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_loss_of_the_data_alone(share: float) -> None:
    """Regularisers see latent kernels of the slim model in training; the twin holds deployed ones, of all filters."""
    image = K.Input((6, 6, 3))
    options = {"kernel_regularizer": "l2", "activity_regularizer": tf.keras.regularizers.L2(0.1)}
    x = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", name="one", **options)(image)
    model = tf.keras.Model(image, K.Dense(3, activation="softmax", kernel_regularizer="l1")(K.Flatten()(x)))
    model.compile(loss="sparse_categorical_crossentropy")
    x, y = random_inputs(model, batch=20)[0], np.random.default_rng(0).integers(0, 3, 20)
    plan = tq.make_plan(model, {"one": share}, "latent_l1")
    answers = tf.keras.losses.sparse_categorical_crossentropy(y, tq.prune(model, plan)(x))
    assert PlanEvaluator(tq.ChannelGraph(model), (x, y))(plan)["loss"] == pytest.approx(np.mean(answers), rel=1e-4)
    assert len(model.losses) == 3  # the model's own stay


def test_follows_the_compiled_model() -> None:
    model = tf.keras.models.clone_model(network("float"))
    model.compile("sgd", "categorical_crossentropy", ["categorical_accuracy", tf.keras.metrics.AUC(name="area")])
    x, y = random_inputs(model, batch=8)[0], np.eye(4)[[0, 1, 2, 3] * 2]
    results = PlanEvaluator(tq.ChannelGraph(model), (x, y))({})
    assert set(results) == {"loss", "categorical_accuracy", "area", "accuracy"}
    assert results["accuracy"] == results["categorical_accuracy"]
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert results["area"] == pytest.approx(expected["area"])


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["sparse_top_k_categorical_accuracy", "sparse_categorical_accuracy"], "sparse_categorical_accuracy"),
        (["top_k_categorical_accuracy"], None),
        (["top5_accuracy"], None),
        (["left_accuracy", "right_accuracy"], None),
        (["left_accuracy", "accuracy"], "accuracy"),
        (["loss"], None),
    ],
)
def test_the_accuracy_among_several(names: list[str], meant: str | None) -> None:
    results = {name: float(number) for number, name in enumerate(names)}
    assert with_accuracy(results) == {**results, **({} if meant is None else {"accuracy": results[meant]})}


class Above(tf.keras.metrics.Mean):
    """Has an argument that its get_config() does not know."""

    def __init__(self, threshold: float, name: str = "above") -> None:
        super().__init__(name)
        self.threshold = threshold


def test_metrics_that_cannot_be_made_anew() -> None:
    model = tf.keras.models.clone_model(network("float"))
    model.compile("sgd", "sparse_categorical_crossentropy", [Above(0.5)])
    data = random_inputs(model, batch=8)[0], np.zeros(8, int)
    with pytest.raises(EvaluationError, match=r"(?s)Received: Above \('above'\), .* Give its class a get_config\(\)"):
        PlanEvaluator(tq.ChannelGraph(model), data)


def test_bad_data() -> None:
    model = network("float")
    graph = tq.ChannelGraph(model)
    x = random_inputs(model, batch=8)[0]
    with pytest.raises(DataError, match="labels"):
        PlanEvaluator(graph, x)
    with pytest.raises(DataError, match="shape"):
        PlanEvaluator(graph, (x[:, :3], np.zeros(8, int)))
    with pytest.raises(DataError, match="Expected validation data"):
        PlanEvaluator(graph)({})
