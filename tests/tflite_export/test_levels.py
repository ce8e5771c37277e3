"""Mismatches of levels are counted where they arise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
