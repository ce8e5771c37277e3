"""Whole networks in every format: same answers, bits that are bits, clear refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.decode import Storage, storage_for
from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_NAMES, Graph
from tfqprune.errors import ExportError, MissingDependencyError

layers = tf.keras.layers

_STORED = {"binary": "INT2", "1": "INT2", "ternary": "INT2", "2": "INT2", "3": "INT4", "4": "INT4"}
# Bytes of the quantised kernels in the file, from the element counts in test_floor: 3,456 in plain, 4,032 in residual,
# 448 in dense; two signs share a 2-bit code.
_ELEMENTS = {"plain": 3456, "residual": 4032, "dense": 448}
_BITS = {"binary": 1, "1": 1, "ternary": 2, "2": 2, "3": 4, "4": 4}


@pytest.mark.parametrize(
    ("topology", "kind"),
    [
        ("plain", "2"), ("plain", "3"), ("plain", "ternary"), ("residual", "2"), ("residual", "binary"),
        ("residual", "4"), ("dense", "1"), ("dense", "2"),
    ],
)  # fmt: skip
def test_packed(exported: Callable[..., te.ExportResult], topology: str, kind: str) -> None:
    result = exported("packed", topology, kind)
    stored = [row for row in result.breakdown.rows if row.kind == "weights" and row.type != "FLOAT32"]
    assert {row.type for row in stored} == {_STORED[kind]}
    assert sum(row.bytes for row in stored) == _ELEMENTS[topology] * _BITS[kind] // 8
    assert [row.layer for row in stored] == ["q1", "q2", "q3"][: len(stored)]
    assert result.agreement.top1 >= 0.98
    assert result.agreement.off_share <= 0.1
    assert result.bytes == result.path.stat().st_size == result.breakdown.total


@pytest.mark.parametrize("topology", ["plain", "residual"])
def test_binary(exported: Callable[..., te.ExportResult], topology: str) -> None:
    pytest.importorskip("larq_compute_engine")
    result = exported("auto", topology, "binary")
    assert (result.format, result.runtime, result.agreement.runtime) == ("binary", "lce", "lce")
    assert "+-1" in result.reason
    graph = Graph(read_model(result.path))
    assert sum(graph.kind(operator) == "LceBconv2d" for operator in graph.operators) == len(_kernels(topology))
    assert result.agreement.top1 >= 0.98


def _kernels(topology: str) -> list[str]:
    return {"plain": ["q1", "q2"], "residual": ["q1", "q2", "q3"]}[topology]


def test_mixed_precision(net: Callable[..., Any], exported: Callable[..., te.ExportResult]) -> None:
    result = exported("packed", "plain", "2", "4")
    stored = {row.layer: row.type for row in result.breakdown.rows if row.layer in ("first", "q1", "q2", "last")}
    kernels = {row.layer: row.type for row in result.breakdown.rows if row.kind == "weights"}
    assert set(stored) == {"first", "q1", "q2", "last"}
    assert kernels == {"first": "FLOAT32", "q1": "INT2", "q2": "INT4", "last": "FLOAT32"}


def test_float32_is_exact_and_has_its_batch_norms_folded(exported: Callable[..., te.ExportResult]) -> None:
    result = exported("float32", "residual", "2")
    graph = Graph(read_model(result.path))
    kinds = [graph.kind(operator) for operator in graph.operators]
    assert kinds.count("CONV_2D") == 5
    assert all(  # every batch norm follows a convolution here: none is left as a multiplication by a vector
        graph.constant(int(tensor)).size == 1
        for operator in graph.operators
        if graph.kind(operator) in ("MUL", "ADD")
        for tensor in operator.inputs
        if graph.is_constant(int(tensor))
    )


_LAYERS = {
    "conv_same": (lambda **k: lq.layers.QuantConv2D(5, 3, padding="same", **k), (7, 7, 3)),
    "conv_valid_stride": (lambda **k: lq.layers.QuantConv2D(4, 3, strides=2, **k), (7, 7, 3)),
    "conv_dilated": (lambda **k: lq.layers.QuantConv2D(4, 3, dilation_rate=2, **k), (9, 9, 2)),
    "depthwise": (
        lambda input_quantizer=None, kernel_quantizer=None, **k: lq.layers.QuantDepthwiseConv2D(
            3, depth_multiplier=2, input_quantizer=input_quantizer, depthwise_quantizer=kernel_quantizer
        ),
        (6, 6, 3),
    ),
    "separable": (
        lambda input_quantizer=None, kernel_quantizer=None, **k: lq.layers.QuantSeparableConv2D(
            4, 3, input_quantizer=input_quantizer, depthwise_quantizer=kernel_quantizer,
            pointwise_quantizer=kernel_quantizer,
        ),
        (6, 6, 3),
    ),
    "dense": (lambda **k: lq.layers.QuantDense(5, **k), (7,)),
    "conv1d": (lambda **k: lq.layers.QuantConv1D(4, 3, **k), (9, 3)),
    "transpose": (lambda **k: lq.layers.QuantConv2DTranspose(4, 3, strides=2, **k), (4, 4, 2)),
}  # fmt: skip
_KINDS = {
    "sign": lambda: "ste_sign",
    "ternary": lambda: lq.quantizers.SteTern(0.02),
    "dorefa2": lambda: lq.quantizers.DoReFa(2, mode="weights"),
    "dorefa4": lambda: lq.quantizers.DoReFa(4, mode="weights"),
    "magnitude": lambda: "magnitude_aware_sign",
}


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        *[("conv_same", kind) for kind in _KINDS],
        *[(layer, "dorefa2") for layer in _LAYERS if layer != "conv_same"],
        ("dense", "sign"), ("depthwise", "sign"),
    ],
)  # fmt: skip
def test_single_layers_compute_what_keras_computes(
    single: Callable[..., Any], tmp_path: Path, layer: str, kind: str
) -> None:
    build, shape = _LAYERS[layer]
    model = single(build(kernel_quantizer=_KINDS[kind](), input_quantizer="ste_sign"), shape)
    result = te.export(model, tmp_path / "layer.tflite", "packed", samples=12)
    # one layer on signs: sums of few terms, so nothing but float rounding may differ
    assert result.agreement.max_error < 2e-6
    types = {row.type for row in result.breakdown.rows if row.kind == "weights"}
    assert types == {"INT4" if kind == "dorefa4" else "INT2"}


@pytest.mark.parametrize(
    ("integers", "storage"),
    [
        ([-1, 1], Storage(1, 1, 0.0)),
        ([-1, 0, 1], Storage(2, 1, 0.0)),
        ([0, 1], Storage(2, 1, 0.0)),
        ([-3, -1, 1, 3], Storage(2, 2, 0.5)),
        ([-7, 1, 7], Storage(4, 1, 0.0)),
        ([-15, 15, 3], Storage(4, 2, 0.5)),
        ([-15, 0, 15], Storage(8, 1, 0.0)),
        ([-127, 127], Storage(8, 1, 0.0)),
        ([-255, 255], Storage(8, 2, 0.5)),
        ([-511, 511], None),
    ],
)
def test_storage(integers: list[int], storage: Storage | None) -> None:
    assert storage_for(np.array(integers)) == storage


def test_stored_codes_of_a_known_kernel(single: Callable[..., Any], tmp_path: Path) -> None:
    layer = lq.layers.QuantDense(2, use_bias=False, kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"))
    model = single(layer, (4,))
    # tanh is odd and the largest weight maps to 1: these latent weights deploy to -1, -1/3, 1/3, 1 and back
    ladder = np.array([-2.0, -0.3, 0.3, 2.0])
    layer.set_weights([np.stack([ladder, ladder[::-1]], axis=1)])
    result = te.export(model, tmp_path / "dense.tflite", "packed", samples=8)
    graph = Graph(read_model(result.path))
    packed = [i for i, t in enumerate(graph.tensors) if TYPE_NAMES[t.type] == "INT2"]
    # rows are outputs: -3 -1 1 3 -> codes -2 -1 0 1 -> 10 11 00 01, then the reverse
    assert [list(graph.raw(i)) for i in packed] == [[0b01001110, 0b10110001]]


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (5, 1), (4, 7)])
def test_odd_numbers_of_channels_still_take_one_bit(
    single: Callable[..., Any], tmp_path: Path, inputs: int, outputs: int
) -> None:
    layer = lq.layers.QuantConv2D(outputs, 3, use_bias=False, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    result = te.export(single(layer, (5, 5, inputs)), tmp_path / "odd.tflite", "packed", samples=8)
    assert result.agreement.max_error == 0.0
    stored = sum(row.bytes for row in result.breakdown.rows if row.kind == "weights")
    # one more output channel makes the number even; two bits for each pair
    assert stored == -(-9 * inputs * (outputs + 1) // 8)


def test_a_plain_model_is_refused_by_formats_for_quantised_ones(single: Callable[..., Any], tmp_path: Path) -> None:
    model = single(layers.Dense(2), (3,))
    with pytest.raises(ExportError, match=r'no layer has a quantised kernel; use format="float32"'):
        te.export(model, tmp_path / "x.tflite", "packed")
    assert not list(tmp_path.iterdir())


def test_binary_refuses_sizes_that_are_open(tmp_path: Path) -> None:
    given = layers.Input((None, None, 8), name="any")
    x = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False)(given)
    model = tf.keras.Model(given, x)
    with pytest.raises(ExportError, match="any leaves a size open, and Larq Compute Engine fixes all"):
        te.export(model, tmp_path / "x.tflite", "binary")
    result = te.export(model, tmp_path / "x.tflite", samples=8)
    assert (result.format, result.agreement.max_error) == ("packed", 0.0)


def test_binary_refuses_wider_kernels(net: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r'q1.kernel has 2-bit weights; use format="packed"'):
        te.export(net("plain", "2"), tmp_path / "x.tflite", "binary")


def test_a_missing_compute_engine_is_named(
    net: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "larq_compute_engine", None)  # importing it fails, whoever did before
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "larq_compute_engine" else find(name, *a)
    )
    with pytest.raises(MissingDependencyError, match=r"pip install larq-compute-engine"):
        te.export(net("plain", "binary"), tmp_path / "x.tflite", "binary")
    result = te.export(net("plain", "binary"), tmp_path / "x.tflite")
    assert result.format == "packed"
    assert "larq-compute-engine is not installed" in result.reason


def test_unknown_names_list_what_there_is(net: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"binary, .*float32, .*packed"):
        te.export(net("plain", "2"), tmp_path / "x.tflite", "zip")
    with pytest.raises(ExportError, match=r"'size' or 'speed'"):
        te.export(net("plain", "2"), tmp_path / "x.tflite", optimize="both")


class Sevenths(lq.quantizers.Quantizer):
    """Levels -7/7 to 7/7, which nobody here knows of."""

    precision = 4

    def call(self, inputs: Any) -> Any:
        return tf.round(tf.clip_by_value(inputs, -1.0, 1.0) * 7.0) / 7.0


def test_unknown_levels_are_stored_as_floats_or_refused(single: Callable[..., Any], tmp_path: Path) -> None:
    model = single(lq.layers.QuantDense(4, kernel_quantizer=Sevenths(), name="own"), (6,))
    for format in ("packed", "fast", "hybrid", "int8"):
        with pytest.raises(ExportError, match=r"quantiser of own.kernel gives no equidistant .* format=\"float32\""):
            te.export(model, tmp_path / "x.tflite", format)
    result = te.export(model, tmp_path / "x.tflite")
    assert (result.format, result.floor_bytes) == ("float32", 6 * 4 // 2 + 4 * 4)
    assert "own.kernel" in result.reason
    assert result.agreement.max_error < 1e-5


@pytest.mark.parametrize("quantizer", [lq.quantizers.DoReFa(16, mode="weights"), lq.quantizers.DoReFa(8)])
def test_levels_that_8_bits_do_not_hold_are_stored_as_floats(
    single: Callable[..., Any], tmp_path: Path, quantizer: Any
) -> None:
    # the second, in larq's default mode, gives 0 to 255
    spread = tf.keras.initializers.RandomUniform(-1.0, 1.0, seed=0)
    model = single(lq.layers.QuantDense(4, kernel_quantizer=quantizer, kernel_initializer=spread, name="w"), (6,))
    result = te.export(model, tmp_path / "x.tflite", "float32")
    assert result.agreement.max_error < 1e-5
    assert [row.layer for row in result.breakdown.rows if row.kind == "weights"] == ["w"]


def test_float32_with_a_fixed_batch_has_operators_of_microcontrollers(net: Callable[..., Any], tmp_path: Path) -> None:
    found = []
    for batch_size in (1, None):
        result = te.export(net("dense", "2"), tmp_path / "x.tflite", "float32", batch_size=batch_size)
        graph = Graph(read_model(result.path))
        found.append({graph.kind(operator) for operator in graph.operators} & {"RELU", "MINIMUM", "RELU_0_TO_1"})
    assert found == [{"RELU", "MINIMUM"}, {"RELU_0_TO_1"}]


def test_single_bits_that_are_0_and_1_are_no_signs(tmp_path: Path) -> None:
    inputs = layers.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3)(inputs))
    x = lq.layers.QuantConv2D(16, 3, input_quantizer="ste_sign", kernel_quantizer="ste_heaviside", name="steps")(x)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    result = te.export(model, tmp_path / "m.tflite", samples=16)
    assert result.format == "packed"
    assert result.agreement.max_error < 1e-4
    with pytest.raises(ExportError, match=r'steps.kernel has weights of 0; use format="packed"'):
        te.export(model, tmp_path / "n.tflite", "binary")
