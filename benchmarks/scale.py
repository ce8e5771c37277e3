"""How time and memory grow: from ResNet-20 to ResNet-152, and from 10 to 500 trials.

    python benchmarks/scale.py              # about ten minutes of two idle cores
    python benchmarks/scale.py --quick      # the smallest networks and few trials, to show that it runs
    python benchmarks/scale.py --report     # tables from the kept JSON, without measuring

Each part (a network, a search, the traffic of chief and workers) runs in a process of its own, so that none inflates
another's memory, and is kept as soon as it is known: the same command goes on wherever it was stopped, and leaves out
what is there. The page docs/scale.md gets its tables and plots from what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scale_report
from rows import command

from tfqprune.files import write_text

HERE = Path(__file__).parent
SEED = 0

report = scale_report.report


def parts(quick: bool) -> dict[str, list[Any]]:
    """Name -> function of ``scale_parts`` and its arguments."""
    if quick:
        nets: list[tuple[str, int]] = [("cifar", 20)]
        searches = [("ours", 9, 50), ("stock", 9, 20)]
        pixels: list[int] = []
    else:
        # What the page rests on most comes first: a run may be stopped, and goes on where it was.
        nets = [("cifar", 20), ("cifar", 56), ("imagenet", 50), ("cifar", 110), ("imagenet", 101), ("imagenet", 152)]
        nets += [("cifar", 152), ("cifar", 32)]
        searches = [("ours", 37, 500), ("stock", 18, 200), ("ours", 18, 500), ("ours", 9, 500), ("stock", 9, 200)]
        pixels = [50, 152]
    found: dict[str, list[Any]] = {f"pixels {depth}": ["imagenet_part", depth, SEED] for depth in pixels[:1]}
    found |= {f"depth {family} {depth}": ["depth_part", family, depth, SEED] for family, depth in nets}
    found |= {f"traffic {size}": ["traffic_part", size, SEED] for method, size, _ in searches if method == "ours"}
    found |= {f"trials {method} {size}": [f"{method}_part", size, SEED, most] for method, size, most in searches}
    return found | {f"pixels {depth}": ["imagenet_part", depth, SEED] for depth in pixels[1:]}


def run_part(name: str, function: str, given: list[Any]) -> dict[str, Any]:
    """One part, in a process of its own."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.json"
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        if name.startswith("trials"):
            # Some dozens of points make small matrices, where threads of OpenBLAS wait for each other.
            environment["OPENBLAS_NUM_THREADS"] = "1"
        inside = [sys.executable, str(HERE / "scale.py"), "--part", json.dumps([function, *given]), str(path)]
        done = subprocess.run(inside, env=environment | dict(os.environ), check=False)
        if done.returncode:
            raise SystemExit(f"Expected {name!r} to run. Received: exit code {done.returncode}; see above.")
        row = json.loads(path.read_text(encoding="utf-8"))
    return {**row, "seed": SEED, "load_average": [round(load, 2), round(os.getloadavg()[0], 2)]}


def run_inside(described: str, path: str) -> None:
    """What the process of a part does."""
    import scale_parts
    from nets import versions

    from tfqprune.pipeline.environment import processor

    function, *given = json.loads(described)
    measure: Callable[..., dict[str, Any]] = getattr(scale_parts, function)
    row = measure(*given)
    packages = ("tensorflow", "tf_keras", "larq", "keras-tuner", "scikit-learn", "numpy", "scipy", "grpcio")
    Path(path).write_text(
        json.dumps({**row, "versions": versions(packages), "processor": processor()}), encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="parts whose names begin so: depth, trials, traffic")
    parser.add_argument("--most", type=int, metavar="TRIALS", help="searches of so many trials at most")
    parser.add_argument("--again", action="store_true", help="measure what is kept already, too")
    parser.add_argument("--report", action="store_true", help="print tables and draw plots; measure nothing")
    parser.add_argument("--check", action="store_true", help="fail where docs/scale.md is not what the JSON says")
    parser.add_argument("--output", type=Path, help="default benchmarks/results/scale.json; runs/scale_quick.json")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of page and plots")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_inside(*given.part)
        return
    path = given.output or (Path("runs/scale_quick.json") if given.quick else HERE / "results" / "scale.json")
    content: dict[str, Any] = {"parts": {}}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    if not (given.report or given.check):
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, (function, *arguments) in parts(given.quick).items():
            chosen = not given.only or any(name.startswith(word) for word in given.only)
            if name.startswith("trials") and given.most:
                arguments[-1] = min(arguments[-1], given.most)
            known = content["parts"].get(name)
            if not chosen or (known and known["asked"] == arguments and not given.again):
                continue
            print(f"{name} ...", flush=True)
            content["parts"][name] = {**run_part(name, function, arguments), "asked": arguments, "command": command()}
            write_text(path, json.dumps(content, indent=1) + "\n")
    wanted = parts(given.quick)
    content["missing"] = [name for name in wanted if content["parts"].get(name, {}).get("asked") != wanted[name][1:]]
    if given.quick and not given.report:
        print(report(content))
        return
    scale_report.render(content, given.docs, check=given.check)
    if given.report:
        print(report(content))


if __name__ == "__main__":
    main()
