"""Models that take batches of one size only: every step that looks at data keeps to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
import tfqprune as tq
from tfqprune.errors import DataError
from tfqprune.recovery.training import prepare
from tfqprune.samples import own_batch, take_samples

K = tf.keras.layers
RNG = np.random.default_rng(0)
X = RNG.random((50, 4, 4, 2), np.float32)
Y = RNG.integers(0, 3, 50)


def network(reshaped: bool = True) -> tf.keras.Model:
    """Batches of 8; a reshape to 8 samples takes no others."""
    tf.keras.utils.set_random_seed(1)
    inputs = K.Input((4, 4, 2), batch_size=8)
    x = K.BatchNormalization()(K.Conv2D(6, 3, use_bias=False)(inputs))
    x = K.BatchNormalization()(K.Conv2D(4, 2, use_bias=False)(K.ReLU()(x)))
    x = tf.reshape(x, (8, 4)) if reshaped else K.Flatten()(x)
    return tf.keras.Model(inputs, K.Dense(3)(x))


def test_told_by_running() -> None:
    assert own_batch(network()) == 8
    assert own_batch(network(reshaped=False)) is None  # of a fixed size, but takes any
    inputs = K.Input((4, 2))
    assert own_batch(tf.keras.Model(inputs, K.LSTM(2)(inputs))) is None
    inputs = K.Input((4, 2), batch_size=3)
    assert own_batch(tf.keras.Model(inputs, K.LSTM(2, stateful=True)(inputs))) == 3


def test_whole_batches_are_taken() -> None:
    """50 samples are 6 batches of 8 and two that are left out."""
    samples = take_samples(network(), (X, Y), 1000)
    assert (len(samples), samples.steps(32)) == (48, 6)
    assert [len(inputs[0]) for inputs, _ in samples.mixed().batches(32)] == [8] * 6
    np.testing.assert_array_equal(samples.inputs[0], X[:48])
    assert len(take_samples(network(), (X, Y), 20)) == 16
    assert len(take_samples(network(), (X, Y), 3)) == 8
    with pytest.raises(DataError, match=r"at least 8 samples, for 'model.*' takes no other batches\. Received: 7"):
        take_samples(network(), (X[:7], Y[:7]))


@pytest.mark.parametrize("form", ["arrays", "weights", "batches of 20", "single elements"])
def test_training_batches(form: str) -> None:
    data = {
        "arrays": (X, Y), "weights": (X, Y, np.ones(50)),
        "batches of 20": tf.data.Dataset.from_tensor_slices((X, Y)).batch(20),
        "single elements": tf.data.Dataset.from_tensor_slices((X, Y)),
    }[form]  # fmt: skip
    prepared = prepare(network(), data, 32, "train")
    assert prepared.steps == 6
    assert [len(element[0]) for element in prepared.dataset] == [8] * 6


@pytest.mark.parametrize("criterion", ["mean_activation", "taylor", "reconstruction"])
def test_scores(criterion: str) -> None:
    assert all(np.isfinite(scores).all() for scores in tq.score(network(), criterion, data=(X, Y)).values())


def test_from_scores_to_the_file(tmp_path: Path) -> None:
    model = network()
    tq.reestimate_batch_norms(model, X)
    slim, _ = tq.remove_dead_channels(model)  # on noise
    plan = tq.UniformAllocator(tq.Budget(params=0.8)).allocate(model)
    slim = tq.prune(model, plan)
    tq.finetune(slim, (X, Y), validation=(X, Y), epochs=1, verbose=0)
    tq.distill(slim, model, (X, Y), epochs=1, verbose=0)
    result = te.export(slim, tmp_path / "slim.tflite", data=X)  # the last two samples are compared, too
    assert result.agreement.samples == 50
    result = tq.compress(
        model, (X, Y), (X, Y), test=(X, Y), budget=tq.Budget(params=0.8), epochs=1, output_dir=tmp_path / "run",
        max_trials=2, verbose=0,
    )  # fmt: skip
    assert result.best.model.input_shape[0] == 8
