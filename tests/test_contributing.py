"""The examples in CONTRIBUTING.md work as they stand, and do what the text around them says."""

from __future__ import annotations

import re
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
import tfqprune
from tfqprune import zoo
from tfqprune.allocation import get_allocator
from tfqprune.testing import LayerHandlerConformance, assert_law

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples() -> dict[str, types.SimpleNamespace]:
    """Heading -> the names that its Python example defines. Each runs once: registries refuse a second time."""
    found = {}
    for section in TEXT.split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        for code in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            names: dict[str, object] = {"__name__": "contributing"}
            exec(compile(code, f"CONTRIBUTING.md, {heading}", "exec"), names)
            found[heading] = types.SimpleNamespace(**names)
    return found


def test_every_extension_point_has_an_example(examples: dict[str, types.SimpleNamespace]) -> None:
    headings = {"Add a layer handler", "Add a criterion", "Add an allocator", "Add an export format"}
    assert set(examples) == headings


def test_layer_handler(examples: dict[str, types.SimpleNamespace]) -> None:
    names = examples["Add a layer handler"]
    suite = names.TestLayerScale()
    assert isinstance(suite, LayerHandlerConformance)
    suite.test_frozen_only_if_it_must_be()
    suite.test_really_smaller()
    assert_law(suite.make_model(), ratios=0.5, seed=0)


def test_criteria(examples: dict[str, types.SimpleNamespace]) -> None:
    assert examples["Add a criterion"].spread(np.array([[1.0, -1.0], [3.0, 3.0]])).tolist() == [1.0, 0.0]
    model = zoo.resnet(8, precision=2, width=0.25, input_shape=(8, 8, 1))
    for name in ("my_spread", "my_latent_peak"):
        scores = tfqprune.score(model, name)
        assert scores["stage1_block1_conv1"].shape == (4,)
    kernel = np.abs(model.get_layer("stage1_block1_conv1").get_weights()[0]).max(axis=(0, 1, 2))
    assert np.argsort(scores["stage1_block1_conv1"]).tolist() == np.argsort(kernel).tolist()


def test_allocator(examples: dict[str, types.SimpleNamespace]) -> None:
    model = zoo.resnet(8, precision=2, input_shape=(8, 8, 1))
    allocator = get_allocator("my_wide_first")(tfqprune.Budget(memory=0.7))
    plan = allocator.allocate(model, "latent_l1")
    assert tfqprune.cost(model, plan).memory <= 0.7 * tfqprune.cost(model).memory
    slim = tfqprune.prune(model, plan)
    # 16 narrow channels keep a larger share than 64 wide ones.
    kept = {name: slim.get_layer(name).filters for name in ("stage1_block1_conv1", "stage3_block1_conv1")}
    assert kept["stage1_block1_conv1"] / 16 > kept["stage3_block1_conv1"] / 64


def test_format(examples: dict[str, types.SimpleNamespace], tmp_path: Path) -> None:
    image = tf.keras.Input((4,))
    model = tf.keras.Model(image, tf.keras.layers.Dense(3)(image))
    result = tflite_export.export(model, tmp_path / "plain.tflite", format="my_plain")
    assert result.bytes == (tmp_path / "plain.tflite").stat().st_size > 0
