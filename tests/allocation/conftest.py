"""A small network with data for it, and a search over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.testing import shake

K = tf.keras.layers

Data = tuple[np.ndarray, np.ndarray]


def make_model() -> tf.keras.Model:
    """Conv 8 -> batch norm -> 2-bit conv 12 -> batch norm -> 2-bit conv 10 -> batch norm -> dense 8 -> dense 4."""
    tf.keras.utils.set_random_seed(0)
    x = image = K.Input((6, 6, 3))
    x = K.BatchNormalization()(K.Conv2D(8, 3, padding="same", name="first")(x))
    for name, filters in (("second", 12), ("third", 10)):
        x = lq.layers.QuantConv2D(
            filters, 3, padding="same", kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
            input_quantizer=lq.quantizers.DoReFa(2, mode="activations"), use_bias=False, name=name,
        )(x)  # fmt: skip
        x = K.BatchNormalization()(x)
    x = K.Dense(8, activation="relu", name="fourth")(K.GlobalAveragePooling2D()(x))
    return shake(tf.keras.Model(image, K.Dense(4, activation="softmax", name="last")(x)))


@pytest.fixture(scope="session")
def model() -> tf.keras.Model:
    return make_model()


def make_data(model: tf.keras.Model, seed: int, count: int = 64) -> Data:
    """Noise, and which class the model finds more likely than it does on average."""
    x = np.random.default_rng(seed).normal(size=(count, 6, 6, 3)).astype("float32")
    log = np.log(model(x))
    return x, np.argmax(log - log.mean(axis=0), axis=-1)


@pytest.fixture(scope="session")
def train(model: tf.keras.Model) -> Data:
    return make_data(model, 1)


@pytest.fixture(scope="session")
def validation(model: tf.keras.Model) -> Data:
    return make_data(model, 2)


@pytest.fixture
def make_tuner(model: tf.keras.Model, tmp_path: Path) -> Callable[..., tq.RatioTuner]:
    """A tuner in a folder of the test's own; arguments override what is usual here."""

    def make(**options: Any) -> tq.RatioTuner:
        usual = {"criterion": "latent_l1", "max_trials": 6, "directory": tmp_path, "project_name": "search"}
        return tq.RatioTuner(**{"model": model, "budget": tq.Budget(memory=0.6), **usual, **options})

    return make
