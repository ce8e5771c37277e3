"""Slim models: what they keep, and graphs of every shape."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.testing import assert_law, random_plan, shake
from tfqprune.twin import EvaluationTwin

K = tf.keras.layers


def small_residual() -> tf.keras.Model:
    """input -> conv(8) -+-> qconv(8) -> bn -> add -> pool -> dense(4)
    +-------------------->|
    """
    inputs = K.Input((8, 8, 3), name="image")
    x = K.Conv2D(8, 3, padding="same", name="stem", kernel_regularizer="l2", kernel_initializer="he_normal")(inputs)
    y = lq.layers.QuantConv2D(
        8, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip", use_bias=False, name="binary",
    )(x)  # fmt: skip
    y = K.BatchNormalization(momentum=0.9, name="norm")(y)
    x = K.GlobalAveragePooling2D(name="pool")(K.Add(name="sum")([x, y]))
    return tf.keras.Model(inputs, K.Dense(4, name="head")(x), name="residual")


def test_keeps_what_it_was() -> None:
    model = shake(small_residual())
    slim = tq.prune(model, random_plan(tq.ChannelGraph(model)))
    binary, norm = slim.get_layer("binary"), slim.get_layer("norm")
    assert [layer.name for layer in slim.layers] == [layer.name for layer in model.layers]
    assert slim.name == "residual"
    assert isinstance(binary.kernel_quantizer, lq.quantizers.SteSign)
    assert isinstance(binary.kernel_constraint, lq.constraints.WeightClip)
    assert binary.pad_values == 1.0
    assert binary.kernel.shape == (3, 3, 4, 4)
    assert norm.momentum == 0.9
    assert slim.get_layer("stem").kernel_regularizer is not None
    assert type(slim.get_layer("stem").kernel_initializer).__name__ == "HeNormal"
    assert len(slim.losses) == 1


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_saves_and_loads(suffix: str, tmp_path) -> None:
    model = shake(small_residual())
    slim = tq.prune(model, random_plan(tq.ChannelGraph(model)))
    slim.save(str(tmp_path / f"slim{suffix}"))
    again = tf.keras.models.load_model(str(tmp_path / f"slim{suffix}"))
    values = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(values), slim(values))


def dorefa_and_norms() -> tf.keras.Model:
    """Quantisers with a scale of the whole kernel, and norms over channels: a mask has something of its own there."""
    image = K.Input((8, 8, 3))
    x = K.LayerNormalization()(K.Conv2D(8, 3)(image))
    quantizers = {
        "kernel_quantizer": lq.quantizers.DoReFa(2, mode="weights"),
        "input_quantizer": lq.quantizers.DoReFa(2, mode="activations"),
    }
    x = K.LayerNormalization()(lq.layers.QuantConv2D(8, 3, **quantizers)(x))
    return tf.keras.Model(image, K.Dense(3)(K.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
@pytest.mark.parametrize("make", [small_residual, dorefa_and_norms])
def test_masked_saves_and_loads(make, suffix: str, tmp_path) -> None:
    model = shake(make())
    masked = tq.mask(model, random_plan(tq.ChannelGraph(model)))
    masked.save(str(tmp_path / f"masked{suffix}"))
    again = tf.keras.models.load_model(str(tmp_path / f"masked{suffix}"))
    values = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(values), masked(values))


def test_trains_and_is_pruned_again() -> None:
    model = shake(small_residual())
    slim = tq.prune(model, random_plan(tq.ChannelGraph(model), 0.25))
    slim.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    slim.fit(rng.normal(size=(16, 8, 8, 3)), rng.integers(0, 4, 16), verbose=0)
    plan = random_plan(tq.ChannelGraph(slim), 0.5)
    again = assert_law(slim, plan).slim
    assert (slim.get_layer("stem").filters, again.get_layer("stem").filters) == (6, 3)


def test_replays_on_the_same_model() -> None:
    model = shake(small_residual())
    plan = random_plan(tq.ChannelGraph(model))
    for first, second in zip(tq.prune(model, plan).get_weights(), tq.prune(model, plan).get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_sequential_stays_sequential() -> None:
    model = tf.keras.Sequential([K.Input((8, 8, 3)), K.Conv2D(8, 3), K.ReLU(), K.Flatten(), K.Dense(4)], name="plain")
    slim = assert_law(model).slim
    assert isinstance(slim, tf.keras.Sequential)
    assert [type(layer) for layer in slim.layers] == [type(layer) for layer in model.layers]
    assert slim.layers[0].output.shape == (None, 6, 6, 4)  # one node each, as in the original


def test_nested_models() -> None:
    """input -> conv(8) -> Sequential[conv(6) -> bn] -> Functional[residual, 6 in, 6 out] -> flatten -> dense"""
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(8, 3, padding="same", name="outer")(inputs)
    block = tf.keras.Sequential(
        [K.Input((6, 6, 8)), K.Conv2D(6, 3, padding="same", name="c"), K.BatchNormalization()], name="block"
    )
    inner_in = K.Input((6, 6, 6))
    inner = tf.keras.Model(inner_in, K.Add()([inner_in, K.Conv2D(6, 1, name="c")(inner_in)]), name="inner")
    model = tf.keras.Model(inputs, K.Dense(3)(K.Flatten()(inner(block(x)))))
    groups = {frozenset(group.layers): group.size for group in tq.ChannelGraph(model).prunable}
    assert groups == {frozenset({"outer"}): 8, frozenset({"block/c", "inner/c"}): 6}
    slim = assert_law(model).slim
    assert slim.get_layer("block").get_layer("c").filters == 3
    assert slim.get_layer("inner").input_shape == (None, 6, 6, 3)
    assert isinstance(slim.get_layer("block"), tf.keras.Sequential)


def test_shared_nested_model() -> None:
    """Two inputs through one nested tower: its weights are cut once, in the same way."""
    tower = tf.keras.Sequential([K.Input((6,)), K.Dense(8, name="d"), K.ReLU()], name="tower")
    a, b = K.Input((4,), name="a"), K.Input((4,), name="b")
    left, right = tower(K.Dense(6, name="left")(a)), tower(K.Dense(6, name="right")(b))
    model = tf.keras.Model([a, b], K.Dense(2)(K.Concatenate()([left, right])))
    groups = {frozenset(group.layers): group.size for group in tq.ChannelGraph(model).prunable}
    assert groups == {frozenset({"left", "right"}): 6, frozenset({"tower/d"}): 8}
    assert_law(model)


REBUILT = {"prune": tq.prune, "mask": tq.mask, "twin": lambda model, plan: EvaluationTwin(model).model}


@pytest.mark.parametrize("rebuild", REBUILT)
def test_arguments_of_calls_survive(rebuild: str) -> None:
    """Transfer learning: the base is called with training=False, so its statistics stay in training."""
    image = K.Input((6,))
    base = tf.keras.Model(image, K.BatchNormalization(name="inner")(K.Dense(8, name="d")(image)), name="base")
    inputs = K.Input((6,))
    x = K.BatchNormalization(name="norm")(K.Dense(8)(base(inputs, training=False)), False)
    model = shake(tf.keras.Model(inputs, K.Dense(2)(K.Dropout(0.5, name="drop")(x, training=True))))
    new = REBUILT[rebuild](model, random_plan(tq.ChannelGraph(model)))
    norms = [new.get_layer("base").get_layer("inner"), new.get_layer("norm")]
    before = [norm.moving_mean.numpy() for norm in norms]
    values = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    new(values, training=True)
    for norm, old in zip(norms, before, strict=True):
        np.testing.assert_array_equal(norm.moving_mean.numpy(), old)
    (node,), (dropped,) = new.get_layer("base")._inbound_nodes[-1:], new.get_layer("drop")._inbound_nodes
    assert (node.call_kwargs, dropped.call_kwargs) == ({"training": False}, {"training": True})


# (5 - 2) / 1 into each of 4 units, summed: 12.
@pytest.mark.parametrize("rebuild", REBUILT)
def test_adapted_normalisation_survives_in_a_sequential(rebuild: str) -> None:
    norm = K.Normalization(name="norm")
    norm.adapt(np.array([[1.0], [3.0]]))
    dense = [K.Dense(units, kernel_initializer="ones") for units in (4, 1)]
    model = tf.keras.Sequential([K.Input((1,)), norm, *dense])
    new = REBUILT[rebuild](model, random_plan(tq.ChannelGraph(model), 0.0))
    np.testing.assert_allclose(new(np.array([[5.0]])), [[12.0]], rtol=1e-6)


def with_own_losses(sequential: bool) -> tf.keras.Model:
    """2 -> a(3) -> b(4) -> dense(1), all of ones; 5 times a's mean is a loss, a's mean a metric."""
    layers = [K.Dense(size, kernel_initializer="ones", name=name) for size, name in ((3, "a"), (4, "b"), (1, "c"))]
    model = tf.keras.Sequential([K.Input((2,)), *layers])
    if not sequential:
        model = tf.keras.Model(model.inputs, model.outputs)
    model.add_loss(5 * tf.reduce_mean(layers[0].output))
    model.add_metric(tf.reduce_mean(layers[0].output), name="level", aggregation="mean")
    return model


# a gives 1 + 1 in each unit; each unit of b 6; what stays of b is summed.
@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("rebuild", REBUILT)
def test_losses_and_metrics_of_the_model_survive(rebuild: str, sequential: bool, tmp_path) -> None:
    model = with_own_losses(sequential)
    plan = random_plan(tq.ChannelGraph(model))
    assert len(plan.removed["b"]) == 2
    new = REBUILT[rebuild](model, plan)
    assert new(np.ones((1, 2))).numpy() == [[24 if rebuild == "twin" else 12]]
    assert [float(loss) for loss in new.losses] == [10]
    assert [(metric.name, float(metric.result())) for metric in new.metrics] == [("level", 2)]
    if rebuild == "prune":
        new.save(str(tmp_path / "slim.keras"))
        again = tf.keras.models.load_model(str(tmp_path / "slim.keras"))
        again(np.ones((1, 2)))
        assert [float(loss) for loss in again.losses] == [10]


@pytest.mark.parametrize("sequential", [False, True])
def test_a_loss_that_cannot_be_carried_over_is_said(sequential: bool) -> None:
    model = tf.keras.Sequential([K.Input((2,)), K.Dense(3), K.Dense(1)], name="small")
    if not sequential:
        model = tf.keras.Model(model.inputs, model.outputs, name="small")
    model.add_loss(lambda: tf.reduce_sum(model.layers[-1].kernel))
    with pytest.warns(UserWarning, match=r"'small' has losses by add_loss with a function"):
        assert not tq.prune(model, random_plan(tq.ChannelGraph(model))).losses


def test_mask_of_a_nested_call_survives() -> None:
    """A nested mean over the steps that a second input of the outer model leaves."""
    steps = K.Input((5, 8))
    mean = tf.keras.Model(steps, K.Dense(6)(K.GlobalAveragePooling1D()(steps)), name="mean")
    inputs, kept = K.Input((5, 4), name="steps"), K.Input((5,), dtype="bool", name="kept")
    model = tf.keras.Model([inputs, kept], K.Dense(2)(mean(K.Dense(8)(inputs), mask=kept)))
    fed = [np.random.default_rng(0).normal(size=(1, 5, 4)).astype("float32"), np.array([[1, 1, 0, 1, 0]], bool)]
    plan = random_plan(tq.ChannelGraph(model), 0.0)
    assert not np.allclose(model(fed), model([fed[0], np.ones((1, 5), bool)]))
    np.testing.assert_allclose(tq.prune(model, plan)(fed), model(fed), rtol=1e-5)
    np.testing.assert_allclose(tq.mask(model, plan)(fed), model(fed), rtol=1e-5)


def test_layer_shared_with_a_nested_model() -> None:
    """first (4 -> 8) -> d (8 -> 8) -> Sequential[d] -> dense(3): one kernel in two places, cut to 4 channels."""
    inputs, shared = K.Input((4,)), K.Dense(8, name="d")
    nested = tf.keras.Sequential([K.Input((8,)), shared], name="nested")
    model = tf.keras.Model(inputs, K.Dense(3)(nested(shared(K.Dense(8, name="first")(inputs)))))
    slim = assert_law(model).slim
    assert slim.count_params() == (4 * 4 + 4) + (4 * 4 + 4) + (4 * 3 + 3)
    assert slim.get_layer("nested").get_layer("d") is slim.get_layer("d")


def test_shared_layer() -> None:
    """One convolution called twice ties what feeds it, and its outputs are one group."""
    inputs = K.Input((6, 6, 3))
    a, b = K.Conv2D(8, 1, name="a")(inputs), K.Conv2D(8, 1, name="b")(inputs)
    shared, norm = K.Conv2D(6, 3, name="shared"), K.BatchNormalization(name="norm")
    model = tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(K.Concatenate()([norm(shared(a)), norm(shared(b))]))))
    groups = {frozenset(group.layers): group.size for group in tq.ChannelGraph(model).prunable}
    assert groups == {frozenset({"a", "b"}): 8, frozenset({"shared"}): 6}
    assert_law(model)


def test_several_inputs_and_outputs() -> None:
    a, b = K.Input((8, 8, 3), name="a"), K.Input((8, 8, 1), name="b")
    x = K.Add()([K.Conv2D(8, 3, name="ca")(a), K.Conv2D(8, 3, name="cb")(b)])
    model = tf.keras.Model({"b": b, "a": a}, {"mask": K.Conv2D(2, 1, name="mask")(x), "features": x})
    frozen = tq.ChannelGraph(model)["ca"].frozen
    assert frozen is not None
    assert "model output" in frozen
    y = K.Conv2D(5, 1, name="hidden")(x)
    model = tf.keras.Model([a, b], [K.Conv2D(2, 1)(y), K.Dense(3)(K.GlobalMaxPooling2D()(x))])
    assert_law(model)
    assert isinstance(tq.prune(model, random_plan(tq.ChannelGraph(model))).output, list)


def test_dictionary_of_inputs_survives() -> None:
    a, b = K.Input((4,), name="a"), K.Input((4,), name="b")
    x = K.Add()([K.Dense(8)(a), K.Dense(8)(b)])
    model = tf.keras.Model({"a": a, "b": b}, {"y": K.Dense(2)(x)})
    slim = assert_law(model).slim
    assert set(slim.output) == {"y"}
    assert set(slim.input) == {"a", "b"}


def test_unused_outputs_and_branches() -> None:
    """The second half of a split is never used."""
    inputs = K.Input((6, 6, 3))
    used, _ = tf.split(K.Conv2D(8, 3, name="conv")(inputs), 2, axis=-1)
    assert_law(tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(used))))


def test_submodel_of_a_larger_graph() -> None:
    """A model cut out of another one's graph leaves the rest of that graph alone."""
    whole = small_residual()
    part = tf.keras.Model(whole.input, K.Dense(2)(K.Flatten()(whole.get_layer("norm").output)))
    assert_law(part)


def test_channels_first() -> None:
    inputs = K.Input((3, 8, 8))
    x = K.Conv2D(8, 3, data_format="channels_first", name="a")(inputs)
    x = K.BatchNormalization(axis=1)(x)
    x = K.MaxPooling2D(data_format="channels_first")(x)
    x = K.Conv2D(6, 3, data_format="channels_first", name="b")(x)
    x = K.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = tf.keras.Model(inputs, K.Dense(2)(x))
    groups = {frozenset(group.layers): group.size for group in tq.ChannelGraph(model).prunable}
    assert groups == {frozenset({"a"}): 8, frozenset({"b"}): 6}
    assert_law(model)


def test_channels_first_flatten() -> None:
    inputs = K.Input((3, 6, 6))
    x = K.Conv2D(8, 3, data_format="channels_first", name="a")(inputs)
    for flatten in (K.Flatten(), K.Flatten(data_format="channels_first")):
        assert_law(tf.keras.Model(inputs, K.Dense(2)(flatten(x))))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_precision_policies(policy: str) -> None:
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        model = small_residual()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    tolerance = {"mixed_float16": 4e-3, "mixed_bfloat16": 4e-2, "float16": 4e-3}[policy]
    slim = assert_law(model, tolerance=tolerance).slim
    assert slim.get_layer("stem").dtype_policy.name == policy
    assert slim.get_layer("stem").kernel.dtype == model.get_layer("stem").kernel.dtype


def test_trainable_flags_survive() -> None:
    model = small_residual()
    model.get_layer("norm").trainable = False
    model.get_layer("stem").trainable = False
    slim = assert_law(model).slim
    assert not slim.get_layer("norm").trainable
    assert len(slim.trainable_weights) == len(model.trainable_weights)


def test_trainable_flags_inside_a_nested_model_survive() -> None:
    """A batch norm that is set to train after its model was frozen still updates its statistics."""
    image = K.Input((6,))
    base = tf.keras.Model(image, K.BatchNormalization(name="norm")(K.Dense(8, name="d")(image)), name="base")
    base.trainable = False
    base.get_layer("norm").trainable = True
    inputs = K.Input((6,))
    slim = assert_law(tf.keras.Model(inputs, K.Dense(2)(base(inputs)))).slim.get_layer("base")
    assert not slim.trainable
    assert [slim.get_layer(name).trainable for name in ("d", "norm")] == [False, True]


class TwoNorms(K.Layer):
    """A block of a user's: two batch norms, whose weights have the same shapes."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.first, self.second = K.BatchNormalization(), K.BatchNormalization()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.second(tf.nn.relu(self.first(inputs)))


def test_trainable_flags_inside_a_users_layer_survive() -> None:
    """What trains is listed before what does not: with other flags the weights would change places."""
    inputs = K.Input((6, 6, 3))
    block = TwoNorms(name="block")
    x = block(K.Conv2D(8, 1, name="a")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling2D()(K.Conv2D(6, 1, name="b")(x))))
    block.first.trainable = False
    slim = assert_law(model).slim
    assert [norm.trainable for norm in (slim.get_layer("block").first, slim.get_layer("block").second)] == [False, True]


@pytest.mark.filterwarnings("ignore:Expected at least 20 steps")
def test_flip_ratios_of_larq_are_left_alone() -> None:
    """They count on kernels of one shape, while DoReFa's scale is taken over the channels that stay."""
    dorefa = {"kernel_quantizer": lq.quantizers.DoReFa(2, mode="weights")}
    with lq.context.metrics_scope(["flip_ratio"]):
        inputs = K.Input((6, 6, 3))
        x = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", name="a")(inputs)
        x = K.GlobalAveragePooling2D()(lq.layers.QuantConv2D(6, 3, **dorefa, name="b")(x))
        model = tf.keras.Model(inputs, K.Dense(2)(x))
    ratio = model.get_layer("b").kernel_quantizer.flip_ratio
    before = [weight.numpy() for weight in ratio.weights]
    assert_law(model)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32"), np.arange(8) % 2
    learning = tq.HolisticPruning(model, budget=tq.Budget(params=0.6))
    learning.compile("adam", loss)
    learning.fit(x, y, batch_size=4, epochs=2, verbose=0)
    gradual = tq.GradualPruning(model, lambda step: (int(step) == 1, 0.5), "latent_l1")
    gradual.training_model.compile("adam", loss)
    gradual.training_model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[gradual])
    assert gradual.finish().get_layer("b").filters == 3
    for old, weight in zip(before, ratio.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_masked_steps_stay_masked() -> None:
    """Behind a layer that mixes channels (in the masked model: on those that stay), padded steps still do not count."""
    inputs = K.Input((5, 4))
    x = K.LayerNormalization()(K.Dense(8, name="a")(K.Masking()(inputs)))
    model = shake(tf.keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling1D()(K.Dense(6, name="b")(x)))))
    plan = random_plan(tq.ChannelGraph(model), 0.5)
    assert plan.removed["a"]
    steps = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    steps[:, 3:] = 0
    np.testing.assert_allclose(tq.prune(model, plan)(steps), tq.mask(model, plan)(steps), rtol=1e-4, atol=1e-5)


def test_nested_model_of_several_widths() -> None:
    vector = K.Input((None,))
    inner = tf.keras.Model(vector, K.Activation("swish")(vector), name="act")
    inputs = K.Input((4,))
    parts = [inner(K.Dense(8, name="a")(inputs)), inner(K.Dense(6, name="b")(inputs))]
    model = tf.keras.Model(inputs, K.Dense(2)(K.Concatenate()(parts)))
    assert "called on several numbers of channels" in str(tq.ChannelGraph(model)["a"].frozen)
    assert_law(model)


def test_lambda_closing_over_a_value() -> None:
    factor = 3.0
    inputs = K.Input((4,))
    x = K.Lambda(lambda values: values * factor)(K.Dense(8, name="d")(inputs))
    assert_law(tf.keras.Model(inputs, K.Dense(2)(x)))


def test_unknown_size_of_images() -> None:
    """Fully convolutional: no fixed size, still cut; only the count of MACs needs a size."""
    inputs = K.Input((None, None, 3))
    x = K.GlobalAveragePooling2D()(K.Conv2D(8, 3, name="c")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2)(x))
    assert_law(model)
    with pytest.raises(tq.errors.ModelTypeError, match="fixed input size"):
        tq.cost(model)


def test_backbone_whose_size_the_outer_model_knows() -> None:
    """As for transfer learning: the backbone leaves its size open, and costs what it would cost built for 9 x 9."""

    def model(size: int | None) -> tf.keras.Model:
        image = K.Input((size, size, 3))
        x = K.DepthwiseConv2D(3, strides=2, name="depthwise")(K.Conv2D(8, 3, padding="same", name="conv")(image))
        backbone = tf.keras.Model(image, K.Conv2D(6, 1, name="last")(tf.nn.relu(x)), name="backbone")
        inputs = K.Input((9, 9, 3))
        return tf.keras.Model(inputs, K.Dense(2, name="head")(K.GlobalAveragePooling2D()(backbone(inputs))))

    open_, fixed = tq.cost(model(None)), tq.cost(model(9))
    assert open_ == fixed
    # conv 81 x 3*3*3*8; depthwise 4 x 4 pixels x 9 x 8; last 16 x 8*6; head 6*2
    assert open_.macs == 81 * 216 + 16 * 72 + 16 * 48 + 12
    assert_law(model(None))


class Scaling(K.Layer):
    """Takes an array, which no config holds."""

    def __init__(self, factors: np.ndarray, **options: object) -> None:
        super().__init__(**options)
        self.factors = factors

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.factors


@pytest.mark.parametrize("use", [tq.prune, tq.mask, lambda model, plan: EvaluationTwin(tq.ChannelGraph(model))])
def test_layer_that_cannot_be_made_anew(use) -> None:
    inputs = K.Input((4,))
    x = Scaling(np.float32([2.0]), name="mine")(K.Dense(8, name="d")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2)(x))
    plan = random_plan(tq.ChannelGraph(model))
    with pytest.raises(tq.errors.ModelTypeError, match=r"Received: 'mine' \(of type Scaling\): NotImplementedError"):
        use(model, plan)
