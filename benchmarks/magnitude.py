"""Zeros in place of filters: magnitude pruning by TFMOT and zip, beside filter pruning, from the same networks.

    python benchmarks/magnitude.py            # CIFAR-10, ResNet-20; hours on two cores
    python benchmarks/magnitude.py --quick    # digits; minutes
    python benchmarks/magnitude.py --report   # tables of what is kept

- TensorFlow Model Optimization (TFMOT) sets single weights of the float network to zero while it trains on. Settings
  are those of its guide (tensorflow.org/model_optimization/guide/pruning): fine-tuning instead of training anew,
  ``PolynomialDecay`` with its default power of 3, from no zeros to the final sparsity, a look every 100 steps, and
  no more cuts after half of the steps, so that the network is tuned at its final sparsity; then TensorFlow's
  converter, as it is and with ``Optimize.DEFAULT`` ("combining pruning and quantization" there), and zip.
- Filter pruning, of the float network and of the one with 2 bits: equal ratios under a memory budget, units ranked by
  the default criterion, batch norms re-estimated, files of ``tflite_export``; zipped as well, for the same comparison.
- The float network without the filters that its own training had left dead (``tq.remove_dead_channels``), not trained
  any further: some of what zip finds in the other files. And the same, cut further by equal ratios and trained.

All rows of one data set have the same epochs, batches and learning rate after the baseline. Accuracies are those of the
files, each run in its own runtime, not of the Keras models. Baselines are those of ``criteria.py``, from ``--cache``.
Every row is written as soon as it is known: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tables import source, table

import tflite_export as te
import tfqprune as tq

HERE = Path(__file__).parent
KEY = ("dataset", "limit", "network", "width", "epochs", "training", "precision", "what", "setting", "seed")
SHARED = KEY[:6]  # of all rows that are compared with each other
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
BUDGETS = (0.74, 0.5, 0.3)
FURTHER = (0.3, 0.2, 0.1)  # budgets where the dead filters have gone before
RAMP = 0.5  # share of the steps after which TFMOT's sparsity is final
PEER = "TFMOT"
FORMATS = {"float": ("float32", "float16", "int8"), "2": ("packed",)}
#: rows of a network in the order of the table; a setting belongs in the braces
WORDS = {
    "dense": "dense",
    "dead": "dead filters removed",
    "filters": "filters, memory {}",
    "dead and filters": "dead filters removed, then filters, memory {}",
    PEER: f"{PEER}, sparsity {{}}",
}


def arguments() -> argparse.Namespace:
    from baselines import add_arguments, fill_in

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--precisions", nargs="+", choices=list(FORMATS), default=list(FORMATS), help="default: all of them"
    )
    parser.add_argument("--training", type=int, help="epochs after the baseline; default 15 (10)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print the tables of the rows that are there, and end")
    parser.add_argument("--output", type=Path, help="JSON file; default benchmarks/results/magnitude[_quick].json")
    given = parser.parse_args()
    fill_in(parser, given)
    given.training = given.training or (10 if given.quick else 15)
    name = "magnitude_quick.json" if given.quick else "magnitude.json"
    given.output = given.output or HERE / "results" / name
    return given


class Bench:
    """One precision of one data set."""

    def __init__(self, given: argparse.Namespace, precision: str, splits: Any) -> None:
        from baselines import baseline

        self.given, self.precision, self.splits = given, precision, splits
        self.model, _ = baseline(given, precision, splits)

    def dense(self, _setting: float, _seed: int) -> dict[str, Any]:
        """The baseline as it is."""
        return self.judged(self.model, True, True)

    def dead(self, _setting: float, _seed: int) -> dict[str, Any]:
        """The baseline without its dead filters."""
        slim, _ = tq.remove_dead_channels(self.model, self.splits.train)
        return self.judged(slim, False, True)

    def filters(self, memory: float, seed: int) -> dict[str, Any]:
        """Filters cut by equal ratios, and fine-tuned."""
        return self.cut(self.model, tq.Budget(memory=memory), seed)

    def dead_and_filters(self, memory: float, seed: int) -> dict[str, Any]:
        """Dead filters removed, then others by equal ratios to a share of the baseline's memory, and fine-tuned."""
        slim, _ = tq.remove_dead_channels(self.model, self.splits.train)
        return self.cut(slim, tq.Budget(memory=int(memory * tq.cost(self.model).memory)), seed)

    def cut(self, model: Any, budget: tq.Budget, seed: int) -> dict[str, Any]:
        """Files of what a budget leaves of a model."""
        from training import CALIBRATION

        train = self.splits.train
        plan = tq.UniformAllocator(budget).allocate(model, "auto", train)
        slim = tq.prune(model, plan)
        tq.reestimate_batch_norms(slim, train.x[:CALIBRATION])
        self.tune(slim, seed)
        return self.judged(slim, False, True)

    def magnitude(self, sparsity: float, seed: int) -> dict[str, Any]:
        """Single weights set to zero by TFMOT while the network is fine-tuned."""
        import tensorflow as tf
        import tensorflow_model_optimization as tfmot
        from training import batches

        steps = len(batches(self.given, self.splits.train, seed)) * self.given.training
        end = max(int(RAMP * steps), 1)
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            0.0, sparsity, begin_step=0, end_step=end, frequency=min(100, max(end // 10, 1))
        )
        copy = tf.keras.models.clone_model(self.model)  # wrappers would train the baseline's own weights
        copy.set_weights(self.model.get_weights())
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(copy, schedule)
        self.tune(wrapped, seed, [tfmot.sparsity.keras.UpdatePruningStep()])
        stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
        kernels = [layer.kernel.numpy() for layer in stripped.layers if hasattr(layer, "kernel")]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
        return {"tool": f"{PEER} {version()}", "zeros": round(zeros, 4), **self.judged(stripped, True, False)}

    def tune(self, model: Any, seed: int, callbacks: list[Any] | None = None) -> None:
        """The same training for all."""
        import tensorflow as tf
        from training import SLOWER, batches

        tf.keras.utils.set_random_seed(seed)
        tq.finetune(
            model, batches(self.given, self.splits.train, seed), epochs=self.given.training,
            learning_rate=SLOWER * self.given.learning_rate, loss="sparse_categorical_crossentropy",
            callbacks=callbacks or [],
        )  # fmt: skip

    def judged(self, model: Any, stock: bool, ours: bool) -> dict[str, Any]:
        """Bytes, zipped bytes and accuracies of a model's files: those of TensorFlow's converter, and ours."""
        makers = [self.stock_files] if stock and self.precision == "float" else []
        makers += [self.our_files] if ours else []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            files = {label: self.measured(path) for make in makers for label in make(model, path)}
        return {"params": int(tq.cost(model).params), "files": files}

    def stock_files(self, model: Any, path: Path) -> Iterator[str]:
        """TensorFlow's converter, as it is and with its default optimisation; one file after the other at ``path``."""
        from size import peers

        for label, make in peers(model, False).items():
            if label.startswith("TF converter"):
                path.write_bytes(make())
                yield label

    def our_files(self, model: Any, path: Path) -> Iterator[str]:
        """The formats of ``tflite_export`` for this precision, likewise."""
        asked = [(name, "float32") for name in FORMATS[self.precision]]
        asked += [(name, "int8") for name in FORMATS[self.precision] if name == "packed"]
        sample = self.splits.train.x[:256]
        for name, ends in asked:
            te.export(model, path, name, data=sample, samples=64, strict=False, float_weights=ends)
            yield name if ends == "float32" else f"{name}, float layers in int8"

    def measured(self, path: Path) -> dict[str, Any]:
        parts = {"validation": self.splits.validation, "test": self.splits.test}
        return {
            "bytes": path.stat().st_size,
            "zipped": zipped(path.read_bytes()),
            **{name: round(accuracy_of_file(path, part), 6) for name, part in parts.items()},
        }


def version() -> str:
    return metadata.version("tensorflow-model-optimization")


def zipped(content: bytes) -> int:
    """Bytes of a zip archive (deflate) with this file in it, as in TFMOT's guide."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.tflite", content)
    return len(archive.getvalue())


def accuracy_of_file(path: Path, part: Any) -> float:
    """Share of images of which the file finds the class, in its own runtime."""
    from tflite_export.runtime import check_runtime, predict

    runtime, xnnpack = check_runtime(path, None, None)
    answer = predict(path, [part.x], runtime=runtime, xnnpack=xnnpack, timeout=3600)[0]
    return float((np.argmax(answer, axis=-1) == part.y).mean())


def work(given: argparse.Namespace, benches: dict[str, Bench]) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Key of each row, and what makes the row."""
    shared = {name: getattr(given, name) for name in SHARED}
    for seed in range(given.seeds):
        for precision, bench in benches.items():
            tasks = [("filters", memory, bench.filters) for memory in BUDGETS]
            if precision == "float":
                tasks += [(PEER, sparsity, bench.magnitude) for sparsity in SPARSITIES]
                tasks += [("dead and filters", memory, bench.dead_and_filters) for memory in FURTHER]
            if seed == 0:
                tasks.insert(0, ("dense", 1.0, bench.dense))
            if seed == 0 and precision == "float":  # networks of few bits have none
                tasks.insert(1, ("dead", 1.0, bench.dead))
            for what, setting, make in tasks:
                key = {**shared, "precision": precision, "what": what, "setting": setting, "seed": seed}
                yield key, lambda make=make, setting=setting, seed=seed: make(setting, seed)


# -- the report: no TensorFlow from here on -------------------------------------------------------


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown: every file, then for each file of TFMOT the smallest of ours that is at least as accurate."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    order = list(itertools.product(FORMATS, WORDS))
    for row in sorted(rows, key=lambda row: order.index((row["precision"], row["what"]))):
        groups.setdefault(tuple(row[name] for name in SHARED), []).append(row)
    return "\n\n".join(_section(found) for found in groups.values())


def _section(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    files = files_of(rows)
    head = ["network", "what", "parameters", "file", "bytes", "zipped", "validation, %", "test, %"]
    body = [
        [
            file["network"], file["what"], f"{file['params']:,.0f}", file["file"], f"{file['bytes']:,.0f}",
            f"{file['zipped']:,.0f}", f"{100 * file['validation']:.2f}", f"{100 * file['test']:.2f}",
        ]
        for file in files
    ]  # fmt: skip
    name = first["network"] + (f", width {first['width']}" if first["width"] != 1 else "")
    part = f", at most {first['limit']} images a part" if first["limit"] else ""
    tools = sorted({row["tool"] for row in rows if "tool" in row})
    seeds = len({row["seed"] for row in rows})
    return "\n\n".join(
        [
            f"**{first['dataset']}{part}, {name}**: {first['epochs']} epochs of baseline, {first['training']} more for "
            "every row but the dense one and the one without dead filters, "
            f"{seeds} seed{'s, means' * (seeds > 1)}. Accuracies are the files'.",
            table(head, body),
            f"For each file of {PEER} the smallest zipped file of ours with at least its validation accuracy:",
            _matches(files),
            f"{source(rows)} {', '.join(tools)}.",
        ]
    )


def files_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each file, means over seeds."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        for label, file in row["files"].items():
            key = (row["precision"], row["what"], row["setting"], label)
            cells.setdefault(key, []).append({**file, "params": row["params"]})
    return [
        {
            "network": "float" if precision == "float" else f"{precision} bits",
            "peer": what == PEER,
            "what": WORDS[what].format(setting),
            "file": label,
            **{
                name: statistics.mean(file[name] for file in found)
                for name in ("params", "bytes", "zipped", "validation", "test")
            },
        }
        for (precision, what, setting, label), found in cells.items()
    ]


def match(files: list[dict[str, Any]], file: dict[str, Any], network: str) -> dict[str, Any] | None:
    """The smallest zipped file of ours, of one network, with at least the validation accuracy of a file."""
    good = [
        own
        for own in files
        if not own["peer"] and not own["file"].startswith("TF converter")
        if own["network"] == network and own["validation"] >= file["validation"]
    ]
    return min(good, key=lambda own: own["zipped"], default=None)


def _matches(files: list[dict[str, Any]]) -> str:
    body = []
    for file in (file for file in files if file["peer"]):
        cells = [f"{file['what']}: {file['file']}", f"{file['zipped']:,.0f}", f"{100 * file['test']:.2f}"]
        for network in ("float", "2 bits"):
            best = match(files, file, network)
            cells += (
                ["none", "-", "-", "-"]
                if best is None
                else [
                    f"{best['what']}: {best['file']}", f"{best['zipped']:,.0f}",
                    f"{best['zipped'] / file['zipped']:.2f}", f"{100 * best['test']:.2f}",
                ]
            )  # fmt: skip
        body.append(cells)
    head = [f"{PEER}", "zipped", "test, %"]
    for network in ("float", "2 bits"):
        head += [f"ours, {network}", "zipped", f"/ {PEER}", "test, %"]
    return table(head, body)


def main() -> None:
    given = arguments()
    if given.report:
        print(report(json.loads(given.output.read_text(encoding="utf-8"))))
        return
    from baselines import load_data
    from rows import Rows

    rows = Rows(given.output, KEY)
    splits = load_data(given)
    benches = {precision: Bench(given, precision, splits) for precision in given.precisions}
    for key, make in work(given, benches):
        rows.once(key, make)
    print(report(rows.rows))


if __name__ == "__main__":
    main()
