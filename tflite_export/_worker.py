"""Runs one .tflite file in a process of its own that imports numpy and the runtime, nothing else.

Started as a script (see :mod:`tflite_export.runtime`): one JSON request on standard input, one JSON answer as the
last line of standard output. A runtime that crashes takes only this process with it, and its memory can be measured.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys

if __name__ == "__main__":
    sys.path.pop(0)  # the script's folder: its modules must not hide packages of the same name

import time
from pathlib import Path
from typing import Any

import numpy as np

# What a size that the file leaves open is taken as where no data says it (see samples.py).
_OPEN_SIZE = 8


class LiteRt:
    """The LiteRT interpreter, with or without the XNNPACK delegate."""

    def __init__(self, path: str, threads: int, xnnpack: bool) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.interpreter = Interpreter(model_path=path, num_threads=threads, experimental_op_resolver_type=resolver)
        self.inputs = self.interpreter.get_input_details()
        self.outputs = self.interpreter.get_output_details()
        self.dynamic = all(list(d["shape_signature"][:1]) == [-1] for d in self.inputs)
        self.batch = int(self.inputs[0]["shape"][0]) if len(self.inputs[0]["shape"]) else 1
        self.sizes = [[int(n) for n in detail["shape"]] for detail in self.inputs]
        self.allocated = False

    def wanted(self, batch: int, arrays: list[np.ndarray] | None) -> list[list[int]]:
        """The inputs' shapes: the file's, but for the batch and the sizes that it leaves open."""
        shapes = []
        for i, detail in enumerate(self.inputs):
            shape, open_ = [int(n) for n in detail["shape"]], [int(n) for n in detail["shape_signature"]]
            given = list(arrays[i].shape) if arrays is not None else [_OPEN_SIZE] * len(shape)
            free = [n < 0 for n in open_] if len(open_) == len(shape) == len(given) else [False] * len(shape)
            shapes.append([batch, *[g if f else n for n, g, f in zip(shape, given, free)][1:]] if shape else shape)
        return shapes

    def resize(self, batch: int, arrays: list[np.ndarray] | None = None) -> None:
        shapes = self.wanted(batch, arrays)
        for detail, old, new in zip(self.inputs, self.sizes, shapes, strict=True):
            if new != old:
                self.interpreter.resize_tensor_input(detail["index"], new)
                self.allocated = False
        self.batch, self.sizes = batch, shapes
        if not self.allocated:
            self.interpreter.allocate_tensors()
            self.allocated = True

    def load(self, arrays: list[np.ndarray]) -> None:
        self.resize(self.batch, arrays)
        self.interpreter.reset_all_variables()  # a recurrent layer would go on from the samples before
        for detail, array in zip(self.inputs, arrays, strict=True):
            self.interpreter.set_tensor(detail["index"], quantized(array, detail["dtype"], detail["quantization"]))

    def invoke(self) -> None:
        self.interpreter.invoke()

    def result(self) -> list[np.ndarray]:
        found = self.interpreter.get_output_details()
        return [dequantized(self.interpreter.get_tensor(d["index"]), d["quantization"]) for d in found]

    def shapes(self) -> list[list[int]]:
        self.resize(self.batch)
        details = {d["index"]: [int(n) for n in d["shape"]] for d in self.interpreter.get_tensor_details()}
        return [details.get(i, []) for i in range(max(details) + 1)]


class Lce:
    """Larq Compute Engine's interpreter, loaded without its package (which imports TensorFlow)."""

    def __init__(self, path: str, threads: int, xnnpack: bool) -> None:
        package = importlib.util.find_spec("larq_compute_engine")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("larq_compute_engine")
        library = Path(next(iter(package.submodule_search_locations))) / "tflite/python/interpreter_wrapper_lite.so"
        spec = importlib.util.spec_from_file_location("interpreter_wrapper_lite", library)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {library}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.interpreter = module.LiteInterpreter(Path(path).read_bytes(), threads, False, False, xnnpack)
        self.dynamic = False
        self.batch = int(self.interpreter.input_shapes[0][0])
        self.arrays: list[np.ndarray] = []
        self.answer: list[np.ndarray] = []

    def resize(self, batch: int, arrays: list[np.ndarray] | None = None) -> None:
        pass

    def load(self, arrays: list[np.ndarray]) -> None:
        self.arrays = [
            np.ascontiguousarray(a, dtype=t) for a, t in zip(arrays, self.interpreter.input_types, strict=True)
        ]

    def invoke(self) -> None:
        self.answer = self.interpreter.predict(self.arrays)

    def result(self) -> list[np.ndarray]:
        return [np.array(a) for a in self.answer]


def quantized(array: np.ndarray, dtype: Any, quantization: tuple[float, int]) -> np.ndarray:
    """Real values as the integers that a quantised input takes; other inputs only change their type."""
    scale, zero = quantization
    if scale and array.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(dtype)
    return np.ascontiguousarray(array, dtype=dtype)


def dequantized(array: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero = quantization
    return (array.astype(np.float32) - zero) * np.float32(scale) if scale and array.dtype.kind in "iu" else array


def predict(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the arrays of an .npz file through the model, a chunk at a time; answers in another .npz file."""
    with np.load(request["inputs"]) as stored:
        arrays = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    session = open_session(request)
    samples = len(arrays[0])
    if session.dynamic:
        session.resize(min(samples, int(request["chunk"])), arrays)
    step, chunks = session.batch, []
    for start in range(0, samples, step):
        part = [a[start : start + step] for a in arrays]
        missing = step - len(part[0])
        if missing:
            part = [np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for a in part]
        session.load(part)
        session.invoke()
        chunks.append([a.copy() for a in session.result()])
    np.savez(request["outputs"], *[np.concatenate(column)[:samples] for column in zip(*chunks, strict=True)])
    return {}


def benchmark(request: dict[str, Any]) -> dict[str, Any]:
    """Latency of single invocations in milliseconds, and the growth of peak resident memory in bytes."""
    if request["warm_up_model"]:
        # The first interpreter of a process pays for thread pools and tables that are no model's.
        tiny = open_session({**request, "model": request["warm_up_model"]})
        tiny.load([np.zeros((1, 1), np.float32)])
        tiny.invoke()
    before = peak_memory(reset=True)
    session = open_session(request)
    arrays = [np.asarray(a, dtype=t) for a, t in zeros_like_inputs(session)]
    session.load(arrays)
    session.invoke()
    memory = peak_memory(reset=False) - before
    started = time.perf_counter()
    while time.perf_counter() - started < request["warm_up_seconds"]:
        session.invoke()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < request["runs"] or (
        time.perf_counter() - started < request["seconds"] and len(times) < 20 * request["runs"]
    ):
        start = time.perf_counter()
        session.invoke()
        times.append((time.perf_counter() - start) * 1e3)
        if time.perf_counter() - started > request["max_seconds"] and len(times) >= 3:
            break
    return {"milliseconds": times, "peak_memory": memory, "batch": session.batch}


def zeros_like_inputs(session: Any) -> list[tuple[np.ndarray, Any]]:
    """Fixed pseudo-random inputs of the model's shapes: zeros would let some kernels skip work.

    Whole numbers are 0 and 1, which are in every table that an operator may look them up in.
    """
    rng = np.random.default_rng(0)
    if isinstance(session, LiteRt):
        wanted = [(s, d["dtype"]) for s, d in zip(session.wanted(session.batch, None), session.inputs, strict=True)]
    else:
        wanted = list(zip(session.interpreter.input_shapes, session.interpreter.input_types, strict=True))
    return [
        (rng.normal(size=shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 2, size=shape), dtype)
        for shape, dtype in wanted
    ]


def peak_memory(reset: bool) -> int:
    """Peak resident bytes of this process; ``reset`` starts a new peak where the kernel allows it."""
    if reset:
        # Where that is not allowed the difference is to the highest point so far: never an overestimate.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def shapes(request: dict[str, Any]) -> dict[str, Any]:
    """The shape of every tensor after the kernels were prepared."""
    return {"shapes": open_session(request).shapes()}


def open_session(request: dict[str, Any]) -> Any:
    runtime = Lce if request["runtime"] == "lce" else LiteRt
    return runtime(request["model"], int(request["threads"]), bool(request["xnnpack"]))


def main() -> None:
    request = json.load(sys.stdin)
    answer = {"predict": predict, "benchmark": benchmark, "shapes": shapes}[request["task"]](request)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
