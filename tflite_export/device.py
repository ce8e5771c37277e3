"""Benchmarks on an attached Android phone: adb and the runtime's own ``benchmark_model``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tfqprune.errors import ExportError, MissingDependencyError

_FOLDER = "/data/local/tmp/tflite_export"
# Where to get the tool for each runtime, and the environment variable that names it.
_TOOLS = {
    "litert": ("TFLITE_BENCHMARK_MODEL", "LiteRT's prebuilt android_aarch64 benchmark_model"),
    "lce": ("LCE_BENCHMARK_MODEL", "lce_benchmark_model_android_arm64 from the larq/compute-engine releases"),
}


@dataclass(frozen=True)
class DeviceTimes:
    """What the tool on the phone reports.

    Attributes:
        median_ms: median milliseconds of an invocation, the average where the tool gives no median.
        spread_ms: its standard deviation.
        min_ms: the fastest.
        runs: invocations timed.
        peak_memory: bytes of growth of the process over the whole run, or 0 where the tool does not say.
    """

    median_ms: float
    spread_ms: float
    min_ms: float
    runs: int
    peak_memory: int


def run_on_phone(
    path: str | os.PathLike[str],
    *,
    runtime: str,
    threads: int,
    xnnpack: bool,
    runs: int,
    tool: str | os.PathLike[str] | None = None,
    timeout: float = 300.0,
) -> DeviceTimes:
    """Pushes a file and the benchmark tool to the attached phone and runs them.

    Args:
        path: the .tflite file.
        runtime: ``litert`` or ``lce``.
        threads: threads of the runtime.
        xnnpack: whether LiteRT may use the XNNPACK delegate.
        runs: invocations, at least.
        tool: the ``benchmark_model`` binary for the phone; None for the environment variable's
            (``TFLITE_BENCHMARK_MODEL`` or ``LCE_BENCHMARK_MODEL``).
        timeout: seconds for each step.

    Raises:
        MissingDependencyError: adb, the phone or the binary is not there; the message says which.
        ExportError: the tool failed on the phone, or says nothing that can be read.
    """
    variable, what = _TOOLS[runtime]
    binary = Path(tool or os.environ.get(variable) or "")
    adb = shutil.which("adb")
    if adb is None:
        raise MissingDependencyError(
            "Expected adb for device='adb'. Received: no adb on the PATH. Install Android's platform-tools."
        )
    if not binary.is_file():
        raise MissingDependencyError(
            f"Expected {what} for device='adb'. Received: {str(binary) if str(binary) != '.' else 'no path'}. "
            f"Download it and pass tool=... or set {variable}."
        )
    _check_phone(_adb(adb, ["devices"], timeout))
    names = [f"{_FOLDER}/benchmark_model", f"{_FOLDER}/model.tflite"]
    _adb(adb, ["shell", "mkdir", "-p", _FOLDER], timeout)
    _adb(adb, ["push", str(binary), names[0]], timeout)
    _adb(adb, ["push", os.fspath(path), names[1]], timeout)
    _adb(adb, ["shell", "chmod", "+x", names[0]], timeout)
    try:
        command = [
            names[0], f"--graph={names[1]}", f"--num_threads={threads}", f"--num_runs={runs}",
            f"--use_xnnpack={'true' if xnnpack else 'false'}", "--report_peak_memory_footprint=true",
        ]  # fmt: skip
        return parse_report(_adb(adb, ["shell", *command], timeout))
    finally:
        _adb(adb, ["shell", "rm", "-f", names[1]], timeout)


def parse_report(text: str) -> DeviceTimes:
    """Reads the report of ``benchmark_model`` (microseconds, megabytes).

    Raises:
        ExportError: it has no timings.
    """
    timings = re.findall(r"count=(\d+)(.*)", text)
    if not timings:
        raise ExportError(
            f"Expected timings (count=... avg=...) from benchmark_model. Received: {text.strip()[-300:]!r}. "
            "Check that the binary fits the phone's processor and the file's operators."
        )
    count, rest = timings[-1]  # the one before is the warm-up
    values = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.eE+-]+)", rest)}
    middle = values.get("median", values.get("avg"))
    if middle is None:
        raise ExportError(f"Expected an average in benchmark_model's report. Received: {rest.strip()!r}.")
    memory = re.search(r"peak memory footprint[^:]*:\s*([\d.]+)", text, re.IGNORECASE)
    memory = memory or re.search(r"overall=([\d.]+)", text)
    return DeviceTimes(
        median_ms=middle / 1e3, spread_ms=values.get("std", 0.0) / 1e3, min_ms=values.get("min", middle) / 1e3,
        runs=int(count), peak_memory=int(float(memory.group(1)) * 2**20) if memory else 0,
    )  # fmt: skip


def _check_phone(listing: str) -> None:
    phones = [line.split() for line in listing.splitlines()[1:] if line.strip()]
    ready = [phone for phone in phones if len(phone) > 1 and phone[1] == "device"]
    if len(ready) == 1 or (ready and os.environ.get("ANDROID_SERIAL")):
        return
    if len(ready) > 1:
        raise MissingDependencyError(
            f"Expected one phone. Received: {len(ready)} ({', '.join(p[0] for p in ready)}). Set ANDROID_SERIAL."
        )
    state = f"{phones[0][0]} is {phones[0][1]}" if phones and len(phones[0]) > 1 else "none"
    raise MissingDependencyError(
        f"Expected an attached Android phone. Received: {state}. Plug it in, switch on USB debugging and allow this "
        "computer on its screen."
    )


def _adb(adb: str, arguments: list[str], timeout: float) -> str:
    try:
        done = subprocess.run([adb, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"Expected `adb {' '.join(arguments[:2])}` within {timeout:g} s. Received: no answer."
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise ExportError(f"Expected `adb {' '.join(arguments[:2])} ...` to succeed. Received: {said!r}.")
    return done.stdout + done.stderr
