"""Float kernels in 16 and 8 bits: the bytes, the values and the honest loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.flatbuffer import read_model
from tflite_export.graph import TYPE_NAMES, Graph
from tfqprune.errors import ExportError

layers = tf.keras.layers


def _dense(kernel: np.ndarray) -> Any:
    given = layers.Input((kernel.shape[0],), name="x")
    layer = layers.Dense(kernel.shape[1], use_bias=False, name="only")
    model = tf.keras.Model(given, layer(given))
    layer.set_weights([kernel])
    return model


def test_int8_values_by_hand(tmp_path: Path) -> None:
    # output channel 0: largest 2.54, a step is 0.02; channel 1: largest 1.27, a step is 0.01; 80 rows are worth it
    kernel = np.zeros((80, 2), np.float32)
    kernel[:4, 0] = [2.54, -0.02, 0.05, 0.029]
    kernel[:4, 1] = [-1.27, 0.5, 0.0, 0.014]
    result = te.export(_dense(kernel), tmp_path / "x.tflite", "float32", float_weights="int8", samples=16)
    graph = Graph(read_model(result.path))
    stored = next(i for i, t in enumerate(graph.tensors) if TYPE_NAMES[t.type] == "INT8")
    # 0.05 is 2.5 steps: float32 holds it a little below, and 0.029 is 1.45 steps
    assert graph.constant(stored)[0, :4].tolist() in ([127, -1, 2, 1], [127, -1, 3, 1])
    assert graph.constant(stored)[1, :4].tolist() == [-127, 50, 0, 1]
    np.testing.assert_allclose(graph.tensors[stored].quantization.scale, [0.02, 0.01], rtol=1e-6)
    assert 0 < result.agreement.max_error < 80 * 8 * 0.01


@pytest.mark.parametrize("format", ["packed", "fast"])
def test_ends_of_a_quantised_network(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], tmp_path: Path, format: str
) -> None:
    full = exported(format, "plain", "2")
    small = te.export(net("plain", "2"), tmp_path / "small.tflite", format, float_weights="int8")
    kinds = {row.layer: row.type for row in small.breakdown.rows if row.kind == "weights"}
    narrow = "INT2" if format == "packed" else "INT8"
    assert kinds == {"first": "INT8", "q1": narrow, "q2": narrow, "last": "INT8"}
    # 3*3*3*8 and 256*5 floats lose three of four bytes, and gain scales and tables
    assert full.bytes - small.bytes > 3 * (216 + 1280) - 700
    assert small.agreement.top1 >= 0.8
    assert small.agreement.off_share > full.agreement.off_share  # the loss shows


def test_ends_of_a_binary_network(net: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("larq_compute_engine")
    result = te.export(net("residual", "binary"), tmp_path / "b.tflite", "binary", float_weights="int8", strict=False)
    assert {row.type for row in result.breakdown.rows if row.kind == "weights"} >= {"INT8", "UINT8", "UINT16"}
    assert result.agreement.top1 > 0.5


def test_float16_halves_a_plain_model(net: Callable[..., Any], tmp_path: Path) -> None:
    given = layers.Input((16, 16, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3)(given)))
    model = tf.keras.Model(given, layers.Dense(10)(layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3)(x))))
    half = te.export(model, tmp_path / "half.tflite", "float16")
    full = te.export(model, tmp_path / "full.tflite")
    assert (full.format, full.agreement.off_share) == ("float32", 0.0)
    # 432 + 4608 + 320 weights at two bytes less
    assert full.bytes - half.bytes > 2 * (432 + 4608 + 320) - 400
    assert 0 < half.agreement.max_error < 1e-2
    stored = {row.layer: row.type for row in half.breakdown.rows if row.kind == "weights"}
    assert stored == {layer.name: "FLOAT16" for layer in model.layers if hasattr(layer, "kernel")}
    whole = te.export(
        model, tmp_path / "int8.tflite", "int8", data=np.random.default_rng(0).normal(size=(32, 16, 16, 3))
    )
    assert whole.bytes < half.bytes
    assert whole.agreement.top1 >= 0.8
    assert "INT8" in {row.type for row in whole.breakdown.rows}
    assert whole.notes == ()


def test_volumes(tmp_path: Path) -> None:
    """27 x 2 x 8 and 8 x 6 x 8 weights of convolutions over volumes: two bytes less, or three."""
    given = layers.Input((6, 6, 6, 2))
    x = layers.Conv3DTranspose(6, 2, strides=2)(layers.Conv3D(8, 3)(given))
    model = tf.keras.Model(given, layers.GlobalAveragePooling3D()(x))
    sizes = {
        width: te.export(model, tmp_path / f"{width}.tflite", "float32", float_weights=width)
        for width in ("float32", "float16", "int8")
    }
    weights = 432 + 384
    assert sizes["float32"].bytes - sizes["float16"].bytes > 2 * weights - 400
    assert sizes["float32"].bytes - sizes["int8"].bytes > 3 * weights - 800
    assert all(result.notes == () for result in sizes.values())


def test_weights_that_stay_are_said(tmp_path: Path) -> None:
    given = layers.Input((6,), dtype="int32")
    model = tf.keras.Model(given, layers.Dense(20)(layers.LSTM(12)(layers.Embedding(40, 16)(given))))
    data = np.random.default_rng(0).integers(0, 40, (64, 6))
    (note,) = te.export(model, tmp_path / "x.tflite", "float16", data=data, batch_size=1).notes
    assert "2,560 B of GATHER" in note  # 40 x 16 floats
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in note
    assert te.export(model, tmp_path / "x.tflite", "float32", data=data, batch_size=1).notes == ()


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"up to 65504 for float16. Received: 1e\+06"):
        te.export(_dense(np.full((80, 2), 1e6, np.float32)), tmp_path / "x.tflite", "float16")


def test_unknown_widths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="float32, float16, int8"):
        te.export(_dense(np.ones((80, 2), np.float32)), tmp_path / "x.tflite", float_weights="int4")
