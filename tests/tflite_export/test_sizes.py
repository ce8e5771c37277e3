"""Every byte of a file is accounted for, by layer and by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tflite_export as te


def test_kinds_sum_to_the_file(exported: Callable[..., te.ExportResult]) -> None:
    for which in (("packed", "plain", "2"), ("float32", "plain", "2"), ("packed", "residual", "binary")):
        report = te.size_report(exported(*which).path)
        assert sum(report.by_kind.values()) == report.total
        assert all(count >= 0 for count in report.by_kind.values())
        assert sum(report.by_layer.values()) <= report.total


def test_bytes_of_the_plain_float_network(exported: Callable[..., te.ExportResult]) -> None:
    report = exported("float32", "plain", "2").breakdown
    # first 3*3*3*8, q1 3*3*8*16, q2 3*3*16*16, last 256*5 floats
    assert report.by_kind["weights"] == 4 * (216 + 1152 + 2304 + 1280)
    weights = {row.layer: row.bytes for row in report.rows if row.kind == "weights"}
    assert weights == {"first": 864, "q1": 4608, "q2": 9216, "last": 5120}
    assert report.floor_bytes == exported("float32", "plain", "2").floor_bytes
    assert report.ratio == report.total / report.floor_bytes


def test_bytes_of_the_plain_packed_network(exported: Callable[..., te.ExportResult]) -> None:
    report = exported("packed", "plain", "2").breakdown
    weights = {row.layer: row.bytes for row in report.rows if row.kind == "weights"}
    assert weights == {"first": 864, "q1": 288, "q2": 576, "last": 5120}
    # q1's batch norm folds into 16 scales; q2's stays behind the pooling, and its kernel has one scale for all
    scales = {row.layer: row.elements for row in report.rows if row.kind == "scales" and row.layer in ("q1", "q2")}
    assert scales == {"q1": 16, "q2": 1}


def test_no_layer_lies_below_its_floor(exported: Callable[..., te.ExportResult]) -> None:
    report = exported("packed", "plain", "2").breakdown
    assert sum(report.floor_by_layer.values()) == report.floor_bytes
    # q2's batch norm stands behind the pooling: in the file its constants belong to an operator without a name
    assert {name for name in report.floor_by_layer if name in report.by_layer} == {"first", "q1", "q2", "last"}
    for name in ("first", "q1", "q2"):  # the bias of last is all zeros, and left out
        assert report.by_layer[name] >= report.floor_by_layer[name]


def test_without_a_model_the_floor_is_the_payload(exported: Callable[..., te.ExportResult]) -> None:
    report = te.size_report(exported("packed", "plain", "2").path)
    kinds = report.by_kind
    assert report.floor_bytes == kinds["weights"] + kinds["scales"] + kinds["biases"]
    assert report.floor_by_layer == {}
    assert 1.0 < report.ratio < 2.0


def test_it_prints(exported: Callable[..., te.ExportResult], net: Callable[..., Any]) -> None:
    text = str(te.size_report(exported("packed", "plain", "2").path, net("plain", "2")))
    assert "of the floor" in text
    assert "q1" in text
