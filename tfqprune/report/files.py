"""Writes a report: ``report.html``, ``report.json`` and the plots as PNG; reads it back, and draws it again."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfqprune.errors import OutputError
from tfqprune.report import plots
from tfqprune.report.drawing import png
from tfqprune.report.model import (
    CurveRow,
    GroupRow,
    LayerRow,
    NetworkReport,
    NodeRow,
    RunReport,
    TrialRow,
    VariantRow,
)
from tfqprune.report.page import make_page

_VERSION = 2


def write(report: RunReport, directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Writes a report into a folder, which is made if need be; files of the same names are replaced.

    Args:
        report: what was found.
        directory: to write into.

    Returns:
        What was written: "html", "json", and "<network>/<plot>" for each PNG in the folder ``plots``.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: the report has no network, or a network has no variant.
    """
    if not report.networks or any(not network.variants for network in report.networks):
        raise ValueError("Expected a report with at least one network, and a variant in each. Received: none.")
    folder = Path(directory)
    written = {"html": folder / "report.html", "json": folder / "report.json"}
    content = json.dumps({"tfqprune_report": _VERSION, **_finite(asdict(report))}, indent=2) + "\n"
    report = _report(json.loads(content))  # the page shows what the JSON holds, so that it can be drawn again
    drawn = [plots.draw(network) for network in report.networks]
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        written["json"].write_text(content, encoding="utf-8")
        written["html"].write_text(make_page(report, drawn), encoding="utf-8")
        for number, (network, mine) in enumerate(zip(report.networks, drawn), start=1):
            for name, plot in mine.items():
                path = folder / "plots" / f"{number}-{_file_name(network.name)}-{name}.png"
                path.write_bytes(png(plot.figure))
                written[f"{network.name}/{name}"] = path
    except OSError as error:
        raise OutputError(
            f"Expected a folder that can be written. Received: '{folder}' ({error.strerror or error}). "
            "Choose another one, or free space on its disk."
        ) from error
    return written


def read(path: str | os.PathLike[str]) -> RunReport:
    """Reads ``report.json`` (or the folder it lies in) back.

    Raises:
        OutputError: there is no such file, it holds no report, or one of another version.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    if not file.exists():
        raise OutputError(
            f"Expected a report.json, which compress and demo leave in their folder. Received: '{file}', which is not "
            "there. Run the command of an unfinished run again: it goes on where it stopped."
        )
    try:
        return _report(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"Expected a report.json written by this program. Received: '{file}' ({type(error).__name__}: {error})."
        ) from error


def redraw(directory: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Makes page and plots again from the ``report.json`` of an output folder: nothing is run or measured.

    Args:
        directory: the output folder of a run.
        output: where to; by default into the same folder. Links to files in the page are relative to ``directory``.

    Returns:
        As :func:`write`.

    Raises:
        OutputError: there is no report in the folder, or it cannot be written.
    """
    return write(read(directory), directory if output is None else output)


def _report(data: dict[str, Any]) -> RunReport:
    version = data.pop("tfqprune_report", 1)
    if version != _VERSION:
        raise ValueError(f"version {version}, expected {_VERSION}")
    networks = tuple(_network(network) for network in data.pop("networks"))
    return RunReport(networks=networks, **_fields(data))


def _network(data: dict[str, Any]) -> NetworkReport:
    rows: dict[str, type[Any]] = {
        "variants": VariantRow, "groups": GroupRow, "nodes": NodeRow, "layers": LayerRow, "trials": TrialRow,
        "curves": CurveRow,
    }  # fmt: skip
    for row in data["variants"]:
        row.pop("tflite_accuracy", None)  # empty in every report that had it
    made: dict[str, Any] = {name: tuple(kind(**_fields(row)) for row in data.pop(name)) for name, kind in rows.items()}
    return NetworkReport(**made, **_fields(data))


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only, the dataclasses hold tuples; in a mapping, what is no number is not there."""
    fields = {}
    for key, value in data.items():
        if isinstance(value, dict):
            value = {name: entry for name, entry in value.items() if entry is not None}
        fields[key] = tuple(value) if isinstance(value, list) else value
    return fields


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "network"
