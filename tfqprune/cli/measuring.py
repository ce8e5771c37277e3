"""``tfqprune benchmark``: latency and memory of a file, on this machine or on an attached phone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tfqprune.cli import names
from tfqprune.cli import options as opt
from tfqprune.cli.inputs import require_tflite
from tfqprune.cli.session import Outcome, Session

_DEVICES = ("adb",)


def benchmark(
    session: Session,
    file: opt.TfliteFile,
    runs: Annotated[int, typer.Option(min=1, help="Invocations to time, at least.")] = 50,
    threads: opt.Threads = 1,
    runtime: opt.Runtime = None,
    xnnpack: opt.Xnnpack = None,
    device: Annotated[
        str | None,
        names.choice(_DEVICES, help="Measure on the attached Android phone instead of this machine."),
    ] = None,
    tool: Annotated[
        Path | None, typer.Option(help="benchmark_model for the phone; else TFLITE_BENCHMARK_MODEL.")
    ] = None,
) -> Outcome:
    """Measure latency and memory of FILE in a fresh process."""
    require_tflite(file)
    import tflite_export as te
    from tfqprune.report import tables, words

    with session.working("measuring"):
        found = te.benchmark(
            file, runs=runs, threads=threads, runtime=runtime, xnnpack=xnnpack, device=device, tool=tool
        )
    arena = words.size(found.arena_bytes)
    rows = {
        "latency": f"{words.milliseconds(found.latency_ms)} (median of {found.runs} runs)",
        "spread": f"{words.milliseconds(found.latency_spread_ms)}, fastest {words.milliseconds(found.latency_min_ms)}",
        "peak memory": words.size(found.peak_memory),
        "arena": arena,
        "file": words.size(found.file_bytes),
        "runtime": f"{found.runtime}, {found.threads} thread(s), XNNPACK {'on' if found.xnnpack else 'off'}",
        "batch": str(found.batch_size),
    }
    return Outcome(asdict(found), [tables.pairs_table(str(file), rows)])
