"""``tq.compress`` on real digits: everything that it promises, on a network that trains in seconds."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune import zoo
from tfqprune.criteria import get_criterion
from tfqprune.data import DataSplits, load
from tfqprune.errors import (
    BudgetError,
    CriterionError,
    DataError,
    ExportError,
    ModelTypeError,
    OutputError,
    PlanError,
)
from tfqprune.measuring import Meter
from tfqprune.pipeline.environment import command, processor, versions
from tfqprune.pipeline.variants import accuracy
from tfqprune.report import VariantRow, read


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load("digits", limit=400)


@pytest.fixture(scope="module")
def trained(digits: DataSplits) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    model = zoo.resnet(8, precision=2, input_shape=(8, 8, 1), width=0.5)
    tq.finetune(model, digits.train, epochs=15, learning_rate=5e-3, batch_size=32)
    return model


@pytest.fixture(scope="module")
def result(trained: tf.keras.Model, digits: DataSplits, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return tq.compress(
        trained, digits.train, digits.validation, test=digits.test, budget=tq.Budget(memory=0.7),
        method=("uniform", "bayesian"), output_dir=folder, epochs=3, max_trials=5, verbose=0,
    )  # fmt: skip


def test_figures(result, trained: tf.keras.Model, digits: DataSplits) -> None:
    assert [variant.name for variant in result.variants] == ["dense", "uniform", "bayesian"]
    dense = tq.cost(trained)
    for variant in result.variants:
        row, total = variant.row, tq.cost(variant.model)
        assert (row.params, row.macs, row.bops, row.memory) == (total.params, total.macs, total.bops, total.memory)
        answers = variant.model.predict(digits.test.x, verbose=0).argmax(axis=1)
        assert row.accuracy == pytest.approx((answers == digits.test.y).mean())
        assert row.agreement > 0.97
        assert row.latency_ms > 0
        assert row.ram_bytes > 0
        assert row.tflite_bytes == (result.output_dir / row.file).stat().st_size
        if variant.plan is not None:
            assert total.memory <= 0.7 * dense.memory
            assert tq.cost(trained, variant.plan) == total
    assert result.best.row.accuracy == max(variant.row.accuracy for variant in result.variants[1:])


def test_dead_channels_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal ratios would take as many living channels as dead ones."""
    layers = [
        tf.keras.layers.Conv2D(8, 3),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.GlobalAveragePooling2D(),
        tf.keras.layers.Dense(3),
    ]
    model = tf.keras.Sequential([tf.keras.layers.Input((6, 6, 1)), *layers])
    model.layers[1].gamma.assign([1, 0, 1, 0, 1, 1, 1, 1])
    rng = np.random.default_rng(0)
    part = rng.normal(size=(30, 6, 6, 1)).astype("float32"), np.arange(30) % 3
    for name, warned in (("dead", 1), ("clean", 0)):
        tq.compress(model, part, part, budget=tq.Budget(memory=0.8), method="uniform", output_dir=tmp_path / name,
                    epochs=0, report=False)  # fmt: skip
        said = " ".join(capsys.readouterr().out.split())
        assert said.count("2 of 8 prunable units are constant behind their batch norm.") == warned
        model, _ = tq.remove_dead_channels(model, part[0])


def test_a_file_above_the_budget_is_explained(tmp_path: Path) -> None:
    """Batch norms of a new network are all equal, and stored once; re-estimated ones are not."""
    tf.keras.utils.set_random_seed(0)
    model = zoo.resnet(8, precision=2, input_shape=(8, 8, 1))
    data = np.random.default_rng(0).random((16, 8, 8, 1)).astype("float32"), np.arange(16) % 10
    found = tq.compress(
        model, data, data, budget=tq.Budget(tflite_bytes="25 KiB"), output_dir=tmp_path / "run", epochs=0, verbose=0,
        report=False,
    ).variants[1]  # fmt: skip
    assert found.row.tflite_bytes > 25 * 1024
    assert f"{found.row.tflite_bytes:,} bytes, above the budget of 25,600" in found.row.note


def test_the_folder_is_complete(result, trained: tf.keras.Model) -> None:
    for name in ("uniform", "bayesian"):
        folder = result.output_dir / name
        plan = tq.PruningPlan.load(folder / "plan.json")
        slim = tf.keras.models.load_model(folder / "model.keras")
        assert slim.count_params() == tq.prune(trained, plan).count_params()
    trials = json.loads((result.output_dir / "bayesian" / "trials" / "trials.json").read_text())
    assert len(trials) == 5
    report = read(result.output_dir)
    assert len(report.networks[0].trials) == 5
    assert report.networks[0] == replace(result.network, plans=dict(result.network.plans))
    page = (result.output_dir / "report.html").read_text()
    assert not re.search(r"(src|href|url\()=?[\"']?https?:", page)  # nothing is loaded from the network
    assert "<svg" in page


def test_finished_run_is_refused(result, trained: tf.keras.Model, digits: DataSplits) -> None:
    with pytest.raises(OutputError, match="finished run"):
        tq.compress(
            trained, digits.train, digits.validation, test=digits.test, budget=tq.Budget(memory=0.7),
            method=("uniform", "bayesian"), output_dir=result.output_dir, epochs=3, max_trials=5, verbose=0,
        )  # fmt: skip


def test_goes_on_where_it_stopped(result, trained: tf.keras.Model, digits: DataSplits) -> None:
    """The same call on a run that was not finished: nothing that lies on disk is made again."""
    state = result.output_dir / "run.json"
    state.write_text(state.read_text().replace("finished", "running"))
    (result.output_dir / "steps" / "bayesian-measured.json").unlink()
    models = {path: path.stat().st_mtime_ns for path in result.output_dir.rglob("model.keras")}
    again = tq.compress(
        trained, digits.train, digits.validation, test=digits.test, budget=tq.Budget(memory=0.7),
        method=("uniform", "bayesian"), output_dir=result.output_dir, epochs=3, max_trials=5, verbose=0,
    )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in result.output_dir.rglob("model.keras")} == models
    assert again["uniform"].row == result["uniform"].row
    assert again["bayesian"].row.accuracy == result["bayesian"].row.accuracy


@pytest.mark.usefixtures("deterministic")
def test_same_seed_same_plans_and_figures(trained: tf.keras.Model, digits: DataSplits, tmp_path: Path) -> None:
    rows, plans = [], []
    for name in ("first", "second"):
        found = tq.compress(
            trained, digits.train, digits.validation, test=digits.test, budget=tq.Budget(memory=0.6),
            method="bayesian", output_dir=tmp_path / name, epochs=1, max_trials=4, seed=3, verbose=0, report=False,
        )  # fmt: skip
        measured = {"latency_ms": None, "latency_spread_ms": None, "ram_bytes": None}
        rows.append([replace(variant.row, **measured) for variant in found.variants])
        plans.append(found["bayesian"].plan)
    assert plans[0].removed == plans[1].removed
    assert rows[0] == rows[1]


def test_refused_before_any_work(trained: tf.keras.Model, digits: DataSplits, tmp_path: Path) -> None:
    given = {"output_dir": tmp_path / "run", "verbose": 0}
    budget = tq.Budget(memory=0.7)
    with pytest.raises(BudgetError, match="smallest"):
        tq.compress(trained, digits.train, digits.validation, budget=tq.Budget(memory=0.001), **given)
    with pytest.raises(BudgetError, match="'magic'"):
        tq.compress(trained, digits.train, digits.validation, budget=budget, method="magic", **given)
    with pytest.raises(DataError, match="epochs"):
        tq.compress(trained, digits.train, digits.validation, budget=budget, epochs=-1, **given)
    with pytest.raises(DataError, match="train as"):
        tq.compress(trained, np.zeros((3, 8, 8, 1)), digits.validation, budget=budget, **given)
    with pytest.raises(DataError, match="as many labels"):
        tq.compress(trained, (np.zeros((3, 8, 8, 1)), np.zeros(2)), digits.validation, budget=budget, **given)
    with pytest.raises(DataError, match="Expected train as one array of inputs"):
        tq.compress(
            trained, ([np.zeros((3, 2)), np.zeros((3, 4))], np.zeros(3)), digits.validation, budget=budget, **given
        )
    for options, error, said in (
        ({"budget": 0.7}, BudgetError, "tfqprune.Budget"),
        ({"learning_rate": 0.0}, DataError, "learning_rate"),
        ({"batch_size": 0}, DataError, "batch_size"),
        ({"max_trials": 0}, PlanError, "max_trials"),
        ({"seed": -1}, DataError, "seed"),
        ({"method": []}, BudgetError, r"Expected a method out of .*, or several\. Received: \[\]"),
        ({"method": None}, BudgetError, "Received: None"),
        ({"test": (np.full((3, 8, 8, 1), np.nan), np.zeros(3, int))}, DataError, "NaN.* These are the test data"),
        ({"test": (np.zeros((3, 8, 8, 1)), np.arange(9, 12))}, DataError, "from 9 to 11.* These are the test data"),
        ({"criterion": "latent_l9"}, CriterionError, "latent_l9"),
        ({"format": "tflite"}, ExportError, "'tflite'"),
        ({"format": "binary"}, ExportError, "format 'binary' can store"),
        ({"optimize": "sped"}, ExportError, "'sped'"),
        ({"budget": tq.Budget(tflite_bytes=0.7, tflite_format="int8")}, BudgetError, "tflite_format='int8'"),
    ):
        with pytest.raises(error, match=said):
            tq.compress(trained, digits.train, digits.validation, **{"budget": budget, **given, **options})
    a, b = (tf.keras.Input((2,)) for _ in range(2))
    two = tf.keras.Model([a, b], tf.keras.layers.Dense(2)(tf.keras.layers.Dense(4)(tf.keras.layers.Add()([a, b]))))
    data = ([np.zeros((3, 2)), np.zeros((3, 2))], np.zeros(3))
    with pytest.raises(ModelTypeError, match=r"one input and one output\. Received: .* with 2 and 1"):
        tq.compress(two, data, data, budget=budget, **given)
    assert not (tmp_path / "run").exists()


K = tf.keras.layers


class Twice(K.Layer):
    """A layer that Keras does not know when it loads a file."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return 2 * inputs


def dense(*between: K.Layer, units: int = 3, activation: str | None = "softmax") -> tf.keras.Model:
    """Dense 8 -> layers -> dense 8 -> dense, on 4 numbers."""
    tf.keras.utils.set_random_seed(0)
    layers = [K.Dense(8, activation="relu", name="a"), *between, K.Dense(8, activation="relu", name="b")]
    return tf.keras.Sequential([K.Input((4,), name="x"), *layers, K.Dense(units, activation=activation, name="c")])


def few(count: int = 32, outputs: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype("float32")
    return x, rng.integers(0, 3, count) if outputs is None else rng.normal(size=(count, outputs)).astype("float32")


def quick(model: tf.keras.Model, folder: Path, data: Any = None, **options: Any) -> tq.CompressionResult:
    """A run without training."""
    data = few() if data is None else data
    given = {"budget": tq.Budget(params=0.7), "method": "uniform", "epochs": 0, "verbose": 0, "report": False}
    return tq.compress(model, data, data, output_dir=folder, **{**given, **options})


def interrupt(folder: Path) -> None:
    """As if the run had been interrupted at its very end."""
    state = folder / "run.json"
    state.write_text(state.read_text().replace("finished", "running"))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No files."""
    monkeypatch.setattr(
        "tfqprune.pipeline.line.measure_variant",
        lambda name, *parts, **options: asdict(VariantRow(name, 0.5, 1, 1, 1, 1.0)),
    )


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("layer", "method"), [(Twice, "uniform"), (lambda: K.Lambda(lambda x: 2 * x), "uniform"), (K.ReLU, "holistic")]
)
def test_goes_on_with_layers_that_keras_does_not_load(layer, method: str, tmp_path: Path) -> None:
    model = dense(layer())
    first = quick(model, tmp_path, method=method, epochs=1)
    interrupt(tmp_path)
    again = quick(model, tmp_path, method=method, epochs=1)
    assert again["dense"].model is model
    assert again[method].plan == first[method].plan
    x, _ = few()
    np.testing.assert_array_equal(again[method].model(x), first[method].model(x))
    assert not np.allclose(first[method].model(x), tq.prune(model, first[method].plan)(x))  # it was trained


@pytest.mark.usefixtures("unmeasured")
def test_a_criterion_is_known_again_by_what_it_does(tmp_path: Path) -> None:
    for _ in range(2):
        quick(dense(), tmp_path, criterion=get_criterion("latent_l1"))
        interrupt(tmp_path)
    other = dense()
    other.get_layer("a")._name = "another"  # as Keras names layers that have none, by a number of its own
    with pytest.raises(OutputError, match="groups changed"):
        quick(other, tmp_path, criterion=get_criterion("latent_l1"))
    with pytest.raises(OutputError, match="criterion changed"):
        quick(dense(), tmp_path, criterion=get_criterion("latent_l2"))


@pytest.mark.usefixtures("unmeasured")
def test_other_data_or_another_loss_is_another_run(tmp_path: Path) -> None:
    x, y = few()
    model = dense()
    model.compile("sgd", "sparse_categorical_crossentropy")
    quick(model, tmp_path, (x, y))
    interrupt(tmp_path)
    for data in ((x, (y + 1) % 3), (x + 1, y)):
        with pytest.raises(OutputError, match="samples changed"):
            quick(model, tmp_path, data)
    model.compile("sgd", "sparse_categorical_crossentropy", loss_weights=[0.5])
    with pytest.raises(OutputError, match="loss changed"):
        quick(model, tmp_path, (x, y))
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy())  # the same loss in other words
    quick(model, tmp_path, (x, y))


@pytest.mark.usefixtures("unmeasured")
def test_measured_once_for_all_methods_on_files_of_its_own_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(self: Meter, slim: tf.keras.Model) -> dict[str, float]:
        assert (self.budget.tflite_format, self.budget.tflite_optimize) == ("float16", "speed")
        measured.append(slim.count_params())
        return {"tflite_bytes": 2.0 * slim.count_params() + len(measured)}  # never twice the same

    monkeypatch.setattr(Meter, "_measure", measure)
    model = dense()
    result = quick(
        model, tmp_path, budget=tq.Budget(tflite_bytes=0.7), method=("uniform", "slimming"), format="float16",
        optimize="speed",
    )  # fmt: skip
    assert measured.count(model.count_params()) == 1
    limit = 0.7 * (2 * model.count_params() + 1)
    assert result.network.budget == {"tflite_bytes": pytest.approx(limit)}
    for variant in result.variants[1:]:
        assert variant.plan.notes["costs"]["tflite_bytes"] <= limit


@pytest.mark.parametrize("metrics", [None, ["mae"]])
def test_a_regression_is_judged_by_its_loss(metrics: list[str] | None, tmp_path: Path) -> None:
    """Two outputs and values, not classes: there is no accuracy to show."""
    model = dense(units=2, activation=None)
    model.compile("sgd", "mse", metrics)
    result = quick(model, tmp_path, few(outputs=2), method=("sensitivity", "bayesian"), max_trials=2)
    assert [variant.row.accuracy for variant in result.variants] == [None, None, None]
    assert result.best.name == "sensitivity"  # the first
    trials = json.loads((tmp_path / "bayesian" / "trials" / "trials.json").read_text())
    assert [trial["value"] for trial in trials] == [trial["metrics"]["val_loss"] for trial in trials]
    assert tq.SensitivityCurves.load(tmp_path / "sensitivity" / "curves.json").baseline < 0
    assert result.network.trials == result.network.curves == ()


@pytest.mark.parametrize(
    ("labels", "share"),
    [
        (np.array([0, 1, 1]), 2 / 3),
        (np.array([[0.0], [1.0], [1.0]]), 2 / 3),
        (np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), 2 / 3),
        (np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), None),  # values
        (np.array([0.5, 1.0, 1.0]), None),
        (np.array([[1, 1], [0, 2], [0, 1]]), None),
    ],
)
def test_accuracy_of_classes_alone(labels: np.ndarray, share: float | None) -> None:
    model = tf.keras.Sequential([K.Input((2,)), K.Activation("linear")])
    x = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert accuracy(model, x, labels) == (None if share is None else pytest.approx(share))


def test_images_of_any_size(tmp_path: Path) -> None:
    """Multiplications cannot be counted, which stops nothing."""
    tf.keras.utils.set_random_seed(0)
    layers = [K.Conv2D(8, 3, padding="same"), K.GlobalAveragePooling2D(), K.Dense(3, activation="softmax")]
    model = tf.keras.Sequential([K.Input((None, None, 1)), *layers])
    data = np.random.default_rng(0).random((12, 8, 8, 1)).astype("float32"), np.arange(12) % 3
    result = quick(model, tmp_path, data)
    rows = [variant.row for variant in result.variants]
    assert [(row.macs, row.bops) for row in rows] == [(None, None)] * 2
    assert [row.params for row in rows] == [8 * 9 + 8 + 8 * 3 + 3, 5 * 9 + 5 + 5 * 3 + 3]
    assert [row.memory for row in rows] == [4 * row.params for row in rows]


def test_environment() -> None:
    assert versions()["tensorflow"].startswith("2.")
    assert "core" in processor()
    assert command()
