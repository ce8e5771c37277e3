"""Whatever bytes come in: a clear error or an answer, in bounded time, by everything that reads files.

`make fuzz` reads 10,000 mutated files, `make test` a few hundred.
"""

from __future__ import annotations

import importlib.util
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tflite_export as te
from tflite_export.arena import _lifetimes, plan
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.levels import _observed_tensors
from tflite_export.runtime import check_runtime
from tflite_export.support import check_support
from tflite_export.verification import _positions
from tfqprune.errors import ExportError, MissingDependencyError

# The fuzz profile asks for 5,000 examples.
_COUNT = 10_000 if settings.default is not None and settings.default.max_examples >= 5000 else 200
_SECONDS = 20

_word = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4, b"\1\0\0\0", b"\0\0\0\x40"]),
)
_truncated = st.tuples(st.just("truncated"), st.floats(0, 1))
_flipped = st.tuples(st.just("flipped"), st.lists(st.tuples(st.integers(0, 10**9), _word), min_size=1, max_size=24))
_random = st.tuples(st.just("random"), st.binary(max_size=600))
_spliced = st.tuples(st.just("spliced"), st.tuples(st.floats(0, 1), st.floats(0, 1)))


def _mutated(content: bytes, how: str, change: Any) -> bytes:
    if how == "truncated":
        return content[: int(change * len(content))]
    if how == "random":
        return content[:8] + change
    if how == "spliced":
        first, second = (int(c * len(content)) for c in change)
        return content[:first] + content[second:]
    changed = bytearray(content)
    for place, value in change:
        # half of the changes go where most tables are
        region = [len(content), min(4000, len(content))][place % 2]
        start = 8 + (place // 2) % (region - 16)
        changed[start : start + len(value)] = value
    return bytes(changed)


@contextmanager
def _in_time() -> Iterator[None]:
    """An error where a reader does not come back."""

    def late(*arguments: Any) -> None:
        raise AssertionError(f"no answer within {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _sizes(path: Path, content: bytes, model: Any) -> None:
    report = te.size_report(path)
    assert sum(report.by_kind.values()) == report.total == len(content)
    assert str(report)


def _names(path: Path, content: bytes, model: Any) -> None:
    """What size_report and verify do with a model at hand: finding its layers among the constants.

    Keras quantises the kernels each time for this, so only one file in eight goes through it.
    """
    if zlib.crc32(content) % 8:
        return
    te.size_report(content, model)
    _observed_tensors(Graph(read_model(content)), model)


def _before_running(path: Path, content: bytes, model: Any) -> None:
    """What verify and benchmark read before the runtime gets the file, in a process of its own."""
    check_runtime(path, None, None)
    check_support(read_model(path))
    _positions(path, model)


def _arena(path: Path, content: bytes, model: Any) -> None:
    graph = Graph(read_model(path))
    assert plan([(16, *life) for life in _lifetimes(graph).values()]) >= 0


def _again(path: Path, content: bytes, model: Any) -> None:
    """What was read can be written."""
    assert len(serialize(read_model(content))) > 0


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarms to catch endless loops")
@settings(max_examples=_COUNT, suppress_health_check=list(HealthCheck))
@given(
    which=st.sampled_from(
        [
            ("float32", "plain", "2"),
            ("packed", "dense", "2"),
            ("fast", "dense", "2"),
            ("int8", "dense", "2"),
            *([("binary", "plain", "binary")] if importlib.util.find_spec("larq_compute_engine") else []),
        ]
    ),
    mutation=st.one_of(_truncated, _flipped, _flipped, _random, _spliced),
)
def test_mutated_files(
    net: Callable[..., Any],
    exported: Callable[..., te.ExportResult],
    tmp_path_factory: pytest.TempPathFactory,
    which: tuple[str, ...],
    mutation: tuple[str, Any],
) -> None:
    content = _mutated(exported(*which).path.read_bytes(), *mutation)
    path = tmp_path_factory.getbasetemp() / "hostile.tflite"
    path.write_bytes(content)
    for reader in (_sizes, _names, _before_running, _arena, _again):
        with _in_time(), suppress(ExportError, MissingDependencyError):
            reader(path, content, net(*which[1:]))


def test_mutations_reach_what_is_behind_the_first_check(exported: Callable[..., te.ExportResult]) -> None:
    """Of single bytes flipped in a file most leave it readable: the test above is not stopped at the door."""
    content = exported("packed", "dense", "2").path.read_bytes()
    readable = 0
    places = range(8, len(content), 37)
    for place in places:
        try:
            read_model(_mutated(content, "flipped", [(2 * (place - 8), b"\x07")]))
        except ExportError:
            continue
        readable += 1
    assert 0.3 * len(places) < readable < len(places)


@pytest.mark.parametrize("damage", ["an element too many", "a negative dimension", "no whole number of elements"])
def test_constants_that_are_not_of_their_shape(exported: Callable[..., te.ExportResult], damage: str) -> None:
    graph = Graph(read_model(exported("float32", "plain", "2").path))
    index = next(i for i in range(len(graph.tensors)) if graph.is_constant(i) and len(graph.shape(i)) == 4)
    tensor = graph.tensors[index]
    if damage == "no whole number of elements":
        graph.model.buffers[tensor.buffer].data = graph.raw(index)[:-3]
    else:
        tensor.shape = tensor.shape.copy()
        tensor.shape[0] = -1 if damage == "a negative dimension" else tensor.shape[0] + 1
    with pytest.raises(ExportError, match=rf"intact .tflite file. Received: tensor {index} of shape"):
        graph.constant(index)


def _small() -> Graph:
    """A model that adds three numbers to themselves, to be damaged."""
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.operators = [], []
    model.subgraphs = [subgraph]
    graph = Graph(model)
    given, answer = graph.add_tensor((1, 3), TensorType.FLOAT32), graph.add_tensor((1, 3), TensorType.FLOAT32)
    subgraph.inputs, subgraph.outputs = np.asarray([given], np.int32), np.asarray([answer], np.int32)
    subgraph.operators = [graph.new_operator(BuiltinOperator.ADD, [given, given], [answer], schema.AddOptionsT())]
    return graph


def test_bundles_without_outputs_are_no_bundles() -> None:
    graph = _small()
    bytes_, floats = graph.add_constant(np.arange(4, dtype=np.uint8)), graph.add_constant(np.ones((3, 3), np.float32))
    sizes, axis = graph.add_constant(np.ones(3, np.uint8)), graph.add_constant(np.asarray(0, np.int32))
    part = graph.add_tensor((1, 3), TensorType.FLOAT32)
    for operator in (
        graph.new_operator(BuiltinOperator.CAST, [bytes_], []),
        graph.new_operator(BuiltinOperator.UNPACK, [floats], [], schema.UnpackOptionsT()),
        graph.new_operator(BuiltinOperator.SPLIT_V, [floats, sizes, axis], [part], schema.SplitVOptionsT()),
        graph.new_operator(BuiltinOperator.UNPACK, [-1], [part], schema.UnpackOptionsT()),
    ):
        graph.operators.append(operator)
        content = serialize(graph.model)
        assert te.size_report(content).total == len(content)


def _sharing(what: str) -> Graph:
    graph = _small()
    if what == "names of tensors":
        tensor = schema.TensorT()
        tensor.shape, tensor.name, tensor.hasRank = np.asarray([1, 3], np.int32), "a" * 100_000, False
        graph.subgraph.tensors += [tensor] * 3000
    elif what == "inputs of operators":
        many = np.zeros(10_000, np.int32)
        graph.subgraph.operators += [
            graph.new_operator(BuiltinOperator.ADD, many, [1], schema.AddOptionsT()) for _ in range(500)
        ]
    elif what == "shapes":
        tensor = schema.TensorT()
        tensor.shape, tensor.hasRank = np.ones(10_000, np.int32), False
        graph.subgraph.tensors += [tensor] * 3000
    else:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = "a" * 100_000, 0
        signature = schema.SignatureDefT()
        signature.inputs, signature.outputs, signature.subgraphIndex = [entry] * 3000, [], 0
        graph.model.signatureDefs = [signature]
    return graph


@pytest.mark.parametrize("what", ["names of tensors", "inputs of operators", "shapes", "names of a signature"])
def test_what_is_shared_without_end_is_refused_at_once(what: str) -> None:
    """Files of some 100 kB whose objects would take gigabytes or minutes."""
    content = serialize(_sharing(what).model)
    assert len(content) < 400_000
    with _in_time(), pytest.raises(ExportError, match="shared until they are 8 times the file"):
        te.size_report(content)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"\x20\0\0\0TFL3" + bytes(40))
    for use in (read_model, te.size_report, te.benchmark):
        with pytest.raises(ExportError, match=r"intact .* Received: .*bad.tflite', whose content is damaged"):
            use(path)
