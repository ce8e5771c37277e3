"""Writes a report: ``report.html``, ``report.json`` and the plots as PNG; and reads it back."""

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
from tfqprune.report import plots, words
from tfqprune.report.model import GroupRow, LayerRow, NetworkReport, RunReport, TrialRow, VariantRow

_TITLES = {
    "ratios": "Ratio of each channel group",
    "layers": "Size of each layer, before and after",
    "trials": "All trials: accuracy against size",
    "progress": "All trials in their order, and the best so far",
}


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
    figures = [plots.draw(network) for network in report.networks]
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        written["json"].write_text(json.dumps(_finite(asdict(report)), indent=2) + "\n", encoding="utf-8")
        written["html"].write_text(_page(report, figures), encoding="utf-8")
        for number, (network, drawn) in enumerate(zip(report.networks, figures), start=1):
            for name, figure in drawn.items():
                path = folder / "plots" / f"{number}-{_file_name(network.name)}-{name}.png"
                path.write_bytes(plots.png(figure))
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
        OutputError: there is no such file, or it holds no report.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        networks = tuple(_network(network) for network in data.pop("networks"))
        return RunReport(networks=networks, **_tuples(data))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"Expected a report.json written by this program. Received: '{file}' ({type(error).__name__}: {error})."
        ) from error


def _network(data: dict[str, Any]) -> NetworkReport:
    rows: dict[str, Any] = {
        "variants": tuple(VariantRow(**row) for row in data.pop("variants")),
        "groups": tuple(GroupRow(**_tuples(row)) for row in data.pop("groups")),
        "layers": tuple(LayerRow(**row) for row in data.pop("layers")),
        "trials": tuple(TrialRow(**row) for row in data.pop("trials")),
    }
    return NetworkReport(**rows, **data)


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; the dataclasses hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


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


def _page(report: RunReport, figures: list[dict[str, Any]]) -> str:
    """The HTML page, with everything it needs inside."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfqprune.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    networks = [
        {
            "data": network,
            "anchor": f"network-{number}",
            "columns": words.columns(network.variants),
            "cards": _cards(network),
            # matplotlib escapes the names in its SVG, so it may stand in the page as it is.
            "plots": [
                (name, _TITLES[name], Markup(plots.svg(figure, f"{number}-{name}"))) for name, figure in drawn.items()
            ],
            "ratios": [
                variant.name for variant in network.variants if any(variant.name in g.kept for g in network.groups)
            ],
        }
        for number, (network, drawn) in enumerate(zip(report.networks, figures), start=1)
    ]
    return environment.get_template("report.html.j2").render(report=report, networks=networks, words=words)


def _cards(network: NetworkReport) -> list[tuple[str, str, str]]:
    """The first things to see: (heading, value, explanation), the last variant against the first."""
    first, last = network.variants[0], network.variants[-1]
    cards = []
    for field, heading, text, points in (
        ("accuracy", "Accuracy", words.percent, True),
        ("memory", "Memory", words.size, False),
        ("tflite_bytes", ".tflite file", words.size, False),
        ("latency_ms", "Latency", words.milliseconds, False),
    ):
        value, before = getattr(last, field), getattr(first, field)
        if value is None:
            continue
        against = words.change(value, before, points=points) if last is not first else ""
        cards.append((heading, text(value), f"{against} against {first.name}, {text(before)}" if against else ""))
    return cards
