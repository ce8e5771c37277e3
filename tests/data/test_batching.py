"""Our own batches are not tuned by tf.data: dropping an iterator does not wait for its autotuning thread."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import tfqprune as tq
from tfqprune import data
from tfqprune.data.batching import untuned
from tfqprune.evaluation import PlanEvaluator
from tfqprune.recovery.training import prepare


def tuned(dataset: tf.data.Dataset) -> bool:
    return dataset.options().autotune.enabled is not False


def test_untuned_batches_are_the_same() -> None:
    dataset = tf.data.Dataset.range(10).batch(4)
    assert tuned(dataset)
    assert not tuned(untuned(dataset))
    assert [batch.tolist() for batch in untuned(dataset).as_numpy_iterator()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_of_arrays() -> None:
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    x, y = np.zeros((8, 3), np.float32), np.zeros(8, np.int64)
    assert not tuned(prepare(model, (x, y), 4, "training").dataset)
    assert not tuned(PlanEvaluator(tq.ChannelGraph(model), (x, y)).validation)


def test_augmented() -> None:
    images = np.zeros((8, 4, 4, 3), np.float32)
    assert not tuned(data.augmented(images, np.zeros(8), batch_size=4))


def test_the_users_own_pipeline_is_left_as_it_is() -> None:
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    own = tf.data.Dataset.from_tensor_slices((np.zeros((8, 3), np.float32), np.zeros(8, np.int64))).batch(4)
    assert tuned(prepare(model, own, 4, "training").dataset)
