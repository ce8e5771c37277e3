"""Whole networks of the zoo, dense and pruned, in every format that takes them: each file computes what Keras does."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
import tfqprune as tq
from tests.zoo.test_builders import SMALL
from tflite_export.exporting import gather_facts
from tfqprune import zoo

# In a random network one level on a rounding boundary moves all that follows.
_PROMISE = te.Promise(top1=0.75, off_share=0.75)
_HALF = te.Promise(top1=0.75, off_share=1.0)
# Enough for `make test`: one network with shortcuts, one without.
_SOON = {("resnet20", "binary"), ("vgg_small", 2)}
_CASES = [
    pytest.param(name, precision, marks=[] if (name, precision) in _SOON else pytest.mark.slow)
    for name, precision in itertools.product(sorted(SMALL), ("binary", 2, 3, None))
]


def lively(name: str, precision: str | int | None) -> Any:
    """A network with random weights whose batch norms differ by channel and suit its inputs."""
    tf.keras.utils.set_random_seed(5)
    model = zoo.build(name, precision=precision, **SMALL[name])
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            if layer.gamma is not None:
                layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            if layer.beta is not None:
                layer.beta.assign(rng.normal(0.2, 0.3, layer.beta.shape))
    tq.reestimate_batch_norms(model, images(model, 32), batch_size=16)
    return model


def images(model: Any, count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    """Keras remembers what it traced: some hundred MB for each network."""
    yield
    tf.keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize(("name", "precision"), _CASES)
def test_files_of_a_network(tmp_path: Path, name: str, precision: str | int | None) -> None:
    dense = lively(name, precision)
    pruned = tq.prune(dense, tq.make_plan(dense, 0.3, "latent_l1"))
    tq.reestimate_batch_norms(pruned, images(pruned, 32), batch_size=16)
    sizes: dict[str, list[int]] = {}
    for model in (dense, pruned):
        facts, data = gather_facts(model), images(model, 8)
        for label, entry in te.list_formats().items():
            if entry.refusal(facts) is not None or label == "int8" or (label == "float16" and facts.kernels):
                continue  # a loss by design, which random levels amplify; int8 has test_int8_levels.py
            if entry.capability.runtime == "lce":
                pytest.importorskip("larq_compute_engine")
            # below this there would be no file; a wrong one has a tenth of the classes and no sample right
            promise = _HALF if label == "float16" else _PROMISE
            result = te.export(model, tmp_path / "net.tflite", label, data=data, samples=8, promise=promise)
            sizes.setdefault(label, []).append(result.bytes)
    assert "float32" in sizes
    assert ("float16" in sizes) == (precision is None)
    assert ("packed" in sizes) == (precision is not None)
    assert ("binary" in sizes) == (precision == "binary")
    for label, (whole, cut) in sizes.items():
        assert cut < whole, label
