"""What the runtimes get wrong is refused before it is written or run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export as te
from tflite_export.benchmarking import _tiny_model
from tflite_export.flatbuffer import read_model
from tflite_export.formats import Built, Capability, Format, Request
from tflite_export.formats.registry import _FORMATS, register_format
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.support import check_support
from tfqprune.errors import ExportError


def _product(operator: str, given: str, kernel: str, custom: str | None = None) -> Any:
    """A file with one product of a 1x4x4x2 image and a 3x3 kernel, of the element types asked for."""
    model = read_model(_tiny_model())
    graph = Graph(model)
    image = graph.add_tensor((1, 4, 4, 2), getattr(TensorType, given))
    weights = graph.add_tensor((2, 3, 3, 2), getattr(TensorType, kernel), np.zeros(36, np.uint8).tobytes())
    answer = graph.add_tensor((1, 4, 4, 2), TensorType.FLOAT32)
    code = BuiltinOperator.CUSTOM if custom else getattr(BuiltinOperator, operator)
    graph.subgraph.operators = [
        graph.new_operator(code, [image, weights, -1], [answer], schema.Conv2DOptionsT(), custom=custom)
    ]
    graph.subgraph.inputs, graph.subgraph.outputs = np.asarray([image], np.int32), np.asarray([answer], np.int32)
    return model


@pytest.mark.parametrize(
    ("operator", "given", "kernel", "reason"),
    [
        ("CONV_2D", "FLOAT32", "INT2", "reads the bytes as another type"),
        ("CONV_2D", "INT8", "INT2", "reads the bytes as another type"),
        ("DEPTHWISE_CONV_2D", "INT8", "INT2", "no such kernel"),
        ("DEPTHWISE_CONV_2D", "INT16", "INT4", "something else, without an error"),
        ("DEPTHWISE_CONV_2D", "FLOAT32", "INT4", "no such kernel"),
    ],
)
def test_refused(operator: str, given: str, kernel: str, reason: str) -> None:
    with pytest.raises(ExportError, match=f"{operator} with {kernel} weights and {given} input: .*{reason}"):
        check_support(_product(operator, given, kernel))


@pytest.mark.parametrize(
    ("operator", "given", "kernel"),
    [
        ("CONV_2D", "INT8", "INT4"), ("CONV_2D", "INT16", "INT4"), ("CONV_2D", "FLOAT32", "INT8"),
        ("DEPTHWISE_CONV_2D", "INT8", "INT4"), ("FULLY_CONNECTED", "INT8", "INT2"),
    ],
)  # fmt: skip
def test_taken(operator: str, given: str, kernel: str) -> None:
    check_support(_product(operator, given, kernel))


def test_larq_compute_engine_does_not_know_two_bits() -> None:
    with pytest.raises(ExportError, match=r"LceBconv2d with INT2 values: Larq Compute Engine's runtime is older"):
        check_support(_product("", "INT32", "INT2", custom="LceBconv2d"))


def test_a_users_format_goes_through_the_same_gate(
    net: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(Format):
        name = "careless"
        summary = "two bits straight into a convolution"
        capability = Capability(frozenset(range(1, 9)), False, "litert", "none")

        def build(self, request: Request) -> Built:
            return Built(_product("CONV_2D", "FLOAT32", "INT2"))

    monkeypatch.setattr("tflite_export.exporting.verify", lambda *a, **k: pytest.fail("it was run"))
    register_format(Careless())
    try:
        with pytest.raises(ExportError, match=r"operator 0, CONV_2D with INT2 weights"):
            te.export(net("dense", "2"), tmp_path / "x.tflite", "careless")
    finally:
        del _FORMATS["careless"]
    assert not list(tmp_path.iterdir())
