"""Sequential DoReFa networks in 8-bit integers, level for level; what is not sequential is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.exporting import gather_facts
from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_NAMES, Graph
from tfqprune.errors import ExportError

layers = tf.keras.layers


def _arguments(bits: int) -> dict[str, Any]:
    return {
        "input_quantizer": lq.quantizers.DoReFa(bits, mode="activations"),
        "kernel_quantizer": lq.quantizers.DoReFa(bits, mode="weights"),
        "use_bias": False,
    }


def _kernel_types(path: Path, kind: str) -> list[str]:
    graph = Graph(read_model(path))
    return [
        TYPE_NAMES[graph.tensors[int(operator.inputs[1])].type]
        for operator in graph.operators
        if graph.kind(operator) == kind and len(operator.inputs) > 1
    ]


@pytest.mark.parametrize(("topology", "bits"), [("plain", "2"), ("plain", "3"), ("dense", "2"), ("dense", "1")])
def test_every_level_is_that_of_keras(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], topology: str, bits: str
) -> None:
    result = exported("int8", topology, bits)
    for xnnpack in (False, True):  # two of the three requantisations
        agreement = te.verify(net(topology, bits), result.path, xnnpack=xnnpack, levels=True)
        assert [(level.layer, level.mismatches) for level in agreement.levels] == [("q1", 0), ("q2", 0)]
        assert min(level.values for level in agreement.levels) >= 64 * 12
        assert agreement.max_error < 2e-6
    assert result.notes[0].startswith("1 quantised layers compute in integers, every channel proven exact; 1 at")


def test_integers_by_hand(tmp_path: Path) -> None:
    given = layers.Input((4,))
    first, second = lq.layers.QuantDense(2, **_arguments(2)), lq.layers.QuantDense(2, **_arguments(2))
    norm = layers.BatchNormalization(epsilon=0.0)
    model = tf.keras.Model(given, second(norm(first(given))))
    # tanh is odd and the largest weight maps to 1: these latent weights deploy to -1, -1/3, 1/3, 1 and back
    ladder = np.array([-2.0, -0.3, 0.3, 2.0])
    first.set_weights([np.stack([ladder, ladder[::-1]], axis=1)])
    second.set_weights([np.array([[2.0, -2.0], [0.3, 2.0]])])
    # y = a / 9 for integer sums a, then -y + 1 in the second channel
    norm.set_weights([np.array([1.0, -1.0]), np.array([0.0, 1.0]), np.zeros(2), np.ones(2)])
    result = te.export(model, tmp_path / "hand.tflite", "int8", samples=32)
    assert result.agreement.max_error < 1e-6
    graph = Graph(read_model(result.path))
    product = next(
        op for op in graph.operators
        if graph.kind(op) == "FULLY_CONNECTED" and TYPE_NAMES[graph.tensors[int(op.inputs[1])].type] == "INT8"
    )  # fmt: skip
    # 127 // 3 = 42 times -3 -1 1 3; the falling channel is negated: 42 * -(3 1 -1 -3)
    assert graph.constant(int(product.inputs[1])).tolist() == [[-126, -42, 42, 126], [-126, -42, 42, 126]]
    # round(a / 3) = round(42 a / 126); round(3 - a / 3) = round((378 - 42 a) / 126)
    assert graph.constant(int(product.inputs[2])).tolist() == [0, 378]
    # levels come in with step 1 and leave with 1/3: scale * 1 / (1/3) = 1 / 126
    record = graph.tensors[int(product.inputs[1])].quantization
    np.testing.assert_allclose(record.scale, [1 / 378, 1 / 378], rtol=1e-6)
    output = graph.tensors[int(product.outputs[0])].quantization
    assert (float(output.scale[0]), int(output.zeroPoint[0])) == (np.float32(1 / 3), -128)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_chains_of_convolutions_pools_and_falling_channels(tmp_path: Path, bits: int, padding: str) -> None:
    rng = np.random.default_rng(bits)
    x = given = layers.Input((12, 12, 5))
    x = lq.layers.QuantConv2D(8, 3, padding=padding, name="a", **_arguments(bits))(x)
    x = _norm(layers.MaxPool2D()(x), rng)  # a pool, then scales that turn every third channel round
    depthwise = _arguments(bits)
    depthwise["depthwise_quantizer"] = depthwise.pop("kernel_quantizer")
    x = _norm(lq.layers.QuantDepthwiseConv2D(3, padding=padding, name="b", **depthwise)(x), rng)
    x = _norm(lq.layers.QuantConv2D(7, 1, strides=2, padding=padding, name="c", **_arguments(bits))(x), rng)
    x = lq.layers.QuantDense(6, name="d", **_arguments(bits))(layers.Flatten()(x))
    model = tf.keras.Model(given, _norm(x, rng))
    path = tmp_path / "chain.tflite"
    result = te.export(model, path, "int8", samples=32, strict=False)
    assert result.notes[0].startswith("3 quantised layers")
    for xnnpack in (False, True):
        found = te.verify(model, path, samples=32, xnnpack=xnnpack, levels=True)
        assert [(level.layer, level.mismatches) for level in found.levels] == [(n, 0) for n in "abcd"]
    assert _kernel_types(path, "CONV_2D") == ["INT8", "INT8"]
    # the depthwise layer itself, and the one that turns falling channels round after the pool
    assert _kernel_types(path, "DEPTHWISE_CONV_2D") == ["INT8", "INT8"]


def _norm(x: Any, rng: np.random.Generator) -> Any:
    layer = layers.BatchNormalization()
    y = layer(x)
    channels = x.shape[-1]
    scale = rng.uniform(0.3, 1.5, channels)
    scale[::3] *= -1
    shift, mean, variance = rng.normal(0.4, 0.2, channels), rng.normal(0, 0.3, channels), rng.uniform(0.5, 3, channels)
    layer.set_weights([scale, shift, mean, variance])
    return y


def test_shortcuts_are_refused_by_name(net: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r'paths meet or part at \w+, .* sequential network; use format="packed"'):
        te.export(net("residual", "2"), tmp_path / "x.tflite", "int8")
    assert not list(tmp_path.iterdir())


def test_signs_are_refused_by_name(net: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r'q1 reads activations of \+-1.*use format="binary" or "packed"'):
        te.export(net("plain", "ternary"), tmp_path / "x.tflite", "int8")


def test_other_activations_are_refused_by_name(tmp_path: Path) -> None:
    given = layers.Input((4,))
    x = lq.layers.QuantDense(5, activation="tanh", name="bent", **_arguments(2))(given)
    model = tf.keras.Model(given, lq.layers.QuantDense(3, **_arguments(2))(x))
    with pytest.raises(ExportError, match=r"a sequential network.*Received: a TANH operator.* after bent"):
        te.export(model, tmp_path / "x.tflite", "int8")


def test_averages_are_refused_by_name(tmp_path: Path) -> None:
    given = layers.Input((6, 6, 4))
    x = layers.AvgPool2D()(lq.layers.QuantConv2D(5, 3, name="mean", **_arguments(2))(given))
    model = tf.keras.Model(given, lq.layers.QuantConv2D(3, 1, **_arguments(2))(x))
    with pytest.raises(ExportError, match=r"a AVERAGE_POOL_2D operator before the next quantiser after mean"):
        te.export(model, tmp_path / "x.tflite", "int8")


def test_a_channel_that_no_integers_hit_is_named(net: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"all 15 thresholds.*none for channel \d+ of q1: .* 1/8 of a sum"):
        te.export(net("plain", "4"), tmp_path / "x.tflite", "int8")
    assert not list(tmp_path.iterdir())


def test_a_single_layer_has_nothing_between_two_quantisers(single: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"between two DoReFa quantisers.*Received: none"):
        te.export(single(lq.layers.QuantDense(3, **_arguments(2)), (4,)), tmp_path / "x.tflite", "int8")


def test_a_batch_norm_behind_a_flatten_is_refused_by_name(tmp_path: Path) -> None:
    given = layers.Input((6, 6, 3))
    x = layers.Flatten()(lq.layers.QuantConv2D(4, 3, name="flat", **_arguments(2))(given))
    model = tf.keras.Model(given, lq.layers.QuantDense(5, **_arguments(2))(_norm(x, np.random.default_rng(0))))
    with pytest.raises(ExportError, match=r"Received: RESHAPE between a layer and its batch norm, after flat"):
        te.export(model, tmp_path / "x.tflite", "int8")


def test_a_batch_norm_behind_padding_is_refused_by_name(tmp_path: Path) -> None:
    """The zeros that are padded meet the batch norm in Keras: no level 0 in the file stands for them."""
    given = layers.Input((6, 6, 3))
    x = layers.ZeroPadding2D()(lq.layers.QuantConv2D(4, 3, name="padded", **_arguments(2))(given))
    model = tf.keras.Model(given, lq.layers.QuantConv2D(5, 3, **_arguments(2))(_norm(x, np.random.default_rng(0))))
    with pytest.raises(ExportError, match=r"Received: PAD between a layer and its batch norm, after padded"):
        te.export(model, tmp_path / "x.tflite", "int8")


def test_padding_and_flattening_of_real_values_go_on(tmp_path: Path) -> None:
    """In front of the first quantiser nothing is an integer, and a batch norm may stand where it wants."""
    given = layers.Input((4, 4, 3))
    x = _norm(layers.Flatten()(layers.ZeroPadding2D()(layers.Conv2D(2, 3)(given))), np.random.default_rng(0))
    x = lq.layers.QuantDense(6, name="a", **_arguments(2))(x)
    model = tf.keras.Model(given, lq.layers.QuantDense(5, name="b", **_arguments(2))(x))
    result = te.export(model, tmp_path / "x.tflite", "int8", strict=False)
    assert result.notes[0].startswith("1 quantised layers")


def test_layers_that_another_model_reads_too_are_no_junction(net: Callable[..., Any]) -> None:
    model = net("plain", "2")
    before = gather_facts(model)
    layers.Dense(2)(layers.Flatten()(model.get_layer("q1").output))  # a second head, in no model
    other = tf.keras.Model(model.input, layers.Flatten()(model.get_layer("q2").output))
    assert before.junctions == gather_facts(model).junctions == gather_facts(other).junctions == ()
    both = tf.keras.Model(model.input, [model.output, other.output])
    assert gather_facts(both).junctions != ()
    assert gather_facts(te.with_uint8_input(model)).junctions == ()


def test_calibration_sees_more_than_the_comparison(
    single: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 200th sample is the largest: its range is the input's, whatever number is compared."""
    data = np.random.default_rng(0).uniform(-1, 1, size=(1000, 4))
    data[199] = 50.0
    data[999] = 500.0
    model = single(layers.Dense(3), (4,))
    result = te.export(model, tmp_path / "x.tflite", "int8", data=data, samples=2, strict=False)
    assert result.agreement.samples == 2
    scales = [
        float(tensor.quantization.scale[0])
        for tensor in read_model(result.path).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
    ]
    # from about -1 to 50 in 255 steps
    assert any(scale == pytest.approx(51 / 255, rel=0.01) for scale in scales)
