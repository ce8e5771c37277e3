"""Plans of overlapping lifetimes, worked out by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.arena import arena_bytes, plan
from tflite_export.samples import generated_inputs
from tflite_export.verification import keras_outputs


def test_neighbours_in_a_chain_overlap() -> None:
    # a (0-1), b (1-2), c (2-3): a and c share a place
    assert plan([(64, 0, 1), (32, 1, 2), (64, 2, 3)]) == 96


def test_a_shortcut_stays_alive() -> None:
    # the first buffer lives to the end, so all three are alive at operator 2
    assert plan([(64, 0, 3), (32, 1, 2), (64, 2, 3)]) == 160


def test_sizes_are_rounded_up_to_16() -> None:
    assert plan([(1, 0, 0)]) == 16
    assert plan([]) == 0


def test_small_buffers_fill_gaps() -> None:
    # 64 at 0 for 0-1, 48 at 64 for 0-3; then 32 for 2-3 fits at 0 again
    assert plan([(64, 0, 1), (48, 0, 3), (32, 2, 3)]) == 112


def test_arena_of_a_file(exported: Callable[..., te.ExportResult]) -> None:
    # Widest point of the float file: q1's input and output, 8*8*8 and 8*8*16 floats, or q2's, 8*8*16 twice.
    assert arena_bytes(exported("float32", "plain", "2").path) == 4 * (1024 + 1024)


def test_dropped_shapes_are_asked_from_the_runtime(exported: Callable[..., te.ExportResult]) -> None:
    # q2 decodes 3*3*16*16 weights in three steps, two alive at a time, beside its input of 8*8*16 floats, its bias
    # and the scale and shift behind its pooling: three vectors of 16 out of a bundle.
    assert arena_bytes(exported("packed", "plain", "2").path) == 4 * (2 * 2304 + 1024 + 3 * 16)


_MICRO = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=2_000_000)
interpreter.print_allocations()
answers = []
for image in np.load(sys.argv[2]):
    interpreter.set_input(image[None], 0)
    interpreter.invoke()
    answers.append(interpreter.get_output(0))
np.save(sys.argv[3], np.concatenate(answers))
"""


@pytest.mark.parametrize(("format", "kind"), [("int8", "2"), ("int8", "3"), ("float32", "float")])
def test_against_tflite_micro(net: Callable[..., Any], tmp_path: Path, format: str, kind: str) -> None:
    """It plans for tensors and scratch buffers together: no less than ours, and not much more; and answers as Keras."""
    pytest.importorskip("tflite_micro", reason="pip install --pre tflite-micro (Linux) to compare arenas with it")
    model = _plain_float() if kind == "float" else net("plain", kind)
    path = tmp_path / "micro.tflite"
    te.export(model, path, format, batch_size=1)
    images, answers = tmp_path / "images.npy", tmp_path / "answers.npy"
    given = generated_inputs(model, 24)
    np.save(images, given[0])
    command = [sys.executable, "-c", _MICRO, str(path), str(images), str(answers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    head = re.search(r"head (\d+) bytes", said)
    assert head is not None, said
    ours = arena_bytes(path)
    assert ours is not None
    assert ours <= int(head[1]) <= ours + 2048
    np.testing.assert_allclose(np.load(answers), keras_outputs(model, given)[0], atol=1e-5, rtol=1e-5)


def _plain_float() -> Any:
    layers = tf.keras.layers
    x = given = layers.Input((8, 8, 3))
    x = layers.MaxPool2D()(layers.Conv2D(8, 3, activation="relu")(x))
    return tf.keras.Model(given, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(x))))
