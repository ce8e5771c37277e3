"""Renders benchmarks/results/size.json and latency.json into the tables of docs/export.md.

    python benchmarks/export_tables.py [--check]

Each table stands between two comments, `<!-- table NAME -->` and `<!-- end -->`; what is between them is replaced.
``--check`` changes nothing and fails where the document is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tables import render, source, table

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "export.md"
_MIB = 2**20


def size_table(results: dict[str, Any], net: str) -> str:
    """All files of one network: a block for each precision, dense beside pruned."""
    entries = [entry for entry in results["nets"] if entry["net"] == net]
    blocks = []
    for dense in (entry for entry in entries if not entry["pruned"]):
        pruned = next((e for e in entries if e["pruned"] and e["precision"] == dense["precision"]), None)
        cells = {row["file"]: row for row in (pruned["files"] if pruned else [])}
        rows = [
            [row["file"], *_file_cells(row), *_file_cells(cells.get(row["file"], {}))] for row in dense["files"]
        ]  # fmt: skip
        floors = f"floor {dense['floor_bytes']:,} B dense" + (f", {pruned['floor_bytes']:,} B pruned" if pruned else "")
        header = [
            "file",
            *(f"{part}, {w}" for w in ("dense", "pruned") for part in ("bytes", "/ floor", "top-1, error")),
        ]
        blocks.append(f"**{dense['precision']}**, {dense['samples']} inputs, {floors}\n\n{table(header, rows)}")
    return "\n\n".join([*blocks, source(entries)])


def _file_cells(row: dict[str, Any]) -> list[str]:
    if "bytes" not in row:
        return [_refusal(row), "-", "-"]
    judged = f"{row['top1']:.3f}, {row['max_error']:.2g}" if "top1" in row else "does not run"
    return [f"{row['bytes']:,}", f"{row['ratio']:.3f}", judged]


def _refusal(row: dict[str, Any]) -> str:
    return "refused" if "refused" in row else "-"


def imagenet_table(results: dict[str, Any]) -> str:
    """ResNet-18 beside the published sizes."""
    entries = [entry for entry in results["nets"] if entry["net"] == "resnet18" and entry["precision"] != "k=4"]
    rows = []
    for entry in entries:
        published = results["published_mb"].get(entry["precision"])
        memory = entry["memory"]
        for row in entry["files"]:
            if not re.match(r"(packed|binary)", row["file"]) or "bytes" not in row:
                continue
            rest = row["bytes"] - row["last_layer_bytes"]
            rows.append(
                [
                    f"{entry['precision']}, {'pruned' if entry['pruned'] else 'dense'}: {row['file']}",
                    f"{memory / _MIB:.2f}",
                    f"{published:.2f}" if entry["pruned"] and published else "-",
                    f"{row['bytes'] / _MIB:.2f}",
                    f"{rest / _MIB:.2f}",
                    f"{row['ratio']:.3f}",
                    f"{row['top1']:.3f}",
                ]
            )
    header = [
        "network: file", "memory, MiB", "published, MB", "file, MiB", "without last layer, MiB", "/ floor", "top-1",
    ]  # fmt: skip
    return f"{table(header, rows)}\n\n{source(entries)}"


def latency_table(results: dict[str, Any]) -> str:
    """Pruned over dense, format by format."""
    rows = [
        [
            f"{entry['net']} {entry['precision']}", str(entry.get("align", 1)), name,
            f"{entry['macs_ratio']:.3f}", f"{found['ratio']:.3f}",
            f"{found['lowest']:.3f} to {found['highest']:.3f}", "yes" if found["xnnpack"] else "no",
        ]
        for entry in results["nets"]
        for name, found in entry["formats"].items()
    ]  # fmt: skip
    header = ["network", "multiples of", "format", "MACs, ratio", "latency, ratio", "over the rounds", "XNNPACK"]
    return f"{table(header, rows)}\n\n{source(results['nets'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where the document is stale")
    arguments = parser.parse_args()
    sizes = json.loads((HERE / "results" / "size.json").read_text(encoding="utf-8"))
    latencies = json.loads((HERE / "results" / "latency.json").read_text(encoding="utf-8"))
    tables = {name: size_table(sizes, name) for name in ("vgg_small", "resnet20", "resnet18")}
    tables |= {"imagenet": imagenet_table(sizes), "latency": latency_table(latencies)}
    if not render(DOCUMENT, tables, arguments.check) and arguments.check:
        raise SystemExit("docs/export.md is stale: run `python benchmarks/export_tables.py`.")


if __name__ == "__main__":
    main()
