"""Which criterion is best? Accuracy after a cut by each of them, on real data.

    python benchmarks/criteria.py                 # CIFAR-10, binary and 2-bit DoReFa ResNet-20; hours on two cores
    python benchmarks/criteria.py --quick         # digits, small networks, two seeds; some minutes
    python benchmarks/criteria.py --split test    # the same plans judged on the test set, once all is chosen

For each network, scope (the groups inside a block; all groups), ratio, seed and criterion: accuracy right after the
cut, after the batch norms were re-estimated, and after one epoch of fine-tuning. A seed chooses the samples that are
scored, the random scores, and the order of fine-tuning; the baseline is the same. The first two accuracies are taken on
the evaluation twin, which computes what the slim model does at a fraction of the time (``trial_cost.py``); what is
fine-tuned is the slim model. Criteria that choose the same units share their accuracies. Every number is written as
soon as it is known: the same command goes on where it was stopped, and two may share the work, one for each precision.
Baselines are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from baselines import add_arguments, baseline, fill_in, load_data
from criteria_report import STAGES, report
from nets import versions
from rows import changing, command
from training import CALIBRATION, accuracy, cut_and_trained

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import data
from tfqprune.criteria import FlipFrequencyCallback, criterion_names
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.criteria.reconstruction import Reconstruction
from tfqprune.evaluation import CALIBRATION_BATCH
from tfqprune.plan import PruningPlan, plan_from_ratios
from tfqprune.scoring import choose_criterion, run_criterion

#: how a combination is called in the tables -> its weights
COMBINATIONS = {
    "rank_combination": {"reconstruction": 1.0, "fisher": 1.0},
    "reconstruction + mean_activation": {"reconstruction": 1.0, "mean_activation": 1.0},
}
RESCALED = "reconstruction, rescaled 0.7"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--precisions", nargs="+", default=["binary", "2"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--seeds", type=int, help="default 3 (2)")
    parser.add_argument("--criteria", nargs="+", help="default: all")
    parser.add_argument("--baselines-only", action="store_true", help="train the baselines into the cache, and end")
    parser.add_argument("--no-finetuning", action="store_true", help="leave the last stage for a later run")
    parser.add_argument(
        "--split", choices=["validation", "test"], default="validation", help="what accuracy is taken on"
    )
    parser.add_argument("--output", type=Path, help="folder of results; default docs (the cache with --quick)")
    given = parser.parse_args()
    fill_in(parser, given)
    quick = given.quick
    given.seeds = given.seeds or (2 if quick else 3)
    given.output = given.output or (given.cache if quick else Path("docs"))
    return given


class Results:
    """Numbers by key, on disk after each one; several processes may share the file."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        empty = {"settings": settings, "baselines": {}, "commands": [], "versions": {}, "rows": []}
        with changing(path, empty) as self.content:
            if self.content["settings"] != settings:
                raise SystemExit(
                    f"{path} holds results of other settings:\n{self.content['settings']}\ninstead of\n{settings}\n"
                    "Choose another --output, or remove the file."
                )
        self.done = {self.key(row) for row in self.content["rows"]}
        print(f"{len(self.done)} results in {path} so far")

    @staticmethod
    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("precision", "scope", "ratio", "seed", "criterion", "stage"))

    def begin(self, precision: str, base: dict[str, Any]) -> None:
        """Notes a baseline, the command and the versions.

        Raises:
            SystemExit: the rows that are there are of another baseline.
        """
        with changing(self.path, None) as self.content:
            known = self.content["baselines"].setdefault(precision, base)
            off = abs(known["accuracy"] - base["accuracy"])  # threads add in another order: a sample may flip
            if off > 1e-3 or {**known, "accuracy": 0} != {**base, "accuracy": 0}:
                raise SystemExit(
                    f"{self.path} holds results of another baseline for {precision}:\n{known}\ninstead of\n{base}\n"
                    "Choose another --output, or remove the file."
                )
            self.content["commands"] = sorted({*self.content["commands"], command()})
            self.content["versions"] = versions()

    def add(self, row: dict[str, Any]) -> None:
        with changing(self.path, None) as self.content:
            self.content["rows"].append(row)
        self.done.add(self.key(row))

    def missing(self, cell: tuple[Any, ...], stages: Collection[str]) -> list[str]:
        """Of the stages that are asked for, those that a cell (a key without its stage) does not have yet."""
        return [stage for stage in stages if (*cell, stage) not in self.done]

    def same(self, row: dict[str, Any], stage: str) -> float | None:
        """The accuracy that another criterion had with the same plan and seed."""
        alike = {**{name: row[name] for name in ("precision", "seed", "plan")}, "stage": stage}
        found = (one["accuracy"] for one in self.content["rows"] if alike.items() <= one.items())
        return next(found, None)


# -- cuts ---------------------------------------------------------------------------------------------------------


def digest(plan: PruningPlan) -> str:
    """A short name of what goes."""
    return hashlib.sha256(json.dumps(plan.removed, sort_keys=True).encode()).hexdigest()[:16]


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
    elif name == RESCALED:
        criterion = Reconstruction(rescaled=0.7)
    elif name in COMBINATIONS:
        criterion = choose_criterion(graph, COMBINATIONS[name], samples)
    else:
        criterion = choose_criterion(graph, name, samples)
    return run_criterion(graph, criterion, samples)


def judged(
    given: argparse.Namespace,
    twin: tq.EvaluationTwin,
    plan: PruningPlan,
    splits: data.DataSplits,
    seed: int,
    stages: Collection[str],
) -> Iterator[tuple[str, float]]:
    """Accuracies of what a plan leaves, at the stages that are asked for."""
    if not stages:
        return
    judge = splits.validation if given.split == "validation" else splits.test
    order = np.random.default_rng(seed).permutation(len(splits.train))[:CALIBRATION]
    calibration = splits.train.x[order]
    twin.set_plan(plan)
    if "cut" in stages:
        yield "cut", accuracy(twin, judge)
    if "batch_norms" in stages:
        twin.re_estimate(
            calibration[first : first + CALIBRATION_BATCH] for first in range(0, len(calibration), CALIBRATION_BATCH)
        )
        yield "batch_norms", accuracy(twin, judge)
    if "finetuned" in stages:
        folder = given.cache / "finetuned"  # for the test images, later
        slim = cut_and_trained(given, twin.graph.model, plan, splits, 1, seed, calibration, folder)
        yield "finetuned", accuracy(slim, judge)


def main() -> None:
    given = arguments()
    splits = load_data(given)
    if given.baselines_only:
        for precision in given.precisions:
            baseline(given, precision, splits)
        return
    stages = list(STAGES)[: 2 if given.no_finetuning else 3]
    names = given.criteria or [*dict.fromkeys([*criterion_names(), *COMBINATIONS]), RESCALED]
    settings = {key: getattr(given, key) for key in ("dataset", "limit", "learning_rate", "batch_size")}
    suffix = "" if given.split == "validation" else "_test"
    results = Results(given.output / f"criteria{suffix}.json", {**settings, "split": given.split})
    judge = splits.validation if given.split == "validation" else splits.test
    for precision in given.precisions:
        model, flips = baseline(given, precision, splits)
        base = {"accuracy": accuracy(model, judge), "epochs": given.epochs, "finish": given.finish}
        results.begin(precision, base)
        print(f"{precision}: baseline {base['accuracy']:.4f} on {given.split}", flush=True)
        graph = tq.ChannelGraph(model)
        twin = tq.EvaluationTwin(graph)
        for seed, name in itertools.product(range(given.seeds), names):
            wanted = {
                (scope, ratio): missing
                for scope, ratio in itertools.product(scopes(graph), given.ratios)
                if (missing := results.missing((precision, scope, ratio, seed, name), stages))
            }
            if not wanted:
                continue
            began = time.monotonic()
            scores = scores_of(name, graph, splits.train, seed, flips)
            seconds = time.monotonic() - began
            for (scope, ratio), missing in wanted.items():
                plan = plan_from_ratios(graph, dict.fromkeys(scopes(graph)[scope], ratio), scores, criterion=name)
                row = {
                    "precision": precision, "scope": scope, "ratio": ratio, "seed": seed, "criterion": name,
                    "plan": digest(plan), "scoring_seconds": round(seconds, 3),
                }  # fmt: skip
                same = {stage: value for stage in missing if (value := results.same(row, stage)) is not None}
                rest = judged(given, twin, plan, splits, seed, [stage for stage in missing if stage not in same])
                for stage, value in itertools.chain(same.items(), rest):
                    results.add({**row, "stage": stage, "accuracy": value})
                    print(f"{precision} {scope} {ratio} seed {seed} {name} {stage}: {value:.4f}", flush=True)
    report(results.content, given.output, f"criteria{suffix}")


if __name__ == "__main__":
    main()
