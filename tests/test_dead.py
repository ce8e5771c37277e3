"""Dead channels: what goes, what stays and why, and that the model computes the same without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.dead import dead_counts, dead_hint
from tfqprune.errors import DataError, PlanError
from tfqprune.precision import variable_value
from tfqprune.testing import shake

K = tf.keras.layers


def compare(model: tf.keras.Model, slim: tf.keras.Model) -> None:
    shape = [size or 8 for size in model.input_shape[1:]]
    x = np.random.default_rng(5).normal(size=(7, *shape)).astype("float32")
    np.testing.assert_allclose(slim(x), model(x), rtol=1e-5, atol=1e-5)


def kill(model: tf.keras.Model, norm: str, channels: dict[int, float]) -> None:
    """Makes channels of a batch norm constants of these values."""
    gamma, beta = (variable_value(getattr(model.get_layer(norm), name)).copy() for name in ("gamma", "beta"))
    for channel, value in channels.items():
        gamma[channel], beta[channel] = 0, value
    model.get_layer(norm).gamma.assign(gamma)
    model.get_layer(norm).beta.assign(beta)


def chain(padding: str = "valid", use_bias: bool = True, norm: bool = False) -> tf.keras.Model:
    """Conv 4 -> batch norm -> relu -> conv 3 (-> batch norm) -> flatten -> dense 2."""
    tf.keras.utils.set_random_seed(0)
    image = K.Input((6, 6, 2))
    x = K.ReLU()(K.BatchNormalization(name="norm")(K.Conv2D(4, 3, name="first")(image)))
    x = K.Conv2D(3, 2, padding=padding, use_bias=use_bias, name="second")(x)
    if norm:
        x = K.BatchNormalization(name="after")(x)
    return shake(tf.keras.Model(image, K.Dense(2, name="last")(K.Flatten()(x))))


# Channel 1 is 0.7 and channel 3 is relu(-0.4) = 0 whatever comes in. The second convolution gets 0.7 times the sum of
# its four taps of channel 1 in its bias.
def test_constant_goes_to_the_bias_by_hand() -> None:
    model = chain()
    kill(model, "norm", {1: 0.7, 3: -0.4})
    before = [variable_value(weight) for weight in model.weights]
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (1, 3)}
    assert plan.notes["left"] == {}
    kernel, bias = model.get_layer("second").get_weights()
    np.testing.assert_allclose(
        slim.get_layer("second").get_weights()[1], bias + 0.7 * kernel[:, :, 1].sum((0, 1)), 1e-5
    )
    np.testing.assert_array_equal(slim.get_layer("second").get_weights()[0], kernel[:, :, [0, 2]])
    compare(model, slim)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable_value(weight), value)


def test_constant_goes_off_the_moving_mean_without_a_bias() -> None:
    model = chain(use_bias=False, norm=True)
    kill(model, "norm", {0: 1.5})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (0,)}
    mean, kernel = variable_value(model.get_layer("after").moving_mean), model.get_layer("second").get_weights()[0]
    expected = mean - 1.5 * kernel[:, :, 0].sum((0, 1))
    np.testing.assert_allclose(variable_value(slim.get_layer("after").moving_mean), expected, rtol=1e-5)
    compare(model, slim)


# Zero padding beside 0.7 is an edge that no bias can draw; beside 0 there is none.
def test_stays_where_the_constant_meets_padding() -> None:
    model = chain(padding="same")
    kill(model, "norm", {1: 0.7, 3: -0.4})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (3,)}
    assert plan.notes["left"] == {"first": "1 units: its constant meets other values in the padding of 'second'"}
    compare(model, slim)


def test_stays_where_nothing_takes_the_constant() -> None:
    tf.keras.utils.set_random_seed(0)
    image = K.Input((6, 6, 2))
    x = K.BatchNormalization(name="norm")(K.Conv2D(4, 3, name="first")(image))
    x = K.ReLU()(K.Conv2D(3, 1, use_bias=False, name="second")(x))
    model = shake(tf.keras.Model(image, K.Dense(2, name="last")(K.Flatten()(x))))
    kill(model, "norm", {2: 0.5})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {}
    assert "'second' has no bias" in plan.notes["left"]["first"]
    compare(model, slim)


# A sign makes +1 of 0.3 and -1 of -0.3; larq pads with +1 here.
def test_binary_padding_is_met_by_its_own_value() -> None:
    tf.keras.utils.set_random_seed(0)
    image = K.Input((6, 6, 2))
    x = K.BatchNormalization(name="norm")(K.Conv2D(4, 3, name="first")(image))
    sign: dict[str, Any] = {"kernel_quantizer": "ste_sign", "input_quantizer": "ste_sign"}
    x = lq.layers.QuantConv2D(5, 3, padding="same", pad_values=1.0, use_bias=False, name="second", **sign)(x)
    x = K.GlobalAveragePooling2D()(K.BatchNormalization(name="after")(x))
    model = shake(tf.keras.Model(image, K.Dense(2, name="last")(x)))
    kill(model, "norm", {0: 0.3, 2: -0.3})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (0,)}
    assert "padding" in plan.notes["left"]["first"]
    compare(model, slim)


def residual(bits: int = 2) -> tf.keras.Model:
    """Conv 4 -> batch norm -+-> 2-bit conv 6 -> batch norm -> 2-bit conv 4 -> batch norm -+-> flatten -> dense 2."""
    tf.keras.utils.set_random_seed(0)
    image = K.Input((5, 5, 2))
    x = stream = K.BatchNormalization(name="stem")(K.Conv2D(4, 3, name="first")(image))
    for name, filters in (("inner", 6), ("outer", 4)):
        weights, activations = (lq.quantizers.DoReFa(bits, mode=mode) for mode in ("weights", "activations"))
        x = lq.layers.QuantConv2D(
            filters, 1, kernel_quantizer=weights, input_quantizer=activations, use_bias=False, name=name
        )(x)
        x = K.BatchNormalization(name=f"{name}_norm")(x)
    x = K.Flatten()(K.Add()([x, stream]))
    return shake(tf.keras.Model(image, K.Dense(2, name="last")(x)))


# The stream's channel 1 comes from two batch norms: with one of them alive, it is not constant.
def test_all_branches_of_a_sum_must_be_dead() -> None:
    model = residual()
    kill(model, "stem", {1: 0.4})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {}
    assert "reads it where it is not constant" in plan.notes["left"]["first"]
    kill(model, "outer_norm", {1: 0.2})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (1,)}
    compare(model, slim)


# DoReFa divides by the largest |tanh w| of the kernel: who holds it cannot go unnoticed.
def test_stays_where_a_scale_would_change() -> None:
    model = residual()
    kill(model, "inner_norm", {2: 0.4, 5: 0.1})
    latent = variable_value(model.get_layer("inner").kernel).copy()
    latent[..., 2] *= 20
    kernel = model.get_layer("inner").kernel
    getattr(kernel, "latent_variable", kernel).assign(latent)
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"inner": (5,)}
    assert plan.notes["left"] == {"inner": "1 units: without it the quantiser of 'inner' takes another scale"}
    compare(model, slim)


def test_one_unit_of_a_group_stays() -> None:
    model = chain()
    kill(model, "norm", dict.fromkeys(range(4), 0.5))
    slim, plan = tq.remove_dead_channels(model)
    assert len(plan.removed["first"]) == 3
    compare(model, slim)


# Channel 0 has a standard deviation of 0.0005 behind its batch norm.
def test_tolerance() -> None:
    model = chain()
    kill(model, "norm", {0: 0.5})
    norm = model.get_layer("norm")
    gamma = variable_value(norm.gamma).copy()
    gamma[0] = 0.0005
    norm.gamma.assign(gamma)
    assert tq.remove_dead_channels(model, tolerance=1e-4)[1].removed == {}
    slim, plan = tq.remove_dead_channels(model, np.random.default_rng(0).normal(size=(64, 6, 6, 2)), tolerance=1e-3)
    assert plan.removed == {"first": (0,)}
    x = np.random.default_rng(5).normal(size=(7, 6, 6, 2)).astype("float32")
    np.testing.assert_allclose(slim(x), model(x), atol=0.02)
    assert tq.remove_dead_channels(model, tolerance=np.float32(1e-4))[1].notes["tolerance"] == pytest.approx(1e-4)
    with pytest.raises(PlanError, match="tolerance to be a finite number of at least 0"):
        tq.remove_dead_channels(model, tolerance=-1.0)


# In two blocks of two channels each, channels 1 and 3 are one unit; each goes to the bias of its own block's filters.
def test_constants_of_a_grouped_convolution_by_hand() -> None:
    tf.keras.utils.set_random_seed(0)
    image = K.Input((4, 4, 2))
    x = K.BatchNormalization(name="norm")(K.Conv2D(4, 1, name="first")(image))
    x = K.Conv2D(6, 2, groups=2, name="grouped")(x)
    model = shake(tf.keras.Model(image, K.Dense(2, name="last")(K.Flatten()(x))))
    kill(model, "norm", {1: 0.5, 3: -2.0})
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (1,)}
    kernel, bias = model.get_layer("grouped").get_weights()
    taps = kernel[:, :, 1].sum((0, 1))
    expected = bias + taps * [0.5, 0.5, 0.5, -2, -2, -2]
    np.testing.assert_allclose(slim.get_layer("grouped").get_weights()[1], expected, rtol=1e-5)
    compare(model, slim)


#: makes a model's output of its image and of the four channels behind the batch norm "norm"
Tail = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def dead_network(tail: Tail, value: float, size: int | None = 6) -> tf.keras.Model:
    """Conv 4 -> batch norm, whose channel 1 is ``value`` whatever comes in -> tail."""
    tf.keras.utils.set_random_seed(0)
    image = K.Input((size, size, 2))
    x = K.BatchNormalization(name="norm")(K.Conv2D(4, 3, padding="same", name="first")(image))
    model = shake(tf.keras.Model(image, tail(image, x)))
    kill(model, "norm", {1: value})
    return model


def conv(*args: Any, **options: Any) -> tf.keras.layers.Layer:
    return K.Conv2D(3, *args, **{"use_bias": False, "name": "reader", **options})


def norm(**options: Any) -> tf.keras.layers.Layer:
    return K.BatchNormalization(name="after", **options)


def head(x: tf.Tensor) -> tf.Tensor:
    return K.Dense(2, name="last")(K.Flatten()(x))


def gated(x: tf.Tensor) -> tf.Tensor:
    """Squeeze and excite: each channel times a gate that is read from all of them."""
    return K.Multiply()([x, K.Dense(4, activation="sigmoid")(K.GlobalAveragePooling2D()(x))])


def in_a_nested_model_twice(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    inside = K.Input((6, 6, 4))
    inner = tf.keras.Model(inside, norm()(conv(2)(inside)), name="inner")
    return head(K.Add()([inner(x), inner(K.ReLU()(x))]))


def dense_of_two_ranks(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    dense = K.Dense(3, name="reader")
    return K.Concatenate()([dense(K.GlobalAveragePooling2D()(x)), K.Flatten()(dense(x))])


def even_sizes_only(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    x = K.Concatenate()([x, K.UpSampling2D()(K.MaxPooling2D()(x))])
    return K.Dense(2)(K.GlobalAveragePooling2D()(conv(2, use_bias=True)(x)))


@pytest.mark.parametrize(
    ("tail", "value", "size"),
    [
        pytest.param(lambda image, x: head(conv(2, use_bias=True, activation="relu")(x)), 0.7, 6, id="bias"),
        pytest.param(lambda image, x: head(norm()(conv(2)(x))), 0.7, 6, id="moving mean"),
        pytest.param(
            lambda image, x: head(norm()(conv(2, strides=2, padding="same")(x))), 0.7, 6, id="same, but nothing padded"
        ),
        pytest.param(
            lambda image, x: head(norm()(conv(1)(K.DepthwiseConv2D(2, dilation_rate=2)(x)))), 0.7, 6, id="dilated"
        ),
        # What the zero padding makes of 0.7 differs from pixel to pixel, and is the same for every image.
        pytest.param(
            lambda image, x: head(K.DepthwiseConv2D(3, strides=2, padding="same")(x)), 0.7, 6, id="pixels of a dense"
        ),
        pytest.param(
            lambda image, x: K.Dense(2)(K.GlobalMaxPooling2D()(K.DepthwiseConv2D(3, padding="same")(x))),
            0.7, 6, id="largest pixel",
        ),
        pytest.param(
            lambda image, x: K.Dense(2)(norm()(K.Dense(3, use_bias=False)(K.Flatten()(x)))), 0.7, 6, id="dense, no bias"
        ),
        pytest.param(
            lambda image, x: head(
                lq.layers.QuantConv2D(3, 2, input_quantizer=lq.quantizers.DoReFa(2, mode="activations"))(x)
            ),
            0.7, 6, id="two bits",
        ),
        pytest.param(
            lambda image, x: head(K.SeparableConv2D(3, 3, padding="same")(K.ReLU()(x))), -0.7, 6, id="zero, separable"
        ),
        pytest.param(
            lambda image, x: head(K.SeparableConv2D(3, 3, strides=2, depth_multiplier=2)(x)), 0.7, 6, id="separable"
        ),
        pytest.param(
            lambda image, x: head(
                lq.layers.QuantSeparableConv2D(
                    3, 2, depth_multiplier=2, input_quantizer="ste_sign",
                    depthwise_quantizer="ste_sign", pointwise_quantizer="ste_sign",
                )(x)
            ),
            0.7, 6, id="separable signs",
        ),
        pytest.param(lambda image, x: head(conv(3, padding="same")(gated(K.ReLU()(x)))), -0.7, 6, id="zero, gated"),
        pytest.param(
            lambda image, x: head(norm()(conv(1)(K.Concatenate()([K.Conv2D(3, 1)(image), x])))), 0.7, 6, id="concat"
        ),
        pytest.param(in_a_nested_model_twice, 0.7, 6, id="nested twice"),
        pytest.param(dense_of_two_ranks, 0.7, 6, id="dense of two ranks"),
        pytest.param(even_sizes_only, 0.7, None, id="open sizes"),
    ],
)  # fmt: skip
def test_goes_and_nothing_changes(tail: Tail, value: float, size: int | None) -> None:
    model = dead_network(tail, value, size)
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {"first": (1,)}
    assert plan.notes["left"] == {}
    compare(model, slim)


class ReluNorm(K.BatchNormalization):
    """Not linear, though a batch norm by type."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return super().call(tf.nn.relu(inputs), training=training)


def two_readers(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return head(K.Concatenate()([norm()(conv(2, activation="relu")(x)), K.Conv2D(3, 2)(x)]))


def nested_model_shows_the_reader(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    inside = K.Input((6, 6, 4))
    y = conv(2)(inside)
    return head(K.Add()(tf.keras.Model(inside, [y, norm()(y)], name="inner")(x)))


def nested_model_reads_the_reader(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    y = conv(2)(x)
    inside = K.Input((5, 5, 3))
    return head(K.Add()([norm()(y), tf.keras.Model(inside, K.Conv2D(3, 1)(inside), name="inner")(y)]))


def reader_of_two_norms(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    reader = conv(1)
    return head(K.Add()([norm()(reader(x)), K.BatchNormalization()(reader(K.ReLU()(x)))]))


def norm_of_two_readers(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    shared = norm()
    return head(K.Add()([shared(conv(1)(x)), shared(K.Conv2D(3, 1)(x))]))


def shared_unit_norm(image: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    shared, other = K.UnitNormalization(name="unit"), K.Conv2D(5, 3, padding="same")(image)
    return head(K.Concatenate()([K.ReLU()(K.Conv2D(3, 1)(shared(x))), K.Conv2D(3, 1)(shared(other))]))


_ACTIVATION = "'reader' has no bias, and its activation comes before any batch norm"
_OTHER = "'reader' has no bias, and something else than a batch norm reads its output"
_PADDING = "its constant meets other values in the padding of 'reader'"
_VARIES = "'reader' reads it where it is not constant"
_KIND = "'reader' is no plain convolution or dense layer"


@pytest.mark.parametrize(
    ("tail", "value", "reason"),
    [
        pytest.param(lambda image, x: head(norm()(conv(2, activation="relu")(x))), 0.7, _ACTIVATION, id="activation"),
        pytest.param(
            lambda image, x: head(norm()(K.Dense(3, use_bias=False, activation="tanh", name="reader")(x))),
            0.7, _ACTIVATION, id="dense, activation",
        ),
        pytest.param(two_readers, 0.7, _ACTIVATION, id="one of two readers"),
        pytest.param(lambda image, x: head(norm()(K.ReLU()(conv(2)(x)))), 0.7, _OTHER, id="activation layer"),
        pytest.param(lambda image, x: head(norm(axis=1)(conv(3)(x))), 0.7, _OTHER, id="norm of rows"),
        pytest.param(lambda image, x: head(ReluNorm()(conv(2)(x))), 0.7, _OTHER, id="norm with its own call"),
        pytest.param(nested_model_shows_the_reader, 0.7, _OTHER.replace("reader", "inner/reader"), id="nested output"),
        pytest.param(nested_model_reads_the_reader, 0.7, _OTHER, id="nested reader"),
        pytest.param(reader_of_two_norms, 0.7, _OTHER, id="two norms"),
        pytest.param(
            norm_of_two_readers, 0.7, "'reader' has no bias, and the batch norm behind it reads other outputs, too",
            id="shared norm",
        ),
        # 0.7 times the taps may be negative, which the first step of training would undo.
        pytest.param(
            lambda image, x: head(conv(1, use_bias=True, bias_constraint="non_neg")(x)),
            0.7, "'reader' has a constrained bias, and something else than a batch norm reads its output",
            id="constrained bias",
        ),
        pytest.param(
            lambda image, x: head(K.Conv1D(3, 3, padding="causal", name="reader")(K.Reshape((36, 4))(x))),
            0.7, _PADDING, id="causal",
        ),
        # Both are within the tolerance of what varies; these do not vary, and would be edges.
        pytest.param(
            lambda image, x: head(conv(3, use_bias=True, padding="same")(x)), 9e-4, _PADDING, id="small, padded"
        ),
        pytest.param(
            lambda image, x: head(conv(3, use_bias=True)(K.ZeroPadding2D()(x))), 9e-3, _VARIES, id="small, padded first"
        ),
        pytest.param(
            lambda image, x: head(conv(1, use_bias=True)(K.DepthwiseConv2D(3, strides=2, padding="same")(x))),
            0.7, _VARIES, id="depthwise, strided",
        ),
        pytest.param(lambda image, x: head(conv(1, use_bias=True)(gated(x))), 0.7, _VARIES, id="gated"),
        # Only inputs in the hundreds reach the threshold.
        pytest.param(
            lambda image, x: head(
                conv(1, use_bias=True)(K.Add()([x, K.ReLU(threshold=300.0)(K.Conv2D(4, 1, name="other")(image))]))
            ),
            0.7, _VARIES, id="sum with what seldom speaks",
        ),
        pytest.param(
            lambda image, x: head(K.Conv2DTranspose(3, 3, name="reader")(x)), 0.7, _KIND, id="transposed"
        ),
        pytest.param(
            lambda image, x: head(
                lq.layers.QuantSeparableConv2D(3, 3, padding="same", pad_values=1.0, name="reader")(K.ReLU()(x))
            ),
            -0.7, _PADDING, id="zero, separable, padded with one",
        ),
        pytest.param(shared_unit_norm, 0.7, "'unit' takes statistics over it and other channels", id="statistics"),
        pytest.param(
            lambda image, x: head(conv(1, use_bias=True)(K.Dropout(0.5, name="drop")(x, training=True))),
            0.7, "'drop' is always called as in training", id="dropout",
        ),
        pytest.param(
            lambda image, x: head(conv(1, use_bias=True)(K.Dropout(0.5, name="drop")(x, True))),
            0.7, "'drop' is always called as in training", id="dropout, by position",
        ),
    ],
)  # fmt: skip
def test_stays_with_its_reason(tail: Tail, value: float, reason: str) -> None:
    check_left(dead_network(tail, value), reason)


def check_left(model: tf.keras.Model, reason: str) -> None:
    slim, plan = tq.remove_dead_channels(model)
    assert plan.removed == {}
    assert list(plan.notes["left"].values()) == [f"1 units: {reason}"]
    for new, old in zip(slim.weights, model.weights, strict=True):
        np.testing.assert_array_equal(variable_value(new), variable_value(old))


# Two pixels by two in steps of two: 16 pixels need no padding, 17 need one. And the mean over all pixels of what a zero
# padding makes of 0.7 depends on how many of them are at the edge.
@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (
            lambda image, x: K.Dense(2)(K.GlobalAveragePooling2D()(norm()(conv(2, strides=2, padding="same")(x)))),
            _PADDING,
        ),
        (
            lambda image, x: K.Dense(2, name="reader")(
                K.GlobalAveragePooling2D()(K.DepthwiseConv2D(3, padding="same")(x))
            ),
            _VARIES,
        ),
    ],
)
def test_stays_where_it_depends_on_an_open_size(tail: Tail, reason: str) -> None:
    check_left(dead_network(tail, 0.7, size=None), reason)


# Noise cannot be looked up; indices say what is constant.
def test_indices_are_asked_for() -> None:
    tf.keras.utils.set_random_seed(0)
    inputs = K.Input((7,), dtype="int32")
    x = K.ReLU()(
        K.BatchNormalization(name="norm")(K.Conv1D(6, 3, name="conv")(K.Embedding(20, 8, name="table")(inputs)))
    )
    model = shake(tf.keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling1D()(x))))
    kill(model, "norm", {0: 0.3})
    with pytest.raises(DataError, match=r"Received: none, and embedding 'table'\. Hand over samples"):
        tq.remove_dead_channels(model)
    indices = np.random.default_rng(0).integers(0, 20, (30, 7))
    slim, plan = tq.remove_dead_channels(model, indices)
    assert plan.removed == {"conv[1]": (0,)}  # conv[0] are the channels of the table
    np.testing.assert_allclose(slim(indices), model(indices), rtol=1e-5, atol=1e-5)


# What batch norms alone tell: gamma 0 is a deviation of 0.
class TestCounts:
    def test_by_hand(self) -> None:
        model = chain()
        kill(model, "norm", {1: 0.7, 3: -0.4})
        graph = tq.ChannelGraph(model)
        assert dead_counts(graph) == {"first": 2}
        hint = dead_hint(graph)
        assert hint is not None
        assert hint.startswith("2 of 7 prunable units are constant behind their batch norm.")  # 4 and 3 units

    def test_none_is_dead(self) -> None:
        graph = tq.ChannelGraph(chain())
        assert dead_counts(graph) == {}
        assert dead_hint(graph) is None

    def test_a_group_keeps_its_last_unit(self) -> None:
        model = chain()
        kill(model, "norm", dict.fromkeys(range(4), 0.5))
        slim, plan = tq.remove_dead_channels(model)
        assert dead_counts(tq.ChannelGraph(model)) == {"first": 3} == {k: len(v) for k, v in plan.removed.items()}
        assert dead_counts(tq.ChannelGraph(slim)) == {}

    def test_a_tolerance_above_all_deviations(self) -> None:
        assert dead_counts(tq.ChannelGraph(chain()), tolerance=100) == {"first": 3}

    def test_a_residual_sum_lives_while_one_of_its_branches_does(self) -> None:
        image = K.Input((6, 6, 2))
        branches = [
            K.BatchNormalization(name=f"norm{i}")(K.Conv2D(4, 3, padding="same", name=f"conv{i}")(image)) for i in "ab"
        ]
        x = K.GlobalAveragePooling2D()(K.ReLU()(K.Add()(branches)))
        model = shake(tf.keras.Model(image, K.Dense(2)(x)))
        kill(model, "norma", {0: 0.0, 1: 0.0})
        assert dead_counts(tq.ChannelGraph(model)) == {}
        kill(model, "normb", {1: 0.3})
        (count,) = dead_counts(tq.ChannelGraph(model)).values()
        assert count == 1
