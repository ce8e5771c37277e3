"""The channel graph: groups of known networks, derived by hand."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import tfqprune as tq
from tfqprune.testing import random_plan

K = tf.keras.layers


def sizes(model: tf.keras.Model) -> dict[frozenset[str], int]:
    return {frozenset(group.layers): group.size for group in tq.ChannelGraph(model).prunable}


def test_plain_network() -> None:
    """conv a(8) -> conv b(6) -> flatten (4*4*6 = 96) -> dense c(5) -> dense d(2): a group a layer, d frozen."""
    model = tf.keras.Sequential(
        [
            K.Input((8, 8, 1)),
            K.Conv2D(8, 3, name="a"),
            K.Conv2D(6, 3, name="b"),
            K.Flatten(),
            K.Dense(5, name="c"),
            K.Dense(2, name="d"),
        ]
    )
    graph = tq.ChannelGraph(model)
    assert [(group.name, group.size, group.layers) for group in graph.prunable] == [
        ("a", 8, ("a",)),
        ("b", 6, ("b",)),
        ("c", 5, ("c",)),
    ]
    assert graph["d"].frozen == "model output 'd'"
    frozen = [group for group in graph.groups if group.frozen]
    assert [group.size for group in frozen] == [1, 2]
    assert frozen[0].frozen.startswith("model input")


def test_residual_chain_is_one_group() -> None:
    """
    stem(8) -+-> c1(6) -> c2(8) -+-> c3(6) -> c4(8) -+->
             +------------------>+------------------>+
    """
    inputs = K.Input((8, 8, 3))
    x = K.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for first, second in (("c1", "c2"), ("c3", "c4")):
        y = K.Conv2D(6, 3, padding="same", name=first)(x)
        x = K.Add()([x, K.Conv2D(8, 3, padding="same", name=second)(y)])
    model = tf.keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling2D()(x)))
    assert sizes(model) == {frozenset({"stem", "c2", "c4"}): 8, frozenset({"c1"}): 6, frozenset({"c3"}): 6}


def test_concatenation_keeps_groups_apart_until_added() -> None:
    """a(4), b(8) concatenated, c(12) added: units 0-3 tie a with c, units 4-11 tie b with c."""
    inputs = K.Input((8, 8, 3))
    a, b, c = (K.Conv2D(n, 3, name=name)(inputs) for n, name in ((4, "a"), (8, "b"), (12, "c")))
    model = tf.keras.Model(inputs, K.Dense(2)(K.GlobalAveragePooling2D()(K.Add()([K.Concatenate()([a, b]), c]))))
    assert sizes(model) == {frozenset({"a", "c"}): 4, frozenset({"b", "c"}): 8}


def test_depthwise_is_a_member() -> None:
    """A depthwise convolution filters its input's channels: it belongs to their group."""
    inputs = K.Input((8, 8, 3))
    x = K.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(K.Conv2D(8, 3, name="a")(inputs))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Conv2D(2, 1)(x)))
    (group,) = graph.prunable
    assert (group.layers, group.size, group.width) == (("a", "dw"), 8, {"a": 1, "dw": 2})


def test_output_through_a_residual_is_frozen() -> None:
    inputs = K.Input((8, 8, 3))
    a = K.Conv2D(3, 3, padding="same", name="a")(inputs)
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Add(name="sum")([inputs, a])))
    assert graph["input_1" if "input_1" in {g.name for g in graph} else graph.groups[0].name].frozen is not None
    assert all(group.frozen for group in graph.groups)


def test_one_filter_is_frozen() -> None:
    inputs = K.Input((8, 8, 3))
    graph = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(2)(K.Flatten()(K.Conv2D(1, 3, name="one")(inputs)))))
    assert graph["one"].frozen == "its only unit: no group loses its last one"


def test_the_original_is_untouched() -> None:
    model = tf.keras.Sequential([K.Input((8, 8, 1)), K.Conv2D(8, 3, name="a"), K.Flatten(), K.Dense(2)])
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    config, weights = model.get_config(), model.get_weights()
    plan = random_plan(tq.ChannelGraph(model))
    tq.prune(model, plan)
    tq.mask(model, plan)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert model.get_config() == config
    assert all(np.array_equal(now, before) for now, before in zip(model.get_weights(), weights, strict=True))
