"""Draws the pictures of the documentation as SVG files beside this script.

    python docs/pictures/draw.py

``sizes.svg`` shows what ``benchmarks/results/size.json`` holds, which ``python benchmarks/size.py`` measured; the
others explain and hold no figures. The same input gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "size.json"

INK, GREY, PALE = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, PURPLE = "#2f6fab", "#d9822b", "#3a9d6b", "#8250c4"


def text(x: float, y: float, words: str, *, size: int = 14, anchor: str = "start", colour: str = INK) -> str:
    """One line of text whose baseline is at y."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "none", dash: str = "") -> str:
    """A rectangle with soft corners."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{fill}" '
        f'stroke="{stroke}"{dashed}/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str = GREY) -> str:
    """A line with a head."""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def write(name: str, width: int, height: int, title: str, parts: Iterable[str]) -> None:
    """One file; white ground, so that it can be read on dark pages, too."""
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        head,
        box(0, 0, width, height, "#ffffff"),
        *parts,
        "</svg>",
        "",
    ]
    (HERE / name).write_text("\n".join(lines), encoding="utf-8")


def column(x: float, y: float, colours: Sequence[str], gone: Sequence[int] = (), *, drop: bool = False) -> list[str]:
    """Channels of a tensor as small squares; those that go are hollow, or not there."""
    parts, row = [], 0
    for position, colour in enumerate(colours):
        if position in gone and drop:
            continue
        hollow = position in gone
        parts.append(
            box(x, y + 20 * row, 16, 16, "#ffffff" if hollow else colour, stroke=colour, dash="3 2" if hollow else "")
        )
        row += 1
    return parts


def line_of_work() -> None:
    """What happens to a model."""
    steps = {
        "Keras model": "trained",
        "groups": "what lives and dies together",
        "scores": "which units are least missed",
        "ratios": "how many of each group",
        "plan": "JSON, replayable",
        "slim model": "rebuilt, recovered",
        ".tflite": "k bits are k bits",
        "proof": "agreement, bytes, RAM, time",
    }
    parts = []
    for number, (name, remark) in enumerate(steps.items()):
        x, y = 16 + 228 * (number % 4), 20 + 100 * (number // 4)
        parts += [box(x, y, 196, 62, "#eef4fa", stroke=BLUE), text(x + 98, y + 27, name, size=16, anchor="middle")]
        parts.append(text(x + 98, y + 48, remark, size=12, anchor="middle", colour=GREY))
        if number % 4 < 3:
            parts.append(arrow(x + 198, y + 31, x + 226, y + 31))
    parts.append(arrow(798, 84, 114, 118))
    write("line.svg", 928, 202, "From a Keras model to a measured .tflite file, in eight steps", parts)


def groups() -> None:
    """A residual block: what an addition ties."""
    tied, own = [BLUE] * 4, [ORANGE] * 4
    parts = [text(20, 28, "A residual block: the addition ties its two inputs", size=16)]
    for x, label, colours in (
        (60, "into the block", tied), (230, "behind conv1", own),
        (400, "behind conv2", tied), (570, "behind the sum", tied),
    ):  # fmt: skip
        parts += column(x, 80, colours)
        parts.append(text(x + 8, 182, label, size=13, anchor="middle"))
    for x, label in ((84, "conv1"), (254, "conv2"), (424, "add")):
        parts += [arrow(x, 118, x + 140, 118), text(x + 76, 110, label, size=13, anchor="middle", colour=GREY)]
    parts.append(
        f'<path d="M68 76 C 68 36, 440 36, 446 112" fill="none" stroke="{GREY}" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )
    parts.append(text(290, 70, "shortcut", size=13, anchor="middle", colour=GREY))
    parts += [box(20, 208, 14, 14, BLUE), text(42, 220, "one group: these channels live or die together, slot by slot")]
    parts += [
        box(20, 234, 14, 14, ORANGE),
        text(42, 246, "another group: the inner channels belong to this block alone"),
    ]
    write("groups.svg", 660, 262, "Channel groups of a residual block", parts)


def law() -> None:
    """Dense, masked and slim model of one plan."""
    colours, gone = [PURPLE] * 5, (1, 3)
    parts = []
    for x, name, remark, hollow, drop in (
        (30, "dense", "the trained model", (), False),
        (260, "masked", "kernels that read units 1 and 3 hold zeros there", gone, False),
        (590, "slim", "units 1 and 3 do not exist", gone, True),
    ):
        parts += [text(x, 28, name, size=16), text(x, 48, remark, size=12, colour=GREY)]
        parts += (
            column(x + 20, 66, colours, (), drop=False) if not drop else column(x + 20, 66, colours, gone, drop=True)
        )
        for row in range(5 - len(gone) if drop else 5):
            y = 74 + 20 * row
            zero = row in hollow and not drop
            parts.append(arrow(x + 42, y, x + 108, y, PALE if zero else GREY) if not zero else "")
            if zero:
                parts.append(text(x + 66, y + 5, "0", size=13, colour=ORANGE))
        parts += column(x + 112, 86, [GREEN] * 3)
    parts.append(text(430, 190, "slim(x) == masked(x), to float rounding, for every plan", size=15, anchor="middle"))
    write("law.svg", 860, 208, "The masked model silences units where they are read; the slim model lacks them", parts)


def sizes(path: Path = RESULTS) -> None:
    """File sizes of a 2-bit ResNet-18, dense and pruned, beside the theoretical floor."""
    network, precision = "resnet18", "k=2"
    nets = json.loads(path.read_text(encoding="utf-8"))["nets"]
    dense, pruned = (
        next(n for n in nets if (n["net"], n["precision"], n["pruned"]) == (network, precision, cut))
        for cut in (False, True)
    )
    labels = {
        "TF converter": "TensorFlow's converter",
        "TF converter, Optimize.DEFAULT": "its dynamic-range quantisation",
        "ai-edge-quantizer, 4 bits": "ai-edge-quantizer, 4 bits",
        "fast": "ours: fast",
        "packed": "ours: packed",
    }
    by_file = [{file["file"]: file["bytes"] for file in net["files"] if "bytes" in file} for net in (dense, pruned)]
    scale = 520 / max(by_file[0][name] for name in labels)
    parts = [text(20, 30, "2-bit ResNet-18 for ImageNet: bytes of the file", size=17)]
    y = 54
    for name, label in labels.items():
        parts.append(text(236, y + 26, label, size=14, anchor="end"))
        for colour, files in ((GREY, by_file[0]), (BLUE, by_file[1])):
            length = max(files[name] * scale, 1)
            parts += [
                box(246, y, length, 17, colour),
                text(252 + length, y + 13, f"{files[name] / 2**20:.2f} MiB", size=12),
            ]
            y += 20
        y += 12
    floor = 246 + dense["floor_bytes"] * scale
    parts.append(f'<line x1="{floor:g}" y1="46" x2="{floor:g}" y2="{y - 6}" stroke="{ORANGE}" stroke-dasharray="4 3"/>')
    share = 1 - pruned["memory"] / dense["memory"]
    parts += [box(246, y + 4, 14, 14, GREY), text(266, y + 16, "dense", size=13)]
    parts += [box(326, y + 4, 14, 14, BLUE), text(346, y + 16, f"{share:.1%} of the memory pruned", size=13)]
    parts.append(text(546, y + 16, "- - floor of the dense model", size=13, colour=ORANGE))
    parts.append(
        text(20, y + 46, f"Measured by {dense['command']}; drawn by docs/pictures/draw.py", size=12, colour=GREY)
    )
    write("sizes.svg", 860, y + 62, "File sizes of a 2-bit ResNet-18, dense and pruned, by tool and format", parts)


def main() -> None:
    """Draws all pictures."""
    line_of_work()
    groups()
    law()
    sizes()


if __name__ == "__main__":
    main()
