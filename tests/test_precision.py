"""Bits: deployed kernels and codes by hand, and quantisers that look at the whole layer."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune import precision

Q = lq.layers


def dense(quantizer, weights, **kwargs):
    layer = Q.QuantDense(len(weights[0]), kernel_quantizer=quantizer, use_bias=False, **kwargs)
    layer.build((None, len(weights)))
    layer.set_weights([np.array(weights, "float32")])
    return layer


def dorefa(bits: int):
    return lq.quantizers.DoReFa(bits, mode="weights")


@pytest.mark.parametrize(
    ("quantizer", "integers", "scale", "bits"),
    [
        # signs: 0 counts as +1
        ("ste_sign", [[1, -1, 1, -1]], 1, 1),
        ("ste_heaviside", [[1, 0, 0, 0]], 1, 1),
        # threshold 0.05: -0.04 becomes 0
        ("ste_tern", [[1, 0, 0, -1]], 1, 2),
        # largest |tanh|: tanh(1) = 0.76159; t / (2 x 0.76159) + 0.5 = 0.8033, 0.4738, 0.5, 0
        # times 3: 2.41, 1.42, 1.5 (to even: 2), 0 -> 2, 1, 2, 0 -> 2 c - 3
        (dorefa(2), [[1, -1, 1, -3]], 1 / 3, 2),
        # times 1: 0.80, 0.47, 0.5 (to even: 0), 0 -> 1, 0, 0, 0 -> 2 c - 1
        (dorefa(1), [[1, -1, -1, -1]], 1, 1),
        # times 7: 5.62, 3.32, 3.5 (to even: 4), 0 -> 6, 3, 4, 0 -> 2 c - 7
        (dorefa(3), [[5, -1, 1, -7]], 1 / 7, 3),
    ],
)
def test_codes(quantizer, integers, scale, bits) -> None:
    layer = dense(quantizer, [[0.5, -0.04, 0.0, -1.0]])
    found = precision.codes(layer, "kernel")
    assert found is not None
    np.testing.assert_array_equal(found.integers, integers)
    assert found.scale == pytest.approx(scale)
    assert found.bits == bits == precision.weight_bits(layer, "kernel")
    np.testing.assert_allclose(precision.deployed(layer, "kernel"), np.array(integers) * scale, rtol=1e-6, atol=1e-7)


def test_magnitude_aware_sign_has_a_scale_per_filter() -> None:
    """Column means of |w|: (1 + 3) / 2 = 2 and (0.5 + 0.5) / 2 = 0.5."""
    found = precision.codes(dense("magnitude_aware_sign", [[1.0, -0.5], [-3.0, 0.5]]), "kernel")
    assert found is not None
    np.testing.assert_array_equal(found.integers, [[1, -1], [-1, 1]])
    np.testing.assert_allclose(found.scale, [2.0, 0.5])


def test_float_kernels_have_no_codes() -> None:
    assert precision.codes(dense(None, [[1.0]]), "kernel") is None
    assert precision.codes(dense(lq.quantizers.NoOp(precision=1), [[1.0]]), "kernel") is None


def test_bits_of_everything() -> None:
    layer = Q.QuantSeparableConv2D(
        4, 3, input_quantizer=lq.quantizers.DoReFa(3), depthwise_quantizer="ste_sign", pointwise_quantizer="ste_tern"
    )
    layer.build((None, 8, 8, 3))
    bits = [precision.weight_bits(layer, name) for name in ("depthwise_kernel", "pointwise_kernel", "bias")]
    assert bits == [1, 2, 32]
    assert precision.input_bits(layer) == 3
    assert set(precision.quantized_weights(layer)) == {"depthwise_kernel", "pointwise_kernel"}
    half = tf.keras.layers.Dense(2, dtype="float16")
    half.build((None, 3))
    assert precision.weight_bits(half, "kernel") == 16
    assert precision.input_bits(half) == 32


@pytest.mark.parametrize(
    ("quantizer", "wide"),
    [
        (None, False),
        (lq.quantizers.SteSign(), False),
        (lq.quantizers.ApproxSign(), False),
        (lq.quantizers.SwishSign(), False),
        (lq.quantizers.SteHeaviside(), False),
        (lq.quantizers.NoOp(precision=4), False),
        (lq.quantizers.DoReFa(2), False),
        (dorefa(2), True),
        (lq.quantizers.SteTern(), False),
        (lq.quantizers.SteTern(ternary_weight_networks=True), True),
        (lq.quantizers.MagnitudeAwareSign(), True),
        (lambda x: x / tf.reduce_max(x), True),  # unknown: treated with care
    ],
)
def test_tensor_wide(quantizer, wide: bool) -> None:
    assert precision.is_tensor_wide(quantizer) == wide


def test_levels_stay_exact_under_mixed_precision() -> None:
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = dense(dorefa(2), [[0.5, -0.04, 0.0, -1.0]])
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    values = precision.deployed(layer, "kernel")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [[1 / 3, -1 / 3, 1 / 3, -1]], rtol=1e-6)


def test_quantising_leaves_training_metrics_alone() -> None:
    quantizer = lq.quantizers.SteSign(metrics=["flip_ratio"])
    layer = dense(quantizer, [[1.0, -1.0]])
    layer(tf.zeros((1, 1)))
    before = [np.asarray(weight) for weight in quantizer.flip_ratio.weights]
    precision.deployed(layer, "kernel")
    for weight, value in zip(quantizer.flip_ratio.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
