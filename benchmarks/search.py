"""Which search finds the best ratios, and in how many trials? Budgets, networks and trials are the same for all.

    python benchmarks/search.py --quick              # digits, small networks
    python benchmarks/search.py                      # CIFAR-10, ResNet-20 of the criteria benchmark
    python benchmarks/search.py --fidelity 40        # how far fewer images rank plans as all of them do
    python benchmarks/search.py --final              # fine-tunes the best plans, and looks at the test set, once each

A trial is the proxy of ``RatioTuner``: units cut on the evaluation twin, batch norms re-estimated on ``--calibration``
training images, accuracy on ``--images`` validation images. What a plan is worth is kept on disk and shared by all
methods and seeds; every search is repeatable from its seed, so the same command goes on wherever it was stopped.
Units are ranked once for each network, by `reconstruction` on 256 training images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Some dozens of points make small matrices, where threads wait for each other; the same for every method.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from baselines import add_arguments, baseline, fill_in, folder_of, load_data
from nets import versions
from rows import changing, command
from search_report import report
from searchers import SEARCHERS, Counts
from training import accuracy, cut_and_trained

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import data
from tfqprune.allocation.curves import LADDER, SensitivityCurves, measure
from tfqprune.allocation.identity import model_digest, scores_digest
from tfqprune.data.batching import untuned
from tfqprune.evaluation import PlanEvaluator
from tfqprune.fitting import Fitter
from tfqprune.pipeline.environment import processor
from tfqprune.scoring import choose_criterion, run_criterion

import tensorflow as tf  # isort: skip

HERE = Path(__file__).parent
SETTINGS = ("2:0.5", "2:0.3", "binary:0.5")
PACKAGES = ("tensorflow", "tf_keras", "larq", "keras-tuner", "scikit-learn", "optuna", "numpy")
SCORED = 256  # training images that the criterion looks at
CRITERION = "reconstruction"  # of all networks, so that they differ in nothing else
FINAL_EPOCHS = 3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="precision:memory, as in 2:0.5")
    parser.add_argument("--methods", nargs="+", default=list(SEARCHERS), choices=list(SEARCHERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--calibration", type=int, default=1024, help="training images for the batch norms")
    parser.add_argument("--images", type=int, default=2500, help="validation images of a trial")
    parser.add_argument("--fidelity", type=int, metavar="PLANS", help="rank random plans by fewer images and by all")
    parser.add_argument(
        "--final", action="store_true", help="fine-tune the best plans of --methods, first setting, and test"
    )
    parser.add_argument("--work", type=Path, help="folder of evaluations; default runs/search[_quick]")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of the plot and the tables")
    given = parser.parse_args()
    fill_in(parser, given)
    given.work = given.work or Path("runs/search_quick" if given.quick else "runs/search")
    for setting in given.settings:
        precision, _, memory = setting.partition(":")
        if not precision or not 0 < float(memory or 0) <= 1:
            parser.error(f"--settings are precision:memory, as in 2:0.5; received {setting!r}.")
    return given


class Evaluations:
    """What plans are worth, on disk after each one.

    Args:
        path: a line of JSON for each plan.
        fitter: turns numbers of units into slots.
        splits: the data.
        calibration: training images for the batch norms.
        images: validation images.
    """

    def __init__(self, path: Path, fitter: Fitter, splits: data.DataSplits, calibration: int, images: int) -> None:
        self.path, self.fitter = path, fitter
        self.calibration, self.images = calibration, min(images, len(splits.validation))
        self._splits, self._evaluator = splits, None
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # cut off when the process was killed
                self._known[entry["plan"]] = entry

    def __call__(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Accuracy, loss and seconds of a plan, by units that go from each group."""
        key = " ".join(str(counts.get(name, 0)) for name in self.fitter.names)
        if key not in self._known:
            if self._evaluator is None:
                validation = (self._splits.validation.x[: self.images], self._splits.validation.y[: self.images])
                self._evaluator = PlanEvaluator(
                    self.fitter.graph, validation, self._splits.train, calibration_samples=self.calibration
                )
                self._evaluator({})  # traced before the clock runs
            began, cpu = time.perf_counter(), time.process_time()
            results = self._evaluator(self.fitter.removed(counts))
            entry = {
                "plan": key,
                **results,
                "seconds": round(time.perf_counter() - began, 4),
                "cpu_seconds": round(time.process_time() - cpu, 4),
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write("\n" * self._torn() + json.dumps(entry) + "\n")
            self._known[key] = entry
        return self._known[key]

    def _torn(self) -> bool:
        """Whether the last line has no end: a process was killed while it wrote."""
        return self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0

    def times(self) -> dict[str, float]:
        """Medians over all plans."""
        return {
            name: float(np.median([entry[name] for entry in self._known.values()]))
            for name in ("seconds", "cpu_seconds")
        }


class Setting:
    """One network under one budget."""

    def __init__(self, given: argparse.Namespace, name: str, splits: data.DataSplits) -> None:
        precision, _, memory = name.partition(":")
        self.name, self.given, self.splits = name, given, splits
        self.model, _ = baseline(given, precision, splits)
        graph = tq.ChannelGraph(self.model)
        samples = (splits.train.x[:SCORED], splits.train.y[:SCORED])
        criterion = choose_criterion(graph, CRITERION, samples)
        scores = run_criterion(graph, criterion, samples)
        self.fitter = Fitter(graph, scores, tq.Budget(memory=float(memory)))
        identity = f"{model_digest(graph)}_{scores_digest(scores)}"
        self.folder = given.work / folder_of(given, precision).name / identity
        self.facts = {"criterion": criterion.name, "groups": len(self.fitter.names), "identity": identity}

    def evaluations(self, calibration: int | None = None, images: int | None = None) -> Evaluations:
        """Plans' worth by so many images; None: as many as were asked for."""
        calibration, images = calibration or self.given.calibration, images or self.given.images
        images = min(images, len(self.splits.validation))
        return Evaluations(self.folder / f"{calibration}_{images}.jsonl", self.fitter, self.splits, calibration, images)

    def uniform(self) -> Counts:
        most = self.fitter.most
        return self.fitter.fit(lambda ratio: {name: min(ratio, most[name]) for name in most}).counts

    def sensitivity(self, evaluations: Evaluations) -> tuple[Counts, int]:
        """The plan, and how many evaluations it took."""
        curves = self.curves(evaluations)
        taken = 1 + sum(map(len, curves.values.values()))
        return self.fitter.fit(curves.family(self.fitter.names)).counts, taken

    def curves(self, evaluations: Evaluations) -> SensitivityCurves:
        """What groups alone lose; evaluations that are there already are not repeated."""
        return measure(
            SensitivityCurves(),
            self.fitter,
            lambda removed: evaluations({name: len(slots) for name, slots in removed.items()})["accuracy"],
            LADDER,
        )


def search(setting: Setting, evaluations: Evaluations, method: str, seed: int) -> dict[str, Any]:
    """One search: values, seconds (wall, CPU) of suggestions, the best plan."""
    searcher = SEARCHERS[method](setting.fitter, setting.given.trials, seed, setting.curves(evaluations))
    values: list[float] = []
    suggesting: list[tuple[float, float]] = []
    best: Counts = {}
    for _ in range(setting.given.trials):
        began = np.array([time.perf_counter(), time.process_time()])
        try:
            counts = searcher.ask()
        except StopIteration:
            break
        asked = np.array([time.perf_counter(), time.process_time()]) - began
        value = evaluations(counts)["accuracy"]
        if not values or value > max(values):
            best = counts
        values.append(value)
        began = np.array([time.perf_counter(), time.process_time()])
        searcher.tell(value)
        asked += np.array([time.perf_counter(), time.process_time()]) - began
        suggesting.append(tuple(np.round(asked, 5).tolist()))
    return {"seed": seed, "values": values, "suggesting": suggesting, "best": best}


def run_setting(setting: Setting, found: dict[str, Any], save: Any) -> None:
    """All methods and seeds on one setting; what is known already is left out."""
    given, evaluations = setting.given, setting.evaluations()
    full = setting.evaluations(images=len(setting.splits.validation))
    found.update(setting.facts, baseline=evaluations({})["accuracy"])
    if "uniform" not in found:
        counts = setting.uniform()
        found["uniform"] = {"plan": counts, "value": evaluations(counts)["accuracy"], "all": full(counts)["accuracy"]}
        counts, taken = setting.sensitivity(evaluations)
        found["sensitivity"] = {
            "plan": counts, "value": evaluations(counts)["accuracy"], "all": full(counts)["accuracy"],
            "evaluations": taken,
        }  # fmt: skip
        save()
    runs = found.setdefault("searches", {})
    for seed in range(given.seeds):
        for method in given.methods:
            mine = runs.setdefault(method, [])
            if any(run["seed"] == seed for run in mine):
                continue
            run = search(setting, evaluations, method, seed)
            run["all"] = full(run["best"])["accuracy"]
            mine.append(run)
            found["trial"] = evaluations.times()
            save()
            print(f"{setting.name} {method} seed {seed}: best {max(run['values']):.4f}", flush=True)


def fidelity(setting: Setting, plans: int) -> dict[str, Any]:
    """Rank correlation of cheaper trials with a trial on 4,096 and all images, over random plans on the budget."""
    from scipy.stats import spearmanr

    rng, names, validation = np.random.default_rng(0), setting.fitter.names, setting.splits.validation
    preferences = [dict(zip(names, rng.random(len(names)), strict=True)) for _ in range(plans)]
    chosen = [setting.fitter.removed(setting.fitter.project(own).counts) for own in preferences]
    sizes = sorted({min(size, len(validation)) for size in (1250, 2500, len(validation))})
    calibrations = sorted({min(size, len(setting.splits.train)) for size in (512, 1024, 2048, 4096)})
    batches = untuned(tf.data.Dataset.from_tensor_slices(validation.x).batch(500))
    right, seconds = {}, {}
    for calibration in calibrations:
        evaluator = PlanEvaluator(setting.fitter.graph, None, setting.splits.train, calibration_samples=calibration)
        evaluator.model({}).predict(batches.take(1), verbose=0)  # traced before the clock runs
        marks, answers = [], []
        for removed in chosen:
            marks.append([time.perf_counter()])
            model = evaluator.model(removed)
            marks[-1].append(time.perf_counter())
            answers.append(model.predict(batches, verbose=0).argmax(axis=-1) == validation.y)
            marks[-1].append(time.perf_counter())
        right[calibration] = np.array(answers)
        seconds[calibration] = np.median(np.diff(marks), axis=0).tolist()
    expected = right[calibrations[-1]].mean(axis=1)
    rows = []
    for calibration, images in itertools.product(calibrations, sizes):
        found = right[calibration][:, :images].mean(axis=1)
        rows.append(
            {"calibration": calibration, "images": images, "spearman": float(spearmanr(found, expected)[0]),
             "regret": float(expected.max() - expected[found.argmax()]),
             "re_estimating_seconds": seconds[calibration][0],
             "evaluating_seconds": seconds[calibration][1] * images / len(validation)}
        )  # fmt: skip
        print(f"{setting.name} {rows[-1]}", flush=True)
    return {"plans": plans, "spread": float(expected.std()), "table": rows}


def finished(setting: Setting, found: dict[str, Any], save: Any) -> None:
    """Fine-tunes each method's best plans and takes their accuracy on the test set, once for each plan."""
    found.setdefault("final", {})
    candidates = {(name, 0): found[name]["plan"] for name in ("uniform", "sensitivity")}
    for method in setting.given.methods:
        candidates |= {(method, run["seed"]): run["best"] for run in found["searches"].get(method, ())}
    # All methods of a seed before the next seed: a run that is stopped can be read.
    for (method, seed), counts in sorted(candidates.items(), key=lambda entry: entry[0][1]):
        key = " ".join(str(counts[name]) for name in setting.fitter.names)
        if f"{method} {seed}" in found["final"]:
            continue
        known = next((own for own in found["final"].values() if own["plan"] == key), None)
        if known is None:
            # the same seed, hence the same order of images, for all plans
            plan = setting.fitter.plan(counts)
            slim = cut_and_trained(setting.given, setting.model, plan, setting.splits, FINAL_EPOCHS, 0)
            known = {
                "plan": key,
                "validation": accuracy(slim, setting.splits.validation),
                "test": accuracy(slim, setting.splits.test),
            }
        found["final"][f"{method} {seed}"] = known
        save()
        print(f"{setting.name} {method} seed {seed}: test {known['test']:.4f} after fine-tuning", flush=True)


def main() -> None:
    given = arguments()
    splits = load_data(given)
    path = given.output / ("search_quick.json" if given.quick else "search.json")
    options = {
        name: getattr(given, name)
        for name in ("dataset", "limit", "epochs", "finish", "trials", "calibration", "images")
    }
    content: dict[str, Any] = {"options": options, "settings": {}}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        if not any(found.get("searches") for found in content["settings"].values()):
            content["options"] = options  # what --fidelity found binds no search
        if content["options"] != options:
            raise SystemExit(
                f"{path} holds results of other options:\n{content['options']}\ninstead of\n{options}\n"
                "Choose another --output, or remove the file."
            )

    def save() -> None:
        with changing(path, content) as stored:  # another process may be at another setting
            # only what this run changes: the rest may be older than what is stored
            part = "fidelity" if given.fidelity else "settings"
            own = content[part][name]
            if given.final:
                own["final"] = {**stored[part][name].get("final", {}), **own["final"]}
            stored.setdefault(part, {})[name] = own
            stored.update(
                options=content["options"],
                commands=sorted({*stored.get("commands", []), command()}),
                versions=versions(PACKAGES),
                processor=processor(),
            )
        content.update(stored)

    for name in given.settings:
        setting = Setting(given, name, splits)
        found = content["settings"].setdefault(name, {})
        if found.get("identity", setting.facts["identity"]) != setting.facts["identity"]:
            raise SystemExit(f"{path} holds results of another baseline for {name}. Choose another --output.")
        if given.fidelity:
            content.setdefault("fidelity", {})[name] = fidelity(setting, given.fidelity)
            save()
        elif given.final:
            if not found.get("searches"):
                raise SystemExit(f"Expected the searches of {name} before --final. Received: none in {path}.")
            finished(setting, found, save)
            break
        else:
            run_setting(setting, found, save)
    report(content, given.docs, path.stem)


if __name__ == "__main__":
    main()
