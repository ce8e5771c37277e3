"""Scores of tiny networks, derived by hand beside each test."""

from __future__ import annotations

import gc
import weakref

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune.criteria import get_criterion
from tfqprune.criteria.flips import FlipFrequency, FlipFrequencyCallback
from tfqprune.errors import CriterionError
from tfqprune.scoring import score

K = tf.keras.layers


def hidden(
    kernel: list[list[float]], last: list[list[float]] | None = None, quantizer=None, **reader
) -> tf.keras.Model:
    """input -> dense "hidden" with this kernel -> dense "last"; no biases, no activations"""
    values = np.asarray(kernel, "float32")
    inputs = K.Input((values.shape[0],))
    x = lq.layers.QuantDense(values.shape[1], kernel_quantizer=quantizer, use_bias=False, name="hidden")(inputs)
    weights = np.ones((values.shape[1], 1), "float32") if last is None else np.asarray(last, "float32")
    outputs = lq.layers.QuantDense(weights.shape[1], use_bias=False, name="last", **reader)(x)
    model = tf.keras.Model(inputs, outputs)
    model.get_layer("hidden").set_weights([values])
    model.get_layer("last").set_weights([weights])
    return model


def dorefa(bits: int) -> lq.quantizers.DoReFa:
    return lq.quantizers.DoReFa(bits, mode="weights")


# Columns are filters: (1, 3), (-2, 1), (0.5, 0). L1: 4, 3, 0.5; mean 2.5.
# L2: sqrt 10 = 3.162, sqrt 5 = 2.236, 0.5; mean 1.966.
def test_latent_norms() -> None:
    model = hidden([[1, -2, 0.5], [3, 1, 0]])
    np.testing.assert_allclose(score(model, "latent_l1")["hidden"], [1.6, 1.2, 0.2], rtol=1e-6)
    expected = np.array([np.sqrt(10), np.sqrt(5), 0.5])
    np.testing.assert_allclose(score(model, "latent_l2")["hidden"], expected / expected.mean(), rtol=1e-6)


def test_deployed_norms_of_signs_are_ties() -> None:
    model = hidden([[1, -2, 0.5], [3, 1, -0.1]], quantizer="ste_sign")
    for name in ("deployed_l1", "deployed_l2", "deployed_geometric_median"):
        scores = score(model, name)["hidden"]
        if name != "deployed_geometric_median":
            np.testing.assert_array_equal(scores, [1, 1, 1])
    # Signs (+,+), (-,+), (+,-): distances 2, 2, sqrt 8; sums 2 + 2, 2 + sqrt 8, 2 + sqrt 8 = 4, 4.83, 4.83.
    expected = np.array([4, 2 + np.sqrt(8), 2 + np.sqrt(8)])
    np.testing.assert_allclose(scores, expected / expected.mean(), rtol=1e-6)


# DoReFa-2 divides tanh(w) by the largest, 0.7616: w = 1, -1, 0.1 -> 1, -1, 0.131; halved and moved by 0.5: 1, 0, 0.565;
# rounded to thirds: 1, 0, 2/3; back: 1, -1, 1/3. Filters (1, 1/3) and (-1, 1/3): L1 4/3 both.
# With w = 0.9 (0.941 -> 0.970 -> 1) in place of the second 0.1: (1, 1/3) and (-1, 1): L1 4/3 and 2, mean 5/3.
def test_deployed_norm_of_dorefa() -> None:
    even = hidden([[1, -1], [0.1, 0.1]], quantizer=dorefa(2))
    np.testing.assert_allclose(score(even, "deployed_l1")["hidden"], [1, 1], rtol=1e-6)
    model = hidden([[1, -1], [0.1, 0.9]], quantizer=dorefa(2))
    np.testing.assert_allclose(score(model, "deployed_l1")["hidden"], [0.8, 1.2], rtol=1e-6)


# Branch a: L1 of its filters 1 and 3, mean 2: 0.5 and 1.5. Branch b: 30 and 10, mean 20: 1.5 and 0.5. Together 1, 1:
# the branch with weights ten times as large has no more to say.
def test_members_of_a_coupled_group_count_alike() -> None:
    inputs = K.Input((1,))
    a, b = (K.Dense(2, use_bias=False, name=name) for name in "ab")
    model = tf.keras.Model(inputs, K.Dense(1)(K.Add()([a(inputs), b(inputs)])))
    a.set_weights([np.array([[1.0, -3.0]])])
    b.set_weights([np.array([[30.0, 10.0]])])
    np.testing.assert_allclose(score(model, "latent_l1")["a"], [1, 1], rtol=1e-6)


# A grouped convolution, 2 groups of 2 channels: unit j holds channel j of both groups. |w| of its four filters
# (one input channel each, 1x1): 1, 2, 3, 5 -> units 1 + 3 and 2 + 5, mean 5.5. The producer's filters: unit 0 has
# channels 0 and 2: 1 + 1, unit 1: 4 + 4; mean 5. Group of the producer: [2, 8] / 5.
def test_grouped_units_hold_several_filters() -> None:
    image = K.Input((2, 2, 1))
    x = K.Conv2D(4, 1, use_bias=False, name="producer")(image)
    x = K.Conv2D(4, 1, groups=2, use_bias=False, name="grouped")(x)
    model = tf.keras.Model(image, K.Conv2D(1, 1)(x))
    model.get_layer("producer").set_weights([np.array([1.0, 4, 1, 4]).reshape(1, 1, 1, 4)])
    model.get_layer("grouped").set_weights([np.array([[1.0, 2, 3, 5], [0, 0, 0, 0]]).reshape(1, 1, 2, 4)])
    scores = score(model, "latent_l1")
    np.testing.assert_allclose(scores["producer"], [0.4, 1.6], rtol=1e-6)
    np.testing.assert_allclose(scores["grouped"], [4 / 5.5, 7 / 5.5], rtol=1e-6)


# Two layers score the depthwise group: the producer (1, 3 -> 0.5, 1.5) and the depthwise filters (4, 0 -> 2, 0).
def test_depthwise_filters_count() -> None:
    image = K.Input((2, 2, 1))
    x = K.Conv2D(2, 1, use_bias=False, name="producer")(image)
    x = K.DepthwiseConv2D(1, use_bias=False, name="depthwise")(x)
    model = tf.keras.Model(image, K.Conv2D(1, 1)(x))
    model.get_layer("producer").set_weights([np.array([1.0, 3]).reshape(1, 1, 1, 2)])
    model.get_layer("depthwise").set_weights([np.array([4.0, 0]).reshape(1, 1, 2, 1)])
    np.testing.assert_allclose(score(model, "latent_l1")["producer"], [1.25, 0.75], rtol=1e-6)


# |gamma| = 2, 4, 0, mean 2.
@pytest.mark.parametrize("kind", [K.BatchNormalization, tf.compat.v1.keras.layers.BatchNormalization])
def test_batchnorm_scale(kind: type) -> None:
    inputs = K.Input((1,))
    norm = kind()
    model = tf.keras.Model(inputs, K.Dense(1)(norm(K.Dense(3, name="hidden")(inputs))))
    norm.set_weights([np.array([2.0, -4, 0]), np.zeros(3), np.zeros(3), np.ones(3)])
    np.testing.assert_allclose(score(model, "batchnorm_scale")["hidden"], [1, 2, 0], rtol=1e-6)


def test_batchnorm_scale_says_when_there_is_none() -> None:
    model = hidden([[1, -2, 0.5], [3, 1, 0]])
    with pytest.warns(UserWarning, match="'batchnorm_scale' has nothing to read in 'hidden'.*'latent_l1'"):
        scores = score(model, "batchnorm_scale")["hidden"]
    np.testing.assert_allclose(scores, [1.6, 1.2, 0.2], rtol=1e-6)


# Filters 0, 1, 3 on a line: sums of distances 1 + 3, 1 + 2, 3 + 2; mean 4.
def test_geometric_median() -> None:
    np.testing.assert_allclose(score(hidden([[0, 1, 3]]), "geometric_median")["hidden"], [1, 0.75, 1.25], rtol=1e-6)


# Signs of four weights, filters a = ++++, b = +++-, c = ----, e = +-+-. Shares that differ:
#   ab 1/4, ac 1, ae 1/2, bc 3/4, be 1/4, ce 1/2.  Latent norms (times 2): a 1, b 3, c 4, e 2.
# Without a batch norm: nearest pairs ab and be; a has the smallest norm and goes. Left b, c, e: be 1/4: e goes (2 < 3).
# Left bc 3/4: b goes (3 < 4). Order a, e, b, c.
# With one, min(d, 1 - d): ab 1/4, ac 0, ae 1/2, bc 1/4, be 1/4, ce 1/2. ac: a goes. Left bc, be 1/4: e goes (smallest).
# Then b. Order a, e, b, c again; so turn the norms of a and c: a 4, c 1: without: ab, be: e goes (2), then ab: b (3),
# then c (1): order e, b, c, a. With: ac: c goes; ab, be: e goes; b; a: order c, e, b, a.
def redundant(*, norm: bool) -> tf.keras.Model:
    signs = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1], [1, -1, 1, -1]], "float32")
    inputs = K.Input((4,))
    layer = lq.layers.QuantDense(4, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", name="hidden")
    x = layer(inputs)
    model = tf.keras.Model(inputs, K.Dense(1)(K.BatchNormalization()(x) if norm else x))
    layer.set_weights([(signs * np.array([[0.4], [0.3], [0.1], [0.2]])).T, np.zeros(4)])
    return model


def test_redundancy() -> None:
    # order e, b, c, a: a is 3rd (from 0), b 1st, c 2nd, e 0th
    np.testing.assert_array_equal(score(redundant(norm=False), "redundancy")["hidden"], [3, 1, 2, 0])


def test_redundancy_counts_turned_filters_before_a_batch_norm() -> None:
    # order c, e, b, a
    np.testing.assert_array_equal(score(redundant(norm=True), "redundancy")["hidden"], [3, 2, 0, 1])


# Two branches are added. Signs of eight weights, filters of units 0, 1, 2 (no batch norm: turned ones are far):
#   a: ++++++++, ----++++, --++++++: shares that differ 01 4/8, 02 2/8, 12 2/8, mean 1/3; over it 24/16, 12/16, 12/16.
#   b: ++++++++, ---+++++, +-------: 01 3/8, 02 7/8, 12 6/8, mean 2/3; over it 9/16, 21/16, 18/16.
# Sums 01 33/16, 02 33/16, 12 30/16: 12 is nearest. (Undivided it would be 01: 7/8, 9/8, 8/8; in b alone, too.)
# Norms, sizes times sqrt 8: a 0.1, 0.6, 0.2 over their mean 0.3: 1/3, 2, 2/3; b 8, 6, 7 over 7: 8/7, 1 - 1/7, 1;
# sums 31/21, 60/21, 35/21: of 1 and 2 it is 2 that goes (undivided 1: 6.6 < 7.2), then of 0 and 1 it is 0, then 1.
def test_redundancy_over_the_members_of_a_coupled_group() -> None:
    minus = {"a": [[], [0, 1, 2, 3], [0, 1]], "b": [[], [0, 1, 2], [1, 2, 3, 4, 5, 6, 7]]}
    sizes = {"a": [0.1, 0.6, 0.2], "b": [8, 6, 7]}
    inputs = K.Input((8,))
    layers = [lq.layers.QuantDense(3, kernel_quantizer="ste_sign", use_bias=False, name=name) for name in "ab"]
    model = tf.keras.Model(inputs, K.Dense(1)(K.Add()([layer(inputs) for layer in layers])))
    for layer in layers:
        kernel = np.tile(sizes[layer.name], (8, 1))
        for unit, positions in enumerate(minus[layer.name]):
            kernel[positions, unit] *= -1
        layer.set_weights([kernel])
    # order 2, 0, 1: unit 0 is 1st (from 0), unit 1 is 2nd, unit 2 is 0th
    np.testing.assert_array_equal(score(model, "redundancy")["a"], [1, 2, 0])


# y = 3 h0 + h1 with h = x. Sample (1, 2), label 4: y = 5, dL/dy = 2 (5 - 4) = 2; dL/dg = 2 * (3 * 1, 1 * 2) = (6, 4).
# Sample (0, 1), label 3: y = 1, dL/dy = -4; dL/dg = -4 * (0, 1) = (0, -4).
# Mean |.|: 3, 4. Half the mean square: (36 + 0) / 4 = 9, (16 + 16) / 4 = 8.
def test_gates() -> None:
    model = hidden([[1, 0], [0, 1]], [[3], [1]])
    data = (np.array([[1.0, 2], [0, 1]]), np.array([[4.0], [3.0]]))
    np.testing.assert_allclose(score(model, "taylor", data)["hidden"], [3, 4], rtol=1e-6)
    np.testing.assert_allclose(score(model, "fisher", data)["hidden"], [9, 8], rtol=1e-6)
    # twice the loss, twice the gradient
    twice = score(model, "taylor", data, loss=lambda y, out: 2 * tf.reduce_sum(tf.square(y - out), -1))
    np.testing.assert_allclose(twice["hidden"], [6, 8], rtol=1e-6)


# The gate of a unit that two layers read closes for both: y = (3 h) + (-3 h) does not depend on it.
def test_gate_is_shared_by_all_consumers() -> None:
    inputs = K.Input((2,))
    x = K.Dense(2, use_bias=False, name="hidden")(inputs)
    a, b = (K.Dense(1, use_bias=False, name=name) for name in "ab")
    model = tf.keras.Model(inputs, K.Add()([a(x), b(x)]))
    model.get_layer("hidden").set_weights([np.eye(2)])
    a.set_weights([np.array([[3.0], [1]])])
    b.set_weights([np.array([[-3.0], [1]])])
    # Unit 1: y = 2 h1 = 2, label 0, dL/dy = 4, dL/dg = 4 * 2 = 8.
    scores = score(model, "taylor", (np.ones((1, 2)), np.zeros((1, 1))))["hidden"]
    np.testing.assert_allclose(scores, [0, 8], atol=1e-6)


# A sign quantiser in the consumer: it reads (1, -1) whatever the size of h. y = 3 - 1 = 2; label 1; dL/dy = 2;
# dL/dg = 2 * (3 * 1, 1 * -1).
def test_gate_stands_behind_the_input_quantiser() -> None:
    model = hidden([[1, 0], [0, 1]], [[3], [1]], input_quantizer="ste_sign")
    scores = score(model, "taylor", (np.array([[0.2, -7.0]]), np.ones((1, 1))))["hidden"]
    np.testing.assert_allclose(scores, [6, 2], rtol=1e-6)


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "mean_activation", "apoz", "reconstruction"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_bad_batch_sizes(criterion: str, size: object) -> None:
    with pytest.raises(CriterionError, match=rf"batch_size to be a whole number of at least 1\. Received: {size}"):
        get_criterion(criterion, batch_size=size)


# "last" reads h and, once more, h at three positions, whose mean is taken: y = 2 (2 h0 + h1). h = (1, 3): y = 10, label
# 9.5: dL/dy = 1, dL/dg = 2 (2 * 1, 1 * 3) = (4, 6); halves of squares 8, 18. Sizes 1, 3, over their mean 0.5, 1.5.
def test_a_reader_of_inputs_of_two_ranks() -> None:
    inputs = K.Input((2,))
    x = K.Dense(2, use_bias=False, name="hidden")(inputs)
    last = K.Dense(1, use_bias=False, name="last")
    several = last(K.RepeatVector(3)(x))
    model = tf.keras.Model(inputs, K.Add()([last(x), K.Flatten()(K.GlobalAveragePooling1D()(several))]))
    model.get_layer("hidden").set_weights([np.eye(2)])
    last.set_weights([np.array([[2.0], [1.0]])])
    data = (np.array([[1.0, 3.0]]), np.array([[9.5]]))
    np.testing.assert_allclose(score(model, "taylor", data)["hidden"], [4, 6], rtol=1e-6)
    np.testing.assert_allclose(score(model, "fisher", data)["hidden"], [8, 18], rtol=1e-6)
    np.testing.assert_allclose(score(model, "mean_activation", data)["hidden"], [0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(score(model, "apoz", (data[0] * [[1, 0]],))["hidden"], [2, 0], rtol=1e-6)


# h = (1, 2) and (0, -1): mean |h| 0.5, 1.5, their mean 1. Share that is not zero: 0.5, 1; mean 0.75.
@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_the_loss_follows_from_all_labels(name: str) -> None:
    """The first batch alone, whose labels are all 0, would look like one of two classes."""
    rng = np.random.default_rng(0)
    model = hidden(rng.normal(size=(3, 5)))
    data = rng.normal(size=(64, 3)).astype("float32"), np.repeat([0, 30], 32)
    by_batch, at_once = (score(model, name, data, batch_size=size)["hidden"] for size in (32, 64))
    np.testing.assert_allclose(by_batch, at_once, rtol=1e-5)


def test_gates_need_a_batch_of_samples() -> None:
    inputs = K.Input((5, 8, 8, 3))
    x = K.Conv2D(6, 3)(tf.reshape(inputs, (-1, 8, 8, 3)))  # frames, folded into the batch
    model = tf.keras.Model(inputs, K.Dense(4, activation="softmax", name="last")(K.GlobalAveragePooling2D()(x)))
    with pytest.raises(
        CriterionError, match=r"sample by sample. Received: 'last', which reads 40 entries of a batch of 8"
    ):
        score(model, "taylor", np.zeros((8, 5, 8, 8, 3), "float32"))


def test_activations() -> None:
    model = hidden([[1, 0], [0, 1]])
    x = np.array([[1.0, 2], [0, -1]])
    np.testing.assert_allclose(score(model, "mean_activation", x)["hidden"], [0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(score(model, "apoz", x)["hidden"], [2 / 3, 4 / 3], rtol=1e-6)


# Behind a sign: h0 is +, +, +, -: the rarer sign has share 1/4; h1 +, +, -, -: 1/2; mean 3/8. Sizes are read before it:
# mean |h0| = 1, mean |h1| = 3.
def test_activations_of_a_binary_layer() -> None:
    model = hidden([[1, 0], [0, 1]], input_quantizer="ste_sign")
    x = np.array([[1.0, 3], [1, 3], [1, -3], [-1, -3]])
    np.testing.assert_allclose(score(model, "apoz", x)["hidden"], [2 / 3, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(score(model, "mean_activation", x)["hidden"], [0.5, 1.5], rtol=1e-6)


# 2-bit DoReFa activations are clipped to [0, 1] and rounded to thirds: 0.1 -> 0, 0.5 -> 2/3 (1.5 rounds to even, 2),
# so unit 0 reads 0, 0, unit 1 reads 2/3, 1: shares of zeros 1 and 0.
def test_apoz_reads_behind_the_quantiser() -> None:
    model = hidden([[1, 0], [0, 1]], input_quantizer=lq.quantizers.DoReFa(2, mode="activations"))
    scores = score(model, "apoz", np.array([[0.1, 0.5], [-4.0, 7.0]]))["hidden"]
    np.testing.assert_allclose(scores, [0, 2], rtol=1e-6)


# Ranks of latent_l1 on (4, 3, 0.5): 1, 0.5, 0. Taylor needs data; random alone would do, but by hand: batch-norm scale
# (1, 2, 0) -> 0.5, 1, 0. Weights 3 : 1 -> (3 * 1 + 0.5) / 4, (3 * 0.5 + 1) / 4, 0.
def test_rank_combination() -> None:
    inputs = K.Input((2,))
    norm = K.BatchNormalization()
    model = tf.keras.Model(inputs, K.Dense(1)(norm(K.Dense(3, use_bias=False, name="hidden")(inputs))))
    model.get_layer("hidden").set_weights([np.array([[1, -2, 0.5], [3, 1, 0]])])
    norm.set_weights([np.array([2.0, -4, 0]), np.zeros(3), np.zeros(3), np.ones(3)])
    scores = score(model, {"latent_l1": 3, "batchnorm_scale": 1})["hidden"]
    np.testing.assert_allclose(scores, [0.875, 0.625, 0], rtol=1e-6)
    assert get_criterion({"latent_l1": 3, "batchnorm_scale": 1}).name == "3 latent_l1 + batchnorm_scale"


def test_options_go_to_the_criteria_that_take_them() -> None:
    combined = get_criterion({"reconstruction": 1, "mean_activation": 1, "random": 2}, batch_size=8, seed=3)
    (greedy, _), (activation, _), (chance, _) = combined.parts
    assert (greedy.batch_size, activation.batch_size, chance.seed) == (8, 8, 3)
    model = hidden([[1, -2, 0.5], [3, 1, -0.1]], quantizer="ste_sign")
    data = np.array([[1.0, 2], [3, 1], [-1, 1]])
    for options in ({"batch_size": 2}, {"positions": 1}):  # of binary networks, `auto` is a combination
        np.testing.assert_array_equal(
            score(model, "auto", data, **options)["hidden"], score(model, "auto", data)["hidden"]
        )
    with pytest.raises(CriterionError, match=r"options that reconstruction or mean_activation takes. Received: seed"):
        score(model, "auto", data, seed=1)


def test_auto_is_no_part_of_a_combination() -> None:
    with pytest.raises(CriterionError, match="Received: 'auto', which stands for one by itself"):
        get_criterion({"auto": 1, "random": 1})


# sqrt at 0 has an infinite slope, and the gate's derivative there is 0 times it.
def test_gradients_that_are_not_finite_name_the_layer() -> None:
    inputs = K.Input((2,))
    x = K.Lambda(tf.sqrt)(K.ReLU()(K.Dense(3, name="reader")(K.ReLU()(K.Dense(3, name="hidden")(inputs)))))
    model = tf.keras.Model(inputs, K.Dense(2)(x))
    model.get_layer("hidden").set_weights([np.ones((2, 3)), np.zeros(3)])
    model.get_layer("reader").set_weights([np.array([[1.0, -1, 1]] * 3), np.zeros(3)])
    with pytest.raises(CriterionError, match=r"Expected finite gradients.*down to layer 'reader'"):
        score(model, "taylor", (np.ones((4, 2)), np.zeros(4, int)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random", {"seed": "a"}),
        ("random", {"seed": -1}),
        ("random", {"seed": 1.5}),
        ("flip_frequency", {"callback": 3}),
    ],
)
def test_bad_options(name: str, options: dict) -> None:
    (option,) = options
    with pytest.raises(CriterionError, match=f"Expected {option} to be a"):
        get_criterion(name, **options)


def test_data_in_the_place_of_the_criterion() -> None:
    with pytest.raises(CriterionError, match=r"Expected a criterion: a name, .* Received: ") as caught:
        get_criterion((np.zeros((50, 50)).tolist(), [0] * 50))
    assert len(str(caught.value)) < 250


def test_ties_share_a_rank() -> None:
    # All signs have the same L1: each gets the mean of ranks 0, 0.5, 1.
    model = hidden([[1, -2, 0.5], [3, 1, -0.1]], quantizer="ste_sign")
    np.testing.assert_allclose(score(model, {"deployed_l1": 1})["hidden"], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("weights", [{}, {"latent_l1": 0}, {"latent_l1": -1}, {"latent_l1": "1"}, {"latent_l1": True}])
def test_bad_weights(weights: dict) -> None:
    with pytest.raises(CriterionError, match=r"Expected a mapping|Expected the weight of criterion 'latent_l1' to be"):
        get_criterion(weights)


# The callback looks after each of three batches. Signs of filter 0: +, - and of filter 1: +, +. We turn by hand:
# in batch 1 the first weight of filter 0, in batch 3 it turns back and so does one of filter 1.
# Flips: filter 0: 2 and 0, filter 1: 1 and 0, in 3 looks. Means: 1/3 and 1/6; scores 2/3 and 5/6, mean 3/4.
def test_flip_frequency() -> None:
    model = hidden([[1, 1], [-1, 1]], quantizer="ste_sign")
    layer, callback = model.get_layer("hidden"), FlipFrequencyCallback()
    callback.set_model(model)
    callback.on_train_begin()
    for batch, kernel in enumerate(([[-1, 1], [-1, 1]], [[-0.5, 1], [-1, 1]], [[1, 1], [-1, -1]])):
        layer.set_weights([np.asarray(kernel, "float32")])
        callback.on_train_batch_end(batch)
    assert callback.looks == 3
    np.testing.assert_allclose(callback.frequency("hidden"), np.array([[2, 0], [0, 1]]) / 3)
    np.testing.assert_allclose(score(model, "flip_frequency")["hidden"], np.array([2 / 3, 5 / 6]) / 0.75)
    np.testing.assert_allclose(
        score(model, FlipFrequency(callback))["hidden"], score(model, "flip_frequency")["hidden"]
    )


def test_flips_are_collected_by_fit() -> None:
    model = hidden(np.full((3, 4), 0.001).tolist(), quantizer="ste_sign")
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    callback = FlipFrequencyCallback(every=np.int64(2))
    x = np.random.default_rng(0).normal(size=(40, 3))
    model.fit(x, np.full((40, 1), 9.0), batch_size=5, epochs=1, verbose=0, callbacks=[callback])
    assert callback.looks == 4  # 8 batches, every second
    assert callback.flips["hidden", "kernel"].sum() > 0


# 4 batches an epoch, looked at every third: after batches 3, 6, 9 and 12 of 3 epochs. Two more epochs go on to batch
# 20: after 15 and 18. With every=6 no epoch of 4 has a look, but batches 6 and 12 have, then 18. In executions of two
# steps, which end with batches 2, 4, 6, ..., the looks are at 4 (for 3), 6, 10 (for 9), 12; then 16 (for 15) and 18.
@pytest.mark.parametrize(
    ("every", "steps", "looks", "later"), [(3, 1, 4, 6), (6, 1, 2, 3), (3, 2, 4, 6), (13, 1, 0, 1)]
)
def test_batches_are_counted_over_epochs(every: int, steps: int, looks: int, later: int) -> None:
    model = hidden(np.full((3, 4), 0.001).tolist(), quantizer="ste_sign")
    model.compile("sgd", "mse", steps_per_execution=steps)
    callback = FlipFrequencyCallback(every=every)
    x, y = np.ones((8, 3)), np.ones((8, 1))
    model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=[callback])
    assert (callback.batches, callback.looks) == (12, looks)
    if not looks:
        with pytest.raises(CriterionError, match="Received: one of 12 batches, watched every 13"):
            score(model, "flip_frequency")
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[callback])
    assert (callback.batches, callback.looks) == (20, later)


def test_a_watched_model_is_let_go() -> None:
    model = hidden([[1, 1], [-1, 1]], quantizer="ste_sign")
    model.compile("sgd", "mse", run_eagerly=True)  # TensorFlow itself keeps a model whose training was traced
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0, callbacks=[FlipFrequencyCallback()])
    assert score(model, "flip_frequency")["hidden"].shape == (2,)
    model, watched = None, weakref.ref(model)
    gc.collect()
    assert watched() is None


def test_flips_without_a_training() -> None:
    with pytest.raises(CriterionError, match=r"needs a training that was watched.*FlipFrequencyCallback"):
        score(hidden([[1, 1], [-1, 1]], quantizer="ste_sign"), "flip_frequency")
