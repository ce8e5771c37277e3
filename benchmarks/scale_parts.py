"""What `benchmarks/scale.py` measures, one function a part; each part runs in a process of its own.

Times are CPU seconds of all threads beside seconds on the clock: other work on the machine hardly changes the former.
Memory is how far the process's resident memory rose above what it held, in the first run of each step.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported

import tensorflow as tf  # isort: skip
from searchers import OracleSearcher, OurSearcher, StockSearcher  # isort: skip
import tflite_export as te
from tfqprune.allocation.base import unscored
from tfqprune.allocation.cluster import serve
from tfqprune.allocation.oracle import ratios_of
from tfqprune.evaluation import CALIBRATION_SAMPLES, PlanEvaluator
from tfqprune.files import write_arrays
from tfqprune.fitting import Fitter
from tfqprune.scoring import choose_criterion, score_graph
from tfqprune.zoo.resnet import resnet

MEMORY = 0.5  # the budget of every plan
REPEATS = 3
LIMIT = 10.0  # seconds on the clock; a step that takes longer is not repeated
#: trials that the growth of a suggestion is looked at
LOOKS = (10, 20, 50, 100, 200, 500)
STOCK_LOOKS = LOOKS[:5]
STOCK_LIMIT = 10.0  # CPU seconds of a suggestion after which the stock oracle's series ends

Row = dict[str, Any]


def cpu_seconds() -> float:
    """CPU time of this process, all threads, and of the processes that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_growth(function: Callable[[], Any]) -> int:
    """Bytes by which a call raised the resident memory above what the process held (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already would hide what the call needs
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from now
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def measure(function: Callable[[], Any]) -> Row:
    """Seconds, CPU seconds of each run, and the first run's memory; one run where it takes longer than ``LIMIT``."""
    seconds, cpu = [], []

    def run() -> None:
        began, used = time.perf_counter(), cpu_seconds()
        function()
        seconds.append(round(time.perf_counter() - began, 5))
        cpu.append(round(cpu_seconds() - used, 5))

    peak = peak_growth(run)
    if seconds[0] <= LIMIT:
        for _ in range(REPEATS - 1):
            run()
    return {"seconds": seconds, "cpu": cpu, "peak_bytes": peak}


# -- depth ------------------------------------------------------------------------------------


def cifar_net(depth: int) -> tf.keras.Model:
    """A 2-bit DoReFa ResNet for 32 x 32 pixels."""
    return resnet(depth, precision=2)


def imagenet_net(depth: int, side: int) -> tf.keras.Model:
    """A float ResNet of tf.keras.applications."""
    return getattr(tf.keras.applications, f"ResNet{depth}")(weights=None, input_shape=(side, side, 3))


def noise(images: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; times do not depend on what they show."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, side, side, 3)).astype(np.float32), rng.integers(0, 10, images)


def facts_of(model: tf.keras.Model, graph: tq.ChannelGraph) -> Row:
    """How large a network is."""
    return {
        "layers": len(model.layers),
        "groups": len(graph.prunable),
        "units": sum(group.size for group in graph.prunable),
        "weights_bytes": sum(weight.numpy().nbytes for weight in model.weights),
    }


def depth_part(family: str, depth: int, seed: int) -> Row:
    """Every step of the work on one network.

    ``cifar``: 32 x 32 pixels, 128 images to score on, a packed file; ``imagenet``: 64 x 64 pixels, 16 images, a float
    file. A trial is 64 (16) images for the batch norms and as many to judge by.
    """
    small = family == "cifar"
    side, scored, tried = (32, 128, 64) if small else (64, 16, 16)
    tf.keras.utils.set_random_seed(seed)
    model = cifar_net(depth) if small else imagenet_net(depth, side)
    x, y = noise(max(scored, tried), side, seed)
    tq.reestimate_batch_norms(model, x[:16], batch_size=16)
    graph = tq.ChannelGraph(model)
    steps = {"graph": measure(lambda: tq.ChannelGraph(model))}
    steps["latent_l1"] = measure(lambda: score_graph(graph, "latent_l1"))
    steps["scores"] = measure(lambda: score_graph(graph, "auto", x[:scored], samples=scored))

    scores = score_graph(graph, "latent_l1")
    allocator = tq.UniformAllocator(tq.Budget(memory=MEMORY))
    steps["allocation"] = measure(lambda: allocator.fit(model, Fitter(graph, scores, allocator.budget)))
    fitter = Fitter(graph, scores, allocator.budget)
    plan = fitter.plan(allocator.fit(model, fitter))

    def twin() -> PlanEvaluator:
        evaluator = PlanEvaluator(graph, (x[:tried], y[:tried]), x[:tried], calibration_samples=tried)
        evaluator({})  # traces
        return evaluator

    steps["twin"] = measure(twin)
    evaluator = twin()
    turns = itertools.cycle([plan.removed, {}])  # a plan that is set already would cost nothing
    steps["trial"] = measure(lambda: evaluator(next(turns)))
    own = evaluator.twin
    assert own is not None
    steps["assigning"] = measure(lambda: own.set_plan(next(turns)))
    steps["rebuild"] = measure(lambda: tq.prune(model, plan))
    slim = tq.prune(model, plan)
    kind = "packed" if small else "float32"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.tflite"
        steps["export"] = measure(lambda: te.export(slim, path, kind, samples=4, strict=False))
        size = path.stat().st_size
    return {
        "family": family, "depth": depth, **facts_of(model, graph), "side": side, "scored": scored, "tried": tried,
        "criterion": choose_criterion(graph, "auto", x).name, "format": kind, "file_bytes": size, "steps": steps,
        "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }  # fmt: skip


def imagenet_part(depth: int, seed: int, images: int = 16) -> Row:
    """What a trial consists of at 224 x 224 pixels, and a step of training beside it."""
    model = imagenet_net(depth, 224)
    x, y = noise(images, 224, seed)
    graph = tq.ChannelGraph(model)
    fitter = Fitter(graph, unscored(graph), tq.Budget(memory=MEMORY))
    plan = fitter.plan(tq.UniformAllocator(fitter.budget).fit(model, fitter))
    batch = tf.constant(x)

    def traced() -> PlanEvaluator:
        evaluator = PlanEvaluator(graph, (x, y), x, calibration_samples=images, batch_size=images)
        evaluator({})
        return evaluator

    steps = {"twin": measure(traced)}
    evaluator = traced()
    twin = evaluator.twin
    assert twin is not None
    turns = itertools.cycle([plan.removed, {}])
    steps["assigning"] = measure(lambda: twin.set_plan(next(turns)))
    steps["re_estimating"] = measure(lambda: twin.re_estimate([batch]))
    steps["evaluating"] = measure(lambda: twin.model.evaluate(evaluator.validation, verbose=0))
    _, statistics = evaluator.evaluate(plan.removed)
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"{name}:{part}": value for name, values in statistics.items() for part, value in enumerate(values)}
        write_arrays(Path(folder) / "statistics.npz", arrays)
        kept = (Path(folder) / "statistics.npz").stat().st_size
    slim = tq.prune(model, plan)
    slim.compile(tf.keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    slim.train_on_batch(x, y)  # traced before the clock runs
    steps["training"] = measure(lambda: slim.train_on_batch(x, y))
    return {
        "depth": depth, **facts_of(model, graph), "side": 224, "images": images, "calibration": CALIBRATION_SAMPLES,
        "statistics_bytes": kept, "steps": steps,
        "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }  # fmt: skip


# -- trials -----------------------------------------------------------------------------------

#: the networks whose groups are the dimensions of a search
NETS: dict[int, Callable[[], tf.keras.Model]] = {
    9: lambda: resnet(14, precision=2),
    18: lambda: resnet(32, precision=2),
    37: lambda: imagenet_net(50, 224),
}


def fitter_of(dimensions: int) -> Fitter:
    """The fitter of a search with so many ratios.

    Raises:
        SystemExit: the network has another number of groups by now.
    """
    graph = tq.ChannelGraph(NETS[dimensions]())
    fitter = Fitter(graph, unscored(graph), tq.Budget(memory=MEMORY))
    if len(fitter.names) != dimensions:
        raise SystemExit(f"Expected a network with {dimensions} groups. Received: {len(fitter.names)}; change NETS.")
    return fitter


def objective(fitter: Fitter, seed: int) -> Callable[[Mapping[str, int]], float]:
    """An accuracy without a network: some groups matter far more than others, and there is noise."""
    rng = np.random.default_rng(seed)
    weights = dict(zip(fitter.names, rng.dirichlet(np.full(len(fitter.names), 0.5)), strict=True))

    def value(counts: Mapping[str, int]) -> float:
        loss = sum(weights[name] * ratio**2 for name, ratio in fitter.ratios(counts).items())
        return float(0.9 - loss + rng.normal(0, 0.003))

    return value


class Series:
    """The trials of one search: seconds of each suggestion with its bookkeeping, and what the search occupies."""

    def __init__(self, searcher: OracleSearcher, value: Callable[[Mapping[str, int]], float]) -> None:
        self.searcher, self.value = searcher, value
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def trial(self) -> None:
        began, used = time.perf_counter(), time.process_time()
        counts = self.searcher.ask()
        self.searcher.tell(self.value(counts))
        self.seconds.append(round(time.perf_counter() - began, 5))
        self.cpu.append(round(time.process_time() - used, 5))

    def point(self, last: int, peak: int) -> Row:
        """How it stands: the last few suggestions, all of them, and the folder."""
        files = [path for path in Path(self.searcher.oracle._project_dir).rglob("*") if path.is_file()]
        return {
            "trials": len(self.cpu), "cpu": self.cpu[-last:], "seconds": self.seconds[-last:],
            "total_cpu": round(sum(self.cpu), 3), "peak_bytes": peak, "files": len(files),
            "disk_bytes": sum(path.stat().st_size for path in files),
        }  # fmt: skip


def ours_part(dimensions: int, seed: int, trials: int) -> Row:
    """A whole search of ``RatioTuner``'s oracle.

    Its kernel is fitted anew when the trials have grown by 15 %, so the suggestions of the last 15 % count together.
    """
    fitter = fitter_of(dimensions)
    series = Series(OurSearcher(fitter, trials, seed), objective(fitter, seed))
    points = []
    for look in (look for look in LOOKS if look <= trials):
        while len(series.cpu) < look - 1:
            series.trial()
        peak = peak_growth(series.trial)
        points.append(series.point(look - round(look / 1.15), peak))
        print(f"ours, {dimensions} dimensions: {points[-1]['trials']} trials", flush=True)
    return {"method": "ours", "dimensions": dimensions, "trials": trials, "points": points}


def stock_part(dimensions: int, seed: int, trials: int) -> Row:
    """Suggestions of Keras-Tuner's own oracle after so many random trials: it fits its process anew for each one."""
    fitter = fitter_of(dimensions)
    searcher = StockSearcher(fitter, trials + REPEATS * len(STOCK_LOOKS), seed)
    series = Series(searcher, objective(fitter, seed))
    points: list[Row] = []
    for look in (look for look in STOCK_LOOKS if look <= trials):
        searcher.oracle.num_initial_points = look
        while len(series.cpu) < look:
            series.trial()
        peak = peak_growth(series.trial)
        runs = 1
        while runs < REPEATS and series.cpu[-1] <= STOCK_LIMIT:
            series.trial()
            runs += 1
        points.append({**series.point(runs, peak), "trials": look})
        print(f"stock, {dimensions} dimensions: {look} trials, {series.cpu[-1]:.2f} s", flush=True)
        if series.cpu[-1] > STOCK_LIMIT:
            break
    return {"method": "stock", "dimensions": dimensions, "trials": trials, "points": points}


# -- traffic ----------------------------------------------------------------------------------


class Counter:
    """A port that passes everything on to another one, and counts the bytes both ways."""

    def __init__(self, target: int) -> None:
        self.target, self.bytes = target, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            there = socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        while chunk := source.recv(65536):
            self.bytes += len(chunk)
            sink.sendall(chunk)


def traffic_part(dimensions: int, seed: int, trials: int = 24) -> Row:
    """Bytes between chief and worker: real server, real client, a port in between that counts.

    A worker's calls in each trial: it asks for one, shows once that it is alive, looks the trial up, reports six
    metrics (as a proxy trial has them), ends it.
    """
    from keras_tuner.src.distribute.oracle_client import OracleClient

    fitter = fitter_of(dimensions)
    searcher = OurSearcher(fitter, trials, seed)
    oracle, value = searcher.oracle, objective(fitter, seed)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ.update(KERASTUNER_ORACLE_IP="127.0.0.1", KERASTUNER_ORACLE_PORT=str(port), KERASTUNER_TUNER_ID="worker1")
    chief = threading.Thread(target=serve, args=(oracle, 60.0))
    chief.start()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    counter = Counter(port)
    os.environ["KERASTUNER_ORACLE_PORT"] = str(counter.port)
    client = OracleClient(oracle)
    names = ("ask", "alive", "look_up", "report", "end")
    calls: dict[str, list[int]] = {name: [] for name in names}
    rest = dict.fromkeys(("val_loss", "seconds", "memory", "macs", "params"), 0.123456)

    def counted(name: str, call: Callable[[], Any]) -> Any:
        before = counter.bytes
        answer = call()
        calls[name].append(counter.bytes - before)
        return answer

    while (trial := counted("ask", lambda: client.create_trial("worker1"))).status == "RUNNING":
        counted("alive", lambda: client.create_trial("worker1"))
        counted("look_up", lambda trial=trial: client.get_trial(trial.trial_id))
        metrics = {"value": value(searcher.counts(ratios_of(trial))), **rest}
        counted("report", lambda trial=trial, metrics=metrics: client.update_trial(trial.trial_id, metrics))
        trial.status = "COMPLETED"
        counted("end", lambda trial=trial: client.end_trial(trial))
    chief.join()
    return {"dimensions": dimensions, "trials": trials, "bytes": calls, "total_bytes": counter.bytes}
