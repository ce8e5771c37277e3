"""Levels of activations are asked for, not guessed, and never taken from another layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.activations import InputLevels, input_levels

layers = tf.keras.layers


def _quantiser(bits: int, function: Callable[[Any], Any]) -> Any:
    """A user's quantiser of some bits."""

    def quantise(x: Any) -> Any:
        return x + tf.stop_gradient(function(x) - x)

    quantise.precision = bits  # type: ignore[attr-defined]
    return quantise


def _signed(x: Any) -> Any:
    """-1, -2/3, ..., 1."""
    return tf.round(tf.clip_by_value(x, -1, 1) * 3) / 3


def _unbounded(x: Any) -> Any:
    return tf.round(tf.nn.relu(x))


@pytest.mark.parametrize(
    ("quantiser", "levels"),
    [
        (lq.quantizers.DoReFa(2), InputLevels(1 / 3, signed=False)),
        (lq.quantizers.DoReFa(8), InputLevels(1 / 255, signed=False)),
        ("ste_sign", InputLevels(1.0, signed=True)),
        (lq.quantizers.SteTern(), InputLevels(1.0, signed=True)),
        ("ste_heaviside", InputLevels(1.0, signed=False)),
        (_quantiser(2, lambda x: tf.round(tf.clip_by_value(x / 2, 0, 3)) * 2), InputLevels(2.0, signed=False)),
        (_quantiser(3, _signed), None),
        (_quantiser(2, _unbounded), None),
        (_quantiser(16, _unbounded), None),
        (_quantiser(1, lambda x: tf.sign(x - tf.reduce_mean(x, axis=[1, 2, 3]))), None),
        (None, None),
    ],
)
def test_levels(quantiser: Any, levels: InputLevels | None) -> None:
    found = input_levels(lq.layers.QuantDense(3, input_quantizer=quantiser))
    assert (found is None) == (levels is None)
    if found is not None and levels is not None:
        assert found.step == pytest.approx(levels.step, rel=1e-6)
        assert found.signed == levels.signed


def _net(quantisers: list[Any], alike: bool) -> Any:
    x = inputs = layers.Input((8, 8, 4))
    for i, quantiser in enumerate(quantisers):
        kernel = lq.quantizers.DoReFa(2, mode="weights")
        x = lq.layers.QuantConv2D(4, 3, input_quantizer=quantiser, kernel_quantizer=kernel, name=f"conv{i}")(x)
        x = layers.BatchNormalization()(x)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    if alike:
        model.get_layer("conv1").set_weights(model.get_layer("conv0").get_weights())
    return model


_NORMAL = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype(np.float32)


@pytest.mark.parametrize("format", ["packed", "hybrid", "fast"])
@pytest.mark.parametrize("bits", [(2, 4), (4, 2)])
def test_equal_kernels_behind_different_bits(bits: tuple[int, int], format: str, tmp_path: Path) -> None:
    """One constant may stand for both layers: the levels are those of the wider activations."""
    model = _net([lq.quantizers.DoReFa(k) for k in bits], alike=True)
    assert te.export(model, tmp_path / "x.tflite", format, data=_NORMAL).agreement.max_error < 1e-5
    # which of the two a tensor in the file is in front of is not known
    assert te.verify(model, tmp_path / "x.tflite", _NORMAL, levels=True).levels == ()


@pytest.mark.parametrize("format", ["packed", "hybrid", "fast"])
@pytest.mark.parametrize("function", [_signed, _unbounded])
def test_quantisers_of_users(function: Callable[[Any], Any], format: str, tmp_path: Path) -> None:
    """A rounding in the file does not count from 0 to 2^k - 1 because the quantiser says that it has k bits."""
    model = _net([_quantiser(3, function), _quantiser(3, function)], alike=False)
    assert te.export(model, tmp_path / "x.tflite", format, data=3 * _NORMAL).agreement.max_error < 1e-5
    assert te.verify(model, tmp_path / "x.tflite", _NORMAL, levels=True).levels == ()
