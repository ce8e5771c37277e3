"""The Bayesian ratio search: every trial on the budget, repeatable, resumable, guarded."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.allocation.base import unscored
from tfqprune.allocation.display import SearchDisplay
from tfqprune.allocation.goal import Goal
from tfqprune.allocation.judging import Judge
from tfqprune.allocation.records import TrialRecord, pareto_front
from tfqprune.budget import Limits, format_cost
from tfqprune.criteria import get_criterion
from tfqprune.errors import (
    BudgetError,
    CriterionError,
    DataError,
    EvaluationError,
    ExportError,
    OutputError,
    PlanError,
)
from tfqprune.evaluation import PlanEvaluator
from tfqprune.files import write_json
from tfqprune.fitting import Fitter
from tfqprune.twin import EvaluationTwin


def ratios(tuner: tq.RatioTuner) -> list[dict[str, float]]:
    return [record.ratios for record in tuner.records()]


def test_a_search(make_tuner, model, train, validation, tmp_path, capsys) -> None:
    tuner = make_tuner(max_trials=8)
    assert isinstance(tuner, keras_tuner.Tuner)
    assert isinstance(tuner.oracle, keras_tuner.oracles.BayesianOptimizationOracle)
    tuner.search(train, validation_data=validation)
    records = tuner.records()
    assert [record.status for record in records] == ["COMPLETED"] * 8
    assert len({tuple(record.ratios.values()) for record in records}) == 8

    limit = 0.6 * tq.cost(model).memory
    for record in records:
        assert record.metrics["memory"] <= limit
        assert record.value == record.metrics["val_accuracy"]
    # It starts from the uniform solution, and the best plan is the best trial's.
    uniform = tq.UniformAllocator(tq.Budget(memory=0.6)).allocate(model, "latent_l1")
    assert records[0].ratios == {name: uniform.ratios[name] for name in records[0].ratios}
    best = max(records, key=lambda record: record.value)
    plan = tuner.get_best_plans(1)[0]
    assert {name: plan.ratios[name] for name in best.ratios} == best.ratios
    assert plan.notes["value"] == best.value
    assert plan.criterion == "latent_l1"
    assert tuner.get_best_hyperparameters()[0].values == {f"ratio/{name}": value for name, value in best.ratios.items()}
    # The model is the one that was judged.
    slim = tuner.get_best_models(1)[0]
    assert tq.cost(slim).memory == best.metrics["memory"]
    slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    assert slim.evaluate(*validation, verbose=0)[1] == pytest.approx(best.value)
    # What is written and said.
    folder = tmp_path / "search"
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [float(row["value"]) for row in rows] == [record.value for record in records]
    assert float(rows[3]["ratio/first"]) == records[3].ratios["first"]
    assert [entry["ratios"] for entry in json.loads((folder / "trials.json").read_text())] == ratios(tuner)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert len(lines) == 8
    assert lines[7].startswith(f"trial 8/8 | val_accuracy {records[7].value:.4f} | best {best.value:.4f} (trial ")
    memory = format_cost("memory", records[7].metrics["memory"])
    assert f"memory {memory} of {format_cost('memory', limit)}" in lines[7]
    assert lines[7].endswith("0 s left")
    tuner.results_summary(1)
    assert f"Score: {best.value}" in capsys.readouterr().out


def test_same_seed_same_trials_and_resuming_changes_nothing(make_tuner, train, validation, capsys) -> None:
    whole = make_tuner(project_name="whole", max_trials=12)
    whole.search(train, validation_data=validation, verbose=0)
    make_tuner(project_name="parts", max_trials=5).search(train, validation_data=validation, verbose=0)
    parts = make_tuner(project_name="parts", max_trials=12)
    assert "Reloading Tuner" in capsys.readouterr().out
    parts.search(train, validation_data=validation, verbose=0)
    assert [(one.ratios, one.value) for one in whole.records()] == [(one.ratios, one.value) for one in parts.records()]
    other = make_tuner(project_name="other", seed=1, max_trials=5)
    other.search(train, validation_data=validation, verbose=0)
    assert ratios(other) != ratios(whole)[:5]
    assert ratios(other)[0] == ratios(whole)[0]


@pytest.mark.parametrize("lost", ["nothing", "oracle.json"])
def test_another_tuner_id_takes_up_the_same_trials(make_tuner, train, validation, tmp_path, monkeypatch, lost) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "search").glob("trial_*/*")}

    alone = make_tuner(max_trials=3)
    alone.search(train, validation_data=validation, verbose=0)
    before = files()
    (tmp_path / "search" / lost).unlink(missing_ok=True)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    chief = make_tuner(max_trials=5)
    assert chief.records() == alone.records()
    chief.search(train, validation_data=validation, verbose=0)
    monkeypatch.delenv("KERASTUNER_TUNER_ID")
    again = make_tuner(max_trials=6)
    assert again.records() == chief.records()
    again.search(train, validation_data=validation, verbose=0)
    assert [record.status for record in again.records()] == ["COMPLETED"] * 6
    assert len({tuple(record.ratios.values()) for record in again.records()}) == 6
    after = files()
    assert {path: after[path] for path in before} == before


def test_interrupted_search_goes_on(make_tuner, train, validation, monkeypatch) -> None:
    proxy, calls = Judge.proxy, []

    def interrupted(self, counts, folder):
        calls.append(counts)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return proxy(self, counts, folder)

    monkeypatch.setattr(Judge, "proxy", interrupted)
    tuner = make_tuner()
    with pytest.raises(KeyboardInterrupt):
        tuner.search(train, validation_data=validation, verbose=0)
    again = make_tuner()
    again.search(train, validation_data=validation, verbose=0)
    assert [record.status for record in again.records()] == ["COMPLETED"] * 6
    assert calls[3] == calls[4]  # the trial that was cut off runs again, the three before it do not
    assert len(calls) == 7


def test_a_folder_whose_name_reads_like_a_pattern(make_tuner, train, validation, tmp_path) -> None:
    # As a pattern, "run[1]" is not itself, but run1: whose trials are those of another search.
    found = {}
    for name, seed in (("run1", 1), ("run[1]", 2)):
        tuner = make_tuner(directory=tmp_path / name, max_trials=3, seed=seed)
        tuner.search(train, validation_data=validation, verbose=0)
        found[name] = tuner.records()
    assert found["run1"] != found["run[1]"]
    again = make_tuner(directory=tmp_path / "run[1]", max_trials=4, seed=2)
    assert again.records() == found["run[1]"]
    again.search(train, validation_data=validation, verbose=0)
    assert again.records()[:3] == found["run[1]"]


def test_reading_results_needs_no_search(make_tuner, train, validation) -> None:
    tuner = make_tuner(max_trials=3)
    with pytest.raises(PlanError, match=r"call search\(\) first"):
        tuner.get_best_plans()
    tuner.search(train, validation_data=validation, verbose=0)
    later = make_tuner(max_trials=3)
    assert later.get_best_plans(3) == tuner.get_best_plans(3)
    for ours, theirs in zip(later.get_best_models()[0].get_weights(), tuner.get_best_models()[0].get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def shaken(model: tf.keras.Model) -> tf.keras.Model:
    other = tf.keras.models.clone_model(model)
    other.set_weights([weight + 1e-3 for weight in model.get_weights()])
    return other


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: {"model": shaken(model)}, "model"),
        (lambda model: {"budget": tq.Budget(memory=0.5)}, "budget"),
        (lambda model: {"criterion": "latent_l2"}, "criterion"),
        (lambda model: {"align": 2}, "align"),
        (lambda model: {"objective": "val_loss"}, "objective"),
        (lambda model: {"objective": keras_tuner.Objective("val_accuracy", "min")}, "objective"),
        (lambda model: {"seed": 5}, "seed"),
        (lambda model: {"exclude": "first"}, "exclude"),
        (lambda model: {"share": [["first", "second"]]}, "share"),
        (lambda model: {"evaluation": "finetune"}, "evaluation, optimizer"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(make_tuner, model, tmp_path, change, named) -> None:
    make_tuner()
    (tmp_path / "search" / "curves.json").write_text("{}")  # something was found out
    before = {path: path.read_bytes() for path in (tmp_path / "search").rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=f"{named} changed"):
        make_tuner(**change(model))
    assert before == {path: path.read_bytes() for path in (tmp_path / "search").rglob("*") if path.is_file()}
    make_tuner(**change(model), overwrite=True)


def test_another_loss_or_metric_is_refused(make_tuner, train, validation) -> None:
    logits = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    make_tuner(max_trials=1).search(train, validation_data=validation, verbose=0)
    for changed in ({"loss": logits}, {"metrics": ["accuracy", "sparse_top_k_categorical_accuracy"]}):
        with pytest.raises(OutputError, match=f"{next(iter(changed))} changed"):
            make_tuner(max_trials=2, **changed).search(train, validation_data=validation, verbose=0)


def test_the_same_search_in_other_words_goes_on(make_tuner, tmp_path) -> None:
    layers = tf.keras.layers
    x = image = layers.Input((6, 6, 3))
    x = layers.Add()([layers.Conv2D(8, 3, name=name)(x) for name in ("one", "tied")])
    for name in ("two", "three"):
        x = layers.Conv2D(6, 3, padding="same", name=name)(x)
    model = tf.keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    def make(exclude, share, optimizer) -> None:
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [tf.keras.metrics.SparseCategoricalAccuracy()]
        given = {"exclude": exclude, "share": share, "optimizer": optimizer, "loss": loss, "metrics": metrics}
        make_tuner(model=model, budget=tq.Budget(memory=0.9), evaluation="finetune", **given)

    make(["one"], [["two", "three"]], "sgd")
    (tmp_path / "search" / "curves.json").write_text("{}")  # something was found out
    make({"tied", "one"}, [{"three", "two"}], tf.keras.optimizers.SGD(0.5))
    with pytest.raises(OutputError, match="one in which optimizer changed"):
        make("tied", [["three", "two"]], tf.keras.optimizers.SGD(momentum=0.9))


def test_a_mistake_does_not_bind(make_tuner, model, train, validation) -> None:
    x, y = validation
    endless = tf.data.Dataset.from_tensor_slices(validation).batch(16).repeat()
    for data, message in (
        (None, "Expected validation data"),
        ((own for own in x), "Received: generator"),
        ((x[:, 1:], y), r"shape \(samples, 6, 6, 3\)"),
        ((x, y[:-1]), "one label for each of 64 samples"),
        ((x, y + 4), "class numbers from 4 to 7, for 4 classes"),
        (endless, "an endless data set"),
    ):
        with pytest.raises(DataError, match=message):
            make_tuner().search(train, validation_data=data, verbose=0)
    tuner = make_tuner(loss="sparse_categorical_crossentropy")
    with pytest.raises(DataError, match="labels that go with the model's outputs"):
        tuner.search(train, validation_data=(x, y + 4), verbose=0)
    with pytest.raises(DataError, match=r"shape \(samples, 6, 6, 3\)"):
        make_tuner().search((x[:, 1:], y), validation_data=validation, verbose=0)
    with pytest.raises(EvaluationError, match=r"among val_loss, val_accuracy\. Received: 'val_acc'"):
        make_tuner(objective="val_acc").search(train, validation_data=validation, verbose=0)
    with pytest.raises(DataError, match="Expected epochs"):
        make_tuner(evaluation="both").search(train, validation_data=validation, epochs=0, verbose=0)
    # What was made of the wrong data goes with it: the right data has scores of its own.
    options = {"criterion": "reconstruction", "max_trials": 1}
    with pytest.raises(PlanError, match="none for second, third, fourth"):
        make_tuner(**options, sensitivity=bad_curves("first")).search(validation, validation_data=validation, verbose=0)
    tuner = make_tuner(**options)
    tuner.search(train, validation_data=validation, verbose=0)
    plan = tq.make_plan(model, tuner.records()[0].ratios, "reconstruction", train)
    assert tuner.get_best_plans()[0].removed == plan.removed


def test_data_sets(make_tuner, train, validation) -> None:
    single = tf.data.Dataset.from_tensor_slices
    tuner = make_tuner(max_trials=1)
    tuner.search(single(train), validation_data=single(validation), verbose=0)
    x, y = train
    with pytest.raises(OutputError, match="one in which first training samples changed"):
        make_tuner(max_trials=2).search(single((x * 2, y)), validation_data=single(validation), verbose=0)
    again = make_tuner(max_trials=2)
    again.search(single(train), validation_data=single(validation), verbose=0)
    assert len(again.records()) == 2
    arrays = make_tuner(max_trials=2, project_name="arrays")
    arrays.search(train, validation_data=validation, verbose=0)
    assert [own.value for own in arrays.records()] == pytest.approx([own.value for own in again.records()])


def test_other_data_is_refused(make_tuner, train, validation) -> None:
    make_tuner(max_trials=1).search(train, validation_data=validation, verbose=0)
    x, y = validation
    with pytest.raises(OutputError, match="validation data changed"):
        make_tuner(max_trials=2).search(train, validation_data=(x, (y + 1) % 4), verbose=0)
    with pytest.raises(OutputError, match="training data changed"):
        make_tuner(max_trials=2).search((x[::-1] * 2, y), validation_data=validation, verbose=0)
    order = np.random.default_rng(0).permutation(len(x))
    tuner = make_tuner(max_trials=2)
    tuner.search(train, validation_data=(x[order], y[order]), verbose=0)  # the same data in another order is no change
    assert len(tuner.records()) == 2


def test_other_data_of_the_criterion_are_refused(make_tuner, train, validation) -> None:
    options = {"criterion": "reconstruction", "data": train}
    make_tuner(**options, max_trials=1).search(train, validation_data=validation, verbose=0)
    for data in (validation, (train[0] * 3 + 1, train[1])):
        with pytest.raises(OutputError, match="criterion data changed"):
            make_tuner(**{**options, "data": data}).search(train, validation_data=validation, verbose=0)
    # No data of its own: the training data, which these are.
    tuner = make_tuner(criterion="reconstruction", max_trials=2)
    tuner.search(train, validation_data=validation, verbose=0)
    assert len(tuner.records()) == 2


def test_a_criterion_is_known_by_what_it_does(make_tuner, train, validation, tmp_path) -> None:
    make_tuner(criterion=get_criterion("random", seed=3), project_name="object")
    (tmp_path / "object" / "curves.json").write_text("{}")  # something was found out
    make_tuner(criterion=get_criterion("random", seed=3), project_name="object")
    with pytest.raises(OutputError, match="criterion changed"):
        make_tuner(criterion=get_criterion("random", seed=4), project_name="object")

    def search(function) -> None:
        tuner = make_tuner(criterion=function, project_name="function", max_trials=1)
        tuner.search(train, validation_data=validation, verbose=0)

    for _ in range(2):
        search(lambda filters: np.abs(filters).sum(axis=1))
    with pytest.raises(OutputError, match="scores changed"):
        search(lambda filters: -np.abs(filters).sum(axis=1))


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folders_are_not_touched(make_tuner, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="another directory or project_name"):
        make_tuner(overwrite=overwrite)
    assert [path.name for path in (tmp_path / "search").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="which is a file"):
        make_tuner(project_name="file", overwrite=overwrite)
    with pytest.raises(OutputError, match="Choose another directory"):
        make_tuner(directory=tmp_path / "file", overwrite=overwrite)


def test_failed_trials_are_marked_and_the_search_goes_on(make_tuner, train, validation, monkeypatch) -> None:
    proxy, calls = Judge.proxy, []

    def failing(self, counts, folder):
        calls.append(counts)
        if len(calls) == 2:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        metrics = proxy(self, counts, folder)
        return {**metrics, "val_accuracy": math.nan} if len(calls) == 3 else metrics

    monkeypatch.setattr(Judge, "proxy", failing)
    tuner = make_tuner(max_trials=12)
    tuner.search(train, validation_data=validation, verbose=0)
    records = tuner.records()
    assert [record.status for record in records] == ["COMPLETED", "FAILED", "FAILED", *["COMPLETED"] * 9]
    assert "out of memory" in records[1].message
    assert "val_accuracy is nan" in records[2].message
    assert records[1].value is None is records[2].value
    assert len(tuner.get_best_plans(12)) == 10


def test_a_trial_whose_activations_overflow_is_failed(make_tuner, train, validation, monkeypatch) -> None:
    own, calls = EvaluationTwin.re_estimate, []

    def overflowing(self, batches):
        calls.append(1)
        own(self, [batch * 1e30 for batch in batches] if len(calls) == 2 else batches)

    monkeypatch.setattr(EvaluationTwin, "re_estimate", overflowing)
    tuner = make_tuner(max_trials=4)
    tuner.search(train, validation_data=validation, verbose=0)
    records = tuner.records()
    assert [record.status for record in records] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert "NaN or infinity at batch norm" in records[1].message


def test_nothing_but_failures_ends_the_search(make_tuner, train, validation, monkeypatch) -> None:
    def failing(self, counts, folder):
        raise RuntimeError("no luck")

    monkeypatch.setattr(Judge, "proxy", failing)
    tuner = make_tuner(max_trials=9, max_consecutive_failed_trials=3)
    with pytest.raises(EvaluationError, match=r"3 failed trials in a row(.|\n)*no luck"):
        tuner.search(train, validation_data=validation, verbose=0)
    assert [record.status for record in tuner.records()] == ["FAILED"] * 3
    monkeypatch.undo()
    again = make_tuner(max_trials=9)
    again.search(train, validation_data=validation, verbose=0)
    assert [record.status for record in again.records()] == ["FAILED"] * 3 + ["COMPLETED"] * 6


def test_small_budget_space_is_exhausted(make_tuner, train, validation, capsys) -> None:
    # One group alone has one largest size within a budget.
    tuner = make_tuner(exclude=["first", "second", "fourth"], budget=tq.Budget(memory=0.8))
    assert tuner.remaining_trials == 6
    tuner.search(train, validation_data=validation)
    assert len(tuner.records()) == 1
    assert tuner.remaining_trials == 0
    tuner.search(train, validation_data=validation)
    said = "search over after 1 of 6 trials: no further plan found on the budget"
    assert capsys.readouterr().out.count(said) == 1


def test_fine_tuned_trials(make_tuner, model, train, validation) -> None:
    tuner = make_tuner(evaluation="finetune", max_trials=2, calibration_samples=64)
    tuner.search(train, validation_data=validation, epochs=1, verbose=0)
    best = max(tuner.records(), key=lambda record: record.value)
    slim = tuner.get_best_models()[0]
    slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    assert slim.evaluate(*validation, verbose=0)[1] == pytest.approx(best.value)
    kernel = tq.prune(model, tuner.get_best_plans()[0]).get_layer("last").kernel.numpy()
    assert np.abs(slim.get_layer("last").kernel.numpy() - kernel).max() > 0


def test_fine_tuned_trials_have_the_metrics_that_are_compiled(make_tuner, model, train, validation) -> None:
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "sparse_categorical_crossentropy", [tf.keras.metrics.SparseTopKCategoricalAccuracy(2, "top2")])
    tuner = make_tuner(
        model=copy, objective=keras_tuner.Objective("val_top2", "max"), evaluation="finetune", max_trials=1,
        calibration_samples=64, sensitivity=False,
    )  # fmt: skip
    tuner.search(train, validation_data=validation, verbose=0)
    assert [record.status for record in tuner.records()] == ["COMPLETED"]
    assert tuner.records()[0].value == tuner.records()[0].metrics["val_top2"]


def test_best_few_are_promoted(make_tuner, train, validation, tmp_path, capsys) -> None:
    tuner = make_tuner(evaluation="both", promote=2, max_trials=4, calibration_samples=64)
    tuner.search(train, validation_data=validation, epochs=1)
    by_proxy = sorted(tuner.records(), key=lambda record: -record.value)
    tuned = {
        path.parent.name.removeprefix("trial_"): json.loads(path.read_text())["val_accuracy"]
        for path in (tmp_path / "search").glob("trial_*/tuned.json")
    }
    assert len(tuned) == 2
    assert min(by_proxy[0].value, by_proxy[1].value) >= by_proxy[2].value
    assert set(tuned) <= {record.trial for record in by_proxy if record.value >= by_proxy[1].value}
    plans = tuner.get_best_plans(3)
    assert tuned[plans[0].notes["trial"]] == max(tuned.values())
    assert {plan.notes["trial"] for plan in plans[:2]} == set(tuned)
    assert capsys.readouterr().out.count("fine-tuned | val_accuracy") == 2
    # What fine-tuning achieved stands beside what the trial was judged by, wherever trials are told of.
    best = plans[0].notes
    assert best["tuned"]["val_accuracy"] == tuned[best["trial"]]
    assert "tuned" not in plans[2].notes
    folder, number = tmp_path / "search", int(best["trial"])
    row = list(csv.DictReader((folder / "trials.csv").open()))[number]
    assert (float(row["value"]), float(row["tuned_val_accuracy"])) == (best["value"], tuned[best["trial"]])
    kept = json.loads((folder / "trials.json").read_text())
    assert {own["trial"] for own in kept if "tuned_val_accuracy" in own["metrics"]} == set(tuned)
    assert json.loads((folder / "front.json").read_text()) == [kept[int(own.trial)] for own in tuner.pareto_front()]
    tuner.results_summary(1)
    assert f"Trial {best['trial']} summary" in (said := capsys.readouterr().out)
    assert f"Fine-tuned val_accuracy: {tuned[best['trial']]}" in said


def test_a_trial_that_cannot_be_fine_tuned_makes_room_for_the_next(
    make_tuner, train, validation, tmp_path, monkeypatch, capsys
) -> None:
    tuned, calls = Judge.tuned, []

    def failing(self, counts, folder, number, callbacks=()):
        calls.append(str(number))
        if len(calls) == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        metrics = tuned(self, counts, folder, number, callbacks)
        if len(calls) == 2:
            metrics["val_accuracy"] = math.nan
            write_json(folder / "tuned.json", metrics)
        return metrics

    monkeypatch.setattr(Judge, "tuned", failing)
    options = {"evaluation": "both", "promote": 1, "max_trials": 4, "calibration_samples": 64, "sensitivity": False}
    tuner = make_tuner(**options)
    tuner.search(train, validation_data=validation)
    by_proxy = sorted(tuner.records(), key=lambda record: -record.value)
    assert calls == [record.trial for record in by_proxy[:3]]
    assert "out of memory" in by_proxy[0].message
    assert "val_accuracy is nan" in by_proxy[1].message
    said = capsys.readouterr().out
    assert said.count("could not be fine-tuned") == 2
    assert said.count("fine-tuned | val_accuracy") == 1
    # The one that could comes first; the others are what they were by proxy.
    plans = tuner.get_best_plans(4)
    assert [plan.notes["trial"] for plan in plans] == [by_proxy[place].trial for place in (2, 0, 1, 3)]
    for plan, slim in zip(plans[1:], tuner.get_best_models(4)[1:]):
        slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        assert slim.evaluate(*validation, verbose=0)[1] == pytest.approx(plan.notes["value"])
    # They are not tried again.
    make_tuner(**options).search(train, validation_data=validation, verbose=0)
    assert len(calls) == 3
    # Where nothing can be fine-tuned, the search says so.
    monkeypatch.setattr(Judge, "tuned", lambda self, *given: 1 / 0)
    with pytest.raises(EvaluationError, match=r"2 failures in a row(.|\n)*division by zero"):
        make_tuner(**options, project_name="none", max_consecutive_failed_trials=2).search(
            train, validation_data=validation, verbose=0
        )


def test_tensorboard(make_tuner, train, validation, tmp_path) -> None:
    tuner = make_tuner(max_trials=2)
    board = tf.keras.callbacks.TensorBoard(str(tmp_path / "logs"))
    tuner.search(train, validation_data=validation, callbacks=[board], verbose=0)
    written = {path.parent.name: path for path in (tmp_path / "logs").rglob("events*")}
    assert sorted(written) == ["0", "1"]
    for record in tuner.records():
        events = tf.compat.v1.train.summary_iterator(str(written[record.trial]))
        scalars = {
            value.tag: (event.step, float(tf.make_ndarray(value.tensor)))
            for event in events
            for value in event.summary.value
            if value.tag == "val_accuracy"
        }
        assert scalars == {"val_accuracy": (int(record.trial), pytest.approx(record.value))}


def test_time_left_is_shared_by_workers() -> None:
    best = keras_tuner.engine.trial.Trial(keras_tuner.HyperParameters(), "3", "COMPLETED")
    best.score = 0.5
    oracle = SimpleNamespace(
        max_trials=10, objective=keras_tuner.Objective("value", "max"), get_best_trials=lambda count: [best],
        end_order=["0", "1", "2", "3"], tuner_ids={"worker1", "worker2", "worker3"},
    )  # fmt: skip
    display = SearchDisplay(oracle, Limits({}, {}), verbose=0)
    display._starts["3"] = time.perf_counter() - 20
    display.on_trial_end(best)
    # 6 trials of 20 s are left, for 3 workers: 40 s.
    assert display.line(best, 20.0).endswith("20.0 s, 40 s left")


def test_a_size_weight_of_numpy() -> None:
    assert Goal("val_accuracy", np.float32(0.5)).of({"val_accuracy": 0.75}, 0.5)["soft_objective"] == 0.5


def test_soft_size_and_the_front(make_tuner, model, train, validation, tmp_path) -> None:
    tuner = make_tuner(max_trials=14, size_weight=0.4)
    tuner.search(train, validation_data=validation, verbose=0)
    limit = 0.6 * tq.cost(model).memory
    records = tuner.records()
    for record in records:
        assert record.metrics["memory"] <= limit
        expected = record.metrics["val_accuracy"] - 0.4 * record.metrics["memory"] / limit
        assert record.value == record.metrics["soft_objective"] == pytest.approx(expected)
    # With a size term, trials may lie far below the budget.
    assert min(record.metrics["memory"] for record in records) < 0.8 * limit
    best = max(records, key=lambda record: record.value)
    assert tuner.get_best_plans()[0].notes["trial"] == best.trial
    front = tuner.pareto_front()
    assert best.trial in {record.trial for record in front}
    for record in records:
        beaten = [
            own for own in front
            if own.metrics["memory"] <= record.metrics["memory"]
            and own.metrics["val_accuracy"] >= record.metrics["val_accuracy"]
        ]  # fmt: skip
        assert beaten  # by itself, where it is on the front
    kept = json.loads((tmp_path / "search" / "front.json").read_text())
    assert [entry["trial"] for entry in kept] == [record.trial for record in front]
    assert [plan.notes["trial"] for plan in tuner.get_front_plans()] == [record.trial for record in front]
    with pytest.raises(OutputError, match="objective changed"):
        make_tuner(max_trials=14)


def test_soft_size_by_hand() -> None:
    # 0.9 at half of the budget, a whole budget being worth 0.2.
    assert Goal("val_accuracy", 0.2).of({"val_accuracy": 0.9}, 0.5)["soft_objective"] == pytest.approx(0.8)
    # A loss is to fall: the term is added.
    assert Goal("val_loss", 0.2).of({"val_loss": 0.9}, 0.5)["soft_objective"] == pytest.approx(1.0)
    assert Goal("val_loss", 0.2).objective.direction == "min"
    assert [Goal(f"val_{name}").objective.direction for name in ("f1_score", "r2_score", "mean_squared_error")] == [
        "max", "max", "min"
    ]  # fmt: skip
    assert Goal("val_accuracy").of({"val_accuracy": 0.9}, 0.5) == {"val_accuracy": 0.9}


def test_starts(make_tuner, model, train, validation) -> None:
    budget = tq.Budget(memory=0.6)
    curves = tq.SensitivityCurves(baseline=1.0)
    for name in ("first", "second", "third", "fourth"):
        curves.ratios[name] = [0.5]
        curves.values[name] = [1.0 if name == "third" else 0.5]
    expected = tq.SensitivityAllocator(budget, curves=curves).allocate(model, "latent_l1")
    tuner = make_tuner(max_trials=5, sensitivity=curves, starts=[{"first": 0.1, "fourth": 1.0}])
    tuner.search(train, validation_data=validation, verbose=0)
    uniform, sensitive, given, least, _ = ratios(tuner)
    assert max(uniform.values()) - min(uniform.values()) <= 1 / 8  # one ratio, rounded to units of 8, 10 and 12
    assert sensitive == {name: expected.ratios[name] for name in sensitive}
    assert given["fourth"] == 7 / 8  # as much as it has
    assert least["third"] == max(ratio["third"] for ratio in ratios(tuner))  # the one group that costs nothing
    assert tuner.oracle.prior is not None
    assert make_tuner(project_name="other", sensitivity=False).oracle.prior is None


def test_starts_from_measured_sensitivity(make_tuner, model, train, validation, tmp_path, monkeypatch, capsys) -> None:
    calls, evaluate = [], PlanEvaluator.evaluate
    monkeypatch.setattr(PlanEvaluator, "evaluate", lambda self, plan: calls.append(plan) or evaluate(self, plan))
    options = {"sensitivity": True, "starts": [{"first": 0.1, "fourth": 1.0}]}
    tuner = make_tuner(max_trials=2, **options)
    tuner.search(train, validation_data=validation)
    assert "sensitivity of 4 groups | up to 25 evaluations" in capsys.readouterr().out
    assert len(calls) <= 25 + 2
    path = tmp_path / "search" / "curves.json"
    curves = tq.SensitivityCurves.load(path)
    calls.clear()
    allocator = tq.SensitivityAllocator(tq.Budget(memory=0.6), validation=validation, calibration=train)
    expected = allocator.allocate(model, "latent_l1")
    assert curves.values == allocator.curves.values
    assert ratios(tuner)[1] == {name: expected.ratios[name] for name in curves.values}
    # Measured once; the start that had no trial yet has the next one.
    calls.clear()
    later = make_tuner(max_trials=3, **options)
    later.search(train, validation_data=validation, verbose=0)
    assert len(calls) == 1
    assert ratios(later)[2]["fourth"] == 7 / 8
    # Another search reads the file.
    other = make_tuner(project_name="other", max_trials=2, sensitivity=path)
    other.search(train, validation_data=validation, verbose=0)
    assert ratios(other) == ratios(tuner)[:2]


def test_sensitivity_is_measured_where_it_costs_no_more_than_the_trials(
    make_tuner, train, validation, tmp_path
) -> None:
    def measured(name: str, **options) -> bool:
        tuner = make_tuner(
            project_name=name, exclude=["first", "third", "fourth"], budget=tq.Budget(memory=0.8), **options
        )
        tuner.search(train, validation_data=validation, verbose=0)
        return (tmp_path / name / "curves.json").exists()

    # One group: its six ratios and the whole model.
    assert measured("seven", max_trials=7)
    assert not measured("six", max_trials=6)
    assert not measured("six", max_trials=7)  # as it was begun
    assert not measured("no", max_trials=7, sensitivity=False)
    assert measured("tuned", max_trials=1, evaluation="finetune", calibration_samples=64)


def test_sensitivity_of_a_falling_objective(make_tuner, train, validation, tmp_path) -> None:
    tuner = make_tuner(max_trials=1, objective="val_loss", sensitivity=True)
    tuner.search(train, validation_data=validation, verbose=0)
    curves = tq.SensitivityCurves.load(tmp_path / "search" / "curves.json")
    assert max(value for values in [[curves.baseline], *curves.values.values()] for value in values) < 0


def bad_curves(*names: str, **other) -> tq.SensitivityCurves:
    given = {"baseline": 1.0, "ratios": {name: [0.5] for name in names}, "values": {name: [0.5] for name in names}}
    return tq.SensitivityCurves(**{**given, **other})


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (bad_curves("first"), "none for second, third, fourth"),
        (bad_curves("first", "second", "third", "fourth", baseline=None), "with a baseline"),
        (bad_curves("first", "second", "third", "fourth", identity={"model": "another"}), "curves of another one"),
    ],
)
def test_curves_that_do_not_fit_are_refused(make_tuner, train, validation, curves, message) -> None:
    with pytest.raises(PlanError, match=message):
        make_tuner(sensitivity=curves).search(train, validation_data=validation, verbose=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_trials": 0}, PlanError, "a whole number of at least 1. Received: 0"),
        ({"max_trials": None}, PlanError, "a whole number of at least 1. Received: None"),
        ({"promote": "x"}, PlanError, "Expected promote to be a whole number of at least 1. Received: 'x'"),
        ({"promote": -1}, PlanError, "Expected promote to be a whole number of at least 1. Received: -1"),
        ({"starts": [{"frist": 0.5}]}, PlanError, "Did you mean 'first'"),
        ({"starts": [{"first": -0.5}]}, PlanError, "preferences of at least 0"),
        ({"starts": {"first": 0.5}}, PlanError, "a list of ratios by group"),
        ({"sensitivity": "curves.json"}, OutputError, "'curves.json', which does not exist"),
        ({"sensitivity": 0.5}, PlanError, "of type float"),
        ({"budget": 0.5}, BudgetError, "tfqprune.Budget"),
        ({"budget": tq.Budget(memory=0.01)}, BudgetError, "smallest reachable"),
        ({"evaluation": "guess"}, ValueError, "proxy, finetune, both"),
        ({"seed": -1}, PlanError, "a whole number of at least 0 and at most 4294967295. Received: -1"),
        ({"seed": None}, PlanError, "a whole number of at least 0 and at most .* Received: None"),
        ({"objective": "val_top5"}, PlanError, r"keras_tuner.Objective\('val_top5', 'max'\)"),
        ({"objective": ["val_accuracy", "val_loss"]}, PlanError, "Expected one objective"),
        ({"objective": None}, PlanError, "Expected one objective"),
        ({"share": "stages"}, PlanError, "Received: 'stages'"),
        ({"criterion": "latent_l9"}, CriterionError, "latent_l9"),
        ({"optimizer": "adma", "evaluation": "finetune"}, DataError, "adma"),
        ({"size_weight": -0.1}, PlanError, "at least 0"),
        ({"size_weight": math.nan}, PlanError, "at least 0"),
        ({"exclude": ["first", "second", "third", "fourth"]}, BudgetError, "smallest reachable"),
        (
            {"exclude": ["first", "second", "third", "fourth"], "budget": tq.Budget(memory=1.0)},
            PlanError,
            r"groups that can be pruned\. Received: none \(.*'first': excluded; 'second': excluded",
        ),
        ({"exclude": ["nothing"]}, PlanError, "'nothing'"),
    ],
)
def test_refused(make_tuner, tmp_path, options, error, message) -> None:
    with pytest.raises(error, match=message):
        make_tuner(**options)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_asked_for(make_tuner) -> None:
    tuner = make_tuner()
    with pytest.raises(BudgetError, match=r"params, macs, bops, memory. Received: 'foo'"):
        tuner.pareto_front("foo")
    with pytest.raises(BudgetError, match="a search with a budget for it"):
        tuner.get_front_plans("latency")
    assert tuner.pareto_front("macs") == []
    for ask in (tuner.get_best_plans, tuner.get_best_models, tuner.get_best_hyperparameters):
        with pytest.raises(PlanError, match=r"a whole number of at least 1. Received: 0"):
            ask(0)


def test_front_by_hand() -> None:
    def record(name: str, value: float | None, cost: float) -> TrialRecord:
        return TrialRecord(name, "COMPLETED", value, {"memory": cost}, {})

    records = [
        record("a", 0.7, 50),
        record("b", 0.9, 80),
        record("c", 0.6, 60),
        record("d", 0.8, 50),
        record("e", None, 1),
    ]
    # d beats a at the same cost and c at a lower one.
    assert [own.trial for own in pareto_front(records, "memory")] == ["d", "b"]
    assert [own.trial for own in pareto_front(records, "memory", larger_is_better=False)] == ["a", "c"]
    # By another metric, the whole of it memory: the cheapest alone.
    assert [own.trial for own in pareto_front(records, "memory", metric="memory", larger_is_better=False)] == ["a"]


def test_measured_budget_is_measured_for_the_best_alone(make_tuner, model, train, validation) -> None:
    calls = []

    def device(slim: tf.keras.Model) -> float:
        """Milliseconds in proportion to the MACs, but more for odd numbers of channels in the second layer."""
        calls.append(slim)
        odd = slim.get_layer("second").filters % 2
        return (1 + 0.5 * odd) * tq.cost(slim).macs / 1e5

    budget = tq.Budget(latency=0.6, measure_latency=device)
    meter = Fitter(graph := tq.ChannelGraph(model), unscored(graph), budget).meter
    tuner = make_tuner(budget=budget, max_trials=10, meter=meter)
    assert sum(slim.count_params() == model.count_params() for slim in calls) == 1  # not measured again
    with pytest.raises(BudgetError, match="Expected a meter of this model and of"):
        make_tuner(budget=tq.Budget(memory=0.6), meter=meter)
    limit = 0.6 * device(model)
    tuner.search(train, validation_data=validation, verbose=0)
    records = tuner.records()
    assert len(records) == 10
    best = max((record for record in records if record.value is not None), key=lambda record: record.value)
    # What is best was measured, and holds; trials that would have been best and do not were failed.
    assert best.metrics["latency"] == device(tq.prune(model, tuner.get_best_plans()[0])) <= limit
    assert all("measured, is above the budget" in record.message for record in records if record.status == "FAILED")
    for plan in tuner.get_best_plans(10):
        assert device(tq.prune(model, plan)) <= limit


def test_measured_budget_holds_for_all_that_is_returned(make_tuner, model, train, validation, tmp_path) -> None:
    uniform = tq.cost(model, tq.UniformAllocator(tq.Budget(macs=0.6)).allocate(model, "latent_l1"))

    def device(slim: tf.keras.Model) -> float:
        """Milliseconds in proportion to the MACs, half as much again with less memory than the uniform solution."""
        cost = tq.cost(slim)
        return (1.5 if cost.memory < uniform.memory else 1) * cost.macs / 1e5

    tuner = make_tuner(budget=tq.Budget(latency=0.6, measure_latency=device), max_trials=8)
    tuner.search(train, validation_data=validation, verbose=0)
    limit = 0.6 * device(model)
    done = [record for record in tuner.records() if record.status == "COMPLETED"]
    # Some trials lie above the budget that did not lead when they ran; their cost is called an estimate.
    measured = [record for record in done if "latency" in record.metrics]
    estimated = [record for record in done if "estimated_latency" in record.metrics]
    assert len(measured) + len(estimated) == len(done)
    assert all(record.metrics["latency"] <= limit for record in measured)
    truth = {
        record.trial: device(tq.prune(model, tq.make_plan(model, record.ratios, "latent_l1"))) for record in estimated
    }
    assert max(truth.values()) > limit
    # None of them is returned, not even by memory, of which they have least.
    for record in [*tuner.pareto_front(), *tuner.pareto_front("memory")]:
        assert record.metrics["latency"] <= limit
        assert truth.get(record.trial, limit) <= limit
    for plan in [*tuner.get_front_plans(), *tuner.get_front_plans("memory"), *tuner.get_best_plans(8)]:
        assert plan.notes["costs"]["latency"] == device(tq.prune(model, plan)) <= limit
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").open()))
    assert {row["trial"] for row in rows if row["estimated_latency"]} == set(truth)
    kept = json.loads((tmp_path / "search" / "front.json").read_text())
    assert {entry["trial"] for entry in kept} <= {record.trial for record in measured}


def test_one_slow_reading_does_not_shrink_all_later_trials(make_tuner, model, train, validation) -> None:
    calls = []

    def device(slim: tf.keras.Model) -> float:
        """Milliseconds in proportion to the MACs; something else ran when the second model was measured."""
        calls.append(slim)
        return (3 if len(calls) == 2 else 1) * tq.cost(slim).macs / 1e5

    tuner = make_tuner(budget=tq.Budget(latency=0.6, measure_latency=device), max_trials=10)
    tuner.search(train, validation_data=validation, verbose=0)
    shares = [record.metrics["macs"] / tq.cost(model).macs for record in tuner.records()]
    assert len(shares) == 10
    assert max(shares[1:]) <= 0.6
    assert min(shares[1:]) > 0.5
    for plan in tuner.get_best_plans(10):
        assert plan.notes["costs"]["latency"] <= 0.6 * tq.cost(model).macs / 1e5


@pytest.fixture
def improving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial is better than the ones before, so that its costs are measured."""
    calls: list[object] = []

    def proxy(self: Judge, counts: object, folder: Path) -> dict[str, float]:
        calls.append(counts)
        return {"val_accuracy": len(calls) / 100}

    monkeypatch.setattr(Judge, "proxy", proxy)


@pytest.mark.usefixtures("improving")
@pytest.mark.parametrize("error", [None, ExportError("Expected luck. Received: none.")])
def test_a_model_that_cannot_be_measured_fails_its_trial(make_tuner, train, validation, error) -> None:
    sick = []

    def device(slim: tf.keras.Model) -> float:
        if not tuner or len(tuner[0].oracle.trials) not in sick:
            return tq.cost(slim).macs / 1e5
        if error is not None:
            raise error
        return math.nan

    tuner: list[tq.RatioTuner] = []
    tuner.append(make_tuner(budget=tq.Budget(latency=0.6, measure_latency=device), max_consecutive_failed_trials=2))
    sick += [3, 5, 6]
    with pytest.raises(EvaluationError, match="2 failed trials in a row"):
        tuner[0].search(train, validation_data=validation, verbose=0)
    records = tuner[0].records()
    assert [record.status for record in records] == [*["COMPLETED"] * 2, "FAILED", "COMPLETED", "FAILED", "FAILED"]
    assert "cannot be measured: Expected" in records[2].message


@pytest.mark.usefixtures("improving")
def test_a_model_that_cannot_be_measured_is_not_promoted(make_tuner, train, validation, monkeypatch, capsys) -> None:
    holds, tried = tq.RatioTuner._holds, []

    def sick(self: tq.RatioTuner, trial) -> bool:
        if int(trial.trial_id) == 2:
            raise BudgetError("Expected milliseconds. Received: nan.")
        return holds(self, trial)

    monkeypatch.setattr(tq.RatioTuner, "_holds", sick)
    monkeypatch.setattr(tq.RatioTuner, "_tune", lambda self, trial, callbacks: tried.append(trial.trial_id) or True)
    make_tuner(max_trials=4, evaluation="both").search(train, validation_data=validation)
    assert tried == ["3", "1", "0"]
    assert "trial 3 cannot be measured: Expected milliseconds" in capsys.readouterr().out
