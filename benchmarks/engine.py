"""Speed and memory of the engine: graph, plan and slim model, beside Torch-Pruning in the same run.

    python benchmarks/engine.py --peer-python PATH     (make bench-engine sets the peer's environment up)

Measures, each several times with the peer in turn, one thread on both sides:
- graph + L1 scores + plan + slim model of a ResNet-50 at ratio 0.3, against Torch-Pruning 1.6.1's graph and step;
- how that grows to ResNet-101 and ResNet-152;
- extra memory of it, against the model's weights;
- the graph of InceptionResNetV2, against the time that Keras takes to build that model.

Results go to benchmarks/results/engine.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import tfqprune as tq

RATIO = 0.3
HERE = Path(__file__).parent


class Peer:
    """Torch-Pruning in a process of its own, asked once for each measurement."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / "torch_pruning_resnet.py"), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("The peer did not answer; is torch-pruning installed in its environment?")
        return dict(json.loads(line))

    def seconds(self, depth: int) -> float:
        """Seconds for the graph and one pruning step."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"depth": depth, "ratio": RATIO}) + "\n")
        self.process.stdin.flush()
        return float(self._read()["seconds"])


class PeakMemory:
    """Growth of this process's resident memory while a block runs, sampled every millisecond."""

    def __enter__(self) -> PeakMemory:
        self.before, self.peak, self.running = _resident(), 0, True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, _resident() - self.before)
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak, _resident() - self.before)
        self.running = False
        self.thread.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def compress(model: Any) -> Any:
    """What is compared: graph, scores, plan and slim model."""
    return tq.prune(model, tq.make_plan(model, RATIO, criterion="latent_l1"))


def against_peer(peer: Peer | None, repeats: int) -> dict[str, Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    builders = {
        50: tf.keras.applications.ResNet50,
        101: tf.keras.applications.ResNet101,
        152: tf.keras.applications.ResNet152,
    }
    compress(tf.keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)))  # warm-up
    found: dict[str, Any] = {}
    for depth, build in builders.items():
        model = build(weights=None)
        weights = sum(weight.numpy().nbytes for weight in model.weights)
        parts: dict[str, list[float]] = {name: [] for name in ("graph", "all", "peer")}
        memory = []
        for _ in range(repeats):
            parts["graph"].append(timed(lambda model=model: tq.ChannelGraph(model))[0])
            with PeakMemory() as peak:
                seconds, _slim = timed(lambda model=model: compress(model))
            parts["all"].append(seconds)
            memory.append(peak.peak / weights)
            del _slim
            if peer is not None:
                parts["peer"].append(peer.seconds(depth))
        entry: dict[str, Any] = {
            "layers": len(model.layers),
            "weights_bytes": weights,
            "graph_seconds": statistics.median(parts["graph"]),
            "graph_plan_slim_seconds": statistics.median(parts["all"]),
            "extra_memory_of_weights": statistics.median(memory),
        }
        if peer is not None:
            entry["torch_pruning_seconds"] = statistics.median(parts["peer"])
            ratios = [ours / theirs for ours, theirs in zip(parts["all"], parts["peer"], strict=True)]
            entry["ratio_to_torch_pruning"] = statistics.median(ratios)
        found[f"ResNet{depth}"] = entry
        print(f"ResNet-{depth}: " + ", ".join(f"{key} {value:.4g}" for key, value in entry.items()), flush=True)
        tf.keras.backend.clear_session()
    small, large = found["ResNet50"], found["ResNet152"]
    found["growth"] = {
        "layers": large["layers"] / small["layers"],
        "graph": large["graph_seconds"] / small["graph_seconds"],
        "graph_plan_slim": large["graph_plan_slim_seconds"] / small["graph_plan_slim_seconds"],
    }
    print("ResNet-152 / ResNet-50: " + ", ".join(f"{key} {value:.3g}" for key, value in found["growth"].items()))
    return found


def graph_against_building(repeats: int) -> dict[str, float]:
    import tensorflow as tf

    ratios, builds, graphs = [], [], []
    for _ in range(repeats):
        tf.keras.backend.clear_session()
        built, model = timed(lambda: tf.keras.applications.InceptionResNetV2(weights=None))
        graph, _ = timed(lambda model=model: tq.ChannelGraph(model))
        builds.append(built)
        graphs.append(graph)
        ratios.append(graph / built)
    found = {
        "layers": len(model.layers),
        "build_seconds": statistics.median(builds),
        "graph_seconds": statistics.median(graphs),
        "ratio": statistics.median(ratios),
    }
    print("InceptionResNetV2: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with torch and torch-pruning 1.6.1")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "engine.json")
    arguments = parser.parse_args()
    peer = Peer(arguments.peer_python) if arguments.peer_python else None
    results = {
        "command": " ".join(["python", "benchmarks/engine.py", *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("tensorflow", "tf_keras", "numpy", "scipy")},
            **(peer.versions if peer else {}),
        },
        "ratio": RATIO,
        "repeats": arguments.repeats,
        "pruning": against_peer(peer, arguments.repeats),
        "graph": graph_against_building(min(arguments.repeats, 3)),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"Kept in {arguments.output}.")


if __name__ == "__main__":
    main()
