"""Which criterion is best? Accuracy after a cut by each of them, on real data.

    python benchmarks/criteria.py                 # CIFAR-10, binary and 2-bit DoReFa ResNet-20; hours on two cores
    python benchmarks/criteria.py --quick         # digits, small networks, two seeds; some minutes
    python benchmarks/criteria.py --split test    # the same plans judged on the test set, once all is chosen

For each network, scope (the groups inside a block; all groups), ratio, seed and criterion: accuracy right after the
cut, after the batch norms were re-estimated, and after one epoch of fine-tuning. A seed chooses the samples that are
scored, the random scores, and the order of fine-tuning; the baseline is the same. Every number is written as soon as it
is known: the same command goes on where it was stopped. Baselines are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import data, zoo

import tensorflow as tf  # isort: skip
from tfqprune.criteria import FlipFrequencyCallback, criterion_names
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.plan import PruningPlan, plan_from_ratios
from tfqprune.scoring import choose_criterion, run_criterion

STAGES = ("cut", "batch_norms", "finetuned")
COMBINATION = {"reconstruction": 1.0, "fisher": 1.0}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits and a few epochs, to show that it runs")
    parser.add_argument("--dataset", help="default: cifar10 (digits with --quick)")
    parser.add_argument("--precisions", nargs="+", default=["binary", "2"])
    parser.add_argument("--epochs", type=int, help="epochs of each baseline; default 80 (10)")
    parser.add_argument("--finish", type=int, help="of these, the last ones in float32; default 5 (2)")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--seeds", type=int, help="default 3 (2)")
    parser.add_argument("--criteria", nargs="+", help="default: all")
    parser.add_argument("--no-finetuning", action="store_true", help="leave the last stage for a later run")
    parser.add_argument(
        "--split", choices=["validation", "test"], default="validation", help="what accuracy is taken on"
    )
    parser.add_argument("--cache", type=Path, help="folder of baselines; default runs/criteria[_quick]")
    parser.add_argument("--output", type=Path, help="folder of results; default docs (the cache with --quick)")
    given = parser.parse_args()
    quick = given.quick
    given.dataset = given.dataset or ("digits" if quick else "cifar10")
    given.epochs = given.epochs or (10 if quick else 80)
    given.finish = given.finish or (2 if quick else 5)
    given.seeds = given.seeds or (2 if quick else 3)
    given.cache = given.cache or Path("runs/criteria_quick" if quick else "runs/criteria")
    given.output = given.output or (given.cache if quick else Path("docs"))
    if not 1 <= given.finish < given.epochs:
        parser.error(f"--finish must be at least 1 and below --epochs ({given.epochs}); received {given.finish}.")
    return given


class Results:
    """Numbers by key, on disk after each one."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content["settings"] != settings:
                raise SystemExit(
                    f"{path} holds results of other settings:\n{self.content['settings']}\ninstead of\n{settings}\n"
                    "Choose another --output, or remove the file."
                )
            print(f"going on with {len(self.content['rows'])} results in {path}")
        else:
            self.content = {"settings": settings, "baselines": {}, "rows": []}
        self.done = {self.key(row) for row in self.content["rows"]}

    @staticmethod
    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("precision", "scope", "ratio", "seed", "criterion", "stage"))

    def add(self, row: dict[str, Any]) -> None:
        self.content["rows"].append(row)
        self.done.add(self.key(row))
        self.save()

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        os.replace(part, self.path)


# -- baselines ----------------------------------------------------------------------------------------------------


def network(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tf.keras.Model:
    name = "resnet_digits" if given.dataset == "digits" else "resnet20"
    return zoo.build(
        name,
        precision=int(precision) if precision.isdigit() else precision,
        input_shape=splits.input_shape,
        classes=splits.num_classes,
    )


def batches(given: argparse.Namespace, part: data.Split, seed: int) -> tf.data.Dataset:
    """Shuffled batches; natural images shifted by up to an eighth and mirrored."""
    dataset = tf.data.Dataset.from_tensor_slices((part.x, part.y)).shuffle(len(part), seed=seed)
    dataset = dataset.batch(given.batch_size, drop_remainder=len(part) > given.batch_size)
    if given.dataset != "digits":
        dataset = dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = images.shape[1]
    border = size // 8
    images = tf.image.random_flip_left_right(images)
    images = tf.pad(images, [[0, 0], [border, border], [border, border], [0, 0]], mode="REFLECT")
    count = tf.shape(images)[0]
    # one shift for a quarter of the batch each: cheaper than one for each image, and as good over many batches
    parts = [
        tf.image.random_crop(quarter, [tf.shape(quarter)[0], size, size, images.shape[-1]])
        for quarter in tf.split(images, [count // 4, count // 4, count // 4, count - 3 * (count // 4)])
    ]
    return tf.ensure_shape(tf.concat(parts, 0), [None, size, size, images.shape[-1]]), labels


def baseline(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tuple[tf.keras.Model, Any]:
    """A trained network and the flips of its last epochs; from the cache, or trained (and resumed) there."""
    folder = given.cache / f"{given.dataset}_{precision}_{given.epochs}"
    folder.mkdir(parents=True, exist_ok=True)
    final, flips = folder / "final.weights.h5", folder / "flips.npz"
    model = network(given, precision, splits)
    callback = FlipFrequencyCallback(every=10 if given.dataset != "digits" else 1)
    if not final.exists():
        first = given.epochs - given.finish
        steps = len(batches(given, splits.train, 0))
        schedule = tf.keras.optimizers.schedules.CosineDecay(given.learning_rate, steps * given.epochs)
        tf.keras.utils.set_random_seed(0)
        # bfloat16 halves the time of an epoch, but 1/3 is no bfloat16: the last epochs run in float32.
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            coarse = network(given, precision, splits)
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        coarse.compile(tf.keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", ["accuracy"])
        held_out = tf.data.Dataset.from_tensor_slices((splits.validation.x, splits.validation.y)).batch(500)
        coarse.fit(
            batches(given, splits.train, 1),
            epochs=first,
            validation_data=held_out,
            callbacks=[tf.keras.callbacks.BackupAndRestore(str(folder / "backup"))],
            verbose=2,
        )
        model.set_weights(coarse.get_weights())
        rate = float(schedule(steps * first))
        tq.finetune(
            model, batches(given, splits.train, 2), held_out, given.finish, learning_rate=rate, callbacks=[callback],
            verbose=2,
        )  # fmt: skip
        arrays = {"/".join(key): value for key, value in callback.flips.items()}
        np.savez(flips, looks=callback.looks, **arrays)
        model.save_weights(final)
    model.load_weights(final)
    stored = np.load(flips)
    callback.looks = int(stored["looks"])
    callback.flips = {tuple(key.rsplit("/", 1)): stored[key] for key in stored.files if key != "looks"}
    return model, callback


# -- cuts ---------------------------------------------------------------------------------------------------------


def accuracy(model: tf.keras.Model, part: data.Split) -> float:
    right = 0
    for start in range(0, len(part), 500):
        answer = model(part.x[start : start + 500], training=False)
        right += int((np.argmax(answer, axis=-1) == part.y[start : start + 500]).sum())
    return right / len(part)


def scopes(graph: tq.ChannelGraph) -> dict[str, list[str]]:
    """The groups inside a block (one layer each), and all. Binary networks here have none inside a block."""
    found = {
        "inner": [group.name for group in graph.prunable if len(group.layers) == 1],
        "all": [group.name for group in graph.prunable],
    }
    return {name: groups for name, groups in found.items() if groups}


def scores_of(
    name: str, graph: tq.ChannelGraph, train: data.Split, seed: int, flips: FlipFrequencyCallback
) -> dict[str, np.ndarray]:
    chosen = np.random.default_rng(seed).choice(len(train), min(256, len(train)), replace=False)
    samples = (train.x[chosen], train.y[chosen])
    if name == "random":
        criterion = choose_criterion(graph, "random", seed=seed)
    elif name == "flip_frequency":
        criterion = FlipFrequency(flips)
    elif name == "rank_combination":
        criterion = choose_criterion(graph, COMBINATION, samples)
    else:
        criterion = choose_criterion(graph, name, samples)
    return run_criterion(graph, criterion, samples)


def measured(
    given: argparse.Namespace, model: tf.keras.Model, plan: PruningPlan, splits: data.DataSplits, seed: int
) -> Iterator[tuple[str, float]]:
    """One plan at each stage: accuracy."""
    judge = splits.validation if given.split == "validation" else splits.test
    slim = tq.prune(model, plan)
    yield "cut", accuracy(slim, judge)
    order = np.random.default_rng(seed).permutation(len(splits.train))[:4096]
    tq.reestimate_batch_norms(slim, splits.train.x[order])
    yield "batch_norms", accuracy(slim, judge)
    if not given.no_finetuning:
        tf.keras.utils.set_random_seed(seed)
        tq.finetune(slim, batches(given, splits.train, seed), epochs=1, learning_rate=given.learning_rate / 10)
        yield "finetuned", accuracy(slim, judge)


def main() -> None:
    given = arguments()
    splits = data.load(given.dataset)
    names = given.criteria or criterion_names()
    settings = {key: getattr(given, key) for key in ("dataset", "epochs", "finish", "learning_rate", "batch_size")}
    suffix = "" if given.split == "validation" else "_test"
    results = Results(given.output / f"criteria{suffix}.json", {**settings, "split": given.split})
    judge = splits.validation if given.split == "validation" else splits.test
    for precision in given.precisions:
        model, flips = baseline(given, precision, splits)
        results.content["baselines"][precision] = accuracy(model, judge)
        results.save()
        print(f"{precision}: baseline {results.content['baselines'][precision]:.4f} on {given.split}", flush=True)
        graph = tq.ChannelGraph(model)
        for seed, name in itertools.product(range(given.seeds), names):
            wanted = [
                (scope, groups, ratio)
                for (scope, groups), ratio in itertools.product(scopes(graph).items(), given.ratios)
                if any(
                    (precision, scope, ratio, seed, name, stage) not in results.done
                    for stage in STAGES[: 2 if given.no_finetuning else 3]
                )
            ]
            if not wanted:
                continue
            began = time.monotonic()
            scores = scores_of(name, graph, splits.train, seed, flips)
            seconds = time.monotonic() - began
            for scope, groups, ratio in wanted:
                plan = plan_from_ratios(graph, dict.fromkeys(groups, ratio), scores, criterion=name)
                for stage, value in measured(given, model, plan, splits, seed):
                    row = {
                        "precision": precision, "scope": scope, "ratio": ratio, "seed": seed, "criterion": name,
                        "stage": stage, "accuracy": value, "scoring_seconds": round(seconds, 3),
                    }  # fmt: skip
                    if results.key(row) not in results.done:
                        results.add(row)
                    print(f"{precision} {scope} {ratio} seed {seed} {name} {stage}: {value:.4f}", flush=True)
    report(results, given.output, f"criteria{suffix}")


# -- report -------------------------------------------------------------------------------------------------------


def report(results: Results, folder: Path, stem: str) -> None:
    """A table in Markdown and a plot beside the JSON."""
    values: dict[tuple[str, str, float, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results.content["rows"]:
        setting = (row["precision"], row["scope"], row["ratio"], row["stage"])
        values[setting][row["criterion"]].append(100 * row["accuracy"])
    lines = []
    for precision, scope, ratio in dict.fromkeys(key[:3] for key in values):
        stages = [stage for stage in STAGES if (precision, scope, ratio, stage) in values]
        order = values[precision, scope, ratio, "batch_norms"]
        base = 100 * results.content["baselines"][precision]
        lines += [f"\n### {precision}, {scope} groups, ratio {ratio} (baseline {base:.1f} %)\n"]
        lines += ["| criterion | " + " | ".join(stages) + " |", "| --- |" + " --- |" * len(stages)]
        for name in sorted(order, key=lambda entry: -np.mean(order[entry])):
            cells = []
            for stage in stages:
                found = values[precision, scope, ratio, stage].get(name, [])
                cells.append(f"{np.mean(found):.1f} ± {np.std(found):.1f} ({len(found)})" if found else "")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines).strip() + "\n"
    (folder / f"{stem}_table.md").write_text(text, encoding="utf-8")
    print(text)
    plot(values, folder / f"{stem}.svg")


def plot(values: dict[tuple[str, str, float, str], dict[str, list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    settings = [key for key in values if key[3] == "batch_norms"]
    figure, axes = plt.subplots(1, len(settings), figsize=(3.4 * len(settings), 4.5), squeeze=False, sharey=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        table = values[setting]
        names = sorted(table, key=lambda name: np.mean(table[name]))
        axis.barh(names, [np.mean(table[name]) for name in names], xerr=[np.std(table[name]) for name in names])
        axis.set_title(f"{setting[0]}, {setting[1]}, ratio {setting[2]}")
        axis.set_xlabel("accuracy after re-estimation, %")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
