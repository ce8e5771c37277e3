"""Pixels in, normalised inside the file."""

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
from tflite_export.runtime import predict
from tfqprune.errors import ExportError


def test_uint8_input(net: Callable[..., Any], tmp_path: Path) -> None:
    model = net("plain", "2")
    scale, offset = [1 / 127.5, 1 / 100, 1 / 64], [-1.0, 0.0, -2.0]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    wrapped = te.with_uint8_input(model, scale, offset)
    result = te.export(wrapped, tmp_path / "pixels.tflite", "packed", data=pixels)
    assert result.agreement.samples == 12
    parsed = read_model(result.path)
    graph = Graph(parsed)
    assert [TYPE_NAMES[graph.tensors[int(i)].type] for i in graph.subgraph.inputs] == ["UINT8"]
    assert parsed.signatureDefs[0].inputs[0].name == b"image"
    assert parsed.signatureDefs[0].outputs[0].name == b"classes"
    # the float model on pixels that were normalised outside says the same
    expected = np.asarray(model((pixels * np.array(scale) + np.array(offset)).astype(np.float32), training=False))
    received = predict(result.path, [pixels], runtime="litert")[0]
    assert np.mean(np.abs(expected - received).max(axis=1) > 1e-4) <= 0.1
    # kernels inside the nested model are still found and packed
    assert {row.layer for row in result.breakdown.rows if row.type == "INT2"} == {
        f"{model.name}/{name}" for name in ("q1", "q2")
    }
    assert te.floor_bytes(wrapped) == te.floor_bytes(model)


@pytest.mark.parametrize("arguments", [{"scale": [1.0, 2.0]}, {"offset": float("nan")}, {"scale": [[1.0]]}])
def test_numbers_that_do_not_fit_are_refused(net: Callable[..., Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match=f"Expected {next(iter(arguments))} to be a finite number"):
        te.with_uint8_input(net("plain", "2"), **arguments)


@pytest.mark.parametrize("name", ["classes", "image"])
def test_a_model_named_like_one_of_its_ends(name: str) -> None:
    given = tf.keras.Input((2, 2, 3), name="image")
    flat = tf.keras.layers.Flatten()(given)
    model = tf.keras.Model(given, tf.keras.layers.Dense(4, name="classes")(flat), name=name)
    wrapped = te.with_uint8_input(model)
    assert (wrapped.input_names, wrapped.output_names) == (["image"], ["classes"])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    np.testing.assert_allclose(wrapped(pixels), model(pixels.astype(np.float32) / 255), rtol=1e-5, atol=1e-6)
