"""Floors counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import larq as lq
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.floor import floor_by_layer

layers = tf.keras.layers

# plain: first 3*3*3*8 floats, its batch norm folded into it (8 biases); q1 3*3*8*16 and q2 3*3*16*16 codes, their
# batch norms 2*16 floats each; last (4*4*16)*5 + 5 floats.
_PLAIN_FLOATS = 216 + 8 + 32 + 32 + 1280 + 5
_PLAIN_CODES = 1152 + 2304
# residual: first and its norm as above; short 8*16 floats, norm folded (16); q1 576, q2 1152, q3 2304 codes with
# norms of 2*8, 2*16, 2*16; last 16*5 + 5.
_RESIDUAL_FLOATS = 216 + 8 + 128 + 16 + 16 + 32 + 32 + 85
_RESIDUAL_CODES = 576 + 1152 + 2304
# dense: 12*16 and 16*16 codes, norms of 2*16 each; last 16*3 + 3.
_DENSE_FLOATS = 32 + 32 + 51
_DENSE_CODES = 192 + 256


@pytest.mark.parametrize(("kind", "bits"), [("binary", 1), ("2", 2), ("3", 3), ("ternary", 2)])
@pytest.mark.parametrize(
    ("topology", "floats", "codes"),
    [
        ("plain", _PLAIN_FLOATS, _PLAIN_CODES),
        ("residual", _RESIDUAL_FLOATS, _RESIDUAL_CODES),
        ("dense", _DENSE_FLOATS, _DENSE_CODES),
    ],
)
def test_floor(net: Callable[..., Any], topology: str, kind: str, bits: int, floats: int, codes: int) -> None:
    assert te.floor_bytes(net(topology, kind)) == 4 * floats + codes * bits // 8


def test_a_bias_before_a_batch_norm_costs_nothing(single: Callable[..., Any]) -> None:
    model = tf.keras.Sequential([layers.Input((4, 4, 2)), layers.Conv2D(4, 1), layers.BatchNormalization()])
    assert te.floor_bytes(model) == 4 * (2 * 4 + 4)


def test_a_batch_norm_that_cannot_fold_costs_two_floats_a_channel() -> None:
    # the activation in between keeps the scale apart; the bias stays too
    model = tf.keras.Sequential(
        [layers.Input((4, 4, 2)), layers.Conv2D(4, 1, activation="relu"), layers.BatchNormalization()]
    )
    assert te.floor_bytes(model) == 4 * (2 * 4 + 4 + 2 * 4)


def test_scales_per_channel_count_unless_a_batch_norm_takes_them() -> None:
    def build(norm: bool) -> Any:
        conv = lq.layers.QuantConv2D(
            4, 1, use_bias=False, kernel_quantizer="magnitude_aware_sign", kernel_constraint="weight_clip"
        )
        return tf.keras.Sequential([layers.Input((4, 4, 8)), conv, *([layers.BatchNormalization()] if norm else [])])

    assert te.floor_bytes(build(norm=False)) == 8 * 4 // 8 + 4 * 4
    assert te.floor_bytes(build(norm=True)) == 8 * 4 // 8 + 4 * (2 * 4)


def test_shared_and_nested_layers_count_once(net: Callable[..., Any]) -> None:
    inner = net("dense", "2")
    first, second = layers.Input((12,)), layers.Input((12,))
    twice = tf.keras.Model([first, second], layers.add([inner(first), inner(second)]))
    assert te.floor_bytes(twice) == te.floor_bytes(inner)


def test_layers_of_the_plain_network_sum_to_the_floor(net: Callable[..., Any]) -> None:
    model = net("plain", "2")
    # first 216 floats and 8 of its folded norm; q1 1,152 codes of 2 bits and 2*16 floats of the norm behind it; the
    # norm of q2 stands behind the pooling, so under its own name; last 1,280 + 5 floats.
    by_layer = floor_by_layer(model)
    assert by_layer.pop("first") == 4 * (216 + 8)
    assert by_layer.pop("q1") == 1152 * 2 / 8 + 4 * 32
    assert by_layer.pop("q2") == 2304 * 2 / 8
    assert by_layer.pop("last") == 4 * 1285
    assert list(by_layer.values()) == [4 * 32]


def test_layers_that_another_model_reads_too_cost_the_same() -> None:
    model = tf.keras.Sequential([layers.Input((4, 4, 2)), layers.Conv2D(4, 1), layers.BatchNormalization()])
    before = te.floor_bytes(model)
    layers.Flatten()(model.layers[0].output)
    assert te.floor_bytes(model) == before == 4 * (2 * 4 + 4)


def test_what_a_normalization_counted_is_no_parameter() -> None:
    norm = layers.Normalization()
    norm.adapt([[0.0, 1.0], [2.0, 3.0]])
    # a mean and a variance of two each; 2*3 + 3 of the dense layer
    assert te.floor_bytes(tf.keras.Sequential([layers.Input((2,)), norm, layers.Dense(3)])) == 4 * (4 + 9)
