"""Dead channels: what goes, what stays and why, and that the model computes the same without them."""

from __future__ import annotations

from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.errors import PlanError
from tfqprune.precision import variable_value
from tfqprune.testing import shake

K = tf.keras.layers


def compare(model: tf.keras.Model, slim: tf.keras.Model) -> None:
    x = np.random.default_rng(5).normal(size=(7, *model.input_shape[1:])).astype("float32")
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
    with pytest.raises(PlanError, match="tolerance of at least 0"):
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
