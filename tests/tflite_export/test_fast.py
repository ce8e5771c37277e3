"""The sentinel channel: run-time quantisation that hits the levels exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.dynamic import Levels
from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_NAMES, Graph

layers = tf.keras.layers


def _types(graph: Graph, kind: str) -> list[str]:
    """Element types of the kernels of all operators of a kind, in order."""
    operators = [operator for operator in graph.operators if graph.kind(operator) == kind]
    return [TYPE_NAMES[graph.tensors[int(operator.inputs[1])].type] for operator in operators]


def test_the_constants_fit_the_levels() -> None:
    # 256 steps from 0 to 255 units: one unit a step
    assert Levels(unit=1.0, low=0, high=3).sentinels == (255.0,)
    assert Levels(unit=0.5, low=0, high=15).sentinels == (127.5,)
    # 256 steps from -128/127 to 1: 1/127 a step, so that +-1 are +-127
    low, high = Levels(unit=1.0, low=-1, high=1).sentinels
    assert (high - low) / 255 == pytest.approx(1 / 127, rel=1e-12)


@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize(
    ("topology", "kind"), [("plain", "2"), ("residual", "4"), ("dense", "2"), ("plain", "ternary")]
)
def test_networks(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], topology: str, kind: str, xnnpack: bool
) -> None:
    result = exported("fast", topology, kind)
    agreement = te.verify(net(topology, kind), result.path, xnnpack=xnnpack)
    assert agreement.top1 >= 0.98
    assert agreement.off_share <= 0.1
    graph = Graph(read_model(result.path))
    expected = {
        "plain": ("CONV_2D", ["FLOAT32", "INT8", "INT8"]),
        "residual": ("CONV_2D", ["FLOAT32", "INT8", "INT8", "INT8", "FLOAT32"]),
        "dense": ("FULLY_CONNECTED", ["INT8", "INT8", "FLOAT32"]),
    }[topology]
    assert sorted(_types(graph, expected[0])) == sorted(expected[1])


def test_sums_are_exact_integers(single: Callable[..., Any], tmp_path: Path) -> None:
    """Levels 0 to 15 by weights of -15 to 15: sums that float32 holds exactly, so Keras is the oracle to one ulp."""
    layer = lq.layers.QuantDense(
        7, use_bias=False, input_quantizer=lq.quantizers.DoReFa(4, mode="activations"),
        kernel_quantizer=lq.quantizers.DoReFa(4, mode="weights"),
    )  # fmt: skip
    model = single(layer, (33,))
    result = te.export(model, tmp_path / "dense.tflite", "fast", samples=32)
    assert result.agreement.max_error < 1e-6
    graph = Graph(read_model(result.path))
    kernel = next(i for i, t in enumerate(graph.tensors) if TYPE_NAMES[t.type] == "INT8")
    stored = graph.constant(kernel)
    assert stored.shape == (7, 34)
    assert not stored[:, 33].any()  # the sentinel's weights
    assert set(np.unique(np.abs(stored[:, :33]))) <= set(range(1, 16, 2))


def test_negative_and_zero_scales(tmp_path: Path) -> None:
    """A batch norm's negative scale flips the integers; a zero one silences the channel."""
    given = layers.Input((5, 5, 4))
    conv = lq.layers.QuantConv2D(
        3, 3, use_bias=False, input_quantizer=lq.quantizers.DoReFa(2, mode="activations"),
        kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
    )  # fmt: skip
    norm = layers.BatchNormalization()
    model = tf.keras.Model(given, norm(conv(given)))
    norm.set_weights([np.array([-1.5, 0.0, 0.7]), np.array([0.1, 0.2, 0.3]), np.zeros(3), np.ones(3)])
    result = te.export(model, tmp_path / "norm.tflite", "fast", samples=16)
    assert result.agreement.max_error < 2e-6
    packed = te.export(model, tmp_path / "packed.tflite", "packed", samples=16)
    assert packed.agreement.max_error < 2e-6


@pytest.mark.parametrize("format", ["fast", "hybrid"])
def test_one_output_channel(tmp_path: Path, format: str) -> None:
    """One scale counts as one for the whole tensor, for which the builtin convolution takes another range."""
    given = layers.Input((6, 6, 8))
    conv = lq.layers.QuantConv2D(
        1, 3, input_quantizer=lq.quantizers.DoReFa(2, mode="activations"),
        kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
    )  # fmt: skip
    model = tf.keras.Model(given, conv(given))
    result = te.export(model, tmp_path / "one.tflite", format, strict=False)
    for xnnpack in (True, False):
        assert te.verify(model, result.path, xnnpack=xnnpack).max_error < 1e-5


# Levels of 2 bits are 0, 1/3, 2/3, 1, and those of signs -1, 1 (0 between them is an integer, too).
@pytest.mark.parametrize(
    ("levels", "value", "held"),
    [
        ("dorefa", 1 / 3, True),
        ("dorefa", 0.5, False),
        ("dorefa", 4 / 3, False),
        ("sign", 1.0, True),
        ("sign", 0.5, False),
    ],
)
@pytest.mark.parametrize("format", ["fast", "hybrid"])
def test_padding_that_is_no_level(
    single: Callable[..., Any], tmp_path: Path, format: str, levels: str, value: float, held: bool
) -> None:
    reads = "ste_sign" if levels == "sign" else lq.quantizers.DoReFa(2, mode="activations")
    kernel = lq.quantizers.DoReFa(2, mode="weights")
    conv = lq.layers.QuantConv2D(
        8, 3, padding="same", pad_values=value, use_bias=False, input_quantizer=reads, kernel_quantizer=kernel
    )
    result = te.export(single(conv, (6, 6, 4)), tmp_path / "padded.tflite", format, samples=16)
    assert result.agreement.max_error < 2e-6
    assert (_types(Graph(read_model(result.path)), "CONV_2D") == ["INT8"]) is held


def test_layers_without_integer_kernels_are_stored_in_8_bits(single: Callable[..., Any], tmp_path: Path) -> None:
    layer = lq.layers.QuantDepthwiseConv2D(
        3, input_quantizer="ste_sign", depthwise_quantizer=lq.quantizers.DoReFa(3, mode="weights")
    )
    result = te.export(single(layer, (6, 6, 8)), tmp_path / "depthwise.tflite", "fast", samples=8)
    graph = Graph(read_model(result.path))
    assert [graph.kind(operator) for operator in graph.operators].count("DEQUANTIZE") == 1
    assert result.agreement.max_error < 2e-6


@pytest.mark.parametrize(
    ("topology", "kind"), [("plain", "2"), ("residual", "4"), ("dense", "2"), ("plain", "ternary"), ("plain", "binary")]
)
def test_hybrid_packs_and_computes_integers(exported: Callable[..., te.ExportResult], topology: str, kind: str) -> None:
    hybrid, packed = exported("hybrid", topology, kind), exported("packed", topology, kind)
    assert hybrid.agreement.top1 >= 0.98
    assert hybrid.agreement.off_share <= 0.1
    assert hybrid.agreement.xnnpack is False
    graph = Graph(read_model(hybrid.path))
    operator = "FULLY_CONNECTED" if topology == "dense" else "CONV_2D"
    integer_layers = 3 if topology == "residual" else 2
    assert _types(graph, operator).count("INT8") == integer_layers

    def narrow(result: te.ExportResult) -> list[tuple[str, str, int]]:
        rows = [row for row in result.breakdown.rows if row.type in ("INT2", "INT4")]
        return [(row.layer, row.type, row.elements) for row in rows]

    assert narrow(hybrid) == narrow(packed) != []


def test_hybrid_keeps_a_fused_activation_at_the_end(tmp_path: Path) -> None:
    given = layers.Input((5, 5, 4))
    conv = lq.layers.QuantConv2D(
        6, 3, input_quantizer=lq.quantizers.DoReFa(2, mode="activations"),
        kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"), bias_initializer="random_normal", activation="relu",
    )  # fmt: skip
    model = tf.keras.Model(given, conv(given))
    result = te.export(model, tmp_path / "relu.tflite", "hybrid", samples=16)
    assert result.agreement.max_error < 2e-6


def test_speed_is_what_auto_goes_by_when_asked(net: Callable[..., Any], tmp_path: Path) -> None:
    result = te.export(net("dense", "2"), tmp_path / "x.tflite", optimize="speed")
    assert result.format == "fast"
    assert "speed" in result.reason
