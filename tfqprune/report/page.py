"""The HTML page of a report, with everything it needs inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfqprune.report import words
from tfqprune.report.drawing import Plot, svg
from tfqprune.report.model import NetworkReport, RunReport
from tfqprune.report.picture import letters

_TALL = 12.5  # inches; a picture above this gets a window of its own to scroll in


def make_page(report: RunReport, plots: list[dict[str, Plot]]) -> str:
    """The page's text.

    Args:
        report: what was found.
        plots: of each network.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfqprune.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    networks = [
        _network(number, network, drawn) for number, (network, drawn) in enumerate(zip(report.networks, plots), start=1)
    ]
    return environment.get_template("report.html.j2").render(report=report, networks=networks, words=words)


def _network(number: int, network: NetworkReport, drawn: Mapping[str, Plot]) -> dict[str, Any]:
    from markupsafe import Markup

    return {
        "data": network,
        "anchor": f"network-{number}",
        "columns": words.columns(network.variants),
        "cards": cards(network),
        "letters": letters(network.groups),
        # matplotlib escapes the names in its SVG, so it may stand in the page as it is.
        "plots": {
            name: {
                "title": plot.title,
                "caption": plot.caption,
                "alt": plot.alt,
                "tall": plot.figure.get_figheight() > _TALL,
                "svg": Markup(svg(plot.figure, f"{number}-{name}")),
            }
            for name, plot in drawn.items()
        },
    }


def cards(network: NetworkReport) -> list[tuple[str, str, str]]:
    """The first things to see: (heading, value, explanation), the best variant against the first."""
    first, best = network.variants[0], network.best
    found = []
    for field, heading, text, points in (
        ("accuracy", "Accuracy", words.percent, True),
        ("memory", "Memory", words.size, False),
        ("tflite_bytes", ".tflite file", words.size, False),
        ("macs", "MACs", words.count, False),
        ("latency_ms", "Latency", words.milliseconds, False),
        ("ram_bytes", "Peak RAM", words.size, False),
        ("agreement", "Agreement with Keras", words.percent, True),
    ):
        value, before = getattr(best, field), getattr(first, field)
        if value is None:
            continue
        against = words.change(value, before, points=points) if best is not first and field != "agreement" else ""
        explanation = f"{_whole(against)} against {_whole(text(before))}" if against else ""
        if field == "agreement" and best.compared:
            explanation = f"same class on {best.compared} samples"
        found.append((heading, text(value), explanation))
    return found


def _whole(figure: str) -> str:
    """A figure that is not broken before its unit."""
    return figure.replace(" ", "\N{NO-BREAK SPACE}")
