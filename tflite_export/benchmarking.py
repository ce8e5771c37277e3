"""Latency and memory of a .tflite file, measured in a fresh process that imports only its runtime."""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.arena import arena_bytes
from tflite_export.device import run_on_phone
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.runtime import ask, check_runtime, check_threads, runtime_of, suits_xnnpack
from tfqprune.errors import ExportError, real_number, whole_number


@dataclass(frozen=True)
class Benchmark:
    """What one file costs to run.

    Attributes:
        latency_ms: median milliseconds of one invocation.
        latency_spread_ms: distance between the quartiles, milliseconds.
        latency_min_ms: the fastest invocation.
        runs: invocations timed.
        peak_memory: growth of the process's peak resident memory from loading the file to the end of the first
            invocation, in bytes; the runtime itself is not counted, pages of the file are.
        arena_bytes: planned bytes of intermediate tensors, or None where the file does not tell.
        file_bytes: size of the file.
        threads: threads of the runtime.
        runtime: ``litert`` or ``lce``.
        xnnpack: whether the XNNPACK delegate ran.
        batch_size: samples per invocation.
    """

    latency_ms: float
    latency_spread_ms: float
    latency_min_ms: float
    runs: int
    peak_memory: int
    arena_bytes: int | None
    file_bytes: int
    threads: int
    runtime: str
    xnnpack: bool
    batch_size: int

    def __str__(self) -> str:
        arena = "unknown" if self.arena_bytes is None else f"{self.arena_bytes:,} B"
        return (
            f"{self.latency_ms:.3f} ms (spread {self.latency_spread_ms:.3f}, {self.runs} runs), peak memory "
            f"{self.peak_memory / 1e6:.2f} MB, arena {arena}, {self.threads} thread(s), {self.runtime}, "
            f"XNNPACK {'on' if self.xnnpack else 'off'}"
        )


def benchmark(
    path: str | os.PathLike[str],
    *,
    runs: int = 50,
    threads: int = 1,
    runtime: str | None = None,
    xnnpack: bool | None = None,
    warm_up_seconds: float = 0.2,
    seconds: float = 0.5,
    max_seconds: float = 30.0,
    device: str | None = None,
    tool: str | os.PathLike[str] | None = None,
) -> Benchmark:
    """Measures a .tflite file on this machine, or on an attached phone.

    Args:
        path: the file; sizes of its inputs that it leaves open are taken as 8, the batch as 1.
        runs: invocations to time, at least; more until ``seconds`` have passed, fewer after ``max_seconds``.
        threads: threads of the runtime.
        runtime: ``litert``, ``lce`` or None for the one that the file needs.
        xnnpack: whether LiteRT may use the XNNPACK delegate; None for what suits the file (see
            :func:`tflite_export.runtime.suits_xnnpack`).
        warm_up_seconds: untimed invocations first.
        seconds: time to spend on timed invocations, at least.
        max_seconds: stop timing after so long, with at least three invocations.
        device: None for this machine, ``adb`` for the attached Android phone (the runtime's ``benchmark_model`` runs
            there; the spread is then the standard deviation, and the runtime need not be installed here).
        tool: the ``benchmark_model`` binary for the phone (see :func:`tflite_export.device.run_on_phone`).

    Returns:
        A :class:`Benchmark`.

    Raises:
        ExportError: the file is damaged or does not run, or an argument is out of range.
        MissingDependencyError: the file needs a runtime that is not installed, or adb, phone or tool are missing.
    """
    if device not in (None, "adb"):
        raise ExportError(f"Expected device to be None or 'adb'. Received: {device!r}.")
    runs, threads = whole_number("runs", runs, ExportError), check_threads(threads)
    seconds = real_number("seconds", seconds, ExportError, 0)
    warm_up_seconds = real_number("warm_up_seconds", warm_up_seconds, ExportError, 0)
    max_seconds = real_number("max_seconds", max_seconds, ExportError, 0)
    if device == "adb":
        return _on_phone(path, runs, threads, runtime, xnnpack, tool)
    chosen, use_xnnpack = check_runtime(path, runtime, xnnpack)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.tflite"
        tiny.write_bytes(_tiny_model())
        answer = ask(
            {
                "task": "benchmark", "model": os.fspath(path), "runtime": chosen, "threads": threads,
                "xnnpack": use_xnnpack, "warm_up_model": str(tiny), "runs": runs,
                "warm_up_seconds": warm_up_seconds, "seconds": seconds, "max_seconds": max_seconds,
            },
            timeout=60.0 + 4 * (max_seconds + warm_up_seconds),
        )  # fmt: skip
    times: list[float] = answer["milliseconds"]
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Benchmark(
        latency_ms=statistics.median(times), latency_spread_ms=quartiles[2] - quartiles[0], latency_min_ms=min(times),
        runs=len(times), peak_memory=int(answer["peak_memory"]), arena_bytes=arena_bytes(path),
        file_bytes=Path(path).stat().st_size, threads=threads, runtime=chosen, xnnpack=use_xnnpack,
        batch_size=int(answer["batch"]),
    )  # fmt: skip


def _on_phone(
    path: str | os.PathLike[str],
    runs: int,
    threads: int,
    runtime: str | None,
    xnnpack: bool | None,
    tool: str | os.PathLike[str] | None,
) -> Benchmark:
    model = read_model(path)
    chosen = runtime or runtime_of(model)
    use_xnnpack = suits_xnnpack(model) if xnnpack is None else xnnpack
    times = run_on_phone(path, runtime=chosen, threads=threads, xnnpack=use_xnnpack, runs=runs, tool=tool)
    shape = Graph(model).shape(int(model.subgraphs[0].inputs[0]))
    return Benchmark(
        latency_ms=times.median_ms, latency_spread_ms=times.spread_ms, latency_min_ms=times.min_ms, runs=times.runs,
        peak_memory=times.peak_memory, arena_bytes=arena_bytes(path), file_bytes=Path(path).stat().st_size,
        threads=threads, runtime=chosen, xnnpack=use_xnnpack, batch_size=shape[0] if shape else 1,
    )  # fmt: skip


@cache
def _tiny_model() -> bytes:
    """A model that adds two numbers: what a runtime allocates for it belongs to no user's model."""
    model: Any = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.operators = [], []
    model.subgraphs = [subgraph]
    graph = Graph(model)
    given, answer = graph.add_tensor((1, 1), TensorType.FLOAT32), graph.add_tensor((1, 1), TensorType.FLOAT32)
    subgraph.operators = [graph.new_operator(BuiltinOperator.ADD, [given, given], [answer], schema.AddOptionsT())]
    subgraph.inputs, subgraph.outputs = np.asarray([given], np.int32), np.asarray([answer], np.int32)
    return serialize(model)
