"""Holistic pruning: are targets hit, which gates train best, what does it cost, and how accurate is what comes out?

    python benchmarks/holistic.py                                  # CIFAR-10, ResNet-20; hours on two cores
    python benchmarks/holistic.py --quick                          # digits; a quarter of an hour
    python benchmarks/holistic.py --parts targets --limit 4096     # one part, on fewer images
    python benchmarks/holistic.py --report                         # the tables of what is kept, into docs/holistic.md

Parts:

- ``targets``: budgets of params and macs, each at 0.7, 0.5 and 0.4, after a short training: what is left of each cost,
  as a share of the original and of the target.
- ``accuracy``: at 0.5, holistic pruning, uniform ratios and a Bayesian search of ratios, each with the same number of
  epochs of training after the baseline (the trials of the search come on top).
- ``overhead``: seconds of a training step of ``fit``, over those of the plain model in the same run.
- ``gates``: the ways in which gates may learn, at 0.5: hard or soft, numbers of their own or batch-norm scales, and a
  penalty by dual ascent in place of the projection onto a falling target; accuracy after the same epochs.

Every row is written as soon as it is known, with the command and the versions: the same command goes on where it was
stopped. Baselines are those of ``criteria.py``, from ``--cache``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from baselines import add_arguments, baseline, fill_in, load_data, network
from rows import Rows
from tables import source
from training import SLOWER, accuracy, batches, cut_and_trained

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune.data import DataSplits

import tensorflow as tf  # isort: skip

HERE = Path(__file__).parent
PARTS = ("targets", "overhead", "accuracy", "gates")
METHODS = ("holistic", "uniform", "bayesian")
BUDGETS = (0.7, 0.5, 0.4)
HALF = 0.5
STEPS = 10  # of one fit, where steps are timed: an epoch of the digits
KEY = ("dataset", "limit", "part", "precision", "what", "budget", "seed")  # of a row
CRITERION = "reconstruction"  # of all networks, so that methods and precisions differ in nothing else


class DualAscent(tq.HolisticPruning):
    """Gates pushed by a penalty on the costs, whose factors a controller raises and lowers (for comparison only).

    A factor grows with the sum of how far its cost lay above the target so far, and with how far it does now.
    """

    INTEGRAL, PROPORTIONAL = 200.0, 20.0

    def _steer(self, pull: tf.Tensor) -> dict[str, tf.Tensor]:
        gates, costs, names = self._gates, self._costs, self._costs.names
        shares = tf.cast(costs(gates.indicators()) / self._original, tf.float32)
        target = tf.cast(self._target(self._clock), tf.float32)
        learning = (self._clock < self._horizon) & ~self._frozen
        steps = tf.cast(self._horizon, tf.float32)
        error = shares - target
        summed = tf.maximum(self._weights + self.INTEGRAL / steps * error, 0.0)
        factors = tf.maximum(summed + self.PROPORTIONAL * error, 0.0)
        mean = 0.9 * self._mean + 0.1 * gates.unit(pull)
        push = tf.linalg.matvec(self._pushes, factors, transpose_a=True)
        values = self._values - (mean + push) / steps
        for variable, value in ((self._mean, mean), (self._weights, summed), (self._values, values)):
            variable.assign(tf.where(learning, value, variable))
        self._thresholds.assign(tf.where(learning, tf.zeros_like(values), self._thresholds))
        self._clock.assign_add(1)
        logs = {name: shares[index] for index, name in enumerate(names)}
        return {**logs, **{f"{name}_target": target[index] for index, name in enumerate(names)}}


#: variant of the gates -> how it is made
VARIANTS: dict[str, tuple[type[tq.HolisticPruning], dict[str, Any]]] = {
    "own, hard": (tq.HolisticPruning, {}),
    "own, soft": (tq.HolisticPruning, {"gate": "soft"}),
    "scales, hard": (tq.HolisticPruning, {"values": "scales"}),
    "scales, soft": (tq.HolisticPruning, {"values": "scales", "gate": "soft"}),
    "own, hard, dual ascent": (DualAscent, {}),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--precisions", nargs="+", default=["2", "binary", "float"])
    parser.add_argument("--training", type=int, help="epochs after the baseline; default 3 (10)")
    parser.add_argument("--short", type=int, help="the same, where only the targets are looked at; default 1 (10)")
    parser.add_argument("--seeds", type=int, help="default 1 (2)")
    parser.add_argument("--trials", type=int, help="of the Bayesian search; default 30 (10)")
    parser.add_argument("--report", action="store_true", help="render the tables of the rows that are there, and end")
    parser.add_argument("--output", type=Path, help="JSON file; default benchmarks/results/holistic[_quick].json")
    given = parser.parse_args()
    fill_in(parser, given)
    quick = given.quick
    given.training = given.training or (10 if quick else 3)
    given.short = given.short or (10 if quick else 1)
    given.seeds = given.seeds or (2 if quick else 1)
    given.trials = given.trials or (10 if quick else 30)
    name = "holistic_quick.json" if quick else "holistic.json"
    given.output = given.output or HERE / "results" / name
    return given


class Stopwatch(tf.keras.callbacks.Callback):
    """The seconds of an epoch; without hooks for batches, for which Keras would wait at every step."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds = time.perf_counter() - self._began


class Bench:
    """One precision of one data set."""

    def __init__(self, given: argparse.Namespace, precision: str, splits: DataSplits) -> None:
        self.given, self.precision, self.splits = given, precision, splits
        self._trained: dict[Any, dict[str, Any]] = {}

    @functools.cached_property
    def model(self) -> tf.keras.Model:
        """The baseline; the overhead of a step is measured without."""
        return baseline(self.given, self.precision, self.splits)[0]

    @functools.cached_property
    def whole(self) -> Any:
        """Its costs."""
        return tq.cost(self.model)

    def data(self, seed: int) -> tf.data.Dataset:
        return batches(self.given, self.splits.train, seed)

    def rate(self, epochs: int) -> tf.keras.optimizers.schedules.LearningRateSchedule:
        steps = len(self.data(0)) * epochs
        return tf.keras.optimizers.schedules.CosineDecay(SLOWER * self.given.learning_rate, steps)

    def holistic(
        self, share: float, seed: int, epochs: int, kind: type[tq.HolisticPruning] = tq.HolisticPruning, **options: Any
    ) -> dict[str, Any]:
        """Trains with gates, once for the same arguments; costs and accuracies of the slim model."""
        key = (share, seed, epochs, kind, tuple(options.items()))
        if key not in self._trained:
            self._trained[key] = self._holistic(share, seed, epochs, kind, **options)
        return self._trained[key]

    def _holistic(
        self, share: float, seed: int, epochs: int, kind: type[tq.HolisticPruning], **options: Any
    ) -> dict[str, Any]:
        tf.keras.utils.set_random_seed(seed)
        sample = (self.splits.train.x[:256], self.splits.train.y[:256])
        hfp = kind(self.model, tq.Budget(params=share, macs=share), CRITERION, sample, **options)
        hfp.compile(tf.keras.optimizers.Adam(self.rate(epochs)), "sparse_categorical_crossentropy")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            hfp.fit(self.data(seed), epochs=epochs, verbose=0)
        notes = hfp.plan().notes
        texts = [str(entry.message) for entry in said if str(entry.message).startswith("Expected")]
        learned = {f"learned_{name}": value for name, value in notes["learned"].items()}
        return {**self.judged(hfp.finish(), share), **learned, "steps": notes["steps"], "warned": texts}

    def tuned(self, plan: tq.PruningPlan, share: float, seed: int) -> dict[str, Any]:
        """Cuts by a plan and fine-tunes; the same figures."""
        epochs = self.given.training
        slim = cut_and_trained(self.given, self.model, plan, self.splits, epochs, seed)
        return self.judged(slim, share)

    def method(self, name: str, share: float, seed: int) -> dict[str, Any]:
        """One of the methods with the same epochs."""
        budget = tq.Budget(params=share, macs=share)
        train, validation = self.splits.train, self.splits.validation
        if name == "holistic":
            return self.holistic(share, seed, self.given.training)
        if name == "uniform":
            return self.tuned(tq.UniformAllocator(budget).allocate(self.model, CRITERION, train), share, seed)
        folder = self.given.cache / f"search_{self.given.dataset}_{self.precision}_{self.given.trials}"
        tuner = tq.RatioTuner(
            self.model, budget, CRITERION, self.given.trials, folder, f"seed_{seed}", seed=seed,
            loss="sparse_categorical_crossentropy", metrics=["accuracy"],
        )  # fmt: skip
        tuner.search(train, validation_data=validation, verbose=0)
        return self.tuned(tuner.get_best_plans(1)[0], share, seed)

    def judged(self, slim: tf.keras.Model, share: float) -> dict[str, Any]:
        """Costs of a slim model as shares of the target, and its accuracies."""
        cost = tq.cost(slim)
        return {
            **{f"{name}_of_target": cost[name] / (share * self.whole[name]) for name in ("params", "macs")},
            "validation": accuracy(slim, self.splits.validation),
            "test": accuracy(slim, self.splits.test),
        }

    def overhead(self) -> dict[str, Any]:
        """Seconds of a step of ``fit``, of the plain model and with gates, by turns on the same batch."""
        plain = network(self.given, self.precision, self.splits)
        gated = tq.HolisticPruning(plain, tq.Budget(params=HALF, macs=HALF), "latent_l1")
        batch = min(self.given.batch_size, len(self.splits.train))
        x, y = self.splits.train.x[:batch], self.splits.train.y[:batch]
        feed, watch = tf.data.Dataset.from_tensors((x, y)).cache().repeat(), Stopwatch()
        times: list[list[float]] = [[], []]
        rounds = 5 if self.given.dataset != "digits" else 20
        for model in (plain, gated):
            model.compile("adam", "sparse_categorical_crossentropy")
        for turn in range(rounds + 1):
            for model, own in zip((plain, gated), times, strict=True):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # gates stand still from the first fit on
                    model.fit(feed, steps_per_epoch=STEPS, callbacks=[watch], verbose=0)
                if turn:  # the first traces; afterwards a step computes the same, whether its gates learn or not
                    own.append(watch.seconds / STEPS)
        ratios = [after / before for before, after in zip(*times, strict=True)]
        return {
            "plain_seconds": statistics.median(times[0]),
            "gated_seconds": statistics.median(times[1]),
            "ratio": statistics.median(ratios),
            # Other work on the machine makes steps longer, never shorter.
            "ratio_of_fastest": min(times[1]) / min(times[0]),
            "ratio_quartiles": [float(value) for value in np.percentile(ratios, [25, 75])],
            "rounds": rounds,
        }


def work(
    given: argparse.Namespace, part: str, bench: Bench
) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """The rows of one part: key, and what makes the row."""
    common = {"dataset": given.dataset, "limit": given.limit, "precision": bench.precision}
    epochs = given.training
    for seed in range(given.seeds):
        key = {**common, "part": part, "seed": seed}
        if part == "targets":
            for share in BUDGETS:
                yield (
                    {**key, "what": f"{given.short} epochs", "budget": share},
                    lambda share=share, seed=seed: bench.holistic(share, seed, given.short),
                )
        elif part == "gates":
            for name, (kind, options) in VARIANTS.items():
                if "scales" in name and bench.precision == "binary":
                    continue  # a scale before a sign does nothing
                yield (
                    {**key, "what": f"{name}, {epochs} epochs", "budget": HALF},
                    lambda kind=kind, options=options, seed=seed: bench.holistic(HALF, seed, epochs, kind, **options),
                )
        elif part == "accuracy":
            for name in METHODS:
                yield (
                    {**key, "what": f"{name}, {epochs} epochs", "budget": HALF},
                    lambda name=name, seed=seed: bench.method(name, HALF, seed),
                )
        elif seed == 0:
            yield {**key, "what": f"batch of {given.batch_size}", "budget": HALF}, bench.overhead


def _span(values: list[float]) -> str:
    """From the least to the largest, or the one there is."""
    least, largest = f"{min(values):.3f}", f"{max(values):.3f}"
    return least if least == largest else f"{least} to {largest}"


def report(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, as Markdown.

    "Gates / target" is the largest cost that the gates had learned, before whole units were fitted onto the budget.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        name = "overhead" if row["part"] == "overhead" else "others"
        key = (name, row["dataset"], row["limit"], row["part"], row["precision"], row["what"], row["budget"])
        cells.setdefault(key, []).append(row)
    lines = [
        "| data | part | network | what | target | seeds | params / target | macs / target | gates / target | test |"
    ]
    lines += ["|" + " --- |" * 10]
    for (name, data, limit, part, precision, what, budget), found in cells.items():
        if name == "overhead":
            continue
        tests = [100 * row["test"] for row in found]
        spans = [_span([row[f"{cost}_of_target"] for row in found]) for cost in ("params", "macs")]
        loads = [max(row[f"learned_{cost}"] for cost in ("params", "macs")) / budget for row in found if "steps" in row]
        learned = _span(loads) if loads else "-"
        spread = f" ± {statistics.stdev(tests):.1f}" if len(tests) > 1 else ""
        where = data if limit is None else f"{data}, {limit} images"
        lines.append(
            f"| {where} | {part} | {precision} | {what} | {budget} | {len(found)} | {spans[0]} | {spans[1]} | "
            f"{learned} | {'-' if part == 'targets' else f'{statistics.mean(tests):.1f}{spread} %'} |"
        )
    lines += [
        "",
        "| data | network | batch | step, plain | step, gates | ratio, median (quartiles) | of the fastest |",
        "|" + " --- |" * 7,
    ]
    for (name, data, _, _, precision, what, _), found in cells.items():
        if name == "overhead":
            row = found[0]
            low, high = row["ratio_quartiles"]
            fastest = f"{row['ratio_of_fastest']:.3f}" if "ratio_of_fastest" in row else "-"
            lines.append(
                f"| {data} | {precision} | {what} | {1e3 * row['plain_seconds']:.0f} ms | "
                f"{1e3 * row['gated_seconds']:.0f} ms | {row['ratio']:.3f} ({low:.3f} to {high:.3f}) | {fastest} |"
            )
    return "\n".join(lines)


def main() -> None:
    given = arguments()
    rows = Rows(given.output, KEY)
    if not given.report:
        splits = load_data(given)
        make_bench = functools.cache(lambda precision: Bench(given, precision, splits))
        for part, precision in itertools.product([part for part in PARTS if part in given.parts], given.precisions):
            for key, make in work(given, part, make_bench(precision)):
                rows.once(key, make)
    rows.publish(f"{report(rows.rows)}\n\n{source(rows.rows)}", "holistic.md")


if __name__ == "__main__":
    main()
