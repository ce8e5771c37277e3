"""Every larq layer with every quantiser obeys the law, with pads of 0 and 1."""

from __future__ import annotations

import logging

import larq as lq
import pytest
import tensorflow as tf

from tfqprune.testing import assert_law

logging.getLogger("larq").setLevel(logging.ERROR)
K, Q = tf.keras.layers, lq.layers

KERNEL_QUANTISERS = {
    "none": lambda: None,
    "ste_sign": lambda: "ste_sign",
    "approx_sign": lambda: "approx_sign",
    "swish_sign": lambda: "swish_sign",
    "magnitude_aware_sign": lambda: "magnitude_aware_sign",
    "ste_heaviside": lambda: "ste_heaviside",
    "ste_tern": lambda: "ste_tern",
    "ste_tern_twn": lambda: lq.quantizers.SteTern(ternary_weight_networks=True),
    **{f"dorefa_{bits}": lambda bits=bits: lq.quantizers.DoReFa(bits, mode="weights") for bits in range(1, 9)},
}
INPUT_QUANTISERS = {
    "none": lambda: None,
    "ste_sign": lambda: "ste_sign",
    "dorefa_2": lambda: lq.quantizers.DoReFa(2),
    "magnitude_aware_sign": lambda: "magnitude_aware_sign",
    "ste_tern_twn": lambda: lq.quantizers.SteTern(ternary_weight_networks=True),
    "dorefa_weights": lambda: lq.quantizers.DoReFa(3, mode="weights"),
}
SIGN = {"input_quantizer": "ste_sign"}
LAYERS = {
    "conv1d": (1, lambda q: Q.QuantConv1D(10, 3, padding="same", kernel_quantizer=q(), **SIGN)),
    "conv2d": (2, lambda q: Q.QuantConv2D(10, 3, padding="same", kernel_quantizer=q(), **SIGN)),
    "conv2d_pad1": (2, lambda q: Q.QuantConv2D(10, 3, padding="same", pad_values=1, kernel_quantizer=q(), **SIGN)),
    "conv3d": (3, lambda q: Q.QuantConv3D(10, 3, padding="same", pad_values=1, kernel_quantizer=q(), **SIGN)),
    "grouped": (2, lambda q: Q.QuantConv2D(12, 3, groups=4, padding="same", kernel_quantizer=q(), **SIGN)),
    "depthwise": (
        2,
        lambda q: Q.QuantDepthwiseConv2D(
            3, depth_multiplier=2, padding="same", pad_values=1, depthwise_quantizer=q(), **SIGN
        ),
    ),
    "separable1d": (
        1,
        lambda q: Q.QuantSeparableConv1D(
            10, 3, depth_multiplier=2, depthwise_quantizer=q(), pointwise_quantizer=q(), **SIGN
        ),
    ),
    "separable2d": (
        2,
        lambda q: Q.QuantSeparableConv2D(
            10, 3, depth_multiplier=2, depthwise_quantizer=q(), pointwise_quantizer=q(), **SIGN
        ),
    ),
    "transposed2d": (2, lambda q: Q.QuantConv2DTranspose(10, 3, strides=2, kernel_quantizer=q(), **SIGN)),
    "transposed3d": (3, lambda q: Q.QuantConv3DTranspose(10, 3, strides=2, kernel_quantizer=q(), **SIGN)),
    "dense": (2, lambda q: Q.QuantDense(10, kernel_quantizer=q(), **SIGN)),
}
SHAPES = {1: (9, 3), 2: (6, 6, 3), 3: (4, 4, 4, 3)}
CONVS = {1: K.Conv1D, 2: K.Conv2D, 3: K.Conv3D}
POOLS = {1: K.GlobalAveragePooling1D, 2: K.GlobalAveragePooling2D, 3: K.GlobalAveragePooling3D}


def sandwich(layer: tf.keras.layers.Layer, rank: int) -> tf.keras.Model:
    """input -> conv(8) -> bn -> LAYER -> bn -> conv(6) -> pool -> dense(4)"""
    inputs = K.Input(SHAPES[rank])
    x = K.BatchNormalization()(CONVS[rank](8, 3, padding="same", name="before")(inputs))
    x = K.BatchNormalization()(layer(x))
    x = CONVS[rank](6, 1, name="after")(x)
    return tf.keras.Model(inputs, K.Dense(4)(POOLS[rank]()(x)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("quantiser", KERNEL_QUANTISERS)
def test_kernel_quantisers(layer: str, quantiser: str) -> None:
    rank, make = LAYERS[layer]
    lawful = assert_law(sandwich(make(KERNEL_QUANTISERS[quantiser]), rank))
    assert lawful.plan.ratios["before"] == 0.5  # the channels that the layer reads were really cut


@pytest.mark.parametrize("quantiser", INPUT_QUANTISERS)
@pytest.mark.parametrize("layer", ["conv2d", "depthwise", "alone"])
def test_input_quantisers(layer: str, quantiser: str) -> None:
    quantise = INPUT_QUANTISERS[quantiser]()
    made = {
        "conv2d": lambda: Q.QuantConv2D(10, 3, padding="same", input_quantizer=quantise, kernel_quantizer="ste_sign"),
        "depthwise": lambda: Q.QuantDepthwiseConv2D(3, input_quantizer=quantise, depthwise_quantizer="ste_sign"),
        "alone": lambda: lq.quantizers.get(quantise) or K.ReLU(),
    }[layer]()
    lawful = assert_law(sandwich(made, 2))
    assert lawful.plan.ratios["before"] == 0.5


def test_scale_is_taken_over_what_stays() -> None:
    """DoReFa divides by the largest |tanh w| of the layer: cutting that filter shifts the others' levels.

    kernel (one input, three filters): 0.2, 0.4, 2.0; tanh: 0.1974, 0.3799, 0.9640.
    2 bits, all three:   round(3 (t / (2 x 0.9640) + 0.5)) = round(1.81, 2.09, 3) = 2, 2, 3 -> 1/3, 1/3, 1.
    2 bits, first two:   round(3 (t / (2 x 0.3799) + 0.5)) = round(2.28, 3)      = 2, 3    -> 1/3, 1.
    """
    import numpy as np

    import tfqprune as tq

    inputs = K.Input((1,))
    hidden = Q.QuantDense(3, kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"), use_bias=False, name="hidden")
    model = tf.keras.Model(inputs, K.Dense(1, use_bias=False, name="out")(hidden(inputs)))
    hidden.set_weights([np.array([[0.2, 0.4, 2.0]])])
    model.get_layer("out").set_weights([np.array([[1.0], [10.0], [100.0]])])
    graph = tq.ChannelGraph(model)
    from tfqprune.plan import plan_from_ratios

    plan = plan_from_ratios(graph, {"hidden": 0.34}, {group.name: -np.arange(group.size) for group in graph.groups})
    assert plan.removed == {"hidden": (2,)}
    one = np.ones((1, 1), "float32")
    np.testing.assert_allclose(model(one), [[1 / 3 + 10 / 3 + 100]], rtol=1e-6)
    np.testing.assert_allclose(tq.prune(model, plan)(one), [[1 / 3 + 10]], rtol=1e-6)
    np.testing.assert_allclose(tq.mask(model, plan)(one), [[1 / 3 + 10]], rtol=1e-6)
