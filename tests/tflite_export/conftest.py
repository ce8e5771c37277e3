"""Tiny networks with random weights and batch-norm statistics that do something (negative scales included)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te

layers = tf.keras.layers


def batch_norm(x: Any, rng: np.random.Generator, name: str | None = None) -> Any:
    """A batch norm whose statistics suit a sum of some dozen products; every third scale is negative."""
    layer = layers.BatchNormalization(name=name)
    y = layer(x)
    channels = x.shape[-1]
    gamma = rng.uniform(0.3, 1.5, channels)
    gamma[::3] *= -1
    layer.set_weights(
        [gamma, rng.normal(0.3, 0.3, channels), rng.normal(0, 0.5, channels), rng.uniform(2, 8, channels)]
    )
    return y


def quantizers(kind: str) -> dict[str, Any]:
    """``binary``, ``ternary``, ``magnitude`` or the bits of DoReFa -> arguments of a larq layer."""
    if kind == "binary":
        return {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    if kind == "ternary":
        return {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_tern"}
    if kind == "magnitude":
        return {
            "input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign",
            "kernel_constraint": "weight_clip",
        }  # fmt: skip
    bits = int(kind)
    return {
        "input_quantizer": lq.quantizers.DoReFa(bits, mode="activations"),
        "kernel_quantizer": lq.quantizers.DoReFa(bits, mode="weights"),
    }


def conv(filters: int, kind: str, strides: int = 1, name: str | None = None) -> Any:
    """A 3x3 larq convolution without bias; binary ones pad with +1 as Larq Compute Engine wants."""
    pad = {"pad_values": 1.0} if kind == "binary" else {}
    return lq.layers.QuantConv2D(
        filters, 3, strides=strides, padding="same", use_bias=False, name=name, **quantizers(kind), **pad
    )


def plain(kind: str, second: str | None = None) -> Any:
    """VGG-like: float conv 3 -> 8, two quantised convs 8 -> 16 -> 16, max pool, flatten, float dense."""
    rng = np.random.default_rng(1)
    x = given = layers.Input((8, 8, 3), name="image")
    x = batch_norm(layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(x), rng)
    x = batch_norm(conv(16, kind, name="q1")(x), rng)
    x = layers.MaxPool2D()(conv(16, second or kind, name="q2")(x))
    x = layers.Flatten()(batch_norm(x, rng))
    return tf.keras.Model(given, layers.Softmax(name="classes")(layers.Dense(5, name="last")(x)))


def residual(kind: str) -> Any:
    """ResNet-like: shortcuts around every quantised conv, one strided stage with a float 1x1 shortcut."""
    rng = np.random.default_rng(2)
    x = given = layers.Input((8, 8, 3), name="image")
    x = batch_norm(layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(x), rng)
    x = layers.add([batch_norm(conv(8, kind, name="q1")(x), rng), x])
    short = layers.Conv2D(16, 1, use_bias=False, name="short")(layers.AvgPool2D()(x))
    x = layers.add([batch_norm(conv(16, kind, strides=2, name="q2")(x), rng), batch_norm(short, rng)])
    x = layers.add([batch_norm(conv(16, kind, name="q3")(x), rng), x])
    x = layers.Dense(5, name="last")(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(given, layers.Softmax(name="classes")(x))


def dense(kind: str) -> Any:
    """Flat input, two quantised dense layers with batch norms, a float dense layer with two outputs."""
    rng = np.random.default_rng(3)
    x = given = layers.Input((12,), name="features")
    x = batch_norm(lq.layers.QuantDense(16, use_bias=False, name="q1", **quantizers(kind))(x), rng)
    x = batch_norm(lq.layers.QuantDense(16, use_bias=False, name="q2", **quantizers(kind))(x), rng)
    return tf.keras.Model(given, layers.Dense(3, name="last")(x))


_BUILDERS: dict[str, Callable[..., Any]] = {"plain": plain, "residual": residual, "dense": dense}


@pytest.fixture(scope="session")
def net() -> Callable[..., Any]:
    """``net(topology, kind, ...)``: a network, built once a session."""
    built: dict[tuple[str, ...], Any] = {}

    def get(topology: str, *kinds: str) -> Any:
        key = (topology, *kinds)
        if key not in built:
            tf.keras.utils.set_random_seed(7)
            built[key] = _BUILDERS[topology](*kinds)
        return built[key]

    return get


@pytest.fixture(scope="session")
def exported(net: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., te.ExportResult]:
    """``exported(format, topology, kind, ...)``: an export result, made once a session."""
    results: dict[tuple[str, ...], te.ExportResult] = {}
    folder = tmp_path_factory.mktemp("exported")

    def get(format: str, *which: str) -> te.ExportResult:
        key = (format, *which)
        if key not in results:
            results[key] = te.export(net(*which), folder / ("-".join(key) + ".tflite"), format)
        return results[key]

    return get


@pytest.fixture(scope="session")
def single() -> Callable[[Any, tuple[int, ...]], Any]:
    """``single(layer, input_shape)``: a model of one layer."""

    def get(layer: Any, shape: tuple[int, ...]) -> Any:
        given = layers.Input(shape, name="x")
        return tf.keras.Model(given, layer(given))

    return get
