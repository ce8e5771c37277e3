"""TensorFlow operators on Keras tensors: cut where it is safe, frozen with a reason where not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.slim import prune
from tfqprune.testing import assert_law, random_plan

K = tf.keras.layers


def between(function: Callable[..., tf.Tensor], branches: int = 1, filters: int = 16) -> tf.keras.Model:
    """input (8, 8, 3) -> conv a, b, ... (16 each) -> FUNCTION -> [flatten] -> dense(5)"""
    inputs = K.Input((8, 8, 3))
    convs = [K.Conv2D(filters, 3, padding="same", name=name)(inputs) for name in "abc"[:branches]]
    outputs = [K.Dense(5)(K.Flatten()(part)) for part in tf.nest.flatten(function(*convs))]
    return tf.keras.Model(inputs, outputs)


CUT = {
    "add": (2, lambda a, b: a + b),
    "subtract": (2, lambda a, b: a - b),
    "multiply": (2, lambda a, b: a * b),
    "divide": (2, lambda a, b: a / (tf.abs(b) + 1.0)),
    "maximum": (2, tf.maximum),
    "minimum": (2, tf.minimum),
    "add_n": (2, lambda a, b: tf.add_n([a, b])),
    "scalar": (1, lambda a: 1.0 - 2.0 * a),
    "constant_per_channel": (1, lambda a: a * np.linspace(1, 2, 16, dtype="float32")),
    "constant_list": (1, lambda a: a * [float(value) for value in range(1, 17)]),
    "constant_list_of_lists": (1, lambda a: tf.add(a, [[[value / 7 for value in range(16)]]])),
    "constant_tuple_of_whole_numbers": (1, lambda a: a - tuple(range(16))),
    "constant_float64": (1, lambda a: a * np.linspace(1, 2, 16)),
    "constant_tensor": (1, lambda a: a * tf.linspace(1.0, 2.0, 16)),
    "constant_per_pixel": (1, lambda a: a + np.ones((8, 8, 1), "float32")),
    "bias_add": (1, lambda a: tf.nn.bias_add(a, np.linspace(1, 2, 16, dtype="float32"))),
    "concat": (2, lambda a, b: tf.concat([a, b], -1)),
    "concat_rows": (2, lambda a, b: tf.concat([a, b], axis=1)),
    "relu6": (1, tf.nn.relu6),
    "hard_swish": (1, lambda a: a * tf.nn.relu6(a + 3.0) * (1.0 / 6.0)),
    "silu": (1, tf.keras.activations.swish),
    "clip": (1, lambda a: tf.clip_by_value(a, 0.0, 1.0)),
    "cast": (1, lambda a: tf.cast(tf.cast(a, tf.float16), tf.float32)),
    "split_used_apart": (1, lambda a: tf.split(a, 2, axis=-1)),
    "split_sizes": (1, lambda a: tf.split(a, [4, 10, 2], -1)),
    "split_one_used": (1, lambda a: tf.split(a, 4, axis=3)[1]),
    "split_added": (1, lambda a: tf.add(*tf.split(a, 2, axis=-1))),
    "split_rows": (1, lambda a: tf.split(a, 2, axis=1)),
    "slice_first": (1, lambda a: a[..., :5]),
    "slice_last": (1, lambda a: a[..., -5:]),
    "slice_middle": (1, lambda a: a[:, :, :, 3:9]),
    "slice_rows": (1, lambda a: a[:, ::2, 1:]),
    "slice_drop_row": (1, lambda a: a[:, 0]),
    "slice_new_axis": (1, lambda a: a[:, None, ..., :6]),
    "slice_step": (1, lambda a: a[..., ::2]),
    "slice_step_offset": (1, lambda a: a[..., 1::4]),
    "slice_and_rest": (1, lambda a: [a[..., :6], a[..., 6:]]),
    "pad_channels": (2, lambda a, b: tf.pad(a, [[0, 0], [0, 0], [0, 0], [2, 6]]) + K.Conv2D(24, 1)(b)),
    "pad_channels_alone": (1, lambda a: tf.pad(a, [[0, 0], [1, 1], [0, 0], [2, 6]])),
    "pad_rows": (1, lambda a: tf.pad(a, tf.constant([[0, 0], [1, 1], [2, 0], [0, 0]]))),
    "pad_mirrored_rows": (1, lambda a: tf.pad(a, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT")),
    "depth_to_space": (1, lambda a: tf.nn.depth_to_space(a, 2)),
    "space_to_depth": (1, lambda a: tf.nn.space_to_depth(a, 2)),
    "there_and_back": (1, lambda a: tf.nn.depth_to_space(tf.nn.space_to_depth(a, 2), 2)),
    "reshape_pixels": (1, lambda a: tf.reshape(a, [-1, 64, 16])),
    "reshape_flat": (1, lambda a: tf.reshape(a, [-1, 8 * 8 * 16])),
    "reshape_dynamic_batch": (1, lambda a: tf.reshape(a, (tf.shape(a)[0], 64, 16))),
    "reshape_rest": (1, lambda a: tf.reshape(a, [-1, 8, 128])),
    "channel_shuffle": (
        1,
        lambda a: tf.reshape(tf.transpose(tf.reshape(a, [-1, 8, 8, 4, 4]), [0, 1, 2, 4, 3]), [-1, 8, 8, 16]),
    ),
    "transpose": (1, lambda a: tf.transpose(a, [0, 3, 1, 2])),
    "expand_squeeze": (1, lambda a: tf.squeeze(tf.expand_dims(a, 1), 1)),
    "stack": (2, lambda a, b: tf.stack([a, b], axis=1)),
    "stack_last": (2, lambda a, b: tf.stack([a, b], axis=-1)),
    "tile_channels": (1, lambda a: tf.tile(a, [1, 1, 1, 2])),
    "repeat_channels": (1, lambda a: tf.repeat(a, 2, axis=-1)),
    "mean_pixels": (1, lambda a: tf.reduce_mean(a, [1, 2])),
    "mean_pixels_keepdims": (1, lambda a: a * tf.sigmoid(tf.reduce_mean(a, [1, 2], keepdims=True))),
    "resize": (1, lambda a: tf.image.resize(a, (4, 4))),
    "softmax_rows": (1, lambda a: tf.nn.softmax(a, axis=1)),
    "spatial_attention": (2, lambda a, b: a * tf.sigmoid(K.Conv2D(1, 1)(b))),
    "lambda_elementwise": (1, lambda a: K.Lambda(lambda x: tf.math.softplus(x) + 1)(a)),
    "lambda_shuffle": (1, lambda a: K.Lambda(lambda x: x[..., ::-1])(a)),
    "lambda_add": (2, lambda a, b: K.Lambda(lambda pair: pair[0] + 0.5 * pair[1])([a, b])),
    "lambda_concat": (2, lambda a, b: K.Lambda(lambda pair: tf.concat(pair, -1))([a, b])),
    "lambda_mean": (1, lambda a: K.Lambda(lambda x: tf.reduce_mean(x, [1, 2]))(a)),
}


def padding_of(values: tf.Tensor) -> list:
    """None at all, by the size of what is padded."""
    rows = tf.shape(values)[1] % 8
    return [[0, 0], [0, rows], [0, 0], [0, 0]]


FROZEN = {
    "softmax": (1, tf.nn.softmax),
    "sum_channels": (1, lambda a: tf.reduce_sum(a, -1, keepdims=True)),
    "matmul": (2, lambda a, b: tf.matmul(a, b, transpose_b=True)),
    "gather_channels": (1, lambda a: tf.gather(a, [0, 3, 5], axis=-1)),
    "unstack_channels": (1, lambda a: tf.unstack(a, axis=-1)[0][..., None]),
    "one_channel": (1, lambda a: a[..., 3][..., None]),
    "irregular_step": (1, lambda a: a[..., 1:14:3]),
    "mirror_channels": (1, lambda a: tf.pad(a, [[0, 0], [0, 0], [0, 0], [1, 1]], mode="REFLECT")),
    "cumsum_channels": (1, lambda a: tf.cumsum(a, axis=-1)),
    "channels_to_batch": (1, lambda a: tf.reshape(tf.transpose(a, [0, 3, 1, 2]), [-1, 8, 8, 1])),
    "fours_to_batch": (1, lambda a: tf.reshape(tf.reduce_mean(a, [1, 2]), [-1, 4])),
    "rows_to_batch_and_back": (1, lambda a: tf.reshape(tf.reshape(a, [-1, 8, 16]), [-1, 8, 8, 16])),
    "lambda_softmax": (1, lambda a: K.Lambda(tf.nn.softmax)(a)),
    "lambda_first": (1, lambda a: K.Lambda(lambda x: x - x[..., :1])(a)),
    "lambda_positions": (1, lambda a: K.Lambda(lambda x: x * tf.range(16, dtype=tf.float32))(a)),
    "lambda_hard_coded": (1, lambda a: K.Lambda(lambda x: tf.reshape(x, [-1, 64, 16]))(a)),
    "computed_shape": (1, lambda a: tf.reshape(a, tf.stack([tf.shape(a)[0], 64, 16]))),
    "computed_bound": (1, lambda a: tf.ensure_shape(a[..., : tf.shape(a)[-1] // 2], (None, 8, 8, 8))),
    "computed_padding": (1, lambda a: tf.ensure_shape(tf.pad(a, padding_of(a)), (None, 8, 8, 16))),
    # what mixes channels a little, or only where values are large, or where most are zero
    "lambda_slight": (1, lambda a: K.Lambda(lambda x: x + 1e-5 * tf.reduce_sum(x, -1, keepdims=True))(a)),
    "lambda_norm": (1, lambda a: K.Lambda(lambda x: tf.clip_by_norm(x, 30.0, axes=[-1]))(a)),
    "lambda_empty": (1, lambda a: K.Lambda(lambda x: tf.where(tf.reduce_any(x != 0, -1, keepdims=True), x, 1.0))(a)),
    "lambda_random": (1, lambda a: K.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))(a)),
}


@pytest.mark.parametrize("name", CUT)
def test_cut(name: str) -> None:
    tf.keras.backend.clear_session()
    branches, function = CUT[name]
    model = between(function, branches)
    lawful = assert_law(model)
    groups = [group for group in ChannelGraph(model).groups if set(group.layers) & set("abc")]
    assert [group.frozen for group in groups] == [None] * len(groups)
    assert all(lawful.plan.ratios[group.name] > 0 for group in groups if group.size > 1)


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_with_a_reason(name: str) -> None:
    branches, function = FROZEN[name]
    graph = ChannelGraph(between(function, branches))
    groups = [group for group in graph.groups if set(group.layers) & set("abc")]
    assert groups
    for group in groups:
        assert group.frozen is not None
        assert "'" in group.frozen  # names the layer at fault


@pytest.mark.parametrize("name", [name for name in FROZEN if name.startswith("computed_")])
def test_what_is_computed_is_rebuilt_as_it_is(name: str) -> None:
    model = between(FROZEN[name][1])
    values = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    slim = prune(model, random_plan(ChannelGraph(model), 0.5))
    np.testing.assert_allclose(slim(values), model(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["constant_per_channel", "constant_tensor"])
def test_constants_are_cut_again_after_loading(name: str, tmp_path) -> None:
    """Files hold lists of numbers."""
    assert_law(between(CUT[name][1])).slim.save(str(tmp_path / "slim.keras"))
    slim = assert_law(tf.keras.models.load_model(str(tmp_path / "slim.keras"))).slim
    assert slim.get_layer("a").filters == 4


def test_each_part_of_a_split_keeps_a_unit() -> None:
    """Even when all units of the first half score lowest."""
    from tfqprune.plan import plan_from_ratios
    from tfqprune.slim import prune

    model = between(lambda a: tf.split(a, 2, axis=-1))
    graph = ChannelGraph(model)
    assert [(group.name, group.size) for group in graph.prunable] == [("a[0]", 8), ("a[1]", 8)]
    plan = plan_from_ratios(graph, 0.99, {group.name: np.arange(group.size) for group in graph.groups})
    assert prune(model, plan).get_layer("a").filters == 2


def test_ties_of_a_channel_shuffle() -> None:
    """(8, 8, 4, 4): slot j of each of the four blocks is tied, so 16 filters are 4 units."""
    graph = ChannelGraph(between(CUT["channel_shuffle"][1]))
    (group,) = (group for group in graph.groups if "a" in group.layers)
    assert (group.size, group.width) == (4, {"a": 4})


def test_option_a_shortcut() -> None:
    """A shortcut padded with zeros: 2 + 16 + 6 channels meet 24 filters.

    16 filters meet a's channels; 8 meet padding, which shrinks with them.
    """
    tf.keras.backend.clear_session()
    model = between(CUT["pad_channels"][1], 2)
    groups = {group.layers: group.size for group in ChannelGraph(model).prunable}
    assert groups == {("b",): 16, ("a", "conv2d"): 16, ("tf.compat.v1.pad", "conv2d"): 8}
    slim = assert_law(model, ratios={"a": 0.5, "tf.compat.v1.pad": 0.25}).slim
    assert slim.get_layer("a").filters == 8
    assert slim.get_layer("conv2d").filters == 8 + 6
