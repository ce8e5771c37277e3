"""Keras layers, one by one: cut where they can be, with the law checked; frozen with a reason else."""

from __future__ import annotations

from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.costs import cost
from tfqprune.layers import base
from tfqprune.slim import prune
from tfqprune.testing import assert_law, random_plan
from tfqprune.twin import EvaluationTwin

K = tf.keras.layers


class Gamma(tf.keras.layers.Layer):
    """A user's layer: one weight a channel."""

    def build(self, shape):
        self.gamma = self.add_weight("gamma", (shape[-1],), initializer="random_normal")

    def call(self, inputs):
        return inputs * self.gamma


class SizedGamma(Gamma):
    """The same, with the number of channels in its config (like ConvNeXt's LayerScale)."""

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def build(self, shape):
        self.gamma = self.add_weight("gamma", (self.dim,), initializer="random_normal")

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


class Mixer(tf.keras.layers.Layer):
    """A user's layer that mixes channels."""

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], shape[-1]))

    def call(self, inputs):
        return tf.einsum("...c,cd->...d", inputs, self.kernel)


class ConvWithOwnCall(K.Conv2D):
    """A subclass that computes something else than its base."""

    def call(self, inputs):
        return super().call(inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True))


class StandardisedConv(K.Conv2D):
    """Weight standardisation, as Keras documents it: the kernel's scale depends on the channels it reads."""

    def convolution_op(self, inputs, kernel):
        mean, variance = tf.nn.moments(kernel, axes=[0, 1, 2], keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / tf.sqrt(variance + 1e-10))


class SortedSum(K.Add):
    """Keeps ``call``, but what it rests on moves channels."""

    def _merge_function(self, inputs):
        return tf.sort(super()._merge_function(inputs))


class ConvWithOwnDefaults(K.Conv2D):
    """Set up and described in its own way, but computing what its base computes."""

    def __init__(self, filters, **kwargs):
        super().__init__(filters, kwargs.pop("kernel_size", 3), **kwargs)

    def build(self, shape):
        super().build(shape)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}

    @property
    def fan_in(self):
        return int(np.prod(self.kernel.shape[:-1]))


@tf.keras.utils.register_keras_serializable("tests")
class Mixing(K.Layer):
    """Adds the mean over channels, times a weight for each of them."""

    def __init__(self, start: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight("gamma", (shape[-1],), initializer=tf.keras.initializers.Constant(self.start))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + self.gamma * tf.reduce_mean(inputs, -1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def model_of(shape, *layers) -> tf.keras.Model:
    """input -> dense(12) over the last axis -> LAYERS -> [flatten] -> dense(5)"""
    inputs = K.Input((*shape, 3))
    x = K.Dense(12, name="producer")(inputs)
    for layer in layers:
        x = layer(x)
    return tf.keras.Model(inputs, K.Dense(5, name="consumer")(K.Flatten()(x) if len(x.shape) > 2 else x))


def normalization(**kwargs):
    return K.Normalization(mean=np.arange(12.0) / 12, variance=np.arange(1.0, 13.0), **kwargs)


def adapted():
    layer = K.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(50, 12)))
    return layer


CUT = {
    "conv1d": ((9,), lambda: [K.Conv1D(6, 3, padding="causal", dilation_rate=2)]),
    "conv2d": ((8, 8), lambda: [K.Conv2D(6, 3, strides=2, activation="relu")]),
    "conv2d_subclass": ((8, 8), lambda: [ConvWithOwnDefaults(6)]),
    "conv3d": ((5, 5, 5), lambda: [K.Conv3D(6, 3, use_bias=False)]),
    "conv2d_grouped": ((8, 8), lambda: [K.Conv2D(8, 3, groups=4), K.BatchNormalization()]),
    "conv1d_grouped": ((8,), lambda: [K.Conv1D(8, 3, groups=2)]),
    "conv2d_groups_of_one": ((8, 8), lambda: [K.Conv2D(24, 3, groups=12), K.BatchNormalization()]),
    "depthwise1d": ((9,), lambda: [K.DepthwiseConv1D(3, depth_multiplier=2)]),
    "depthwise2d": ((8, 8), lambda: [K.DepthwiseConv2D(3, depth_multiplier=3), K.BatchNormalization()]),
    "separable1d": ((9,), lambda: [K.SeparableConv1D(6, 3)]),
    "separable2d": ((8, 8), lambda: [K.SeparableConv2D(6, 3, depth_multiplier=2)]),
    "transpose1d": ((9,), lambda: [K.Conv1DTranspose(6, 3, strides=2)]),
    "transpose2d": ((8, 8), lambda: [K.Conv2DTranspose(6, 3, strides=2), K.Conv2D(4, 1)]),
    "transpose3d": ((4, 4, 4), lambda: [K.Conv3DTranspose(6, 2)]),
    "dense": ((), lambda: [K.Dense(6, activation="tanh")]),
    "dense_4d": ((4, 4), lambda: [K.Dense(6)]),
    "batch_norm": ((8, 8), lambda: [K.BatchNormalization()]),
    "sync_batch_norm": ((8, 8), lambda: [K.experimental.SyncBatchNormalization()]),
    "batch_norm_plain": ((8, 8), lambda: [K.BatchNormalization(center=False, scale=False)]),
    "layer_norm": ((8, 8), lambda: [K.LayerNormalization()]),
    "layer_norm_all": ((4, 4), lambda: [K.LayerNormalization(axis=[1, 2, 3])]),
    "layer_norm_pixels": ((4, 4), lambda: [K.LayerNormalization(axis=[1, 2])]),
    "layer_norm_plain": ((4, 4), lambda: [K.LayerNormalization(center=False, scale=False)]),
    "group_norm": ((4, 4), lambda: [K.GroupNormalization(4)]),
    "group_norm_one": ((4, 4), lambda: [K.GroupNormalization(1)]),
    "instance_norm": ((4, 4), lambda: [K.GroupNormalization(-1)]),
    "instance_norm_plain": ((4, 4), lambda: [K.GroupNormalization(12, center=False, scale=False)]),
    "unit_norm": ((4, 4), lambda: [K.UnitNormalization()]),
    "unit_norm_rows": ((4, 4), lambda: [K.UnitNormalization(axis=1)]),
    "prelu": ((4, 4), lambda: [K.PReLU(alpha_initializer="random_normal")]),
    "prelu_shared": ((4, 4), lambda: [K.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")]),
    "prelu_one": ((4, 4), lambda: [K.PReLU(shared_axes=[1, 2, 3], alpha_initializer="random_normal")]),
    "rescaling": ((4, 4), lambda: [K.Rescaling(0.5, 0.1)]),
    "rescaling_channels": ((4, 4), lambda: [K.Rescaling(list(np.arange(1.0, 13)), 0.1)]),
    "normalization": ((4, 4), lambda: [normalization()]),
    "normalization_inverted": ((4, 4), lambda: [normalization(invert=True)]),
    "normalization_adapted": ((4, 4), lambda: [adapted()]),
    "activation": (
        (4, 4),
        lambda: [K.Activation("swish"), K.LeakyReLU(), K.ELU(), K.ThresholdedReLU(0.1), K.ReLU(6.0)],
    ),
    "softmax_rows": ((4, 4), lambda: [K.Softmax(axis=1)]),
    "dropout": ((4, 4), lambda: [K.Dropout(0.5), K.SpatialDropout2D(0.5), K.GaussianNoise(1.0), K.AlphaDropout(0.1)]),
    "dropout_of_a_shape": ((4, 4), lambda: [K.Dropout(0.5, noise_shape=(None, 1, 4, 12))]),
    "pooling2d": ((8, 8), lambda: [K.MaxPooling2D(padding="same"), K.AveragePooling2D()]),
    "pooling1d": ((8,), lambda: [K.MaxPooling1D(), K.AveragePooling1D()]),
    "pooling3d": ((4, 4, 4), lambda: [K.MaxPooling3D(), K.AveragePooling3D()]),
    "global_pooling": ((4, 4), lambda: [K.GlobalMaxPooling2D()]),
    "global_pooling_keepdims": ((4, 4), lambda: [K.GlobalAveragePooling2D(keepdims=True), K.Conv2D(4, 1)]),
    "global_pooling1d": ((4,), lambda: [K.GlobalAveragePooling1D()]),
    "padding": ((4, 4), lambda: [K.ZeroPadding2D(2), K.Cropping2D(1), K.UpSampling2D(), K.Resizing(5, 5)]),
    "flatten": ((4, 4), lambda: [K.Flatten(), K.Dense(6)]),
    "reshape": ((4, 4), lambda: [K.Reshape((16, 12)), K.Conv1D(6, 3)]),
    "reshape_rest": ((4, 4), lambda: [K.Reshape((-1, 12)), K.Conv1D(6, 3)]),
    "reshape_rows": ((4, 4), lambda: [K.Reshape((4, 48)), K.Conv1D(6, 3)]),
    "dense_to_map": ((), lambda: [K.Dense(4 * 4 * 6), K.Reshape((4, 4, 6)), K.Conv2DTranspose(4, 3)]),
    "permute": ((4, 4), lambda: [K.Permute((2, 1, 3)), K.Conv2D(6, 3)]),
    "permute_and_back": ((4, 4), lambda: [K.Permute((3, 1, 2)), K.Permute((2, 3, 1)), K.Conv2D(6, 3)]),
    "repeat_vector": ((), lambda: [K.RepeatVector(5), K.Conv1D(6, 3)]),
    "users_weight": ((4, 4), lambda: [Gamma()]),
    "users_sized_weight": ((4, 4), lambda: [SizedGamma(12)]),
}
FROZEN = {
    "softmax": ((4, 4), lambda: [K.Softmax()]),
    "softmax_activation": ((4, 4), lambda: [K.Activation("softmax")]),
    "users_mixer": ((4, 4), lambda: [Mixer()]),
    "overridden_call": ((4, 4), lambda: [ConvWithOwnCall(6, 3)]),
    "overridden_convolution": ((4, 4), lambda: [StandardisedConv(6, 3)]),
    "lstm": ((6,), lambda: [K.LSTM(12, return_sequences=True)]),
    "time_distributed_mixer": ((4, 4), lambda: [K.TimeDistributed(Mixer())]),
    "conv_across_channels": ((4, 4), lambda: [K.Permute((3, 1, 2)), K.Conv2D(6, 3)]),
    "pool_across_channels": ((4,), lambda: [K.MaxPooling1D(data_format="channels_first")]),
}


@pytest.mark.parametrize("name", CUT)
def test_cut(name: str) -> None:
    shape, layers = CUT[name]
    model = model_of(shape, *layers())
    lawful = assert_law(model)
    assert ChannelGraph(model)["producer"].frozen is None
    assert 0.25 <= lawful.plan.ratios["producer"] <= 0.5
    assert lawful.slim.count_params() < model.count_params()
    assert_law(lawful.slim, ratios=0.4)  # a slim model can be pruned again


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_with_a_reason(name: str) -> None:
    shape, layers = FROZEN[name]
    reason = ChannelGraph(model_of(shape, *layers()))["producer"].frozen
    assert reason is not None
    assert "feeds '" in reason


def test_dropout_of_a_shape_trains_on() -> None:
    """Noise of (any, 1, 4, 12) is noise of (any, 1, 4, 6) behind a cut; Keras' alpha dropout takes numbers alone."""
    model = model_of((4, 4), K.Dropout(0.5, noise_shape=(None, 1, 4, 12)))
    slim = assert_law(model).slim
    assert slim(np.ones((3, 4, 4, 3), np.float32), training=True).shape == (3, 5)
    reason = ChannelGraph(model_of((4, 4), K.AlphaDropout(0.5, noise_shape=(1, 4, 4, 12))))["producer"].frozen
    assert reason is not None
    assert "whose noise has a fixed shape" in reason


def test_softmax_inside_a_dense_freezes_it() -> None:
    inputs = K.Input((4,))
    model = tf.keras.Model(inputs, K.Dense(3)(K.Dense(6, activation="softmax", name="soft")(inputs)))
    reason = ChannelGraph(model)["soft"].frozen
    assert reason is not None
    assert "all channels together" in reason


def doubled(values: tf.Tensor) -> tf.Tensor:
    return 2 * values


def test_activation_that_changes_the_width_freezes_both_sides() -> None:
    """conv(8) with a concatenated ReLU has 16 channels."""
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(8, 3, activation=tf.nn.crelu, name="wide")(K.Conv2D(6, 1, name="before")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(K.Conv2D(5, 3, name="after")(x))))
    graph = ChannelGraph(model)
    assert [group.name for group in graph.prunable] == ["after"]
    assert "changes the number of channels" in str(graph["before"].frozen)
    assert_law(model)
    assert cost(model).params == model.count_params()


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_weights_that_have_not_been_trained_hide_nothing(start: float) -> None:
    """x + gamma mean over channels: nothing is mixed while gamma is zero."""
    inputs = K.Input((6,))
    mixing = Mixing(start)
    model = tf.keras.Model(inputs, K.Dense(2)(mixing(K.Dense(8, name="a")(inputs))))
    assert "(Mixing)" in str(ChannelGraph(model)["a"].frozen)
    np.testing.assert_array_equal(mixing.gamma, np.full(8, start))  # it is only read


def test_layer_norm_without_weights_of_two_widths() -> None:
    inputs, norm = K.Input((4,)), K.LayerNormalization(center=False, scale=False)
    parts = [norm(K.Dense(8, name="a")(inputs)), norm(K.Dense(6, name="b")(inputs))]
    assert_law(tf.keras.Model(inputs, K.Dense(2)(K.Concatenate()(parts))))


ACTIVATIONS = {
    "slopes": (lambda: K.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal"), True),
    "one_slope": (lambda: K.PReLU(shared_axes=[1, 2, 3], alpha_initializer="random_normal"), True),
    "over_pixels": (lambda: lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True), True),
    "without_weights": (lambda: K.LeakyReLU(0.3), False),
    "function": (lambda: doubled, False),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_activation_of_ones_own(name: str) -> None:
    """before(6) -> conv(8) with the activation -> after(5): those with weights, or over pixels, freeze its channels."""
    make, frozen = ACTIVATIONS[name]
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(8, 3, activation=make(), name="conv")(K.Conv2D(6, 1, name="before")(inputs))
    model = tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(K.Conv2D(5, 3, name="after")(x))))
    graph = ChannelGraph(model)
    assert (graph["conv"].frozen is not None) == frozen
    assert "all channels together" in str(graph["conv"].frozen) or not frozen
    assert {"before", "after"} <= {group.name for group in graph.prunable}
    lawful = assert_law(model)
    values = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(prune(model, random_plan(graph, 0.0))(values), model(values), rtol=1e-4, atol=1e-6)
    twin = EvaluationTwin(graph)
    twin.set_plan(lawful.plan)
    np.testing.assert_allclose(twin.model(values), lawful.slim(values), rtol=1e-4, atol=1e-5)


def test_stateful_rnn_is_frozen() -> None:
    inputs = K.Input(batch_shape=(2, 5, 3))
    x = K.Dense(4, name="producer")(inputs)
    model = tf.keras.Model(inputs, K.Dense(2)(K.GRU(4, stateful=True)(x)))
    reason = ChannelGraph(model)["producer"].frozen
    assert reason is not None
    assert "(GRU)" in reason


MERGES = {
    "add": (K.Add, 12, 12),
    "subtract": (K.Subtract, 12, 12),
    "multiply": (K.Multiply, 12, 12),
    "average": (K.Average, 12, 12),
    "maximum": (K.Maximum, 12, 12),
    "minimum": (K.Minimum, 12, 12),
    "multiply_broadcast": (K.Multiply, 12, 1),
    "concatenate": (K.Concatenate, 12, 8),
    "concatenate_rows": (lambda: K.Concatenate(axis=1), 12, 12),
}


@pytest.mark.parametrize("name", MERGES)
def test_merges(name: str) -> None:
    """input -> conv a, conv b -> MERGE -> conv -> pool -> dense"""
    merge, first, second = MERGES[name]
    inputs = K.Input((6, 6, 3))
    a, b = K.Conv2D(first, 3, name="a")(inputs), K.Conv2D(second, 3, name="b")(inputs)
    x = K.GlobalAveragePooling2D()(K.Conv2D(6, 1)(merge()([a, b])))
    model = tf.keras.Model(inputs, K.Dense(4)(x))
    assert_law(model)
    tied = any({"a", "b"} <= set(group.layers) for group in ChannelGraph(model).groups)
    assert tied == (name not in ("multiply_broadcast", "concatenate"))


@pytest.mark.parametrize("known", base._HANDLERS, ids=lambda known: known.__name__)
def test_subclass_that_computes_the_same_stays_known(known: type) -> None:
    assert base._computes_as(type("Renamed", (known,), {"__init__": lambda self: None, "build": None}), known)
    assert not base._computes_as(type("Own", (known,), {"call": lambda self, inputs: inputs}), known)


CONSTANTS = {
    "add": lambda x: K.Add()([x, tf.ones((1, 6))]),
    "multiply": lambda x: K.Multiply()([x, np.linspace(1, 2, 6, dtype="float32")[None]]),
    "concatenate": lambda x: K.Concatenate()([x, tf.ones((1, 3))]),
    "concat": lambda x: tf.concat([x, tf.ones((1, 3))], -1),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_merges_with_constants_are_frozen(name: str) -> None:
    inputs = K.Input((4,), batch_size=1)
    model = tf.keras.Model(inputs, K.Dense(2)(CONSTANTS[name](K.Dense(6, name="a")(inputs))))
    graph = ChannelGraph(model)
    assert "meets a constant" in str(graph["a"].frozen)
    values = np.random.default_rng(0).normal(size=(1, 4)).astype("float32")
    np.testing.assert_array_equal(prune(model, random_plan(graph, 0.5))(values), model(values))
    assert cost(model).params == model.count_params()


def test_merge_with_its_own_computation_is_frozen() -> None:
    inputs = K.Input((4,))
    a, b = K.Dense(6, name="a")(inputs), K.Dense(6, name="b")(inputs)
    graph = ChannelGraph(tf.keras.Model(inputs, K.Dense(2)(SortedSum()([a, b]))))
    assert "(SortedSum)" in str(graph["a"].frozen)
    assert "(SortedSum)" in str(graph["b"].frozen)


def sharing(layer: tf.keras.layers.Layer, second: int) -> tf.keras.Model:
    """dense a(8) -> LAYER -+-> cat -> dense(5) -> LAYER
    dense b(SECOND) -> LAYER -+
    """
    inputs = K.Input((4,))
    a, b = layer(K.Dense(8, name="a")(inputs)), layer(K.Dense(second, name="b")(inputs))
    return tf.keras.Model(inputs, layer(K.Dense(5, name="out")(K.Concatenate()([a, b]))))


def shared_along_another_axis() -> tf.keras.Model:
    """Over 8 channels of one tensor, and over 8 steps of another, whose channels it leaves alone."""
    inputs, layer = K.Input((4,)), K.UnitNormalization(axis=1)
    a = layer(K.Dense(8, name="a")(inputs))
    b = K.Flatten()(layer(K.Dense(6, name="b")(K.RepeatVector(8)(inputs))))
    return tf.keras.Model(inputs, K.Dense(3)(K.Concatenate()([a, b])))


def shared_with_a_sequential() -> tf.keras.Model:
    inputs, layer = K.Input((4,)), K.UnitNormalization()
    nested = tf.keras.Sequential([K.Input((6,)), layer])
    a, b = layer(K.Dense(8, name="a")(inputs)), nested(K.Dense(6, name="b")(inputs))
    return tf.keras.Model(inputs, K.Dense(3)(K.Concatenate()([a, b])))


SHARED = {
    "as_many": lambda: sharing(K.UnitNormalization(), 8),
    "fewer": lambda: sharing(K.UnitNormalization(), 6),
    "quantiser": lambda: sharing(K.Activation(lq.quantizers.SteTern(ternary_weight_networks=True)), 6),
    "another_axis": shared_along_another_axis,
    "sequential": shared_with_a_sequential,
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_layer_mixes_what_each_call_sees(name: str, tmp_path) -> None:
    """A layer without weights ties nothing: each of its calls may lose other channels, or none."""
    lawful = assert_law(SHARED[name]())
    groups = [group.layers for group in ChannelGraph(SHARED[name]()).prunable]
    assert {("a",), ("b",)} <= set(groups)
    lawful.masked.save(str(tmp_path / "masked.keras"))
    again = tf.keras.models.load_model(str(tmp_path / "masked.keras"))
    values = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(again(values), lawful.masked(values))


def test_same_tensor_twice() -> None:
    """cat(x, x): 8 units, 16 channels; half the units gone leaves 8 channels."""
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(8, 3, name="a")(inputs)
    model = tf.keras.Model(inputs, K.Conv2D(5, 1, name="out")(K.Concatenate()([x, x])))
    slim = assert_law(model).slim
    assert slim.get_layer("out").kernel.shape == (1, 1, 8, 5)
    assert_law(tf.keras.Model(inputs, K.Conv2D(5, 1)(K.Add()([x, x]))))


def test_squeeze_and_excite() -> None:
    """conv(16) -> [pool -> dense(4) -> dense(16, sigmoid)] x conv: the last dense is tied to the conv."""
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(16, 3, name="conv")(inputs)
    gate = K.Dense(16, activation="sigmoid", name="gate")(
        K.Dense(4, name="squeeze")(K.GlobalAveragePooling2D(keepdims=True)(x))
    )
    model = tf.keras.Model(inputs, K.Dense(3)(K.GlobalMaxPooling2D()(K.Multiply()([x, gate]))))
    groups = {group.layers: group.size for group in ChannelGraph(model).prunable}
    assert groups == {("conv", "gate"): 16, ("squeeze",): 4}
    assert_law(model)


def test_part_of_an_input_is_no_input() -> None:
    """cat(image(3), conv(6)) is read along its rows: conv's channels can no longer go."""
    image = K.Input((6, 6, 3))
    x = K.Concatenate()([image, K.Conv2D(6, 3, padding="same", name="conv")(image)])
    x = K.Dense(4, name="rows")(K.Permute((3, 1, 2))(x))
    model = tf.keras.Model(image, K.Dense(2)(K.GlobalAveragePooling2D()(x)))
    graph = ChannelGraph(model)
    assert "feeds 'rows' (Dense) along another axis" in str(graph["conv"].frozen)
    assert [group.layers for group in graph.prunable] == [("rows",)]
    assert_law(model)


def test_shared_reshape_of_two_sizes() -> None:
    """a: 6 x 6 x 4 = 144 values, b: 5 x 5 x 5 = 125; one Reshape makes vectors of both."""
    inputs, vector = K.Input((6, 6, 3)), K.Reshape((-1,))
    a, b = K.Conv2D(4, 1, name="a")(inputs), K.Conv2D(5, 2, name="b")(inputs)
    model = tf.keras.Model(inputs, K.Dense(2)(K.Concatenate()([vector(a), vector(b)])))
    assert {group.layers: group.size for group in ChannelGraph(model).prunable} == {("a",): 4, ("b",): 5}
    assert_law(model)


def test_reshape_of_an_unknown_size_is_frozen() -> None:
    inputs = K.Input((None, None, 3))
    x = K.Reshape((-1, 6), name="rows")(K.Flatten()(K.Conv2D(6, 3, name="conv")(inputs)))
    model = tf.keras.Model(inputs, K.Dense(2)(x))
    assert "feeds 'rows' (Reshape)" in str(ChannelGraph(model)["conv"].frozen)
    assert_law(model)


def test_dot_is_frozen() -> None:
    inputs = K.Input((4,))
    a, b = K.Dense(6, name="a")(inputs), K.Dense(6, name="b")(inputs)
    graph = ChannelGraph(tf.keras.Model(inputs, K.Dense(2)(K.Dot(axes=1)([a, b]))))
    assert "sums products" in str(graph["a"].frozen)
    assert "sums products" in str(graph["b"].frozen)


def _half_sign(values: tf.Tensor) -> tf.Tensor:
    return tf.sign(values) * 0.5


def _quantised_by_functions(x: tf.Tensor) -> tf.Tensor:
    function: Any = {"kernel_quantizer": _half_sign, "input_quantizer": lambda values: tf.sign(values)}
    return lq.layers.QuantConv2D(5, 3, **function)(x)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: K.BatchNormalization(renorm=True)(x),
        lambda x: tf.compat.v1.keras.layers.BatchNormalization(renorm=True)(x),
        _quantised_by_functions,
        lambda x: tf.repeat(x, 2, axis=-1),
    ],
    ids=["renorm", "renorm of old", "quantisers that are functions", "repeat"],
)
def test_cut_with_what_is_in_front(layer) -> None:
    tf.keras.utils.set_random_seed(0)
    image = K.Input((8, 8, 3))
    x = layer(K.Conv2D(6, 3, name="first")(image))
    model = tf.keras.Model(image, K.Dense(3)(K.Flatten()(x)))
    assert ChannelGraph(model)["first"].frozen is None
    assert_law(model)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (K.Masking(0.0), "to tell which steps count"),
        (lambda x: tf.nn.local_response_normalization(x[:, None], 2)[:, 0], "several channels together"),
        (lambda x: tf.clip_by_norm(x, 60.0), "several channels together"),
        (lambda x: tf.repeat(x, [1, 2, 1, 2], axis=-1), "in a number of its own"),
        (K.Rescaling(np.ones((6, 4)).tolist()), "changes the number of channels or positions"),
    ],
    ids=["masking", "local response", "clip by norm", "repeats", "rescaling"],
)
def test_what_looks_at_channels_together_freezes(layer, reason: str) -> None:
    sequence = K.Input((1, 4) if reason.startswith("changes") else (6, 4))
    x = layer(K.Conv1D(4, 1, activation="relu", name="first")(sequence))
    model = tf.keras.Model(sequence, K.Dense(3)(K.Flatten()(x)))
    assert reason in str(ChannelGraph(model)["first"].frozen)
    assert_law(model)


def test_a_grey_image_rescaled_to_colours() -> None:
    """Scale and offset of each colour: one channel in, three out."""
    image = K.Input((8, 8, 1))
    x = K.Conv2D(4, 3, use_bias=False)(K.Rescaling([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])(image))
    model = tf.keras.Model(image, K.Dense(3)(K.GlobalAveragePooling2D()(x)))
    assert cost(model).params == model.count_params()
    assert_law(model)
