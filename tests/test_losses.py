"""Losses of single samples, by hand, and which loss goes with which labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfqprune.errors import DataError
from tfqprune.losses import infer_loss, is_probabilities, loss_name, sample_losses

K = tf.keras.layers


def model_with(*sizes: int) -> tf.keras.Model:
    inputs = K.Input((2,))
    return tf.keras.Model(inputs, [K.Dense(size, name=f"out{index}")(inputs) for index, size in enumerate(sizes)])


PROBABILITIES = tf.constant([[0.5, 0.5], [0.2, 0.8]])


# -log 0.5 and -log 0.8
@pytest.mark.parametrize(
    "labels", [np.array([0, 1]), np.array([[0], [1]]), np.eye(2, dtype="float32"), np.eye(2, dtype=int)]
)
@pytest.mark.parametrize("logits", [False, True])
def test_classes(labels: np.ndarray, logits: bool) -> None:
    output = tf.math.log(PROBABILITIES) + 3 if logits else PROBABILITIES
    losses = sample_losses(model_with(2), [output], [tf.constant(labels)])
    np.testing.assert_allclose(losses, [-np.log(0.5), -np.log(0.8)], rtol=1e-4)


# The model's own answers: class 0 (the first of equals) and class 1.
def test_own_answers_stand_in() -> None:
    losses = sample_losses(model_with(2), [PROBABILITIES], None)
    np.testing.assert_allclose(losses, [-np.log(0.5), -np.log(0.8)], rtol=1e-4)


# Two classes in one number: -log 0.9 for 1, -log(1 - 0.2) for 0.
def test_one_probability() -> None:
    output = tf.constant([[0.9], [0.2]])
    losses = sample_losses(model_with(1), [output], [tf.constant([1, 0])])
    np.testing.assert_allclose(losses, [-np.log(0.9), -np.log(0.8)], rtol=1e-4)


# (1 - 3)^2 = 4 and (2 - 2)^2 = 0; of two values the mean: ((1 - 0)^2 + (3 - 0)^2) / 2 = 5.
def test_values() -> None:
    losses = sample_losses(model_with(1), [tf.constant([[1.0], [2.0]])], [tf.constant([3.0, 2.0])])
    np.testing.assert_allclose(losses, [4, 0])
    losses = sample_losses(model_with(2), [tf.constant([[1.0, 3.0]])], [tf.zeros((1, 2))])
    np.testing.assert_allclose(losses, [5])


# One position each of two samples wrong: the mean over positions.
def test_dense_predictions() -> None:
    output = tf.reshape(tf.constant([0.5, 0.5, 0.2, 0.8, 0.5, 0.5, 0.5, 0.5]), (2, 2, 2))
    losses = sample_losses(model_with(2), [output], [tf.constant([[0, 1], [1, 1]])])
    np.testing.assert_allclose(losses, [(-np.log(0.5) - np.log(0.8)) / 2, -np.log(0.5)], rtol=1e-4)


def test_outputs_are_summed() -> None:
    both = [tf.constant([[1.0]]), tf.constant([[5.0]])]
    assert float(sample_losses(model_with(1, 1), both, [tf.constant([[0.0]]), tf.constant([[3.0]])])[0]) == 1 + 4


@pytest.mark.parametrize("loss", ["mae", tf.keras.losses.MeanAbsoluteError(), lambda y, out: tf.abs(y - out)])
def test_loss_of_ones_own(loss: object) -> None:
    output, labels = [tf.constant([[1.0], [2.0]])], [tf.constant([[4.0], [2.0]])]
    np.testing.assert_allclose(sample_losses(model_with(1), output, labels, loss), [3, 0])


def test_compiled_loss_is_used() -> None:
    model = model_with(1)
    model.compile(loss="mae")
    assert float(sample_losses(model, [tf.constant([[1.0]])], [tf.constant([[4.0]])])[0]) == 3


# |1 - 4| = 3 and (5 - 3)^2 = 4. Labels without an axis for the one unit get it; no loss for an output: nothing.
@pytest.mark.parametrize(
    ("loss", "weights", "expected"),
    [
        (["mae", tf.keras.losses.mean_squared_error], None, 3 + 4),
        ({"out1": tf.keras.losses.MeanSquaredError(), "out0": "mae"}, {"out1": 0.5, "out0": 2.0}, 6 + 2),
        ({"out1": "mse"}, [5.0, 0.25], 1),
        (lambda labels, output: tf.reduce_sum(tf.abs(labels - output), -1), [1.0, 10.0], 3 + 20),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_compiled_losses_of_several_outputs(loss: object, weights: object, expected: float, shape: tuple) -> None:
    model = model_with(1, 1)
    model.compile(loss=loss, loss_weights=weights)
    outputs, labels = [tf.constant([[1.0]] * 2), tf.constant([[5.0]] * 2)], [tf.fill(shape, 4.0), tf.fill(shape, 3.0)]
    np.testing.assert_allclose(sample_losses(model, outputs, labels), [expected] * 2)
    # a loss of one's own comes without weights
    np.testing.assert_allclose(sample_losses(model, outputs, labels, ["mae", "mse"]), [7, 7])


def test_compiled_function_of_classes() -> None:
    model = model_with(2)
    model.compile(loss=lambda labels, output: tf.gather(output, labels[:, 0], batch_dims=1))  # labels [samples, 1]
    np.testing.assert_allclose(sample_losses(model, [PROBABILITIES], [tf.constant([0, 1])]), [0.5, 0.8])


@pytest.mark.parametrize("loss", ["mse", tf.keras.losses.Huber(), ["mae"], lambda y, out: tf.reduce_mean(y - out)])
def test_regressions_have_no_answers_of_their_own(loss: object) -> None:
    model = model_with(2)
    model.compile(loss=loss)
    with pytest.raises(DataError, match=r"labels for output 'out0', whose loss .* is no cross-entropy.*data=\(x, y\)"):
        sample_losses(model, [PROBABILITIES], None)
    for classes in ("categorical_crossentropy", {"out0": tf.keras.losses.CategoricalCrossentropy()}):
        model.compile(loss=classes)
        np.testing.assert_allclose(sample_losses(model, [PROBABILITIES], None), [-np.log(0.5), -np.log(0.8)], rtol=1e-4)


@pytest.mark.parametrize(
    ("labels", "output", "name"),
    [
        (tf.constant([0, 1]), PROBABILITIES, "SparseCategoricalCrossentropy"),
        (tf.constant([False, True]), PROBABILITIES, "SparseCategoricalCrossentropy"),
        (tf.eye(2), PROBABILITIES, "CategoricalCrossentropy"),
        (tf.constant([[1], [0]]), tf.constant([[0.5], [0.1]]), "BinaryCrossentropy"),
        (tf.constant([[1.5], [0]]), tf.constant([[0.5], [0.1]]), "MeanSquaredError"),
        (tf.constant([[True], [False]]), tf.constant([[0.5], [0.1]]), "BinaryCrossentropy"),
        (tf.constant([30, 28]), tf.constant([[0.5], [0.1]]), "MeanSquaredError"),
        (tf.constant([[-1], [1]]), tf.constant([[0.5], [0.1]]), "MeanSquaredError"),
    ],
)
def test_inferred(labels: tf.Tensor, output: tf.Tensor, name: str) -> None:
    assert type(infer_loss(labels, output)).__name__ == name


def test_all_known_labels_count() -> None:
    labels, output = tf.constant([0, 1]), tf.constant([[0.5], [0.1]])
    assert isinstance(infer_loss(labels, output, np.array([0, 1, 1])), tf.keras.losses.BinaryCrossentropy)
    assert isinstance(infer_loss(labels, output, np.array([0, 1, 2])), tf.keras.losses.MeanSquaredError)
    with pytest.raises(ValueError, match="class numbers from 0 to 2, for 2 classes"):
        infer_loss(labels, PROBABILITIES, np.array([0, 1, 2]))


def test_labels_that_are_one_hot_at_first() -> None:
    """Some of many labels may look like classes where all of them do not."""
    first, every = tf.eye(2), np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    assert isinstance(infer_loss(first, PROBABILITIES, every[:2]), tf.keras.losses.CategoricalCrossentropy)
    assert isinstance(infer_loss(first, PROBABILITIES, every), tf.keras.losses.MeanSquaredError)


def test_probabilities() -> None:
    assert is_probabilities(PROBABILITIES)
    assert not is_probabilities(PROBABILITIES * 2)
    assert not is_probabilities(tf.constant([[1.5, -0.5]]))


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_class_numbers_that_are_no_integers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="class numbers of type float32; cast them to integers"):
        infer_loss(tf.reshape(tf.constant([0.0, 1.0]), shape), PROBABILITIES)
    with pytest.raises(ValueError, match="do not go together"):
        infer_loss(tf.reshape(tf.constant([0.5, 1.0]), shape), PROBABILITIES)


@pytest.mark.parametrize(
    "loss",
    ["BinaryCrossentropy", "binary_crossentropy", tf.keras.losses.BinaryCrossentropy(),
     tf.keras.losses.binary_crossentropy],
)  # fmt: skip
def test_names_of_a_loss(loss: object) -> None:
    assert loss_name(loss) == "binarycrossentropy"


def test_refused() -> None:
    with pytest.raises(DataError, match="no classification"):
        sample_losses(model_with(1), [tf.constant([[1.0]])], None)
    with pytest.raises(DataError, match="Expected a Keras loss"):
        sample_losses(model_with(1), [tf.constant([[1.0]])], [tf.constant([[1.0]])], 5)
    for wrong in (["mse"], {"out2": "mse"}):
        with pytest.raises(DataError, match=r"for the outputs \['out0', 'out1'\]"):
            sample_losses(model_with(1, 1), [tf.constant([[1.0]])] * 2, [tf.constant([[1.0]])] * 2, wrong)
