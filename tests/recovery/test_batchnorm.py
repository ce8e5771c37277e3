"""Batch norms re-estimated: exact statistics, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.errors import DataError, ModelTypeError
from tfqprune.testing.criteria import network, samples_for

K = tf.keras.layers


def normed(*layers: tf.keras.layers.Layer, size: int = 1) -> tf.keras.Model:
    return tf.keras.Sequential([K.Input((size,)), *layers])


# Batches of two: (1, 3), (5, 7), (9,). Mean of all 25 / 5 = 5; variance (16 + 4 + 0 + 4 + 16) / 5 = 8, though the
# batches' own variances are 1, 1, 0: what varies between batches counts.
def test_exact_over_unequal_batches() -> None:
    norm = K.BatchNormalization()
    model = normed(norm)
    norm.set_weights([np.array([value]) for value in (2.0, 0.5, 100.0, 100.0)])
    data = tf.data.Dataset.from_tensor_slices(np.array([[1.0], [3], [5], [7], [9]])).batch(2)
    assert tq.reestimate_batch_norms(model, data, batch_size=2) is model
    gamma, beta, mean, variance = norm.get_weights()
    np.testing.assert_allclose(mean, [5], rtol=1e-6)
    np.testing.assert_allclose(variance, [8], rtol=1e-6)
    assert (gamma, beta) == (2, 0.5)


def test_only_so_many_batches() -> None:
    norm = K.BatchNormalization()
    data = tf.data.Dataset.from_tensor_slices(np.array([[1.0], [3], [5], [7], [9]])).repeat().batch(2)
    tq.reestimate_batch_norms(normed(norm), data, batches=1, batch_size=2)
    np.testing.assert_allclose([norm.moving_mean.numpy(), norm.moving_variance.numpy()], [[2], [1]], rtol=1e-6)


# The second norm sees what the first makes of each batch by the batch's own statistics. Batch (0, 2): mean 1,
# variance 1 -> (-1, 1) (epsilon 0). Batch (0, 8): mean 4, variance 16 -> (-1, 1). Second norm: mean 0, variance 1.
# First: mean 2.5, variance (0 + 4 + 0 + 64) / 4 - 6.25 = 10.75.
def test_later_norms_see_normalised_batches() -> None:
    first, second = K.BatchNormalization(epsilon=1e-12), K.BatchNormalization(center=False, scale=False)
    data = tf.data.Dataset.from_tensor_slices(np.array([[0.0], [2], [0], [8]])).batch(2)
    tq.reestimate_batch_norms(normed(first, second), data, batch_size=2)
    np.testing.assert_allclose([first.moving_mean.numpy(), first.moving_variance.numpy()], [[2.5], [10.75]], rtol=1e-6)
    np.testing.assert_allclose(second.moving_mean.numpy(), [0], atol=1e-6)
    np.testing.assert_allclose(second.moving_variance.numpy(), [1], rtol=1e-5)


# All of the first class are 0, all of the second 8: a batch of one class leaves nothing for the second norm, one of
# both has variance 1 there. Labels show that they are sorted, as numbers or one-hot.
@pytest.mark.parametrize("labels", [None, "numbers", "falling", "one-hot"])
def test_data_sorted_by_class(labels: str | None) -> None:
    first, second = K.BatchNormalization(epsilon=1e-6), K.BatchNormalization()
    y = np.repeat([0, 1], 128)
    x = 8.0 * y[:, None]
    shown = {"numbers": y, "falling": 1 - y, "one-hot": np.eye(2)[y]}
    tq.reestimate_batch_norms(normed(first, second), (x, shown[labels]) if labels else x, batch_size=128)
    np.testing.assert_allclose(first.moving_variance, [16], rtol=1e-6)
    np.testing.assert_allclose(second.moving_variance, [1.0 if labels else 0.0], rtol=1e-3, atol=1e-6)


def test_one_large_batch_is_what_training_mode_computes() -> None:
    model = tf.keras.models.clone_model(network("dorefa_residual"))
    model.set_weights(network("dorefa_residual").get_weights())
    (x,), _ = samples_for(model)
    tq.reestimate_batch_norms(model, x)
    np.testing.assert_allclose(model(x, training=False), model(x, training=True), rtol=1e-3, atol=1e-4)


# Rows 1, 3, 5: mean 3, variance (4 + 0 + 4) / 3. What the user's own does to them is not known.
def test_of_tensorflow_1_and_of_the_user() -> None:
    class NormRelu(K.BatchNormalization):
        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            return tf.nn.relu(super().call(inputs, training=training))

    norm, own = tf.compat.v1.keras.layers.BatchNormalization(), NormRelu(name="own")
    model = normed(norm, own)
    with pytest.warns(UserWarning, match=r"Received: 'own' \(NormRelu\), which may do more"):
        tq.reestimate_batch_norms(model, np.array([[1.0], [3], [5]]))
    np.testing.assert_allclose([norm.moving_mean.numpy(), norm.moving_variance.numpy()], [[3], [8 / 3]], rtol=1e-6)
    assert (own.moving_mean.numpy(), own.moving_variance.numpy()) == (0, 1)


def test_other_weights_and_dropout_are_left_alone() -> None:
    dense, norm = K.Dense(3, name="dense"), K.BatchNormalization()
    model = normed(K.Dropout(0.9), dense, norm, size=2)
    before = [weight.numpy() for weight in dense.weights]
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    tq.reestimate_batch_norms(model, x)
    for weight, value in zip(dense.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    np.testing.assert_allclose(norm.moving_mean.numpy(), dense(x).numpy().mean(0), rtol=1e-5, atol=1e-6)
    assert "call" not in vars(norm)


# Steps (1), (5) | (9), masked: mean 3, variance 4 where the mask counts; 5 and 32/3 where it does not.
def test_masked_steps_do_not_count() -> None:
    inputs = K.Input((None, 1))
    norm = K.BatchNormalization()
    model = tf.keras.Model(inputs, norm(K.Masking(9.0)(inputs)))
    data = np.array([[[1.0], [5], [9]]])
    tq.reestimate_batch_norms(model, data)
    np.testing.assert_allclose([norm.moving_mean.numpy(), norm.moving_variance.numpy()], [[3], [4]], rtol=1e-6)
    twin = tq.EvaluationTwin(model)
    twin.re_estimate([tf.constant(data, tf.float32)])
    np.testing.assert_allclose(twin.statistics()[norm.name], [[3], [4]], rtol=1e-6)


def test_images_channels_first_frozen_and_shared_norms() -> None:
    image = K.Input((4, 5, 3))
    norm = K.BatchNormalization(axis=1, trainable=False)
    model = tf.keras.Model(image, K.Add()([norm(image), norm(2 * image)]))
    x = np.random.default_rng(0).normal(size=(9, 4, 5, 3)).astype("float32")
    tq.reestimate_batch_norms(model, x)
    rows = np.concatenate([x, 2 * x])
    np.testing.assert_allclose(norm.moving_mean.numpy(), rows.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), rows.var((0, 2, 3)), rtol=1e-5)


def test_accuracy_comes_back() -> None:
    # A norm whose statistics are of another scale altogether gives a constant answer; re-estimated it does not.
    model = normed(K.BatchNormalization(), K.Dense(1, activation="sigmoid"), size=1)
    model.set_weights([*(np.array([value]) for value in (1.0, 0.0, 1e4, 1.0)), np.array([[5.0]]), np.array([0.0])])
    x = np.linspace(-1, 1, 50)[:, None]
    right = x > 0
    assert ((model.predict(x, verbose=0) > 0.5) == right).mean() == 0.5
    tq.reestimate_batch_norms(model, x)
    assert ((model.predict(x, verbose=0) > 0.5) == right).mean() == 1


def test_nothing_to_do() -> None:
    model = normed(K.Dense(2))
    assert tq.reestimate_batch_norms(model, np.ones((3, 1))) is model


def test_an_error_changes_nothing() -> None:
    def explode(values: tf.Tensor) -> tf.Tensor:
        raise RuntimeError("no")

    norm = K.BatchNormalization()
    lambda_layer = K.Lambda(lambda values: values)
    model = normed(norm, lambda_layer)
    lambda_layer.function = explode
    with pytest.raises(RuntimeError, match="no"):
        tq.reestimate_batch_norms(model, np.full((4, 1), 7.0))
    assert norm.moving_mean.numpy() == 0
    assert "call" not in vars(norm)


def test_infinite_activations() -> None:
    norm = K.BatchNormalization(name="norm")
    model = normed(K.Activation("exponential"), norm)
    with pytest.raises(DataError, match="NaN or infinity at batch norm 'norm'"):
        tq.reestimate_batch_norms(model, np.full((4, 1), 1e4))
    assert norm.moving_mean.numpy() == 0


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"batch_size": 0}, {"batches": 1.5}, {"batch_size": True}])
def test_bad_numbers(wrong: dict) -> None:
    with pytest.raises(DataError, match="a whole number of at least 1"):
        tq.reestimate_batch_norms(normed(K.BatchNormalization()), np.ones((4, 1)), **wrong)


def test_numbers_of_numpy() -> None:
    norm = K.BatchNormalization()
    tq.reestimate_batch_norms(normed(norm), np.array([[1.0], [3], [5], [7]]), np.int64(2), batch_size=np.int32(2))
    np.testing.assert_allclose(norm.moving_mean.numpy(), [4])


def test_bad_data_and_models() -> None:
    model = normed(K.BatchNormalization())
    with pytest.raises(DataError, match=r"Received: an array \(4, 2\)"):
        tq.reestimate_batch_norms(model, np.ones((4, 2)))
    with pytest.raises(DataError, match="endless"):
        tq.reestimate_batch_norms(model, tf.data.Dataset.from_tensors(np.ones((4, 1))).repeat(), batches=None)
    with pytest.raises(ModelTypeError):
        tq.reestimate_batch_norms("model", np.ones((4, 1)))
