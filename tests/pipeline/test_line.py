"""The steps of a run: what one method leaves to another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.pipeline.display import Display
from tfqprune.pipeline.folder import RunFolder
from tfqprune.pipeline.line import Line
from tfqprune.testing.criteria import network


@pytest.mark.parametrize("methods", [["bayesian", "sensitivity"], ["bayesian"]])
def test_the_search_starts_from_sensitivity_where_the_run_is_about_both(tmp_path: Path, methods: list[str]) -> None:
    model: tf.keras.Model = network("float")
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    x = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype("float32")
    data = x, np.argmax(model(x), axis=-1)
    line = Line(
        model, tq.ChannelGraph(model), RunFolder(tmp_path, {"methods": methods}), Display(0), data, "auto", "size"
    )
    budget = tq.Budget(params=0.8)
    line.plan("bayesian", budget, data, data, "latent_l1", {}, 3, 0)
    trials = json.loads((tmp_path / "bayesian" / "trials" / "trials.json").read_text())
    assert len(trials) == 3
    assert (tmp_path / "sensitivity" / "curves.json").exists() == ("sensitivity" in methods)
    if "sensitivity" in methods:
        plan = line.plan("sensitivity", budget, data, data, "latent_l1", {}, 3, 0)
        assert trials[1]["ratios"] == {name: plan.ratios[name] for name in trials[1]["ratios"]}
