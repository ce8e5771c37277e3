"""Runs .tflite files in the runtime that they are made for, each run in a fresh process.

A fresh process because a runtime may crash on a damaged or unsupported file, because its memory is then its own,
and because a TensorFlow in the same process must not lend it anything.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.flatbuffer import read_model
from tflite_export.graph import Graph, is_lce
from tfqprune.errors import ExportError, MissingDependencyError, whole_number

_WORKER = Path(__file__).with_name("_worker.py")
RUNTIMES = ("litert", "lce")
# Samples a resizable file runs at once; more only costs memory.
_CHUNK = 16


def runtime_of(model: Any) -> str:
    """The runtime a parsed model needs: ``lce`` where it has Lce* operators, else ``litert``."""
    return "lce" if is_lce(model) else "litert"


def require_lce(purpose: str) -> None:
    """Makes sure that larq-compute-engine is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    try:
        importlib.import_module("larq_compute_engine")
    except ImportError as error:
        raise MissingDependencyError(
            f"Expected larq-compute-engine to be installed {purpose}. Received: {error}. "
            "Install it with `pip install larq-compute-engine` (it has wheels for some platforms and Python versions "
            'only), or choose format="packed", which runs in stock LiteRT.'
        ) from error


def suits_xnnpack(model: Any) -> bool:
    """Whether a parsed LiteRT model gains from XNNPACK.

    Kernels that are decoded at run time are no constants, which XNNPACK's convolutions want: such a file runs as
    fast without the delegate and in less memory.
    """
    graph = Graph(model)
    decodes = any(
        graph.kind(operator) == "CAST" and all(graph.is_constant(int(i)) for i in operator.inputs)
        for operator in graph.operators
    )
    return not decodes and not is_lce(model)


def check_runtime(path: str | os.PathLike[str], runtime: str | None, xnnpack: bool | None) -> tuple[str, bool]:
    """The runtime to use for a file, and whether with XNNPACK.

    Raises:
        ExportError: the file is damaged, the runtime asked for cannot load it, or ``xnnpack`` is no truth value.
        MissingDependencyError: the file needs larq-compute-engine, which is not installed.
    """
    check_xnnpack(xnnpack)
    model = read_model(path)
    needed = runtime_of(model)
    if runtime is not None and runtime not in RUNTIMES:
        raise ExportError(f"Expected runtime to be one of {', '.join(RUNTIMES)} or None. Received: {runtime!r}.")
    if runtime == "litert" and needed == "lce":
        raise ExportError(
            "Expected a file without Lce* operators for LiteRT. Received: a Larq Compute Engine file, which only "
            'runtime="lce" loads. Export with format="packed" for stock LiteRT.'
        )
    chosen = runtime or needed
    if chosen == "lce":
        require_lce("to run this file")
        return chosen, bool(xnnpack)
    return chosen, suits_xnnpack(model) if xnnpack is None else xnnpack


def check_xnnpack(xnnpack: Any) -> None:
    """Refuses what does not say whether to use the delegate.

    Raises:
        ExportError: neither True nor False nor None.
    """
    if xnnpack is not None and not isinstance(xnnpack, bool):
        raise ExportError(f"Expected xnnpack to be True, False or None. Received: {xnnpack!r}.")


def check_threads(threads: Any) -> int:
    """A number of threads that a runtime can start.

    Raises:
        ExportError: no whole number from 1 to 256.
    """
    return whole_number("threads", threads, ExportError, 1, 256)


def predict(
    path: str | os.PathLike[str],
    arrays: list[np.ndarray],
    *,
    runtime: str,
    threads: int = 1,
    xnnpack: bool = True,
    timeout: float = 600.0,
) -> list[np.ndarray]:
    """The outputs of a file for arrays [samples, ...], both in the order of the file's inputs and outputs.

    Raises:
        ExportError: the runtime refused the file, crashed, or took longer than ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, *arrays)
        ask(
            {
                "task": "predict", "model": os.fspath(path), "runtime": runtime, "threads": threads,
                "xnnpack": xnnpack, "inputs": str(inputs), "outputs": str(outputs), "chunk": _CHUNK,
            },
            timeout,
        )  # fmt: skip
        with np.load(outputs) as stored:
            return [stored[f"arr_{i}"] for i in range(len(stored.files))]


def ask(request: dict[str, Any], timeout: float) -> dict[str, Any]:
    """One request to a fresh worker process.

    Raises:
        ExportError: the process failed; the message has the end of what it said.
    """
    command = [sys.executable, str(_WORKER)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    label = f"{request['runtime']} on {request['model']!r}"
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=timeout, env=environment,
            check=False, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"Expected {label} to finish within {timeout:g} s. Received: no answer. Use fewer samples."
        ) from error
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    raise ExportError(
        f"Expected {label} to run. Received: {how}: {' | '.join(said[-2:]) or 'no message'}. "
        "The file may be damaged or use operators that this runtime does not have."
    )
