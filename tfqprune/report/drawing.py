"""How all pictures of a report are drawn: sizes, colours, and matplotlib figures as SVG and PNG without a display."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: of the variants in their order; each stands out by 3 : 1 from a light page and from a dark one
COLOURS = ("#7d8590", "#2f7ed8", "#d06f00", "#119a6c", "#a05cc0", "#d6455d")
#: beside the colours, for those who cannot tell them apart
MARKERS = ("o", "s", "^", "D", "v", "P")
#: drawn in a colour that nothing else has, and becomes the page's own text colour in the SVG
INK = "#010203"
#: as good as white, and becomes the colour behind the picture
PAPER = "#fdfefd"
#: inches; a page on a phone shows it at about its own size, so that 9 points stay 9 points
WIDTH = 4.4

_LEGEND = 56  # characters of a line, a mark and the gap behind it counted as six
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Plot:
    """A picture of a report.

    Attributes:
        title: heading.
        caption: how to read it, a sentence or two.
        alt: what it shows, for those who do not see it.
        figure: drawn.
    """

    title: str
    caption: str
    alt: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """Figures that are made inside look like those of a report."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def svg(figure: Figure, salt: str) -> str:
    """A figure as an SVG element whose text and lines take the colour of the page around it.

    Args:
        figure: to write.
        salt: different for every figure of a page, so that their inner identifiers differ.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with style(), rc_context({"svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--card, white)")


def png(figure: Figure) -> bytes:
    """A figure as PNG on white, 150 dots an inch."""
    data = io.BytesIO()
    with style():
        figure.savefig(data, format="png", dpi=150, facecolor="white")
    return data.getvalue()


def make_figure(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **options: Any) -> Any:
    """A figure of a report's width with axes, as ``figure, axes``; height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def plain(name: str) -> str:
    """A name that matplotlib does not read as a formula."""
    return name.replace("$", r"\$")


def short(name: str, most: int = 24) -> str:
    """A name of at most so many characters, without its middle where it is longer: both ends tell layers apart."""
    if len(name) > most:
        head = (most - 1) // 2
        name = f"{name[:head]}…{name[-(most - 1 - head) :]}"
    return plain(name)


def colour(number: int) -> str:
    """Of the variant with this number."""
    return COLOURS[number % len(COLOURS)]


def legend(axes: Any) -> None:
    """Above the axes, if anything has a label: in one line if it fits, else in as few as it takes."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        lines = -(-sum(len(label) + 6 for label in labels) // _LEGEND)
        axes.figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // lines))


def label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Rows from top to bottom in the order given, with a grid along the values."""
    axes.set_yticks(range(len(labels)), [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def bars(axes: Any, labels: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]]) -> None:
    """Horizontal bars, one cluster a label; a series is its name, its colour and its values."""
    thickness = 0.8 / len(series)
    for number, (name, tint, values) in enumerate(series):
        positions = [row + (number - (len(series) - 1) / 2) * thickness for row in range(len(labels))]
        axes.barh(positions, values, height=thickness * 0.92, color=tint, label=plain(name))
    label_rows(axes, labels)
    if len(series) > 1:
        legend(axes)


def dots(axes: Any, labels: Sequence[str], series: Sequence[tuple[str, int, Sequence[float | None]]]) -> None:
    """A row for each label with one mark a series: its name, the number of its variant, its values."""
    for number, (name, variant, values) in enumerate(series):
        found = [(value, row) for row, value in enumerate(values) if value is not None]
        away = (number - (len(series) - 1) / 2) * min(0.22, 0.66 / len(series))  # equal values stay apart
        axes.scatter(
            [value for value, _ in found],
            [row + away for _, row in found],
            s=34,
            marker=MARKERS[variant % len(MARKERS)],
            color=colour(variant),
            label=plain(name),
            zorder=3,
            clip_on=False,
        )
    axes.hlines(range(len(labels)), *axes.get_xlim(), color=INK, alpha=0.08, linewidth=1)
    label_rows(axes, labels)
    legend(axes)
