"""Reading any bytes without a crash, writing whole files only."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tflite_export as te
from tflite_export.arena import _lifetimes, plan
from tflite_export.benchmarking import _tiny_model
from tflite_export.flatbuffer import read_model, serialize, write_atomically
from tflite_export.graph import Graph
from tfqprune.errors import ExportError, OutputError


def test_round_trip_keeps_everything(exported: Callable[..., te.ExportResult]) -> None:
    content = exported("packed", "plain", "2").path.read_bytes()
    again = serialize(read_model(content))
    assert len(again) == len(content)
    assert te.size_report(again).rows == te.size_report(content).rows


def test_large_constants_are_aligned(exported: Callable[..., te.ExportResult]) -> None:
    content = exported("float32", "plain", "2").path.read_bytes()
    graph = Graph(read_model(content))
    checked = 0
    for index in range(len(graph.tensors)):
        if graph.is_constant(index) and len(graph.raw(index)) >= 64:
            data = graph.raw(index).tobytes()
            place = content.find(struct.pack("<I", len(data)) + data) + 4
            assert place % 16 == 0
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 100, b"\x1c\0\0\0TFL4" + b"\0" * 50])
def test_other_files_are_named_as_such(content: bytes) -> None:
    with pytest.raises(ExportError, match=r"Expected a .tflite file"):
        read_model(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"readable .tflite file. Received: .*absent.tflite"):
        read_model(tmp_path / "absent.tflite")


def test_every_truncation_is_an_error_or_readable() -> None:
    content = _tiny_model()
    refused = 0
    for length in range(len(content)):
        try:
            te.size_report(content[:length])
        except ExportError:
            refused += 1
    assert refused > 0.9 * len(content)


@given(st.lists(st.tuples(st.integers(8, 10**6), st.integers(0, 255)), min_size=1, max_size=12))
def test_mutated_files_end_in_a_clear_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(_tiny_model())
    for place, value in changes:
        content[8 + place % (len(content) - 8)] = value
    try:
        report = te.size_report(bytes(content))
    except ExportError:
        return
    assert report.total == len(content)


@given(
    which=st.sampled_from([("float32", "plain", "2"), ("packed", "residual", "binary"), ("fast", "dense", "2")]),
    changes=st.lists(
        st.tuples(
            st.integers(0, 10**9),
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4, b"\1\0\0\0"]),
            ),
        ),
        min_size=1,
        max_size=20,
    ),
    keep=st.one_of(st.none(), st.floats(0, 1)),
)
def test_mutated_networks_end_in_a_clear_error(
    exported: Callable[..., te.ExportResult],
    which: tuple[str, ...],
    changes: list[tuple[int, bytes]],
    keep: float | None,
) -> None:
    content = bytearray(exported(*which).path.read_bytes())
    for place, value in changes:
        # half of the changes go where the tables are: the first and last kilobytes
        region = [len(content), 4000][place % 2]
        start = 8 + (place // 2) % (region - 12)
        content[start : start + len(value)] = value
    hostile = bytes(content if keep is None else content[: int(keep * len(content))])
    try:
        report = te.size_report(hostile)
        graph = Graph(read_model(hostile))
        planned = plan([(math.prod(graph.shape(i)), *life) for i, life in _lifetimes(graph).items()])
    except ExportError:
        return
    assert sum(report.by_kind.values()) == report.total == len(hostile)
    assert planned >= 0


def test_a_constant_that_is_too_short_for_its_shape_ends_in_an_error(
    exported: Callable[..., te.ExportResult], tmp_path: Path
) -> None:
    model = read_model(exported("float32", "plain", "2").path)
    graph = Graph(model)
    kernel = int(next(op for op in graph.operators if graph.kind(op) == "CONV_2D").inputs[1])
    buffer = graph.tensors[kernel].buffer
    model.buffers[buffer].data = model.buffers[buffer].data[:64]
    path = tmp_path / "short.tflite"
    path.write_bytes(serialize(model))
    with pytest.raises(ExportError, match=r"to run. Received: (exit code|signal)"):
        te.benchmark(path)


@given(st.binary(max_size=300))
def test_random_bytes_behind_the_identifier(tail: bytes) -> None:
    try:
        te.size_report(struct.pack("<I", 12) + b"TFL3" + tail)
    except ExportError:
        return
    raise AssertionError("random bytes were taken for a model")


def test_a_huge_vector_length_is_refused_at_once() -> None:
    content = bytearray(_tiny_model())
    model = read_model(bytes(content))
    assert len(model.subgraphs) == 1
    hit = 0
    for place in range(8, len(content) - 4, 4):
        changed = bytearray(content)
        changed[place : place + 4] = struct.pack("<I", 2**31 - 1)
        try:
            te.size_report(bytes(changed))
        except ExportError:
            hit += 1
    assert hit > 5


def test_an_index_out_of_range_is_named() -> None:
    model = read_model(_tiny_model())
    model.subgraphs[0].operators[0].inputs = np.asarray([0, 7], np.int32)
    with pytest.raises(ExportError, match=r"operator input index 7, expected 0 to 1"):
        read_model(serialize(model))


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model.tflite"
    write_atomically(target, b"old")

    def fails(*arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OutputError, match="disk full"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.tflite"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Create the folder"):
        write_atomically(tmp_path / "absent" / "model.tflite", b"x")
