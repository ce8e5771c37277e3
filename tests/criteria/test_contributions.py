"""What units contribute to their consumers, against the layers themselves; the greedy order, by hand."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import hypothesis
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfqprune import progress
from tfqprune.channels import ChannelGraph
from tfqprune.criteria import contributions
from tfqprune.criteria.contributions import covariance, inverse, read
from tfqprune.criteria.filters import members
from tfqprune.criteria.forward import Forward, consumers
from tfqprune.criteria.reconstruction import Reconstruction, removal_order
from tfqprune.errors import CriterionError
from tfqprune.samples import Samples
from tfqprune.scoring import score
from tfqprune.testing.criteria import NETWORKS, network, samples_for

K, Q = tf.keras.layers, lq.layers
ALL = 10**6  # positions: more than there are


def even(variance: np.ndarray) -> np.ndarray:
    """Every output counts alike."""
    return np.ones_like(variance)


CONSUMERS = {
    "same": lambda: K.Conv2D(4, 3, padding="same", name="reader"),
    "strided": lambda: K.Conv2D(4, 3, strides=2, padding="same", name="reader"),
    "uneven": lambda: K.Conv2D(4, (1, 2), strides=(2, 1), name="reader"),
    "dilated": lambda: K.Conv2D(4, 2, dilation_rate=2, padding="same", name="reader"),
    "grouped": lambda: K.Conv2D(4, 3, groups=2, name="reader"),
    "separable": lambda: K.SeparableConv2D(4, 3, depth_multiplier=2, name="reader"),
    "transposed": lambda: K.Conv2DTranspose(4, 3, strides=2, name="reader"),
    "separable_strided": lambda: K.SeparableConv2D(4, 3, strides=2, padding="same", name="reader"),
    "separable_dilated": lambda: K.SeparableConv2D(4, 2, dilation_rate=2, padding="same", name="reader"),
    "separable_signs": lambda: Q.QuantSeparableConv2D(
        4, 3, padding="same", depth_multiplier=3, name="reader",
        input_quantizer="ste_sign", depthwise_quantizer="ste_sign", pointwise_quantizer="ste_sign",
    ),
    "separable_relu": lambda: K.SeparableConv2D(4, 3, activation="relu", name="reader"),
    "transposed_relu": lambda: K.Conv2DTranspose(4, 3, activation="relu", name="reader"),
    "dense": lambda: K.Dense(4, name="reader"),
    "signs_padded_with_one": lambda: Q.QuantConv2D(
        4, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="reader"
    ),
    "dorefa": lambda: Q.QuantConv2D(
        4, 3, padding="same", name="reader",
        input_quantizer=lq.quantizers.DoReFa(2, mode="activations"),
        kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
    ),
}  # fmt: skip


def between(reader: tf.keras.layers.Layer, flat: bool = False) -> tf.keras.Model:
    """image 5x5x2 -> 1x1 conv 4 "producer" -> [flatten] -> READER -> mean, so that it is not the output"""
    image = K.Input((5, 5, 2))
    x = K.Conv2D(4, 1, name="producer")(image)
    x = reader(K.Flatten()(x) if flat else x)
    return tf.keras.Model(image, K.GlobalAveragePooling2D()(x) if len(x.shape) > 2 else K.Dense(2)(x))


def closed(reader: tf.keras.layers.Layer, values: np.ndarray, unit: int, units: np.ndarray) -> np.ndarray:
    """What the reader puts out less when a unit's input slices of its deployed kernels are zero."""
    quantizer = getattr(reader, "input_quantizer", None)
    read = np.asarray(quantizer(values) if quantizer else values)
    if getattr(reader, "pad_values", 0.0):
        read = np.pad(read, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)  # 3x3, stride 1, same
    gone = read * (units != unit)
    config = reader.get_config()
    config.update(activation=None)  # behind it contributions do not add up
    config.update(input_quantizer=None) if quantizer else None
    if getattr(reader, "pad_values", 0.0):
        config.update(padding="valid", pad_values=0.0)
    bare = type(reader).from_config(config)
    bare(read)
    bare.set_weights(reader.get_weights())
    return np.asarray(bare(read)) - np.asarray(bare(gone))


@pytest.mark.parametrize("path", ["_gram_direct", "_gram_through"])
@pytest.mark.parametrize("name", CONSUMERS)
def test_covariance_is_that_of_the_layer(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = getattr(contributions, path)  # whatever is cheaper: both must be right
    monkeypatch.setattr(contributions, "_gram_direct", chosen)
    monkeypatch.setattr(contributions, "_gram_through", chosen)
    monkeypatch.setattr(contributions, "_BLOCK", 4096)  # several blocks
    flat = name == "dense"
    model = between(CONSUMERS[name](), flat)
    graph, reader = ChannelGraph(model), model.get_layer("reader")
    x = np.random.default_rng(0).normal(size=(7, 5, 5, 2)).astype("float32")
    group = graph["producer"]
    (found,) = (
        entry
        for entry in read(graph, [group], Samples([x], None), positions=ALL, batch_size=3, description="")
        if entry[0].name == "reader"
    )
    received = covariance(*found, group, even)
    values = tf.keras.Model(model.input, reader.input)(x).numpy()
    number, slot = graph.units(graph.records["reader"].roles["in"])
    assert (number == group.index).all()
    z = np.stack([closed(reader, values, unit, slot) for unit in range(group.size)])
    z = z.reshape(group.size, -1, z.shape[-1]).astype("float64")
    z -= z.mean(axis=1, keepdims=True)
    expected = np.einsum("ino,jno->ij", z, z) / z.shape[1]
    np.testing.assert_allclose(received, expected / expected.sum(), rtol=2e-4, atol=1e-6)
    # what of each contribution is proportional to the output y: cov(z, y) y / var(y)
    y = z.sum(axis=0)
    along = np.einsum("ino,no->io", z, y) / z.shape[1]
    proportional = np.einsum("io,jo->ij", along, along / np.square(y).mean(axis=0))
    rest = (expected - 0.7 * proportional) / expected.sum()
    np.testing.assert_allclose(covariance(*found, group, even, 0.7), rest, rtol=2e-3, atol=1e-5)
    assert covariance(*found, group, even, 1.0).sum() == pytest.approx(0, abs=1e-5)  # all of y is proportional to y


@pytest.mark.parametrize(
    "reader",
    [
        lambda: K.SeparableConv1D(3, 3, depth_multiplier=2, padding="same", name="reader"),
        lambda: K.SeparableConv1D(3, 3, strides=2, padding="causal", name="reader"),
        lambda: K.SeparableConv1D(3, 3, dilation_rate=2, padding="causal", activation="relu", name="reader"),
        lambda: Q.QuantSeparableConv1D(
            3, 4, strides=2, padding="same", name="reader",
            depthwise_quantizer="ste_tern", pointwise_quantizer="ste_sign",
        ),
    ],
)  # fmt: skip
def test_separable_convolutions_of_lines_are_taken_apart(reader: Callable[[], tf.keras.layers.Layer]) -> None:
    line = K.Input((9, 2))
    read_by = reader()
    model = tf.keras.Model(line, K.GlobalAveragePooling1D()(read_by(K.Conv1D(4, 1, name="producer")(line))))
    consumer = consumers(ChannelGraph(model))["reader"]
    x = np.random.default_rng(0).normal(size=(3, 9, 4)).astype("float32")
    prepared = consumer.prepare(tf.constant(x))
    assert consumer.multiplier == read_by.depth_multiplier
    apart = consumer.filtered(prepared).numpy() @ consumer.kernel[0]
    activation = read_by.activation or tf.identity
    np.testing.assert_allclose(activation(apart), read_by(x), rtol=1e-4, atol=1e-5)


# One row is 4 channels x 4 outputs x 4 bytes = 64 bytes; two batches of 3 samples, 11 x 11 positions, of which 5.
# 2 x 15 rows in 1,920 bytes; 960 bytes: 7 rows a batch, 2 positions of 3 samples; 256: 2 of 3 samples; 64: one each.
@pytest.mark.parametrize(("room", "rows"), [(64 * 2**20, 15), (1920, 15), (960, 6), (256, 2), (64, 1)])
def test_responses_of_wide_layers_take_no_more_than_they_may(
    room: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = between(CONSUMERS["transposed"]())
    graph = ChannelGraph(model)
    samples = Samples([np.random.default_rng(0).normal(size=(6, 5, 5, 2)).astype("float32")], None)

    def responses() -> list[np.ndarray]:
        found = read(graph, [graph["producer"]], samples, positions=5, batch_size=3, description="")
        return next(reading.responses for consumer, reading in found if consumer.name == "reader")

    whole = responses()
    monkeypatch.setattr(contributions, "_RESPONSES", room)
    bounded = responses()
    assert [part.shape for part in bounded] == [(rows, 4, 4)] * 2
    assert sum(part.nbytes for part in bounded) <= max(room, 128)  # one row of each batch is the least
    for some, all_of_them in zip(bounded, whole, strict=True):
        if rows == 15:
            np.testing.assert_array_equal(some, all_of_them)
    assert np.isfinite(score(model, "reconstruction", samples.inputs[0])["producer"]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_computes_what_the_model_computes(name: str) -> None:
    model = network(name)
    graph = ChannelGraph(model)
    inputs, _ = samples_for(model)
    watched = consumers(graph)
    seen = []
    outputs = Forward(graph, watched, lambda consumer, _, prepared: seen.append(consumer.name) or prepared)(
        [tf.constant(array) for array in inputs]
    )
    np.testing.assert_allclose(outputs[0], model(inputs), rtol=1e-4, atol=1e-5)
    assert set(seen) == set(watched)
    assert "depthwise" not in watched  # it passes its channels on


def test_a_layer_that_reads_and_feeds_one_stream_is_a_consumer() -> None:
    """image -> conv -+-> conv "around" -+-> depthwise -> separable -+-> mean: all tied but the last"""
    image = K.Input((5, 5, 2))
    x = K.Conv2D(4, 1, name="first")(image)
    x = K.Add()([x, K.Conv2D(4, 3, padding="same", name="around")(x)])
    x = K.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = K.Add()([x, K.SeparableConv2D(4, 3, padding="same", name="separable")(x)])
    graph = ChannelGraph(tf.keras.Model(image, K.Dense(2, name="last")(K.GlobalAveragePooling2D()(x))))
    assert set(consumers(graph)) == {"first", "around", "separable", "last"}
    (group,) = graph.prunable
    assert [(member.record.name, member.weight) for member in members(graph, group)] == [
        ("first", "kernel"),
        ("around", "kernel"),
        ("separable", "pointwise_kernel"),  # its depthwise kernel is a reader's, not a producer's
        ("depthwise", "depthwise_kernel"),
    ]


def test_nested_and_shared_layers() -> None:
    """image -> conv 4 -> BLOCK -> BLOCK (the same) -> mean -> dense, BLOCK = conv 4 -> batch norm"""
    inner = K.Input((5, 5, 4))
    block = tf.keras.Model(
        inner, K.BatchNormalization()(K.Conv2D(4, 3, padding="same", name="conv")(inner)), name="block"
    )
    image = K.Input((5, 5, 2))
    x = K.Conv2D(4, 1, name="first")(image)
    model = tf.keras.Model(image, K.Dense(2, name="last")(K.GlobalAveragePooling2D()(block(block(x)))))
    graph, x = ChannelGraph(model), np.random.default_rng(0).normal(size=(3, 5, 5, 2)).astype("float32")
    watched = consumers(graph)
    assert set(watched) == {"first", "block/conv", "last"}
    seen = []
    outputs = Forward(graph, watched, lambda consumer, _, prepared: seen.append(consumer.name) or prepared)(
        [tf.constant(x)]
    )
    assert seen == ["first", "block/conv", "block/conv", "last"]
    np.testing.assert_allclose(outputs[0], model(x), rtol=1e-5, atol=1e-6)
    (group,) = graph.prunable  # the second call ties what the block puts out to what it reads
    assert sorted(score(model, "reconstruction", x)[group.name]) == [0, 1, 2, 3]
    assert score(model, "taylor", x)[group.name].all()


# Four units of size 1, z = weight * h over four samples:
#   h0 = + - + -, h1 = + + - -, h2 = h0, h3 = const. Weights 1, 1.1, -1.2, 10.
# Variances: z0 1, z1 1.21, z2 1.44, z3 0 (10 everywhere: a mean that the batch norm takes up); cov(z0, z2) = -1.2.
# One by one the order would be 3, 0, 1, 2. Jointly: 3 (0), 0 (1), then 2: 1.44 - 2 * 1.2 = -0.96 before 1: 1.21.
def test_joint_order_by_hand() -> None:
    inputs = K.Input((4,))
    model = tf.keras.Model(
        inputs, K.Dense(1, use_bias=False, name="last")(K.Dense(4, use_bias=False, name="hidden")(inputs))
    )
    model.get_layer("hidden").set_weights([np.eye(4)])
    model.get_layer("last").set_weights([np.array([[1.0], [1.1], [-1.2], [10]])])
    h0, h1 = np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1])
    x = np.stack([h0, h1, h0, np.full(4, 1.0)], axis=1)
    # order 3, 0, 2, 1
    np.testing.assert_array_equal(score(model, "reconstruction", x)["hidden"], [1, 3, 2, 0])


# Three units that do not vary together, of variances 1, 1.2 and 9, sum 11.2. What remains of each beside the share that
# follows the output, v - r v^2 / 11.2, and of two together, - r v w / 11.2:
# r = 0: 1 and 1.2 go, then 9.
# r = 1: 0.911, 1.071, 1.768: unit 0 goes; then 1.071 - 2 * 0.107 = 0.857 and 1.768 - 2 * 0.804 = 0.161: unit 2, for a
#        batch norm makes up for a scale, however small what is left of the signal.
# r = 0.7: 0.938, 1.110, 3.938: unit 0 goes; then 1.110 - 2 * 0.075 = 0.960 and 3.938 - 2 * 0.5625 = 2.813: unit 1.
@pytest.mark.parametrize(("rescaled", "expected"), [(0.0, [0, 1, 2]), (1.0, [0, 2, 1]), (0.7, [0, 1, 2])])
def test_order_where_batch_norms_rescale(rescaled: float, expected: list[int]) -> None:
    inputs = K.Input((3,))
    hidden, last = (K.Dense(n, use_bias=False, name=name) for n, name in ((3, "hidden"), (1, "last")))
    model = tf.keras.Model(inputs, last(hidden(inputs)))
    hidden.set_weights([np.eye(3)])
    last.set_weights([np.sqrt([[1.0], [1.2], [9.0]])])
    x = np.array([[a, b, c] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1)])
    scores = score(model, Reconstruction(rescaled=rescaled), x)["hidden"]
    np.testing.assert_array_equal(scores, expected)


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(CriterionError, match=r"rescaled to be .* of at least 0 and at most 1\. Received: 1\.5"):
        Reconstruction(rescaled=1.5)
    with pytest.raises(CriterionError, match=r"positions to be a whole number of at least 1\. Received: 0"):
        Reconstruction(positions=0)


# Two readers of the same units. Reader a has outputs of variance 1 + 9 = 10, shares 0.1 and 0.9; reader b works on
# another scale, 100 * (4, 1): shares 0.8 and 0.2. Sums 0.9 and 1.1: unit 0 goes first. Unscaled, b would decide and
# unit 1 would go first.
def test_consumers_count_alike() -> None:
    inputs = K.Input((2,))
    x = K.Dense(2, use_bias=False, name="hidden")(inputs)
    a, b = (K.Dense(1, use_bias=False, name=name) for name in "ab")
    model = tf.keras.Model(inputs, [a(x), b(x)])
    model.get_layer("hidden").set_weights([np.eye(2)])
    a.set_weights([np.array([[1.0], [3.0]])])
    b.set_weights([np.array([[20.0], [10.0]])])
    x = np.array([[1.0, 1], [-1, 1], [1, -1], [-1, -1]])
    np.testing.assert_array_equal(score(model, "reconstruction", x)["hidden"], [0, 1])


# A depthwise scale of (8, 7, ..., 1) / 8 and a bias that the activation cuts most of: the smallest share goes first.
@pytest.mark.parametrize("activation", [None, "relu"])
def test_the_readers_activation_has_no_say(activation: str | None) -> None:
    image = K.Input((2, 2, 8))
    hidden = K.Conv2D(8, 1, activation="relu", use_bias=False, name="hidden")
    reader = K.SeparableConv2D(6, 1, activation=activation)
    model = tf.keras.Model(image, K.Dense(2)(K.GlobalAveragePooling2D()(reader(hidden(image)))))
    hidden.set_weights([np.eye(8)[None, None]])
    reader.set_weights([np.arange(8, 0, -1).reshape(1, 1, 8, 1) / 8, np.ones((1, 1, 8, 6)), np.full(6, -2.0)])
    x = np.random.default_rng(0).uniform(0, 1.5, (256, 2, 2, 8))
    np.testing.assert_array_equal(score(model, "reconstruction", x)["hidden"], [7, 6, 5, 4, 3, 2, 1, 0])


def test_inverse() -> None:
    np.testing.assert_array_equal(inverse(np.array([4.0, 0.5, 0.0])), [0.25, 2.0, 0.0])
    np.testing.assert_array_equal(inverse(np.zeros(2)), [0, 0])


matrices = arrays.arrays(np.float64, (5, 7), elements=st.floats(-3, 3, width=16))


@hypothesis.given(matrices)
@hypothesis.settings(max_examples=50)
def test_each_step_grows_least(rows: np.ndarray) -> None:
    gram = rows @ rows.T
    order, gone = removal_order(gram).tolist(), []
    assert sorted(order) == list(range(5))
    for unit in order:
        left = [other for other in range(5) if other not in gone]
        total = {other: gram[np.ix_([*gone, other], [*gone, other])].sum() for other in left}
        assert total[unit] <= min(total.values()) + 1e-9
        gone.append(unit)


@hypothesis.given(matrices, st.permutations(range(5)))
@hypothesis.settings(max_examples=50)
def test_order_follows_a_permutation(rows: np.ndarray, order: list[int]) -> None:
    gram = rows @ rows.T + np.diag([0.11, 0.23, 0.37, 0.53, 0.71])  # no ties
    moved = gram[np.ix_(order, order)]
    hypothesis.assume(_clear(gram))
    assert [order[unit] for unit in removal_order(moved)] == removal_order(gram).tolist()


def _clear(gram: np.ndarray) -> bool:
    """Whether no two choices are so close that rounding decides."""
    gone: list[int] = []
    for unit in removal_order(gram).tolist():
        left = [other for other in range(len(gram)) if other not in gone]
        growth = sorted(gram[np.ix_([*gone, other], [*gone, other])].sum() for other in left)
        if len(growth) > 1 and growth[1] - growth[0] < 1e-6:
            return False
        gone.append(unit)
    return True


def test_the_stage_behind_the_model_has_a_bar_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    score(network("float"), "reconstruction", samples_for(network("float"))[0][0])
    assert "contributions" in terminal.getvalue()
