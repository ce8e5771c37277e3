"""What papers report of their pruned networks, beside what this project makes of the same architectures.

    python benchmarks/published.py                      # VGG-16 on digits, ResNet-50; minutes
    python benchmarks/published.py --parts vgg16 --dataset cifar10   # hours
    python benchmarks/published.py --report             # tables of what is kept

Parts:

- ``vgg16`` (Liu, Kong, Yu, ACRA, doi 10.1145/3387168.3387184: VGG-16 on CIFAR-10, FLOPs down by 29.18 %): the uniform
  and the sensitivity allocator with the same share of the MACs as their budget. The network is
  tf_keras.applications.VGG16 without its ImageNet head, for images of 32x32, and one dense layer; initialised as in He
  et al., arXiv 1502.01852, for it has no batch norms. Which head the authors used was not read.
- ``resnet50`` (Enderich, Timm, Burgard, HFP, arXiv 2009.08169: ResNet-50 on ImageNet, multiplications down by 60 %):
  holistic pruning of tf_keras.applications.ResNet50 with random weights at 224x224, for as few steps as the gates need.
  What is learned in them says nothing of accuracy; the target, the files and the latency are what is looked at.
- The sizes of ResNet-18 in arXiv 2002.00523 are compared from benchmarks/results/size.json (benchmarks/size.py), which
  has them: nothing of it is measured here.

Trained networks are kept in ``--cache``; every row is written as soon as it is known, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tables import source, table

import tflite_export as te
import tfqprune as tq

HERE = Path(__file__).parent
RESULTS = HERE / "results"
KEY = ("part", "what", "dataset", "limit", "epochs", "training", "seed")
PARTS = ("vgg16", "resnet50")
ACRA_SHARE, ACRA_LOSS = 0.2918, 1.24  # FLOPs cut, and points of accuracy lost, as published
HFP_SHARE = 0.6
SIDE = 32  # of images for VGG-16
RATE = 3e-4  # of Adam, where training starts
TUNING = 0.3  # of that rate: where fine-tuning starts
STEPS, BATCH = 40, 4  # of holistic pruning
FORMATS = ("float32", "float16")
MB = 1e6


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dataset", default="digits", help="for VGG-16; default digits, scaled to 32x32")
    parser.add_argument("--limit", type=int, help="images in each part of the data, at most; digits 400, else all")
    parser.add_argument("--epochs", type=int, help="of VGG-16 before the cut; digits 10, else 30")
    parser.add_argument("--training", type=int, help="epochs of VGG-16 after the cut; digits 2, else 8")
    parser.add_argument("--judged", type=int, help="validation images of a trial of a layer; digits 128, else 1000")
    parser.add_argument("--batch-size", type=int, help="digits 32, else 128")
    parser.add_argument("--rounds", type=int, default=5, help="of dense and pruned file in turn, for the latency")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/published"), help="folder of trained networks")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are kept (networks are not)")
    parser.add_argument("--report", action="store_true", help="print the tables of the rows that are there, and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "published.json")
    given = parser.parse_args()
    small = given.dataset == "digits"
    given.limit = given.limit or (400 if small else None)
    given.epochs = given.epochs or (10 if small else 30)
    given.training = given.training or (2 if small else 8)
    given.judged = given.judged or (128 if small else 1000)
    given.batch_size = given.batch_size or (32 if small else 128)
    return given


def compared(dense: Any, slim: Any, samples: np.ndarray, rounds: int) -> dict[str, Any]:
    """Costs, kept filters, files and latencies of a network and its slim model."""
    from latency import compare
    from nets import kept_filters

    costs = [tq.cost(model) for model in (dense, slim)]
    bytes_of: dict[str, list[int]] = {}
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            paths = [Path(folder) / f"{name}-{end}.tflite" for end in ("dense", "slim")]
            for model, path in zip((dense, slim), paths, strict=True):
                te.export(model, path, name, data=samples, samples=len(samples), strict=False)
            bytes_of[name] = [path.stat().st_size for path in paths]
            times[name] = compare(*paths, rounds, 0.3)
    return {
        "params": [int(cost.params) for cost in costs],
        "macs": [int(cost.macs) for cost in costs],
        "kept": kept_filters(dense, slim),
        "bytes": bytes_of,
        "latency": times,
        "rounds": rounds,
        "load_average": os.getloadavg()[0],
    }


# -- VGG-16 ---------------------------------------------------------------------------------------


class Vgg16:
    """VGG-16 on one data set, trained or from the cache."""

    def __init__(self, given: argparse.Namespace) -> None:
        import tensorflow as tf
        from baselines import load_data

        from tfqprune.data import Split

        splits = load_data(given)
        self.given = given
        names = ("train", "validation", "test")
        parts = {name: getattr(splits, name) for name in names}
        self.splits = replace(splits, **{name: Split(coloured(part.x), part.y) for name, part in parts.items()})
        tf.keras.utils.set_random_seed(given.seed)
        self.model = vgg16(splits.num_classes)
        name = f"vgg16_{given.dataset}_{given.epochs}_{given.seed}"
        folder = given.cache / (name if given.limit is None else f"{name}_{given.limit}")
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / "final.weights.h5"
        if not weights.exists():
            self.tune(self.model, given.epochs, RATE, folder)
            self.model.save_weights(weights)
        self.model.load_weights(weights)

    def tune(self, model: Any, epochs: int, rate: float, folder: Path | None = None) -> None:
        """Trains a model in place: the last epochs in float32, all of them where they are short."""
        from training import train

        finish = epochs if self.given.dataset == "digits" else min(2, epochs)
        train(self.given, model, self.splits, epochs, finish, self.given.seed, rate, folder, verbose=2)

    def cut(self, allocator: str) -> dict[str, Any]:
        """The slim model of one allocator, fine-tuned; its figures."""
        from training import accuracy

        budget = tq.Budget(macs=1 - ACRA_SHARE)
        if allocator == "uniform":
            chosen: Any = tq.UniformAllocator(budget)
        else:
            part = (self.splits.validation.x[: self.given.judged], self.splits.validation.y[: self.given.judged])
            chosen = tq.SensitivityAllocator(budget, validation=part)
        plan = chosen.allocate(self.model, "auto", (self.splits.train.x[:256], self.splits.train.y[:256]))
        slim = tq.prune(self.model, plan)
        found: dict[str, Any] = {
            "images": len(self.splits.train), "judged": self.given.judged, "criterion": plan.criterion,
            "budget_macs": 1 - ACRA_SHARE,
            "dense": accuracy(self.model, self.splits.test), "cut": accuracy(slim, self.splits.validation),
            **compared(self.model, slim, self.splits.test.x[:8], self.given.rounds),
        }  # fmt: skip
        self.tune(slim, self.given.training, TUNING * RATE)
        return {**found, "tuned": accuracy(slim, self.splits.test)}


def vgg16(classes: int) -> Any:
    import tensorflow as tf

    base = tf.keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    x = tf.keras.layers.Flatten(name="flatten")(base.output)
    x = tf.keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    model = tf.keras.Model(base.input, x, name="vgg16")
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Conv2D):
            layer.kernel.assign(tf.keras.initializers.HeNormal()(layer.kernel.shape))
    return model


def coloured(images: np.ndarray) -> np.ndarray:
    """Images of 32x32 in three colours, from smaller or grey ones."""
    import tensorflow as tf

    if images.shape[1:3] != (SIDE, SIDE):
        images = tf.image.resize(images, (SIDE, SIDE)).numpy()
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


# -- ResNet-50 ------------------------------------------------------------------------------------


def resnet50(given: argparse.Namespace) -> dict[str, Any]:
    """Holistic pruning of a ResNet-50 on noise; the figures of what it ends with."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(given.seed)
    model = tf.keras.applications.ResNet50(weights=None)
    hfp = tq.HolisticPruning(model, tq.Budget(macs=1 - HFP_SHARE), criterion="latent_l1")
    hfp.compile(tf.keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    noise = np.random.default_rng(given.seed)
    x = noise.normal(size=(STEPS * BATCH, *model.input_shape[1:])).astype(np.float32)
    y = noise.integers(0, model.output_shape[-1], len(x))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        hfp.fit(x, y, batch_size=BATCH, verbose=2)
    notes = hfp.plan().notes
    return {
        "budget_macs": 1 - HFP_SHARE,
        "steps": notes["steps"],
        "learned": notes["learned"]["macs"],
        "warned": [str(entry.message) for entry in said if str(entry.message).startswith("Expected")],
        **compared(model, hfp.finish(), x[:2], given.rounds),
    }


def work(given: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Key of each row, and what makes the row."""
    if "vgg16" in given.parts:
        names = ("dataset", "limit", "epochs", "training", "seed")
        key = {"part": "vgg16", **{name: getattr(given, name) for name in names}}
        made: list[Vgg16] = []  # loaded for the first row that is missing
        for allocator in ("uniform", "sensitivity"):

            def row(allocator: str = allocator) -> dict[str, Any]:
                made[:] = made or [Vgg16(given)]
                return made[0].cut(allocator)

            yield {**key, "what": allocator}, row
    if "resnet50" in given.parts:
        key = {"part": "resnet50", "what": "holistic", "dataset": "noise", "limit": STEPS * BATCH, "seed": given.seed}
        yield {**key, "epochs": 0, "training": 1}, lambda: resnet50(given)


# -- the report: no TensorFlow from here on -------------------------------------------------------


def report(rows: list[dict[str, Any]], sizes: dict[str, Any]) -> str:
    """Markdown: what is published, what is ours, and what cannot be compared.

    Args:
        rows: of published.json.
        sizes: of size.json.
    """
    parts = [_sizes(sizes)]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        names = ("part", "dataset", "limit", "epochs", "training")
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    writers = {"vgg16": _vgg16, "resnet50": _resnet50}
    parts += [writers[part](found) for (part, *_), found in groups.items()]
    return "\n\n".join(parts)


def _sizes(sizes: dict[str, Any]) -> str:
    body, entries = [], []
    for precision, published in sizes["published_mb"].items():
        found = {
            entry["pruned"]: entry
            for entry in sizes["nets"]
            if entry["net"] == "resnet18" and entry["precision"] == precision
        }
        entries += found.values()
        share = 1 - found[True]["memory"] / found[False]["memory"]
        for row in found[True]["files"]:
            if "bytes" not in row or not re.match(r"(packed|binary)", row["file"]):
                continue
            dense = next(other for other in found[False]["files"] if other["file"] == row["file"])
            body.append(
                [
                    f"{precision}: {row['file']}", f"{published:.2f}", f"{100 * share:.2f}",
                    f"{found[False]['memory'] / 2**20:.2f}", f"{found[True]['memory'] / 2**20:.2f}",
                    f"{dense['bytes'] / 2**20:.2f}", f"{row['bytes'] / 2**20:.2f}",
                    f"{row['bytes'] / 2**20 / published:.2f}",
                ]
            )  # fmt: skip
    whole = next(e["memory"] for e in entries if e["precision"] == "k=2" and not e["pruned"]) / 2**20
    implied = (
        f"{sizes['published_mb']['k=2']:.2f} of {whole:.2f} MiB would be "
        f"{100 * (1 - sizes['published_mb']['k=2'] / whole):.1f} %"
    )
    head = [
        "ResNet-18: file", "published, MB", "ours: memory cut, %", "of, MiB", "left, MiB",
        "dense file, MiB", "pruned file, MiB", "/ published",
    ]  # fmt: skip
    return "\n\n".join(
        [
            "**ResNet-18 for ImageNet, arXiv 2002.00523.** Compared: bytes of the same architecture with "
            f"{100 * sizes['share_cut']:.2f} % of its memory cut, the share published for the binary network. The "
            "published figures fit a count of memory in MiB; ours are files that run. Only the abstract was read, "
            f"which gives no share for 2 bits: {implied}, so the 2-bit rows are cut deeper than theirs seems to be, "
            "and are no gain over it. Not compared: accuracy, for want of ImageNet; our networks have random weights.",
            table(head, body),
            source(entries),
        ]
    )


def _vgg16(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    data = first["dataset"] + (f", at most {first['limit']} images a part" if first["limit"] else "")
    head = ["VGG-16", "FLOPs or MACs cut, %", "below the target, %", "parameters left, %"]
    head += [text for name in FORMATS for text in (f"{name}, MB: dense", "pruned", "latency ratio")]
    head += ["test, %: dense", "pruned and tuned", "change, points"]
    body = [["published (ACRA)", f"{100 * ACRA_SHARE:.2f}", *["-"] * (len(head) - 3), f"-{ACRA_LOSS} (cifar10)"]]
    for row in rows:
        loss = 100 * (row["tuned"] - row["dense"])
        body.append(
            [
                f"ours, {row['what']}", f"{100 * (1 - row['macs'][1] / row['macs'][0]):.2f}", _below_target(row),
                f"{100 * row['params'][1] / row['params'][0]:.1f}", *_files(row), f"{100 * row['dense']:.2f}",
                f"{100 * row['tuned']:.2f}", f"{loss:+.2f} ({row['dataset']})",
            ]
        )  # fmt: skip
    lines = [
        "Filters kept, layer by layer: "
        + "; ".join(f"{row['what']} {_chain(row['kept'].values())}" for row in rows)
        + f", of {' '.join(str(before) for before, _ in first['kept'].values())}."
    ]
    if first["dataset"] != "cifar10":
        lines.append(
            f"These rows are of {data}, scaled to 32x32 ({first['epochs']} epochs, {first['training']} after the cut): "
            "they show the target and the files. Their accuracies are no answer to the paper's, and the sensitive "
            "layers are those of this data."
        )
    return "\n\n".join(
        [
            f"**VGG-16, doi 10.1145/3387168.3387184** (data: {data}). Compared: the same share of FLOPs as a budget of "
            "MACs (a multiplication and an addition are two FLOPs, so shares are the same), which may not be exceeded. "
            "Published for CIFAR-10; of the paper only the abstract was read, so its head and its kept filters are "
            "not known.",
            table(head, body),
            *lines,
            f"{source(rows)} {_loads(rows)}",
        ]
    )


def _resnet50(rows: list[dict[str, Any]]) -> str:
    head = ["ResNet-50", "multiplications or MACs cut, %", "below the target, %", "MACs left", "parameters left, %"]
    head += [text for name in FORMATS for text in (f"{name}, MB: dense", "pruned", "latency ratio")]
    body = [["published (HFP)", f"{100 * HFP_SHARE:.0f}", *["-"] * (len(head) - 2)]]
    for row in rows:
        left = row["macs"][1] / row["macs"][0]
        body.append(
            [
                f"ours, {row['steps']} steps", f"{100 * (1 - left):.2f}", _below_target(row), f"{left:.3f}",
                f"{100 * row['params'][1] / row['params'][0]:.1f}", *_files(row),
            ]
        )  # fmt: skip
    row = rows[0]
    blocks: dict[str, list[list[int]]] = {}
    for name, counts in row["kept"].items():
        blocks.setdefault("_".join(name.split("_")[:2]) if "block" in name else name, []).append(counts)
    kept = [[name, ", ".join(f"{after} of {before}" for before, after in found)] for name, found in blocks.items()]
    return "\n\n".join(
        [
            "**ResNet-50, arXiv 2009.08169.** Compared: whether the target is met, with which structure, bytes and "
            "latency at 224x224 (one thread, pruned over dense file in turn). Not compared: accuracy. The published "
            "claim, no significant loss on ImageNet, cannot be repeated without ImageNet: weights here are random, the "
            f"{row['steps']} steps were on noise. When the gates were handed over, they had left "
            f"{row['learned']:.4f} of the MACs; whole units were then fitted onto the budget."
            + "".join(f" It warned: {text}" for text in row["warned"]),
            table(head, body),
            "Filters kept in each block, in the order of its convolutions:",
            table(["block", "kept"], kept),
            f"{source(rows)} {_loads(rows)}",
        ]
    )


def _below_target(row: dict[str, Any]) -> str:
    """How far the MACs are below the budget; less than 0 would be a budget that does not hold."""
    return f"{100 * (1 - row['macs'][1] / (row['budget_macs'] * row['macs'][0])):.4f}"


def _loads(rows: list[dict[str, Any]]) -> str:
    """How busy the machine was, for latencies are to be read with it."""
    told = ", ".join(f"{row['load_average']:.1f}" for row in rows)
    return f"Load average of the machine when latencies were measured: {told}."


def _files(row: dict[str, Any]) -> list[str]:
    cells = []
    for name in FORMATS:
        times = row["latency"][name]
        cells += [f"{size / MB:.2f}" for size in row["bytes"][name]]
        cells.append(f"{times['ratio']:.3f} ({times['lowest']:.3f} to {times['highest']:.3f})")
    return cells


def _chain(counts: Any) -> str:
    return " ".join(str(after) for _, after in counts)


def main() -> None:
    given = arguments()
    sizes = json.loads((RESULTS / "size.json").read_text(encoding="utf-8"))
    if given.report:
        print(report(json.loads(given.output.read_text(encoding="utf-8")), sizes))
        return
    from rows import Rows

    rows = Rows(given.output, KEY)
    for key, make in work(given):
        known = rows.find(key)
        if given.again and known is not None:
            rows.rows.remove(known)
        rows.once(key, make)
    print(report(rows.rows, sizes))


if __name__ == "__main__":
    main()
