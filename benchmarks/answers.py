"""Does it work, and is it better? One line for each question, from what the benchmarks kept; nothing is measured.

Each function gets kept results and gives lines of question, ours, what it is to be compared with, and the place in the
documentation that has all of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import magnitude
from grid import HALF, accuracies, bits, by_setting, epochs_of, in_short, network_name, percent
from published import ACRA_SHARE, HFP_SHARE
from search_report import curves, setting_name, trials_to_reach
from tables import table

Line = list[str]
RIVALS = ("thin", "latent L1", "random")


def budgets(rows: list[dict[str, Any]]) -> Iterator[Line]:
    """The best method at half of the memory, chosen on validation images, beside its rivals; each pruned network."""
    for (_, _, network, width, precision, _), cells in by_setting([row for row in rows if in_short(row)]).items():
        for training in sorted({training for _, method, training in cells if method not in ("dense", *RIVALS)}):
            groups = {
                method: found
                for (_, method, epochs), found in sorted(cells.items())
                if epochs in (0, training) or method == "thin"  # whatever its epochs, which are said
            }
            ours = {method: found for method, found in groups.items() if method not in ("dense", *RIVALS)}
            found = {method: percent(accuracies(group)) for method, group in groups.items()}
            best = max(ours, key=lambda method: statistics.mean(accuracies(ours[method], "validation")))
            yield [
                f"{network_name(network, width)}, {bits(precision)}, at {HALF:g} of its memory, "
                f"{epochs_of(ours[best][0])} epochs",
                f"{best} {found[best]}",
                ", ".join(
                    f"{method} of {epochs_of(groups[method][0])} epochs {found[method]}"
                    if method == "thin"
                    else f"{method} {found[method]}"
                    for method in ("dense", *RIVALS)
                    if method in found
                ),
                "[methods](#methods-under-the-same-budget)",
            ]


def searches(content: dict[str, Any]) -> Iterator[Line]:
    """Guided search beside the tuner that Keras-Tuner brings along."""
    trials = content["options"]["trials"]
    for name, found in content["settings"].items():
        runs = found.get("searches", {})
        if not {"ours", "stock"} <= set(runs):
            continue
        best = {method: percent(list(curves(runs[method], trials)[:, -1])) for method in ("ours", "stock")}
        reached = ", ".join(str(number or "none") for number in trials_to_reach(runs["ours"], runs["stock"]))
        yield [
            f"Search, {setting_name(content['options']['dataset'], name)}, the best of {trials} trials",
            f"{best['ours']}; as good as the other at trial {reached}",
            f"stock Keras-Tuner {best['stock']}",
            "[searches](#searches)",
        ]


def dead_filters(rows: list[dict[str, Any]]) -> Iterator[Line]:
    """What goes of a float network without a change of its results."""
    files = {(file["what"], file["file"]): file for file in magnitude.files_of(rows) if file["network"] == "float"}
    dense, left = (files.get((magnitude.WORDS[what], "float32")) for what in ("dense", "dead"))
    if dense and left:
        yield [
            f"{rows[0]['network']}, float, its dead filters removed",
            f"{left['bytes'] / dense['bytes']:.2f} of the bytes, {100 * left['test']:.2f} %",
            f"dense {100 * dense['test']:.2f} %",
            "[single weights](#filters-against-single-weights)",
        ]


def zipped(rows: list[dict[str, Any]]) -> Iterator[Line]:
    """Zipped bytes beside TFMOT's best files, at its accuracy."""
    files = magnitude.files_of(rows)
    smallest: dict[str, dict[str, Any]] = {}
    for file in (file for file in files if file["peer"]):
        if file["zipped"] < smallest.setdefault(file["what"], file)["zipped"]:
            smallest[file["what"]] = file
    ratios = []
    for file in smallest.values():
        own = [found for network in ("float", "2 bits") if (found := magnitude.match(files, file, network))]
        if own:
            ratios.append(min(found["zipped"] for found in own) / file["zipped"])
    if ratios:
        yield [
            f"{rows[0]['network']}: zipped bytes at no less accuracy, of TFMOT's",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{magnitude.PEER}, its smallest file at each of {len(ratios)} sparsities",
            "[single weights](#filters-against-single-weights)",
        ]


def sizes(content: dict[str, Any]) -> Iterator[Line]:
    """The smallest file beside that of stock tools, and beside published sizes."""
    for entry in content["nets"]:
        if entry["net"] == "resnet18" or entry["pruned"] or entry["precision"] not in ("binary", "k=2"):
            continue
        files = [file for file in entry["files"] if "bytes" in file and "float layers" not in file["file"]]
        own, other = (
            min((file for file in files if (file["tool"] == "tflite_export") == ours), key=lambda file: file["bytes"])
            for ours in (True, False)
        )
        yield [
            f"{entry['net']}, {entry['precision']}: bytes of the dense network's file",
            f"{own['bytes']:,} ({own['file']}), {own['ratio']:.2f} of the floor",
            f"{other['file']} {other['bytes']:,}",
            "[sizes](export.md#sizes)",
        ]
    nets = {(entry["net"], entry["precision"], entry["pruned"]): entry for entry in content["nets"]}
    for precision, published in content["published_mb"].items():
        dense, entry = (nets["resnet18", precision, pruned] for pruned in (False, True))
        name = "binary" if precision == "binary" else "packed"
        size = next(file["bytes"] for file in entry["files"] if file["file"] == name)
        theirs = 100 * (1 - published * 2**20 / dense["memory"])  # their MB are MiB
        yield [
            f"resnet18, {precision}, {100 * content['share_cut']:.2f} % of its memory cut",
            f"{size / 2**20:.2f} MiB ({name})",
            f"arXiv 2002.00523: {published:.2f} MB, counted, not a file; {theirs:.1f} % less than our dense network",
            "[published](#beside-what-is-published)",
        ]


def targets(rows: list[dict[str, Any]]) -> Iterator[Line]:
    """Shares of the multiplications that papers cut: met, and never exceeded."""
    for part, share, paper in (("resnet50", HFP_SHARE, "HFP"), ("vgg16", ACRA_SHARE, "ACRA")):
        cut = [100 * (1 - row["macs"][1] / row["macs"][0]) for row in rows if row["part"] == part]
        if cut:
            yield [
                f"{part}: multiplications cut, target {100 * share:g} %",
                ", ".join(f"{value:.2f} %" for value in cut),
                f"{paper} {100 * share:g} %",
                "[published](#beside-what-is-published)",
            ]


def engine(content: dict[str, Any]) -> Iterator[Line]:
    """Time beside Torch-Pruning."""
    key = "ratio_to_torch_pruning"  # only where the peer was there
    ratios = [found[key] for found in content["pruning"].values() if key in found]
    if ratios:
        yield [
            "ResNet-50 to ResNet-152: time from graph to slim model",
            f"{min(ratios):.1f} to {max(ratios):.1f} times the other's",
            "Torch-Pruning",
            "[engine](engine.md#speed)",
        ]


def answers(kept: dict[str, Any]) -> str:
    """All of it, in Markdown.

    Args:
        kept: name of a file of results -> its content; what is not there is left out.
    """
    makers = (
        ("grid", budgets), ("search", searches), ("magnitude", dead_filters), ("magnitude", zipped), ("size", sizes),
        ("published", targets), ("engine", engine),
    )  # fmt: skip
    lines = [line for name, make in makers if kept.get(name) for line in make(kept[name])]
    return table(["question", "ours", "beside it", "all of it"], lines)
