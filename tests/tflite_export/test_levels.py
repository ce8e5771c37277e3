"""Mismatches of levels are counted where they arise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.bundling import parts_of
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import Graph

_SIZES = {"q1": 64 * 8 * 8 * 8, "q2": 64 * 8 * 8 * 16}


@pytest.mark.parametrize("format", ["packed", "fast", "float32"])
def test_every_level_of_a_plain_network_is_compared(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], format: str
) -> None:
    agreement = te.verify(net("plain", "2"), exported(format, "plain", "2").path, levels=True)
    assert {level.layer: level.values for level in agreement.levels} == _SIZES
    assert all(level.share < 1e-3 for level in agreement.levels)


def test_levels_of_a_binary_file_are_unpacked(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult]
) -> None:
    pytest.importorskip("larq_compute_engine")
    agreement = te.verify(net("plain", "binary"), exported("binary", "plain", "binary").path, levels=True)
    assert {level.layer: level.values for level in agreement.levels} == _SIZES
    assert all(level.share < 1e-3 for level in agreement.levels)


def test_a_shifted_bias_shows_in_the_layer_behind_it(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], tmp_path: Path
) -> None:
    model = read_model(exported("packed", "plain", "2").path)
    graph = Graph(model)
    second = [operator for operator in graph.operators if graph.kind(operator) == "CONV_2D"][1]
    bias = parts_of(graph)[int(second.inputs[2])]
    shifted = graph.constant(bias.constant).copy()
    shifted[bias.number] += np.float32(0.4)
    model.buffers[graph.tensors[bias.constant].buffer].data = np.frombuffer(shifted.tobytes(), np.uint8)
    path = tmp_path / "shifted.tflite"
    path.write_bytes(serialize(model))
    first, behind = te.verify(net("plain", "2"), path, levels=True).levels
    assert (first.layer, behind.layer) == ("q1", "q2")
    assert first.share < 1e-3  # in front of the shifted sum
    assert behind.share > 0.1


def _dorefa(layer: Any, *arguments: int, **options: Any) -> Any:
    quantisers = (lq.quantizers.DoReFa(2), lq.quantizers.DoReFa(2, mode="weights"))
    return layer(*arguments, input_quantizer=quantisers[0], kernel_quantizer=quantisers[1], **options)


def test_levels_of_a_transposed_convolution(tmp_path: Path) -> None:
    """Its operator's first input is a shape."""
    inputs = tf.keras.layers.Input((8, 8, 4))
    model = tf.keras.Model(inputs, _dorefa(lq.layers.QuantConv2DTranspose, 5, 3, strides=2, name="wider")(inputs))
    te.export(model, tmp_path / "x.tflite", "packed")
    (found,) = te.verify(model, tmp_path / "x.tflite", levels=True).levels
    assert (found.layer, found.values, found.share) == ("wider", 64 * 8 * 8 * 4, 0)


def test_levels_that_are_padded_before_they_are_read_are_left_out(tmp_path: Path) -> None:
    causal = [_dorefa(lq.layers.QuantConv1D, 5, 3, padding="causal") for _ in range(3)]
    model = tf.keras.Sequential([tf.keras.layers.Input((20, 3)), *causal])
    te.export(model, tmp_path / "x.tflite", "int8")
    assert all(found.share < 0.01 for found in te.verify(model, tmp_path / "x.tflite", levels=True).levels)
