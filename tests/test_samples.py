"""Samples from arrays and data sets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfqprune.data import Split
from tfqprune.errors import DataError
from tfqprune.recovery.training import prepare
from tfqprune.samples import sample_weights, take_samples

K = tf.keras.layers


@pytest.fixture(scope="module")
def one() -> tf.keras.Model:
    inputs = K.Input((3,), name="vector")
    return tf.keras.Model(inputs, K.Dense(2, name="answer")(inputs))


@pytest.fixture(scope="module")
def two() -> tf.keras.Model:
    first, second = K.Input((3,), name="one"), K.Input((1,), name="two")
    return tf.keras.Model([first, second], [K.Dense(2, name="a")(first), K.Dense(1, name="b")(second)])


class Batches(tf.keras.utils.Sequence):
    """As Keras' iterators over images: ``x`` and ``y`` are raw, what it yields is not."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x / 255, self.y


X, Y = np.arange(30.0).reshape(10, 3), np.arange(10)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X, Y, np.ones(10)),
        ([X], Y),
        ({"vector": X}, {"answer": Y}),
        Split(X.astype("float32"), Y),
        tf.data.Dataset.from_tensor_slices((X, Y)),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
        tf.data.Dataset.from_tensor_slices(({"vector": X}, Y)).batch(4),
    ],
    ids=["pair", "weights", "list", "mapping", "split", "single", "batched", "batched mapping"],
)
def test_forms(one: tf.keras.Model, data: object) -> None:
    samples = take_samples(one, data)
    np.testing.assert_array_equal(samples.inputs[0], X)
    assert samples.inputs[0].dtype == np.float32
    np.testing.assert_array_equal(samples.labels[0], Y)


@pytest.mark.parametrize("data", [X, (X,), X.tolist(), X.astype(np.int8), tf.constant(X)])
def test_inputs_alone(one: tf.keras.Model, data: object) -> None:
    samples = take_samples(one, data)
    np.testing.assert_array_equal(samples.inputs[0], X)
    assert samples.labels is None


def test_several_inputs_and_outputs(two: tf.keras.Model) -> None:
    samples = take_samples(two, ({"two": X[:, :1], "one": X}, [Y, Y + 1]))
    np.testing.assert_array_equal(samples.inputs[0], X)
    np.testing.assert_array_equal(samples.inputs[1], X[:, :1])
    np.testing.assert_array_equal(samples.labels[1], Y + 1)
    assert take_samples(two, [X, X[:, :1]]).labels is None


# Keras flattens a mapping by its keys: inputs "y", "z"; outputs "a", "b".
def test_mappings_go_by_the_keys_of_the_model() -> None:
    first, second = K.Input((3,), name="one"), K.Input((1,), name="two")
    outputs = {"b": K.Dense(2, name="left")(first), "a": K.Dense(1, name="right")(second)}
    model = tf.keras.Model({"z": first, "y": second}, outputs)
    data = ({"z": X, "y": X[:, :1]}, {"b": Y, "a": Y + 1})
    for given in (data, tf.data.Dataset.from_tensor_slices(data), tf.data.Dataset.from_tensor_slices(data).batch(4)):
        samples = take_samples(model, given)
        np.testing.assert_array_equal(samples.inputs[0], X[:, :1])
        np.testing.assert_array_equal(samples.inputs[1], X)
        np.testing.assert_array_equal(samples.labels[0], Y + 1)
        np.testing.assert_array_equal(samples.labels[1], Y)
    with pytest.raises(DataError, match=r"inputs \['y', 'z'\]. Received: \['one', 'two'\]"):
        take_samples(model, {"one": X, "two": X[:, :1]})
    with pytest.raises(DataError, match=r"outputs \['a', 'b'\]. Received: \['left', 'right'\]"):
        take_samples(model, (data[0], {"left": Y, "right": Y}))
    with pytest.raises(DataError, match="for input 'z'"):
        take_samples(model, {"z": X[:, :2], "y": X[:, :1]})
    with pytest.raises(DataError, match="the labels of output 'b'"):
        take_samples(model, (data[0], {"b": Y[:3], "a": Y}))
    model.compile(loss={"a": "mse", "b": "mse"})
    model.fit(data[0], {"b": np.zeros((10, 2)), "a": Y + 1}, verbose=0)  # Keras goes by the keys, too


WEIGHTS = np.arange(10) / 10


@pytest.mark.parametrize("given", [None, WEIGHTS, WEIGHTS.tolist(), tf.constant(WEIGHTS)])
def test_sample_weights(one: tf.keras.Model, two: tf.keras.Model, given: object) -> None:
    for model in (one, two):
        weights = sample_weights(model, (X, Y, given), 10)
        assert weights is None if given is None else np.array_equal(weights, WEIGHTS.astype("float32"))
    assert sample_weights(one, (X, Y), 10) is None
    assert sample_weights(one, X, 10) is None


def test_sample_weights_of_each_output(two: tf.keras.Model) -> None:
    for given in ({"b": WEIGHTS}, [np.ones(10), WEIGHTS], (np.ones(10).tolist(), WEIGHTS.tolist())):
        first, second = sample_weights(two, (X, Y, given), 10)
        np.testing.assert_array_equal(first, np.ones(10))
        np.testing.assert_allclose(second, WEIGHTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (WEIGHTS[:5], r"a weight for each of 10 samples. Received: sample weights \(5,\)"),
        (2.0, r"a weight for each of 10 samples. Received: sample weights \(\)"),
        ({"c": WEIGHTS}, r"sample weights for the outputs \['a', 'b'\]. Received: \['c'\]"),
        (np.where(WEIGHTS > 0.5, np.nan, WEIGHTS), "the sample weights. Received: 4 that are NaN"),
        (["heavy"] * 10, "Expected numbers for the sample weights"),
    ],
)
def test_bad_sample_weights(two: tf.keras.Model, given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample_weights(two, (X, Y, given), 10)


def test_a_fixed_choice_keeps_pairs_together(one: tf.keras.Model) -> None:
    first, again = take_samples(one, (X, Y), 4), take_samples(one, (X, Y), 4)
    assert len(first) == 4
    np.testing.assert_array_equal(first.inputs[0][:, 0], 3 * first.labels[0])  # row i of X starts with 3 i
    np.testing.assert_array_equal(first.labels[0], again.labels[0])
    assert first.labels[0].tolist() != [0, 1, 2, 3]


def test_batches_are_told_by_the_input_of_that_name() -> None:
    rows, vector = K.Input((2, 3), name="rows"), K.Input((3,), name="a")  # "a" comes first in a mapping
    model = tf.keras.Model([rows, vector], K.Add()([K.Flatten()(rows), K.Dense(6)(vector)]))
    x = {"rows": np.zeros((10, 2, 3)), "a": X}
    for data in (tf.data.Dataset.from_tensor_slices(x), tf.data.Dataset.from_tensor_slices(x).batch(4)):
        np.testing.assert_array_equal(take_samples(model, data).inputs[1], X)


def test_endless_data_sets_are_not_run_through(one: tf.keras.Model) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).repeat().batch(4)
    assert take_samples(one, data, 9).labels[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_batches(one: tf.keras.Model) -> None:
    sizes = [(len(x[0]), len(y[0])) for x, y in take_samples(one, (X, Y)).batches(4)]
    assert sizes == [(4, 4), (4, 4), (2, 2)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:, :2], r"array of shape \(samples, 3\) for input 'vector'. Received: an array \(10, 2\)"),
        (X[0], r"Received: an array \(3,\). A single sample needs an axis in front"),
        (X[:0], "empty data"),
        (np.array([["a", "b", "c"]]), "Expected numbers"),
        (None, "Expected numbers.*NoneType"),
        ([[1, 2, 3], [1, 2]], r"a list whose entries have unequal shapes. .* in a tuple: \(x, y\)"),
        ([X, Y], r"a list whose entries have unequal shapes. .* in a tuple: \(x, y\)"),
        (Batches(X, Y), "Received: Batches, which yields batches"),
        ((x for x in X), "Received: generator, which yields batches"),
        (np.where(X == 4, np.nan, X), "'vector'. Received: 1 that are NaN or infinite"),
        (np.where(X == 4, 1e39, X), "'vector'. Received: 1 that are NaN or infinite as float32"),  # its end: 3.4e38
        ((X, Y[:5]), None),
        ((X, Y, Y, Y), "a tuple of 4"),
        ((X, "abc"), "Expected numbers for the labels of output 'answer'. Received: str"),
        ((X, Y.astype(str)), "Expected numbers for the labels of output 'answer'"),
        ((X, [[1], [1, 2]] * 5), "labels of output 'answer'. Received: a list whose"),
        ((X, 3), r"the labels of output 'answer' with shape \(\)"),
        ((X, np.where(Y == 9, np.nan, Y)), "labels of output 'answer'. Received: 1 that are NaN or infinite"),
        ((X, np.where(Y == 9, 1e39, Y)), "labels of output 'answer'. Received: 1 that are NaN or infinite as float32"),
        (tf.data.Dataset.from_tensors(((X,), Y)).map(lambda x, y: ({}, y)), r"inputs \['vector'\]. Received: \[\]"),
        ({"matrix": X}, r"inputs \['vector'\]. Received: \['matrix'\]"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(2), "an empty tf.data.Dataset"),
        (tf.data.Dataset.from_tensor_slices(X[:, :2]).batch(2), r"\(10, 2\)"),
    ],
)
def test_refused(one: tf.keras.Model, data: object, message: str | None) -> None:
    with pytest.raises(DataError, match=message or "one label for each of 10 samples"):
        take_samples(one, data)


def test_samples_of_two_shapes() -> None:
    model = tf.keras.Sequential([K.Input((None, 2)), K.GlobalAveragePooling1D(), K.Dense(1)])
    spec = tf.TensorSpec((None, 2), tf.float32)
    data = tf.data.Dataset.from_generator(lambda: iter([np.zeros((3, 2)), np.zeros((4, 2))]), output_signature=spec)
    for given in (data, data.batch(1)):
        with pytest.raises(DataError, match="Expected samples of one shape"):
            take_samples(model, given)


@pytest.mark.parametrize("size", [None, 2])
def test_a_generator_that_does_not_say_its_shapes(one: tf.keras.Model, size: int | None) -> None:
    rows = np.arange(18, dtype=np.float32).reshape(6, 3)
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_types=tf.float32)
    np.testing.assert_array_equal(take_samples(one, data if size is None else data.batch(size)).inputs[0], rows)
    with pytest.raises(DataError, match="Say the shapes"):
        prepare(one, data, 2, "train")


def test_a_single_output_in_a_tuple(one: tf.keras.Model) -> None:
    x, y = np.ones((6, 3)), np.arange(6)
    samples = take_samples(one, tf.data.Dataset.from_tensor_slices(((x,), (y,))).batch(3))
    np.testing.assert_array_equal(samples.labels[0], y)


@pytest.mark.parametrize("length", [5, 9, 11, 30])
def test_labels_of_another_length(one: tf.keras.Model, length: int) -> None:
    for count in (4, 256):  # whether or not only some of the samples are looked at
        with pytest.raises(DataError, match=rf"one label for each of 10 samples. Received: .*\({length},\)"):
            take_samples(one, (X, np.zeros(length)), count)


def test_refused_for_several_inputs(two: tf.keras.Model) -> None:
    with pytest.raises(DataError, match="a list of 2 arrays"):
        take_samples(two, X)
    with pytest.raises(DataError, match="as many samples for each input"):
        take_samples(two, [X, X[:5, :1]])
    for shorter in ([X, X[:5, :1]], [X[:5], X[:, :1]]):
        with pytest.raises(DataError, match="as many samples for each input"):
            take_samples(two, shorter, 4)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_bad_counts(one: tf.keras.Model, count: object) -> None:
    with pytest.raises(DataError, match="number of samples"):
        take_samples(one, X, count)


def test_whole_numbers_stay_whole() -> None:
    inputs = K.Input((2,), dtype="int32", name="tokens")
    model = tf.keras.Model(inputs, K.Flatten()(K.Embedding(5, 2)(inputs)))
    assert take_samples(model, np.ones((3, 2), np.int64)).inputs[0].dtype == np.int32
    with pytest.raises(DataError, match="Expected whole numbers"):
        take_samples(model, np.full((3, 2), 0.5))
