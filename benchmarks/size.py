"""Bytes of every format for networks of the zoo, beside what the stock tools make of the same networks.

    python benchmarks/size.py [--quick] [--nets resnet20 ...]

Networks: VGG-Small and ResNet-20 (CIFAR-10 shapes), ResNet-18 (ImageNet shape); binary, DoReFa 2 and 4 bits; dense, and
pruned by the share that arXiv 2002.00523 published for its binary ResNet-18. Random weights, calibrated batch norms
(see nets.py): bytes are exact and depend on nothing else, errors compare a file with its own Keras model.

Beside them: TensorFlow's converter as it is, the same with ``Optimize.DEFAULT``, ai-edge-quantizer's 4-bit recipes
(the smaller file of the two; needs the `bench` extra), and Larq Compute Engine's converter alone.

Results go to benchmarks/results/size.json; `python benchmarks/export_tables.py` renders them into docs/export.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nets import PUBLISHED_SHARE, Net, build, versions
from rows import command

import tflite_export as te
import tfqprune as tq
from tflite_export.convert import converted
from tflite_export.exporting import gather_facts
from tfqprune.errors import TfqpruneError

HERE = Path(__file__).parent
# What arXiv 2002.00523 gives for its pruned networks, in MB as printed there.
PUBLISHED = {"binary": 2.47, "k=2": 4.36}
_SAMPLES = {"resnet18": 8}


def all_nets(quick: bool, names: list[str] | None, precisions: list[str] | None) -> list[Net]:
    """The networks to measure."""
    chosen = names or (["resnet20"] if quick else ["vgg_small", "resnet20", "resnet18"])
    return [
        Net(name, int(precision) if precision.isdigit() else precision, pruned, 8 if quick else _SAMPLES.get(name, 64))
        for name in chosen
        for precision in precisions or (["binary", "2"] if quick else ["binary", "2", "4"])
        for pruned in (False, True)
    ]


def our_files(model: Any, data: Any, folder: Path, formats: list[str] | None) -> Iterator[dict[str, Any]]:
    """Every format that takes the model, and the smallest again with the float layers in 8 bits."""
    facts = gather_facts(model)
    names = [name for name, entry in te.list_formats().items() if entry.refusal(facts) is None]
    names = [name for name in names if formats is None or name in formats]
    asked = [(name, "float32") for name in names]
    asked += [(name, "int8") for name in ("packed", "binary") if name in names]
    for name, ends in asked:
        label = name if ends == "float32" else f"{name}, float layers in int8"
        try:
            result = te.export(
                model, folder / "ours.tflite", name, data=data, samples=len(data), strict=False, float_weights=ends
            )
        except TfqpruneError as error:
            yield {"tool": "tflite_export", "file": label, "refused": str(error)}
            continue
        yield {
            "tool": "tflite_export", "file": label, "bytes": result.bytes, "runtime": result.runtime,
            "last_layer_bytes": last_layer_bytes(result.breakdown, model), **errors(result.agreement),
        }  # fmt: skip


def peer_files(model: Any, data: Any, folder: Path, binary: bool) -> Iterator[dict[str, Any]]:
    """What stock tools make of the model, judged in the same way."""
    for label, make in peers(model, binary).items():
        path = folder / "peer.tflite"
        try:
            path.write_bytes(make())
            size = path.stat().st_size
        except ImportError:
            raise  # a peer that is not here has refused nothing
        except Exception as error:  # a peer may fail in any way; that is a result, not ours to raise
            yield {"tool": "stock", "file": label, "refused": f"{type(error).__name__}: {first_line(error)}"}
            continue
        row: dict[str, Any] = {"tool": "stock", "file": label, "bytes": size}
        try:
            agreement = te.verify(model, path, data, samples=len(data))
            row |= {"runtime": agreement.runtime, **errors(agreement)}
        except TfqpruneError as error:
            row["does_not_run"] = first_line(error)
        yield row


def peers(model: Any, binary: bool) -> dict[str, Callable[[], bytes]]:
    """Stock tool -> the bytes it makes of the model."""
    import tensorflow as tf

    def tensorflow(optimize: bool) -> bytes:
        def run(saved: str) -> bytes:
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if optimize:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            return bytes(converter.convert())

        return converted(run, model, "the TensorFlow Lite converter")

    @functools.cache
    def plain() -> bytes:
        return tensorflow(False)

    def edge() -> bytes:
        from ai_edge_quantizer import quantizer, recipe

        made = []
        for chosen in (recipe.dynamic_wi4_afp32(), recipe.weight_only_wi4_afp32()):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                made.append(bytes(quantizer.Quantizer(plain(), chosen).quantize().quantized_model))
        return min(made, key=len)

    def larq() -> bytes:
        import larq_compute_engine as lce

        return converted(lambda saved: bytes(lce.convert_saved_model(saved)), model, "Larq Compute Engine")

    found: dict[str, Callable[[], bytes]] = {
        "TF converter": plain,
        "TF converter, Optimize.DEFAULT": lambda: tensorflow(True),
        "ai-edge-quantizer, 4 bits": edge,
    }
    return found | ({"Larq Compute Engine alone": larq} if binary else {})


def errors(agreement: te.Agreement) -> dict[str, float]:
    return {
        "top1": round(agreement.top1, 4),
        "off_share": round(agreement.off_share, 4),
        "max_error": float(f"{agreement.max_error:.3g}"),
    }


def last_layer_bytes(report: te.SizeReport, model: Any) -> int:
    """Bytes of the constants of the last dense layer (kernel, its scales, bias)."""
    return report.by_layer.get(model.get_layer("dense").name, 0)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


def measure(net: Net, seed: int, formats: list[str] | None) -> dict[str, Any]:
    """All files of one network, or only some of our formats."""
    model, data = build(net, seed)
    cost = tq.cost(model)
    floor = te.floor_bytes(model)
    with tempfile.TemporaryDirectory() as folder:
        files = [*our_files(model, data, Path(folder), formats)]
        if formats is None:
            files += [*peer_files(model, data, Path(folder), net.precision == "binary")]
    for row in files:
        if "bytes" in row:
            row["ratio"] = round(row["bytes"] / floor, 4)
    return {
        "command": command(), "versions": versions(), "seed": seed,
        "net": net.name, "precision": net.label.split()[1], "pruned": net.pruned, "samples": net.samples,
        "params": int(cost.params), "macs": int(cost.macs), "memory": float(cost.memory), "floor_bytes": floor,
        "files": files,
    }  # fmt: skip


def check_alike(old: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Stops where rows that are kept were measured with another seed, say, than those to come."""
    for key, value in wanted.items():
        if old.get(key) != value:
            raise SystemExit(
                f"Expected {key} {old.get(key)}, as in what is kept of {old['net']} {old['precision']}. Received: "
                f"{value}. Measure all formats of it again, or write to another --output."
            )


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """An entry with some of its files measured again, or for the first time, by a further command.

    Raises:
        SystemExit: rows of the two would not be of one network, or not judged alike.
    """
    check_alike(old, {key: new[key] for key in ("seed", "samples", "floor_bytes")})
    again = {row["file"]: row for row in new["files"]}
    files = [again.pop(row["file"], row) for row in old["files"]] + list(again.values())
    tools = {**old["versions"], **new["versions"]}
    versions_ = {
        name: version if (before := old["versions"].get(name, version)) == version else f"{before}, then {version}"
        for name, version in tools.items()
    }
    return {**new, "command": f"{old['command']}, then {new['command']}", "versions": versions_, "files": files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="ResNet-20 only, binary and 2 bits, 8 samples; into size_quick.json"
    )
    parser.add_argument("--nets", nargs="+", help="names of the zoo; default: vgg_small resnet20 resnet18")
    parser.add_argument("--precisions", nargs="+", help="binary or bits; default: binary 2 4")
    parser.add_argument("--formats", nargs="+", help="only these of ours; what is known of the others is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/size.json")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = HERE / "results" / ("size_quick.json" if arguments.quick else "size.json")
    results: dict[str, Any] = {"share_cut": PUBLISHED_SHARE, "published_mb": PUBLISHED, "nets": []}
    nets = all_nets(arguments.quick, arguments.nets, arguments.precisions)
    known: dict[tuple[Any, ...], dict[str, Any]] = {}  # what is not measured now is kept
    if arguments.output.exists():
        kept = json.loads(arguments.output.read_text(encoding="utf-8"))["nets"]
        known = {(entry["net"], entry["precision"], entry["pruned"]): entry for entry in kept}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for net in nets if arguments.formats else []:
        key = (net.name, net.label.split()[1], net.pruned)
        check_alike(known.get(key, {}), {"seed": arguments.seed, "samples": net.samples} if key in known else {})
    for net in nets:
        began = time.perf_counter()
        entry = measure(net, arguments.seed, arguments.formats)
        key = (entry["net"], entry["precision"], entry["pruned"])
        told = entry["files"]
        known[key] = merged(known[key], entry) if arguments.formats and key in known else entry
        results["nets"] = list(known.values())
        print(f"{net.label}: floor {entry['floor_bytes']:,} B ({time.perf_counter() - began:.0f} s)")
        for row in told:
            line = f"{row['bytes']:>12,} B  {row['ratio']:7.3f}" if "bytes" in row else f"  {row['refused']}"
            judged = f"  top-1 {row['top1']:.3f}  largest error {row['max_error']:g}" if "top1" in row else ""
            print(f"  {row['file']:<34}{line}{judged}{row.get('does_not_run', '')}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"Kept in {arguments.output}.")


if __name__ == "__main__":
    main()
