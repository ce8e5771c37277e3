"""The grid of results: what each method leaves of a network under each budget, in every figure that counts.

    python benchmarks/grid.py                              # CIFAR-10, ResNet-20 of 2 bits; hours on two cores
    python benchmarks/grid.py --precisions binary float    # the others
    python benchmarks/grid.py --quick                      # digits; some minutes
    python benchmarks/grid.py --report                     # the tables of what is there

Budgets are shares of the memory. Every method has the same epochs of training after the same baseline (`criteria.py`
trains and keeps it, ``--cache``), those in which holistic pruning learns its ratios included; trials of a search come
on top. The thin network has the layers that uniform ratios leave, new weights, and all epochs of the baseline and of
the others together.

Each row: accuracy on the validation images and, looked at once, on the test images; parameters, MACs, BOPs, memory;
bytes of the files that `auto` recommends for size and for speed, compared with Keras; their latency as a ratio to the
dense network's file, by turns in one run; memory while they run. Every row is written as soon as it is known, so the
same command goes on where it was stopped. Slim models are kept in ``--work``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import Rows
from tables import table

METHODS = ("thin", "random", "latent L1", "uniform", "sensitivity", "bayesian", "holistic")
BUDGETS = (0.5, 0.74, 0.3)
HALF = 0.5
KEY = ("dataset", "limit", "network", "width", "precision", "method", "budget", "seed", "baseline_epochs", "training")
Cell = tuple[float, str, int]  # budget, method, epochs after the baseline
SCORED = 256  # training images that criteria look at
COSTS = ("params", "macs", "bops", "memory")


def arguments() -> argparse.Namespace:
    from baselines import add_arguments, fill_in

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--precisions", nargs="+", default=["2"], help="binary, float, or bits of DoReFa")
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS), help="shares of the memory")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--training", type=int, help="epochs after the baseline; default 3")
    parser.add_argument("--seeds", type=int, default=3, help="at 0.5, one elsewhere; the thin network has one")
    parser.add_argument("--trials", type=int, help="of the Bayesian search; default 60 (20)")
    parser.add_argument("--rounds", type=int, help="of latencies by turns; default 7 (3)")
    parser.add_argument("--work", type=Path, help="folder of slim models and searches; default runs/grid[_quick]")
    parser.add_argument("--report", action="store_true", help="print the tables of the rows that are there, and end")
    parser.add_argument("--output", type=Path, help="JSON file; default benchmarks/results/grid[_quick].json")
    given = parser.parse_args()
    fill_in(parser, given)
    given.training = given.training or 3
    given.trials = given.trials or (20 if given.quick else 60)
    given.rounds = given.rounds or (3 if given.quick else 7)
    suffix = "_quick" if given.quick else ""
    given.work = given.work or Path(f"runs/grid{suffix}")
    given.output = given.output or Path(__file__).parent / "results" / f"grid{suffix}.json"
    return given


class Bench:
    """One network: its baseline, what methods make of it, and what that costs."""

    def __init__(self, given: argparse.Namespace, precision: str, splits: Any) -> None:
        from baselines import baseline, folder_of

        self.given, self.precision, self.splits = given, precision, splits
        self.model, _ = baseline(given, precision, splits)
        self.folder = given.work / folder_of(given, precision).name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._dense_files: dict[str, Path] = {}

    def dense(self) -> dict[str, Any]:
        """The row of the baseline."""
        return self.figures(self.model)

    def row(self, method: str, share: float, seed: int) -> dict[str, Any]:
        """The row of one method; a slim model that was trained before is loaded."""
        from training import in_one_step

        from tfqprune.loading import load_model

        name = f"{method.replace(' ', '_')}_{share:g}_{seed}_{self.given.training}"
        path = self.folder / f"{name}.keras"
        if path.exists():
            slim = load_model(path)
        else:
            slim = self.slim(method, share, seed)
            in_one_step(path, slim.save)
        return self.figures(slim)

    def slim(self, method: str, share: float, seed: int) -> Any:
        """What a method leaves, trained."""
        import tensorflow as tf
        from training import cut_and_trained, train

        import tfqprune as tq

        given, splits = self.given, self.splits
        if method == "holistic":
            return self.holistic(share, seed)
        plan = self.plan(method, share, seed)
        if method != "thin":
            return cut_and_trained(given, self.model, plan, splits, given.training, seed)
        tf.keras.utils.set_random_seed(seed)
        model = tf.keras.models.clone_model(tq.prune(self.model, plan))
        epochs, folder = given.epochs + given.training, self.folder / f"thin_{share:g}_{seed}_{given.training}"
        train(given, model, splits, epochs, epochs, seed, given.learning_rate, folder, verbose=2)
        return model

    def plan(self, method: str, share: float, seed: int) -> Any:
        """The plan of a method that plans first and trains after."""
        import numpy as np

        import tfqprune as tq
        from tfqprune.scoring import choose_criterion

        budget, splits = tq.Budget(memory=share), self.splits
        chosen = np.random.default_rng(seed).choice(len(splits.train), min(SCORED, len(splits.train)), replace=False)
        samples = (splits.train.x[chosen], splits.train.y[chosen])
        if method == "random":
            criterion = choose_criterion(tq.ChannelGraph(self.model), "random", seed=seed)
            return tq.UniformAllocator(budget).allocate(self.model, criterion)
        if method == "latent L1":
            return tq.UniformAllocator(budget).allocate(self.model, "latent_l1")
        if method in ("uniform", "thin"):
            return tq.UniformAllocator(budget).allocate(self.model, "auto", samples)
        if method == "sensitivity":
            allocator = tq.SensitivityAllocator(
                budget, validation=splits.validation, calibration=splits.train, path=self.folder / f"curves_{seed}.json"
            )
            return allocator.allocate(self.model, "auto", samples)
        tuner = tq.RatioTuner(
            self.model, budget, "auto", self.given.trials, self.folder, f"search_{share:g}_{seed}", seed=seed,
            data=samples, loss="sparse_categorical_crossentropy", metrics=["accuracy"],
        )  # fmt: skip
        tuner.search(splits.train, validation_data=splits.validation, verbose=0)
        return tuner.get_best_plans(1)[0]

    def holistic(self, share: float, seed: int) -> Any:
        """Ratios learned while training."""
        from training import SLOWER, batches

        import tfqprune as tq

        import tensorflow as tf  # isort: skip

        splits, epochs = self.splits, self.given.training
        tf.keras.utils.set_random_seed(seed)
        sample = (splits.train.x[:SCORED], splits.train.y[:SCORED])
        data = batches(self.given, splits.train, seed)
        schedule = tf.keras.optimizers.schedules.CosineDecay(SLOWER * self.given.learning_rate, len(data) * epochs)
        hfp = tq.HolisticPruning(self.model, tq.Budget(memory=share), "auto", sample)
        hfp.compile(tf.keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
        hfp.fit(data, epochs=epochs, verbose=0)
        return hfp.finish()

    def figures(self, model: Any) -> dict[str, Any]:
        """All that is measured of a model."""
        from training import accuracy

        import tfqprune as tq

        cost = tq.cost(model)
        return {
            "validation": accuracy(model, self.splits.validation),
            "test": accuracy(model, self.splits.test),
            "cost": {name: int(cost[name]) for name in COSTS},
            "files": self.files(model),
        }

    def files(self, model: Any) -> dict[str, dict[str, Any]]:
        """Files that are recommended, by format: bytes, agreement, latency over the dense file's, memory."""
        from latency import compare

        import tflite_export as te

        found: dict[str, dict[str, Any]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for aim in ("size", "speed"):
                path = Path(folder) / f"{aim}.tflite"
                result = te.export(
                    model, path, "auto", optimize=aim, data=self.splits.validation.x[:SCORED], samples=SCORED
                )
                if result.format in found:
                    continue
                measured = te.benchmark(path, runs=10)
                row = {
                    "bytes": result.bytes, "floor_bytes": result.floor_bytes, "top1": result.agreement.top1,
                    "max_error": result.agreement.max_error, "peak_memory": measured.peak_memory,
                    "arena_bytes": measured.arena_bytes, "runtime": measured.runtime,
                }  # fmt: skip
                if model is self.model:
                    self._dense_files[result.format] = self.folder / f"dense_{result.format}.tflite"
                    path.replace(self._dense_files[result.format])
                else:
                    if not self._dense_files:
                        self.files(self.model)
                    if result.format in self._dense_files:
                        times = compare(self._dense_files[result.format], path, self.given.rounds, 0.2)
                        row["latency"] = {name: times[name] for name in ("ratio", "lowest", "highest")}
                found[result.format] = row
        return found


def work(given: argparse.Namespace, precision: str) -> list[tuple[dict[str, Any], Callable[[Bench], dict[str, Any]]]]:
    """The rows that are asked for, in the order of their worth: key, and what makes the row."""
    common = {
        "dataset": given.dataset, "limit": given.limit, "network": given.network, "width": given.width,
        "precision": precision, "baseline_epochs": given.epochs, "training": given.training,
    }  # fmt: skip
    dense = {**common, "method": "dense", "budget": 1.0, "seed": 0, "training": 0}
    found: list[tuple[dict[str, Any], Callable[[Bench], dict[str, Any]]]] = [(dense, Bench.dense)]
    for seed, share, method in itertools.product(range(given.seeds), given.budgets, reversed(given.methods)):
        if (seed and (share != HALF or method == "thin")) or (method == "thin" and share != HALF):
            continue
        key = {**common, "method": method, "budget": share, "seed": seed}
        found.append((key, lambda bench, key=key: bench.row(key["method"], key["budget"], key["seed"])))
    return found


# -- report -------------------------------------------------------------------------------------------------------


def report(rows: list[dict[str, Any]]) -> str:
    """A table for each network and budget, in Markdown; means over seeds."""
    blocks = []
    for (dataset, limit, network, width, precision, epochs), cells in by_setting(rows).items():
        whole = cells[1.0, "dense", 0][0]
        kind = {"binary": "binary (1/1)", "float": "float"}.get(precision, f"DoReFa ({precision}/{precision})")
        images = "" if limit is None else f", {limit} images"
        formats = list(whole["files"])
        heads = ["budget", "method", "epochs", "seeds", "test", "validation"]
        heads += ["params", "MACs", "BOPs", "memory"]
        heads += [f"`{name}`: {what}" for name in formats for what in ("bytes", "latency", "RAM")]
        lines = [
            f"**{network_name(network, width)}, {kind}, {dataset}{images}, {epochs} epochs of baseline**",
            "",
            f"| {' | '.join(heads)} |",
            "| ---: | --- |" + " ---: |" * (len(heads) - 2),
        ]
        lines += [_line(found, whole, formats) for found in best_first(cells)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def in_short(row: dict[str, Any]) -> bool:
    """Whether a row belongs into the summary: a dense network on CIFAR-10, or one at half of its memory."""
    return (row["dataset"], row["limit"]) == ("cifar10", None) and row["budget"] in (1.0, HALF)


def summary(rows: list[dict[str, Any]]) -> str:
    """Rows chosen by :func:`in_short`, a line for each method, in Markdown; the best first."""
    lines = []
    for (_, _, network, width, precision, _), cells in by_setting(rows).items():
        for found in best_first(cells):
            costs = {name: statistics.mean(row["cost"][name] for row in found) for name in ("params", "macs")}
            small = statistics.mean(min(file["bytes"] for file in row["files"].values()) for row in found)
            lines.append(
                [f"{network_name(network, width)}, {bits(precision)}", found[0]["method"], epochs_of(found[0]),
                 str(len(found)), percent(accuracies(found)),
                 f"{costs['params'] / 1e3:.0f} k", f"{costs['macs'] / 1e6:.1f} M", f"{small / 1024:.1f} KiB"]
            )  # fmt: skip
    return table(["network", "method", "epochs", "seeds", "test", "parameters", "MACs", "smallest .tflite"], lines)


def by_setting(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[Cell, list[dict[str, Any]]]]:
    """Rows of one baseline, of these the seeds of one budget, method and number of epochs after the baseline."""
    settings: dict[tuple[Any, ...], dict[Cell, list[dict[str, Any]]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("dataset", "limit", "network", "width", "precision", "baseline_epochs"))
        cell = (row["budget"], row["method"], row["training"])
        settings.setdefault(key, {}).setdefault(cell, []).append(row)
    return settings


def epochs_of(row: dict[str, Any]) -> str:
    """Those of the baseline, and those after it; the thin network has all of them from new weights on."""
    if row["method"] == "thin":
        return str(row["baseline_epochs"] + row["training"])
    return f"{row['baseline_epochs']} + {row['training']}" if row["training"] else str(row["baseline_epochs"])


def best_first(cells: dict[Cell, list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Those of a budget together; budgets from large to small."""
    return sorted(cells.values(), key=lambda found: (-found[0]["budget"], -statistics.mean(accuracies(found))))


def bits(precision: str) -> str:
    """A precision in a word or two."""
    return precision if precision in ("binary", "float") else f"{precision} bits"


def network_name(name: str, width: float) -> str:
    """With its width, where that is not the usual one."""
    return name if width == 1 else f"{name}, width {width:g}"


def accuracies(found: list[dict[str, Any]], split: str = "test") -> list[float]:
    """Of each seed, in percent."""
    return [100 * row[split] for row in found]


def percent(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} %"


def _line(found: list[dict[str, Any]], whole: dict[str, Any], formats: list[str]) -> str:
    """One row of a table: the means of one method under one budget."""
    first = found[0]
    dense = first["method"] == "dense"
    cells = [
        f"{first['budget']:g}", first["method"], epochs_of(first), str(len(found)),
        percent(accuracies(found)), percent(accuracies(found, "validation")),
    ]  # fmt: skip
    for name in COSTS:
        mean = statistics.mean(row["cost"][name] for row in found)
        cells.append(f"{mean:,.0f}" if dense else f"{mean / whole['cost'][name]:.3f}")
    for name in formats:
        files = [row["files"][name] for row in found if name in row["files"]]
        if not files:
            cells += ["-"] * 3
            continue
        ratios = [entry["latency"]["ratio"] for entry in files if "latency" in entry]
        cells += [
            f"{statistics.mean(entry['bytes'] for entry in files):,.0f}",
            f"{statistics.mean(ratios):.2f}" if ratios else "1",
            f"{statistics.mean(entry['peak_memory'] for entry in files) / 2**20:.2f} MiB",
        ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    given = arguments()
    rows = Rows(given.output, KEY)
    if not given.report:
        from baselines import load_data

        splits = load_data(given)
        for precision in given.precisions:
            bench = None
            for key, make in work(given, precision):
                if rows.find(key) is None:
                    bench = bench or Bench(given, precision, splits)
                    rows.once(key, lambda make=make, bench=bench: make(bench))
    print(report(rows.rows))


if __name__ == "__main__":
    main()
