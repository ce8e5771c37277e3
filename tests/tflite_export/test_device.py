"""Benchmarks on a phone, with a pretended adb that keeps a log of what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tflite_export as te
from tflite_export.device import parse_report
from tfqprune.errors import ExportError, MissingDependencyError

_REPORT = """STARTING!
count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489
count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419 p5=265900 median=266400 p95=268000
Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
Memory footprint delta from the start of the tool (MB): init=2.5 overall=5.5
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts an ``adb`` first on the PATH; returns its log."""

    def attach(devices: str = "serial\tdevice", report: str = _REPORT, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "report").write_text(report)
        script = folder / "adb"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/log\ncase "$*" in\n'
            f"devices) printf 'List of devices attached\\n{devices}\\n';;\n"
            f"*--graph=*) cat {folder}/report; exit {code};;\nesac\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        return folder / "log"

    return attach


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark_model"
    path.write_bytes(b"binary")
    return path


def test_report() -> None:
    times = parse_report(_REPORT)
    assert (times.median_ms, times.spread_ms, times.min_ms, times.runs) == (266.4, 0.419, 265.837, 50)
    assert times.peak_memory == int(5.5 * 2**20)
    assert parse_report("count=3 min=1 avg=2000 std=5").median_ms == 2.0
    with pytest.raises(ExportError, match=r"Expected timings.*cannot execute"):
        parse_report("benchmark_model: cannot execute")


def test_a_phone_runs_the_file(
    exported: Callable[..., te.ExportResult], phone: Callable[..., Path], tool: Path
) -> None:
    log = phone()
    result = te.benchmark(exported("packed", "plain", "2").path, device="adb", tool=tool, threads=2, runs=7)
    assert (result.latency_ms, result.runs, result.threads, result.xnnpack) == (266.4, 50, 2, False)
    asked = log.read_text()
    assert "push" in asked
    assert "--num_threads=2 --num_runs=7 --use_xnnpack=false" in asked


def test_what_is_missing_is_named(
    exported: Callable[..., te.ExportResult], phone: Callable[..., Path], tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported("packed", "plain", "2").path
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(MissingDependencyError, match="no adb on the PATH"):
            te.benchmark(path, device="adb", tool=tool)
    phone(devices="serial\\tunauthorized")
    with pytest.raises(MissingDependencyError, match="serial is unauthorized"):
        te.benchmark(path, device="adb", tool=tool)
    with pytest.raises(MissingDependencyError, match="set TFLITE_BENCHMARK_MODEL"):
        te.benchmark(path, device="adb")
    with pytest.raises(ExportError, match="None or 'adb'"):
        te.benchmark(path, device="moon")


def test_several_phones_need_a_choice(
    exported: Callable[..., te.ExportResult], phone: Callable[..., Path], tool: Path
) -> None:
    phone(devices="one\\tdevice\\ntwo\\tdevice")
    with pytest.raises(MissingDependencyError, match=r"one, two.*ANDROID_SERIAL"):
        te.benchmark(exported("packed", "plain", "2").path, device="adb", tool=tool)


def test_a_failure_on_the_phone_is_told(
    exported: Callable[..., te.ExportResult], phone: Callable[..., Path], tool: Path
) -> None:
    phone(report="Failed to load model", code=1)
    with pytest.raises(ExportError, match="Failed to load model"):
        te.benchmark(exported("packed", "plain", "2").path, device="adb", tool=tool)
