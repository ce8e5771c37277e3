"""Does the cut pay? Latency of pruned against dense files in each format, next to the ratio of their MACs.

    python benchmarks/latency.py [--quick] [--cases vgg_small:2 resnet20:binary ...]
    python benchmarks/latency.py --align 4       # the cut leaves multiples of four channels

Dense and pruned file of one format run in turn, each time in a fresh process, and each round gives one ratio of
medians: what else the machine does falls on both sides. Milliseconds are kept for the record; only the ratios count.
The networks are those of size.py: random weights, calibrated batch norms, the same share cut. One thread.

Results go to benchmarks/results/latency.json; `python benchmarks/export_tables.py` renders them into docs/export.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from nets import PUBLISHED_SHARE, Net, build, versions
from rows import command

import tflite_export as te
import tfqprune as tq
from tflite_export.exporting import gather_facts
from tfqprune.errors import TfqpruneError

HERE = Path(__file__).parent
_Files = tuple[dict[str, Path], int]  # format -> file, and the MACs of the network


def files(net: Net, seed: int, folder: Path) -> tuple[dict[str, Path], int]:
    """A file in each format that takes the network, and its MACs."""
    model, data = build(net, seed)
    facts = gather_facts(model)
    made: dict[str, Path] = {}
    for name, entry in te.list_formats().items():
        if entry.refusal(facts) is not None:
            continue
        path = folder / f"{name}-{'pruned' if net.pruned else 'dense'}.tflite"
        try:
            te.export(model, path, name, data=data, samples=len(data), strict=False)
        except TfqpruneError as error:
            print(f"  {net.label}, {name}: {str(error)[:160]}")
            continue
        made[name] = path
    return made, int(tq.cost(model).macs)


def compare(dense: Path, pruned: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """The two files in turn; the order changes from round to round."""
    times: dict[Path, list[float]] = {dense: [], pruned: []}
    for number in range(rounds):
        for path in (dense, pruned) if number % 2 == 0 else (pruned, dense):
            found = te.benchmark(path, runs=10, seconds=seconds, warm_up_seconds=seconds / 2, max_seconds=10)
            times[path].append(found.latency_ms)
    ratios = sorted(p / d for d, p in zip(times[dense], times[pruned], strict=True))
    return {
        "dense_ms": round(statistics.median(times[dense]), 4),
        "pruned_ms": round(statistics.median(times[pruned]), 4),
        "ratio": round(statistics.median(ratios), 4),
        "lowest": round(ratios[0], 4),
        "highest": round(ratios[-1], 4),
        "xnnpack": found.xnnpack,
        "runtime": found.runtime,
    }


def measure(made: list[_Files], net: Net, seed: int, rounds: int, seconds: float) -> dict[str, Any]:
    """All formats of one network, from its dense and pruned files."""
    (dense, dense_macs), (pruned, pruned_macs) = made
    entry: dict[str, Any] = {
        "command": command(), "versions": versions(), "seed": seed, "net": net.name,
        "precision": net.label.split()[1], "align": net.align, "rounds": rounds, "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0], "macs": [dense_macs, pruned_macs],
        "macs_ratio": round(pruned_macs / dense_macs, 4), "formats": {},
    }  # fmt: skip
    print(f"{net.name} {entry['precision']}: MACs {entry['macs_ratio']:.3f}")
    for kind in dense:
        if kind in pruned:
            entry["formats"][kind] = found = compare(dense[kind], pruned[kind], rounds, seconds)
            told = f"{found['ratio']:.3f} ({found['lowest']:.3f} to {found['highest']:.3f})"
            print(f"  {kind:<10} {told}", flush=True)
    return entry


def net_of(case: str, pruned: bool, align: int) -> Net:
    """``name:precision`` as a network; few samples, for agreement is not the question here."""
    name, _, precision = case.partition(":")
    return Net(name, int(precision) if precision.isdigit() else precision, pruned, 4, align)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="ResNet-20 at 2 bits, three short rounds; into latency_quick.json"
    )
    cases = ["vgg_small:binary", "vgg_small:2", "resnet20:binary", "resnet20:2"]
    parser.add_argument("--cases", nargs="+", default=cases, help="name of the zoo, colon, precision")
    parser.add_argument("--align", type=int, default=1, help="keep multiples of so many channels; default 1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/latency.json")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = HERE / "results" / ("latency_quick.json" if arguments.quick else "latency.json")
    chosen = ["resnet20:2"] if arguments.quick else arguments.cases
    rounds, seconds = (3, 0.1) if arguments.quick else (arguments.rounds, 0.3)
    known: dict[tuple[str, str, int], dict[str, Any]] = {}  # what is not measured now is kept
    if arguments.output.exists():
        kept = json.loads(arguments.output.read_text(encoding="utf-8"))["nets"]
        known = {(entry["net"], entry["precision"], entry.get("align", 1)): entry for entry in kept}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for case in chosen:
            parent = Path(folder) / case.replace(":", "-")
            parent.mkdir()
            made[case] = [
                files(net_of(case, pruned, arguments.align), arguments.seed, parent) for pruned in (False, True)
            ]
        print("Files are made; measuring.", flush=True)
        for case in chosen:
            entry = measure(made[case], net_of(case, True, arguments.align), arguments.seed, rounds, seconds)
            known[entry["net"], entry["precision"], entry["align"]] = entry
            results = {"share_cut": PUBLISHED_SHARE, "nets": list(known.values())}
            arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"Kept in {arguments.output}.")


if __name__ == "__main__":
    main()
