"""``tq.compress(method="holistic")`` on real digits: one training makes plan and slim model, and it can be resumed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune import zoo
from tfqprune.data import DataSplits, load
from tfqprune.errors import BudgetError, DataError


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load("digits", limit=400)


@pytest.fixture(scope="module")
def model(digits: DataSplits) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    made = zoo.resnet(8, precision=2, input_shape=(8, 8, 1), width=0.5)
    tq.finetune(made, digits.train, epochs=8, learning_rate=5e-3, batch_size=32)
    return made


def compress(model: tf.keras.Model, digits: DataSplits, folder: Path, **options) -> tq.CompressionResult:
    given = {"method": "holistic", "epochs": 6, "batch_size": 32, "verbose": 0, "report": False, **options}
    budget = tq.Budget(memory=0.7, macs=0.7)
    return tq.compress(
        model, digits.train, digits.validation, test=digits.test, budget=budget, output_dir=folder, **given
    )


def test_one_training_for_plan_and_model(
    model: tf.keras.Model, digits: DataSplits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compress(model, digits, tmp_path / "run", verbose=1)
    variant, whole = result["holistic"], tq.cost(model)
    slim = tq.cost(variant.model)
    assert slim.memory <= 0.7 * whole.memory
    assert slim.macs <= 0.7 * whole.macs
    # Of each cost what is left, and what may be; lines are broken at the width of the terminal.
    said = " ".join(capsys.readouterr().out.split())
    number = r"\d\.\d{3}"
    last = rf"pruning while training: 6 epochs, loss {number}, accuracy {number}, val accuracy {number}"
    costs = ", ".join(f"{name} {slim[name] / whole[name]:.3f} (target 0.700)" for name in ("macs", "memory"))
    assert re.search(f"{last}, {re.escape(costs)}", said)
    assert variant.plan.notes["allocator"] == "holistic"
    # All six epochs of training are in the plan's steps: the slim model was not trained again.
    batches = -(-len(digits.train) // 32)
    assert variant.plan.notes["steps"] == 6 * batches
    assert variant.row.memory == slim.memory
    assert variant.row.agreement > 0.95
    answers = variant.model.predict(digits.test.x, verbose=0).argmax(axis=1)
    assert variant.row.accuracy == pytest.approx((answers == digits.test.y).mean())
    assert variant.row.accuracy > 0.5
    assert tq.PruningPlan.load(tmp_path / "run" / "holistic" / "plan.json").removed == variant.plan.removed


@pytest.mark.slow
def test_goes_on_after_an_interruption(
    model: tf.keras.Model, digits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    class Stop(tf.keras.callbacks.Callback):
        """Stops the first run in its fourth epoch, and keeps book of all."""

        def on_epoch_begin(self, epoch: int, logs=None) -> None:
            begun.append(epoch)
            if begun == [0, 1, 2, 3]:
                raise KeyboardInterrupt

        def close(self) -> None:
            pass

    monkeypatch.setattr("tfqprune.pipeline.display.Display.callbacks", lambda self, text: [Stop()])
    with pytest.raises(KeyboardInterrupt):
        compress(model, digits, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    result = compress(model, digits, tmp_path / "run")
    assert begun[4:] == [3, 4, 5]
    assert result["holistic"].plan.notes["steps"] == 6 * -(-len(digits.train) // 32)


def test_refused_before_any_work(model: tf.keras.Model, digits: DataSplits, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="epochs to be a whole number of at least 1"):
        tq.compress(
            model, digits.train, digits.validation, budget=tq.Budget(memory=0.7), method="holistic", epochs=0,
            output_dir=tmp_path / "run",
        )  # fmt: skip
    with pytest.raises(BudgetError, match="must be measured"):
        tq.compress(
            model, digits.train, digits.validation, budget=tq.Budget(tflite_bytes=0.7), method="holistic",
            output_dir=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
