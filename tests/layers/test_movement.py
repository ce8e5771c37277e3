"""Channels followed through operations that move data, whatever the precision that the layers compute in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.layers.movement import trace
from tfqprune.layers.space import Channels

K = tf.keras.layers


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16", "float16"])
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    tf.keras.mixed_precision.set_global_policy("float32")


def small() -> tf.keras.Model:
    """conv a(4) -> binary conv b(4) -> flatten (2*2*4 = 16) -> dense c(3)"""
    image = K.Input((6, 6, 3), name="image")
    x = K.Conv2D(4, 3, name="a")(image)
    x = lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", name="b")(x)
    return tf.keras.Model(image, K.Dense(3, name="c")(K.Flatten(name="flat")(x)))


def wide() -> tf.keras.Model:
    """dense a(2400) -> reshape 2x2x600: units of 4 -> conv b(2) -> flatten; a -> reversed by a Lambda -> dense c(2)"""
    inputs = K.Input((2,), name="features")
    x = K.Dense(2400, name="a")(inputs)
    y = K.Flatten(name="flat")(K.Conv2D(2, 1, name="b")(K.Reshape((2, 2, 600), name="map")(x)))
    z = K.Dense(2, name="c")(K.Lambda(lambda value: value[:, ::-1], name="reversed")(x))
    return tf.keras.Model(inputs, [y, z])


def flat() -> tf.keras.Model:
    """conv a(300) on 3x3 pixels -> flatten (2700) -> dense c(2)"""
    image = K.Input((3, 3, 1), name="image")
    return tf.keras.Model(image, K.Dense(2, name="c")(K.Flatten(name="flat")(K.Conv2D(300, 1, name="a")(image))))


def described(model: tf.keras.Model) -> dict[str, object]:
    """The groups, and which unit each channel that a layer reads or makes belongs to."""
    graph = ChannelGraph(model)
    units = {
        (name, role): [part.tolist() for part in graph.units(ids)]
        for name, record in graph.records.items()
        for role, ids in record.roles.items()
    }
    return {"groups": graph.groups, "units": units}


@pytest.mark.parametrize(("build", "prunable"), [(small, {"a": 4, "b": 4}), (flat, {"a": 300})])
def test_half_precision_changes_no_group(
    build: Callable[[], tf.keras.Model], prunable: dict[str, int], policy: str
) -> None:
    expected = described(build())
    assert {group.name: group.size for group in expected["groups"] if group.frozen is None} == prunable
    tf.keras.mixed_precision.set_global_policy(policy)
    assert described(build()) == expected


def test_thousands_of_channels_in_half_precision(policy: str) -> None:
    # The reshape alone would tie channels i, i + 600, i + 1200, i + 1800: 600 units. Reversing ties none.
    expected = described(wide())
    assert [(group.name, group.size) for group in expected["groups"] if group.frozen is None] == [("a", 600)]
    tf.keras.mixed_precision.set_global_policy(policy)
    assert described(wide()) == expected


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "int8", "float32"])
def test_every_label_arrives(kind: str) -> None:
    # 20,000 channels, turned round: more than two digits hold
    count = 20_000

    def turned(grids: list[np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(tf.cast(grids[0], kind)[:, ::-1])]

    (movement,) = trace(turned, [(None, count)], [Channels(1, np.arange(count))])
    assert movement is not None
    np.testing.assert_array_equal(movement.labels, np.arange(count)[::-1])


def test_every_sample_has_to_show_the_same() -> None:
    # 8 channels: two samples of 4 each, (0..3) and (4..7); or the same 8 twice.
    for change, followed in ((lambda grid: grid.reshape(2, 4), False), (lambda grid: np.repeat(grid, 2, axis=0), True)):
        (movement,) = trace(lambda grids, change=change: [change(grids[0])], [(None, 8)], [Channels(1, np.arange(8))])
        assert (movement is not None) == followed


def test_what_holds_other_values_is_no_movement() -> None:
    # Of 300 channels the numbers halved, below zero, or of no number type.
    for change in (lambda grid: grid / 2, lambda grid: -grid, lambda grid: grid > 1, lambda grid: grid.astype("U4")):
        assert trace(lambda grids, change=change: [change(grids[0])], [(None, 300)], [Channels(1, np.arange(300))]) == [
            None
        ]
