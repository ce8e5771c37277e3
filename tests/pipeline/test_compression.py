"""``tq.compress`` on real digits: everything that it promises, on a network that trains in seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

import tfqprune as tq
from tfqprune import zoo
from tfqprune.data import DataSplits, load
from tfqprune.errors import BudgetError, DataError, ModelTypeError, OutputError
from tfqprune.pipeline.environment import command, processor, versions
from tfqprune.report import read


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


@pytest.fixture
def deterministic() -> Iterator[None]:
    """As the demonstration has it; taken back, because it changes what other tests in this process see."""
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


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
    a, b = (tf.keras.Input((2,)) for _ in range(2))
    two = tf.keras.Model([a, b], tf.keras.layers.Dense(2)(tf.keras.layers.Dense(4)(tf.keras.layers.Add()([a, b]))))
    data = ([np.zeros((3, 2)), np.zeros((3, 2))], np.zeros(3))
    with pytest.raises(ModelTypeError, match=r"one input and one output\. Received: .* with 2 and 1"):
        tq.compress(two, data, data, budget=budget, **given)
    assert not (tmp_path / "run").exists()


def test_environment() -> None:
    assert versions()["tensorflow"].startswith("2.")
    assert "core" in processor()
    assert command()
