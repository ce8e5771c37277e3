"""How benchmark programs train: what was computed before a failure is not computed again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune import data, zoo


class Stop(tf.keras.callbacks.Callback):
    """Notes the weights that the last part of a training begins with, and ends it there."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.weights = self.model.get_weights()
        raise KeyboardInterrupt


def test_a_training_goes_on_after_its_first_part(load_benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    train = load_benchmark("training").train
    given, splits = argparse.Namespace(dataset="digits", batch_size=128), data.load("digits", limit=256)
    begun = []
    for _ in range(2):
        stop, model = Stop(), zoo.build("resnet_digits", precision=2, input_shape=splits.input_shape)
        with pytest.raises(KeyboardInterrupt):
            train(given, model, splits, 2, 1, 0, 0.01, tmp_path, [stop])
        begun.append(stop.weights)
    # Both networks began with weights of their own; the second took over what the first had learned.
    for first, second in zip(*begun, strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_was_trained_after_a_cut_is_judged_without_training_again(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    cut_and_trained = load_benchmark("training").cut_and_trained
    given = argparse.Namespace(dataset="digits", limit=128, learning_rate=0.01, batch_size=64)
    splits = data.load("digits", limit=128)
    model = zoo.build("resnet_digits", precision=2, input_shape=splits.input_shape)
    plan = tq.make_plan(model, 0.5, "latent_l1")
    slim = cut_and_trained(given, model, plan, splits, 1, 0, folder=tmp_path)
    again = cut_and_trained(given, model, plan, None, 1, 0, folder=tmp_path)  # no data to train on
    np.testing.assert_array_equal(slim(splits.test.x[:8]), again(splits.test.x[:8]))
    with pytest.raises(AttributeError):  # another order of images is another training
        cut_and_trained(given, model, plan, None, 1, 1, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
