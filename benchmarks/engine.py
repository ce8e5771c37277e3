"""Speed and memory of the engine: graph, plan and slim model, beside Torch-Pruning in the same run.

    python benchmarks/engine.py --peer-python PATH     (make bench-engine sets the peer's environment up)
    python benchmarks/engine.py --peer-python PATH --parts structure
    python benchmarks/engine.py --report               # the tables of what is kept; --docs writes them into the page

Parts, with the peer in turn and one thread on both sides; a part that is not measured keeps its results:

- ``pruning``: graph + L1 scores + plan + slim model of ResNets and MobileNetV2 at ratio 0.3, against Torch-Pruning
  1.6.1's graph and step; how that grows from ResNet-50 to ResNet-152; extra memory of it, against the model's weights;
- ``graph``: the graph of InceptionResNetV2, against the time that Keras takes to build that model;
- ``structure``: what both sides leave of ResNet-50 and MobileNetV2 at that ratio: parameters, MACs, output channels of
  every convolution. Weights are random and not the same on both sides, so numbers are compared, not units.

Results go to benchmarks/results/engine.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nets import kept_filters, versions
from rows import command
from tables import render, source, table

import tfqprune as tq
from tfqprune.files import write_text

RATIO = 0.3
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "engine.md"
PACKAGES = ("tensorflow", "tf_keras", "numpy", "scipy")
PARTS = ("pruning", "graph", "structure")
NETWORKS = ("ResNet50", "ResNet101", "ResNet152", "MobileNetV2")  # of tf_keras.applications
COMPARED = ("ResNet50", "MobileNetV2")


class Peer:
    """Torch-Pruning in a process of its own, asked once for each measurement."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / "torch_pruning_networks.py"), "1"],
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

    def prune(self, network: str, structure: bool = False) -> dict[str, Any]:
        """Seconds for the graph and one pruning step; parameters, MACs and channels where they are asked for."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"network": network, "ratio": RATIO, "structure": structure}) + "\n")
        self.process.stdin.flush()
        return self._read()


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
    compress(tf.keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)))  # warm-up
    found: dict[str, Any] = {}
    for name in NETWORKS:
        model = getattr(tf.keras.applications, name)(weights=None)
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
                parts["peer"].append(float(peer.prune(name)["seconds"]))
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
        found[name] = entry
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in entry.items()), flush=True)
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


def structures(peer: Peer) -> dict[str, Any]:
    """What both sides leave of the same networks at the same ratio."""
    import tensorflow as tf

    found = {}
    for name in COMPARED:
        model = getattr(tf.keras.applications, name)(weights=None)
        slim = compress(model)
        costs = [tq.cost(each) for each in (model, slim)]
        theirs = peer.prune(name, structure=True)
        kept = kept_filters(model, slim)
        ends = [theirs["before"], theirs["after"]]
        if ends[0]["channels"] != [before for before, _ in kept.values()]:
            raise SystemExit(f"Expected the same convolutions on both sides of {name}. Received: others.")
        found[name] = {
            "ours": {
                "params": [_trained(each) for each in (model, slim)],
                "macs": [int(cost.macs) for cost in costs],
                "channels": [after for _, after in kept.values()],
            },
            "torch_pruning": {
                **{key: [end[key] for end in ends] for key in ("params", "macs")},
                "channels": ends[1]["channels"],
            },
            "convolutions": {layer: before for layer, (before, _) in kept.items()},
        }
        tf.keras.backend.clear_session()
    return found


def _trained(model: Any) -> int:
    """Parameters without the statistics of batch norms, which are no parameters to PyTorch."""
    return sum(int(weight.shape.num_elements()) for weight in model.trainable_weights)


# -- the report: no TensorFlow from here on -------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """Markdown of all parts."""
    return "\n\n".join(tables(results).values())


def tables(results: dict[str, Any]) -> dict[str, str]:
    """What stands in docs/engine.md, by the names there."""
    return {"engine": speed(results), "structure": structure(results["structure"])}


def speed(results: dict[str, Any]) -> str:
    """Speed and memory, growth, and the graph of a large model."""
    pruning, graph = results["pruning"], results["graph"]
    rows = [
        [
            name, str(entry["layers"]), f"{entry['graph_plan_slim_seconds']:.2f} s",
            f"{entry['torch_pruning_seconds']:.2f} s", f"{entry['ratio_to_torch_pruning']:.2f}",
            f"{entry['extra_memory_of_weights']:.2f}",
        ]
        for name, entry in pruning.items() if name != "growth"
    ]  # fmt: skip
    head = [
        "network", "layers", "graph + scores + plan + slim", "Torch-Pruning: graph + step",
        f"ratio (median of {results['repeats']} pairs)", "extra memory, of the weights",
    ]  # fmt: skip
    grown = pruning["growth"]
    small, large = (1000 * pruning[name]["graph_seconds"] for name in ("ResNet50", "ResNet152"))
    parts = [
        table(head, rows),
        f"From ResNet-50 to ResNet-152 layers grow {grown['layers']:.2f} times, graph, plan and slim model "
        f"{grown['graph_plan_slim']:.2f} times; the graph alone takes {small:.0f} and {large:.0f} ms, too short for a "
        f"ratio that means much. The graph of InceptionResNetV2 ({graph['layers']} layers, forty of them unknown to us "
        f"and probed) takes {graph['ratio']:.2f} of the time that Keras takes to build that model.",
        source([results]),
    ]
    return "\n\n".join(parts)


def structure(found: dict[str, Any]) -> str:
    """What both sides leave of the same networks."""
    rows, differences = [], []
    for name, sides in found["networks"].items():
        ours, theirs = sides["ours"], sides["torch_pruning"]
        convolutions = sides["convolutions"]
        pairs = list(zip(convolutions.values(), ours["channels"], theirs["channels"], strict=True))
        for label, side in (("ours", ours), ("Torch-Pruning", theirs)):
            left = [f"{100 * side[key][1] / side[key][0]:.2f}" for key in ("params", "macs")]
            rows.append([f"{name}, {label}", f"{side['params'][1]:,}", left[0], f"{side['macs'][1]:,}", left[1]])
        same = sum(own == other for _, own, other in pairs)
        other = sorted({pair for pair in pairs if pair[1] != pair[2]})
        told = ", ".join(f"{own} and {peer} of {before}" for before, own, peer in other)
        furthest = max((abs(own - peer) for _, own, peer in pairs), default=0)
        differences.append(
            f"{name}: {same} of {len(pairs)} convolutions keep the same number of channels"
            + (f"; the others differ by at most {furthest} (ours and theirs: {told})." if other else ".")
        )
    head = ["left at ratio " + str(found["ratio"]), "parameters", "%", "MACs", "%"]
    return "\n\n".join(
        [
            table(head, rows),
            " ".join(differences),
            f"{source([found])} Parameters are those that train; Keras's ResNet-50 has biases in its convolutions, "
            "PyTorch's has none.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with torch and torch-pruning 1.6.1")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all, without a peer the first two")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "engine.json")
    parser.add_argument("--report", action="store_true", help="print the tables of the kept results, and end")
    parser.add_argument("--docs", action="store_true", help="write them into docs/engine.md, and end")
    arguments = parser.parse_args()
    kept = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    if arguments.report or arguments.docs:
        print(report(kept))
        if arguments.docs:
            render(PAGE, tables(kept))
        return
    arguments.parts = arguments.parts or (PARTS if arguments.peer_python else PARTS[:2])
    if "structure" in arguments.parts and not arguments.peer_python:
        parser.error("structure needs the peer: give --peer-python, or --parts pruning graph.")
    peer = Peer(arguments.peer_python) if arguments.peer_python else None
    made = {
        # where the peer's environment lies tells nobody anything
        "command": command().replace(arguments.peer_python or "PATH", "PATH"),
        "versions": {**versions(PACKAGES), **(peer.versions if peer else {})},
        "ratio": RATIO,
    }
    results: dict[str, Any] = dict(kept)
    if "pruning" in arguments.parts or "graph" in arguments.parts:
        results |= {**made, "repeats": arguments.repeats}
    if "pruning" in arguments.parts:
        results["pruning"] = against_peer(peer, arguments.repeats)
    if "graph" in arguments.parts:
        results["graph"] = graph_against_building(min(arguments.repeats, 3))
    if "structure" in arguments.parts:
        assert peer is not None  # refused above
        results["structure"] = {**made, "networks": structures(peer)}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.output, json.dumps(results, indent=1) + "\n")
    print(f"Kept in {arguments.output}.")


if __name__ == "__main__":
    main()
