"""Small constants stored as one: what is in the file, and that the network computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export as te
from tflite_export.bundling import bundle_constants, narrow_filters
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.sizes import SizeRow


def chain_of_sums(constants: list[np.ndarray]) -> Graph:
    """input [1, 3] -> ADD constants[0] -> ADD constants[1] -> ... -> output."""
    model = schema.ModelT()
    model.version = 3
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.operators = [], []
    model.subgraphs = [subgraph]
    graph = Graph(model)
    current = graph.add_tensor((1, 3), TensorType.FLOAT32)
    subgraph.inputs = np.asarray([current], np.int32)
    for values in constants:
        result = graph.add_tensor((1, 3), TensorType.FLOAT32)
        subgraph.operators.append(
            graph.new_operator(
                BuiltinOperator.ADD, [current, graph.add_constant(values)], [result], schema.AddOptionsT()
            )
        )
        current = result
    subgraph.outputs = np.asarray([current], np.int32)
    return graph


def run(graph: Graph) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=serialize(graph.model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 3), np.float32))
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def rows_of(*rows: list[float]) -> list[np.ndarray]:
    return [np.asarray(row, np.float32) for row in rows]


class TestBundles:
    def test_equal_shapes_become_one_constant(self) -> None:
        graph = chain_of_sums(rows_of([1, 2, 3], [10, 20, 30], [100, 200, 300]))
        assert bundle_constants(graph) == 3
        unpack = graph.operators[0]
        assert graph.kind(unpack) == "UNPACK"
        np.testing.assert_array_equal(graph.constant(int(unpack.inputs[0])), [[1, 2, 3], [10, 20, 30], [100, 200, 300]])
        np.testing.assert_array_equal(run(graph), [[111, 222, 333]])

    @pytest.mark.parametrize(
        "constants",
        [
            rows_of([1, 2, 3], [10, 20, 30]),  # two are too few to pay for an operator
            rows_of([1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5, 6]),  # equal ones share a buffer without one
            rows_of([1], [2], [3], [4]),  # single values
        ],
    )
    def test_what_does_not_pay_stays(self, constants: list[np.ndarray]) -> None:
        graph = chain_of_sums(constants)
        assert bundle_constants(graph) == 0
        assert [graph.kind(operator) for operator in graph.operators] == ["ADD"] * len(constants)

    def test_the_size_report_counts_each_part_where_it_is_read(self) -> None:
        graph = chain_of_sums(rows_of([1, 2, 3], [10, 20, 30], [100, 200, 300]))
        bundle_constants(graph)
        report = te.size_report(serialize(graph.model))
        # operator 0 takes the bundle apart; three floats of 4 bytes at each sum
        assert report.rows == tuple(SizeRow(f"{n} ADD", "biases", "FLOAT32", 3, 12) for n in (1, 2, 3))
        assert report.by_kind["biases"] == 36


def binary_filters(graph: Graph, shapes: list[tuple[int, ...]], bits: int) -> list[np.ndarray]:
    """LceBconv2d operators in a row (not to be run) with filters whose words have so many bits."""
    rng = np.random.default_rng(0)
    filters = [rng.integers(2 ** (bits - 1), 2**bits, shape).astype(np.uint32).view(np.int32) for shape in shapes]
    for values in filters:
        kernel = graph.add_constant(values)
        output = graph.add_tensor((1, 3), TensorType.FLOAT32)
        graph.operators.append(graph.new_operator(BuiltinOperator.CUSTOM, [0, kernel], [output], custom="LceBconv2d"))
    return filters


class TestNarrowFilters:
    @pytest.mark.parametrize(("bits", "stored"), [(5, "UINT8"), (8, "UINT8"), (9, "UINT16"), (16, "UINT16")])
    def test_words_are_stored_in_the_width_they_use(self, bits: int, stored: str) -> None:
        graph = chain_of_sums([])
        filters = binary_filters(graph, [(16, 3, 3, 1), (32, 3, 3, 1)], bits)
        assert narrow_filters(graph) == 2
        cast, split = graph.operators[:2]
        assert (graph.kind(cast), graph.kind(split)) == ("CAST", "SPLIT_V")
        assert graph.tensors[int(cast.inputs[0])].type == getattr(TensorType, stored)
        dtype = np.uint8 if stored == "UINT8" else np.uint16
        np.testing.assert_array_equal(
            graph.raw(int(cast.inputs[0])).view(dtype), np.concatenate([f.reshape(-1) for f in filters])
        )
        np.testing.assert_array_equal(graph.constant(int(split.inputs[1])), [16, 32])
        assert [int(o.inputs[1]) for o in graph.operators[2:]] == [int(i) for i in split.outputs]

    @pytest.mark.parametrize(
        ("shapes", "bits"),
        [
            ([(16, 3, 3, 1), (32, 3, 3, 1)], 17),  # more channels than 16
            ([(64, 3, 3, 2)], 16),  # two words: at least 33 channels
            ([(16, 1, 1, 1)], 16),  # 32 bytes saved do not pay for an operator
        ],
    )
    def test_what_does_not_fit_or_pay_stays(self, shapes: list[tuple[int, ...]], bits: int) -> None:
        graph = chain_of_sums([])
        binary_filters(graph, shapes, bits)
        assert narrow_filters(graph) == 0
        assert [graph.kind(operator) for operator in graph.operators] == ["LceBconv2d"] * len(shapes)


def test_every_kernel_of_the_engine_reads_them(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult]
) -> None:
    """Filters, scales and biases that are computed at run time: the same outputs by all of the engine's kernels."""
    lce = pytest.importorskip("larq_compute_engine")

    model, path = net("residual", "binary"), exported("binary", "residual", "binary").path
    graph = Graph(read_model(path))
    assert {"UNPACK", "CAST", "SPLIT_V"} <= {graph.kind(operator) for operator in graph.operators}
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict(x, verbose=0)
    for options in ({}, {"use_reference_bconv": True}, {"use_indirect_bgemm": True}, {"use_xnnpack": True}):
        interpreter = lce.testing.Interpreter(path.read_bytes(), **options)
        for inputs, outputs in ((x, expected), (x[::-1], expected[::-1])):
            np.testing.assert_allclose(interpreter.predict(inputs), outputs, atol=1e-5)
