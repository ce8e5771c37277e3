"""Digests of data and training: the same for the same, in whatever form it is handed over; another for another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfqprune.allocation.identity import data_digest, data_facts, judging_facts, optimizer_facts
from tfqprune.errors import DataError

K = tf.keras
Set = tf.data.Dataset.from_tensor_slices


@pytest.fixture(scope="module")
def small() -> K.Model:
    return K.Sequential([K.Input((3,)), K.layers.Dense(2, name="last")])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(10, 3)).astype("float32"), np.arange(10) % 2


def test_samples_count_and_their_order_does_not(small, data) -> None:
    x, y = data
    digest = data_digest(small, data)
    assert data_digest(small, (x[::-1], y[::-1])) == digest
    assert data_digest(small, (x, list(y))) == digest
    assert data_digest(small, (x, 1 - y)) != digest
    assert data_digest(small, x) != digest


def test_sample_weights_count(small, data) -> None:
    x, y = data
    weights = np.arange(10.0)
    digest = data_digest(small, (x, y, weights))
    assert digest != data_digest(small, data)
    assert digest != data_digest(small, (x, y, weights + 1))
    assert digest == data_digest(small, (x[::-1], y[::-1], weights[::-1]))
    assert data_digest(small, (x, y, None)) == data_digest(small, data)
    with pytest.raises(DataError, match="Expected a weight for each of 10 samples"):
        data_digest(small, (x, y, weights[:-1]))


@pytest.mark.parametrize("batch", [lambda own: own, lambda own: own.batch(4)], ids=["single", "batched"])
def test_samples_of_a_data_set_count(small, data, batch) -> None:
    x, y = data
    digest = data_digest(small, batch(Set(data)))
    assert digest.split("TensorSpec")[-1].split(" ")[-3] == "10"
    assert data_digest(small, batch(Set((x[::-1], y[::-1])))) == digest
    assert data_digest(small, batch(Set((x, 1 - y)))) != digest


def test_data_that_cannot_be_gone_through_is_refused(small, data) -> None:
    x, y = data
    with pytest.raises(DataError, match=r"an endless data set; bound it with \.take\(n\)"):
        data_digest(small, Set(data).batch(5).repeat())
    with pytest.raises(DataError, match="one label for each of 10 samples"):
        data_digest(small, (x, y[:-1]))
    with pytest.raises(DataError, match=r"batches of \[5, 4\]"):
        data_digest(small, Set(data).batch(5).map(lambda x, y: (x, y[:-1])))
    for nothing, received in ((None, "Expected numbers for input"), ((own for own in x), "Received: generator")):
        with pytest.raises(DataError, match=received):
            data_digest(small, nothing)


def test_first_samples_of_a_training_set_are_known_again(small, data) -> None:
    x, y = data
    facts = data_facts("training", small, Set(data).batch(4))
    assert set(facts) == {"training data", "first training samples"}
    other = data_facts("training", small, Set((x + 1, y)).batch(4))
    assert other["training data"] == facts["training data"]
    assert other["first training samples"] != facts["first training samples"]
    # Chance that is the same in every process is none.
    seeded = Set(data).batch(4).map(lambda x, y: (x + tf.random.stateless_uniform((), (0, 1)), y))
    assert len(data_facts("training", small, seeded)) == 2
    # Without an end, and however it is batched: the first 2048.
    endless = [data_facts("training", small, Set(data).repeat().batch(size)) for size in (100, 300)]
    assert endless[0] == endless[1]
    assert endless[0]["first training samples"].startswith("2048 samples ")


def test_samples_drawn_by_chance_say_nothing(small, data) -> None:
    count = itertools.count()
    # A seed of the process, or none, may give every pass the same samples, but not the next process.
    fixed = Set(data).shuffle(10, reshuffle_each_iteration=False).batch(4).prefetch(1)
    augmented = Set(data).batch(4).map(lambda x, y: (tf.random.shuffle(x), y))
    hidden = Set(data).batch(4).map(lambda x, y: (tf.cond(y[0] > 0, lambda: x + tf.random.normal(()), lambda: x), y))
    inner = Set(data).interleave(lambda x, y: Set(([x], [y])).shuffle(1)).batch(4)
    generated = tf.data.Dataset.from_generator(
        lambda: iter([(np.full(3, float(next(count))), 0)]), ("float32", "int64")
    )
    generated = generated.map(lambda x, y: (tf.ensure_shape(x, (3,)), tf.ensure_shape(y, ())))
    for given in (fixed, augmented, hidden, inner, generated):
        assert set(data_facts("training", small, given)) == {"training data"}


def test_judging_built_anew_is_the_same(small) -> None:
    def facts(logits: bool = True, k: int = 2) -> dict:
        loss = K.losses.SparseCategoricalCrossentropy(from_logits=logits)
        return judging_facts(small, loss, ["accuracy", K.metrics.SparseTopKCategoricalAccuracy(k)])

    assert facts() == facts()
    assert {key for key, value in facts(logits=False).items() if value != facts()[key]} == {"loss"}
    assert {key for key, value in facts(k=1).items() if value != facts()[key]} == {"metrics"}
    assert judging_facts(small, lambda y, p: y - p, None) == judging_facts(small, lambda y, p: y - p, None)
    assert judging_facts(small, lambda y, p: y + p, None) != judging_facts(small, lambda y, p: y - p, None)


def test_a_loss_in_other_words_is_the_same(small) -> None:
    words = ("mse", "mean_squared_error", K.losses.mean_squared_error, K.losses.MeanSquaredError(name="own"))
    first, *others = [judging_facts(small, loss, ["mae"]) for loss in words]
    assert all(other == first for other in others)
    assert judging_facts(small, "mae", ["mae"]) != first
    assert judging_facts(small, {"out": "mse"}, ["mae"]) != first


def test_weights_of_losses_belong_to_it(small) -> None:
    copy = K.models.clone_model(small)
    copy.compile("adam", "mse", ["mae"])
    assert judging_facts(copy, "mse", ["mae"]) == judging_facts(small, "mse", ["mae"])
    copy.compile("adam", "mse", ["mae"], loss_weights=[0.5])
    assert judging_facts(copy, "mse", ["mae"]) != judging_facts(small, "mse", ["mae"])


def test_an_optimizer_without_its_learning_rate() -> None:
    facts = optimizer_facts(K.optimizers.SGD(0.1, 0.9))
    assert optimizer_facts(K.optimizers.SGD(0.2, 0.9)) == facts
    assert optimizer_facts(K.optimizers.SGD(0.1, 0.5)) != facts
    with pytest.raises(DataError, match="Expected a Keras optimiser"):
        optimizer_facts("adma")
