"""Latency and memory of one network in several formats, on an attached Android phone or on this machine.

    python examples/phone_benchmark.py [--quick] [--output runs/phone]

The phone needs USB debugging, this machine needs adb and the runtime's own tool for the phone:

    TFLITE_BENCHMARK_MODEL=android_aarch64_benchmark_model      for LiteRT
    LCE_BENCHMARK_MODEL=lce_benchmark_model_android_arm64       for Larq Compute Engine

Where one of them is missing, the example says which and measures here instead. Nothing is trained: speed does not
depend on what a network has learned.
"""

from __future__ import annotations

from common import arguments

import tflite_export as te
import tfqprune as tq
from tfqprune import zoo
from tfqprune.errors import MissingDependencyError


def main() -> None:
    given = arguments(__doc__, "runs/phone")
    if given.quick:
        dense, runs, formats = zoo.build("resnet_digits", precision=2, width=0.5), 10, ["packed"]
    else:
        dense, runs, formats = zoo.build("resnet18", precision=2), 50, ["packed", "hybrid", "fast", "float32"]
    slim = tq.prune(dense, tq.UniformAllocator(tq.Budget(macs=0.5)).allocate(dense, align=8))
    device: str | None = "adb"
    for format in formats:
        for name, model in (("dense", dense), ("slim", slim)):
            # No accuracy is claimed here, and random weights disagree easily: keep the file whatever the agreement.
            file = te.export(model, given.output / f"{name}_{format}.tflite", format, strict=False)
            try:
                speed = te.benchmark(file.path, runs=runs, device=device)
            except MissingDependencyError as missing:
                print(f"Not on a phone: {missing}\nMeasured here instead:")
                device = None
                speed = te.benchmark(file.path, runs=runs)
            print(f"{format:8s} {name:5s} {file.bytes:,} B, {speed}")


if __name__ == "__main__":
    main()
