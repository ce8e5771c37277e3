"""What is no model for us is refused with a clear TypeError, and Keras 3 with a clear ImportError."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.errors import ModelTypeError

K = tf.keras.layers


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = K.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def built_subclass() -> tf.keras.Model:
    model = Subclassed()
    model(tf.zeros((1, 3)))
    return model


def lookup() -> tf.keras.Model:
    words = K.IntegerLookup(name="words")
    words.adapt([3, 5, 5])
    inputs = K.Input((1,), dtype="int64")
    return tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(K.Embedding(4, 3)(words(inputs)))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "Expected a tf_keras model. Received: None"),
        (lambda: "model.keras", "of type str"),
        (lambda: K.Dense(3), "of type Dense"),
        (lambda: tf.keras.Sequential([K.Dense(3)], name="late"), "'late', which has not been built"),
        (lookup, r"'words' \(of type IntegerLookup\), which looks values up"),
        (Subclassed, "a subclassed model"),
        (built_subclass, "a subclassed model"),
    ],
)
def test_refused(make, message: str) -> None:
    model = make()
    for use in (tq.ChannelGraph, tq.cost):
        with pytest.raises(ModelTypeError, match=message):
            use(model)
    assert issubclass(ModelTypeError, TypeError)


def test_zero_size_layers() -> None:
    inputs = K.Input((4,))
    model = tf.keras.Model(inputs, K.Dense(2)(K.Dense(0, name="empty")(inputs)))
    with pytest.raises(ModelTypeError, match=r"'empty', whose weight .* has shape \(4, 0\)"):
        tq.ChannelGraph(model)


def run(code: str, legacy: str | None = None) -> subprocess.CompletedProcess[str]:
    import os

    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    if legacy is not None:
        environment["TF_USE_LEGACY_KERAS"] = legacy
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_import_chooses_legacy_keras() -> None:
    done = run("import tfqprune, tensorflow as tf; print(tf.keras.Model.__module__)")
    assert done.stdout.startswith("tf_keras."), done.stderr


def test_too_late_is_said_clearly() -> None:
    done = run("import tensorflow\nimport tfqprune")
    assert done.returncode != 0
    assert "ImportError: tfqprune needs legacy Keras" in done.stderr
    assert "Import tfqprune before tensorflow, or set the environment variable TF_USE_LEGACY_KERAS=1" in done.stderr


def test_early_tensorflow_with_legacy_keras_is_fine() -> None:
    done = run("import tensorflow\nimport tfqprune\nprint('fine')", legacy="1")
    assert done.stdout == "fine\n", done.stderr


def test_keras_3_model() -> None:
    code = """
import tfqprune as tq, keras
inputs = keras.Input((3,))
model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
try:
    tq.ChannelGraph(model)
except TypeError as error:
    print(error)
"""
    done = run(code)
    assert "a model of Keras 3" in done.stdout, done.stderr


def test_importing_is_cheap() -> None:
    done = run("import sys, tfqprune, tfqprune.errors; print('tensorflow' in sys.modules)")
    assert done.stdout == "False\n"
