"""Distances between filters, the greedy choice among them, and what large layers cost."""

from __future__ import annotations

import tracemalloc

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist

from tfqprune.channels import ChannelGraph
from tfqprune.criteria.pairwise import batch_norm_follows, squared_distances
from tfqprune.criteria.redundancy import nearest_first

K = tf.keras.layers


@hypothesis.given(
    arrays.arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(-255, 255))
)
@hypothesis.settings(max_examples=100)
def test_exact_on_codes(rows: np.ndarray) -> None:
    np.testing.assert_array_equal(squared_distances(rows), cdist(rows, rows, "sqeuclidean"))
    turned = np.minimum(cdist(rows, rows, "sqeuclidean"), cdist(rows, -rows, "sqeuclidean"))
    np.fill_diagonal(turned, 0)
    np.testing.assert_array_equal(squared_distances(rows, flipped=True), turned)


@hypothesis.given(arrays.arrays(np.float64, (5, 8), elements=st.floats(-9, 9)))
@hypothesis.settings(max_examples=100)
def test_near_on_values(rows: np.ndarray) -> None:
    np.testing.assert_allclose(squared_distances(rows), cdist(rows, rows, "sqeuclidean"), atol=1e-9)


@hypothesis.given(
    arrays.arrays(np.int8, (7, 5), elements=st.sampled_from([-1, 1])), st.permutations(np.arange(1, 8).tolist())
)
@hypothesis.settings(max_examples=100)
def test_greedy_choice_as_one_would_write_it(rows: np.ndarray, norms: list[int]) -> None:
    distances = cdist(rows, rows, "sqeuclidean")
    left, expected = list(range(7)), []
    while left:
        near = {a: min((distances[a, b] for b in left if b != a), default=0) for a in left}
        goes = min(left, key=lambda a: (near[a], norms[a]))
        expected.append(goes)
        left.remove(goes)
    assert nearest_first(distances, np.asarray(norms, float)).tolist() == expected


def test_no_array_of_filters_by_filters_by_weights() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (256, 4608)).astype(np.int8) * 2 - 1
    tracemalloc.start()
    squared_distances(rows, flipped=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * rows.size  # filters x filters x weights would be 256 times the rows


class NormRelu(K.BatchNormalization):
    """A norm that a turned filter does not pass as it was."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.nn.relu(super().call(inputs, training=training))


@pytest.mark.parametrize(
    ("behind", "expected"), [("norm", True), ("v1", True), ("both", False), ("relu", False), ("own", False)]
)
def test_batch_norm_follows(behind: str, expected: bool) -> None:
    inputs = K.Input((2,))
    x = K.Dense(3, name="hidden")(inputs)
    kind = {"v1": tf.compat.v1.keras.layers.BatchNormalization, "own": NormRelu}.get(behind, K.BatchNormalization)
    outputs = [K.Dense(1)(kind()(K.ReLU()(x) if behind == "relu" else x))]
    if behind == "both":
        outputs.append(K.Dense(1)(x))
    graph = ChannelGraph(tf.keras.Model(inputs, outputs))
    assert batch_norm_follows(graph, graph.records["hidden"]) == expected
