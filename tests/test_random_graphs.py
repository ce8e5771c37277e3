"""Random graphs of all the pieces obey the law: 300 in `make test`, 5,000 in `make fuzz`.

A graph is grown from a list of steps, so hypothesis can shrink a failure to the few that matter.
"""

from __future__ import annotations

import logging

import hypothesis
import larq as lq
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

import tfqprune as tq
from tfqprune.testing import assert_law

logging.getLogger("larq").setLevel(logging.ERROR)
K, Q = tf.keras.layers, lq.layers

QUANTISERS = [
    None,
    "ste_sign",
    "approx_sign",
    "magnitude_aware_sign",
    "ste_tern",
    "twn",
    "ste_heaviside",
    "dorefa1",
    "dorefa2",
    "dorefa3",
]


def quantiser(name: str | None, mode: str):
    if name == "twn":
        return lq.quantizers.SteTern(ternary_weight_networks=True)
    if name and name.startswith("dorefa"):
        return lq.quantizers.DoReFa(int(name[-1]), mode=mode)
    return name


class Grower:
    """Holds the tensors of a graph under growth, all (batch, 6, 6, channels)."""

    def __init__(self) -> None:
        self.inputs = [K.Input((6, 6, 3), name="in0")]
        self.tensors = [self.inputs[0]]

    def pick(self, number: int):
        return self.tensors[number % len(self.tensors)]

    def grow(self, step: dict) -> None:
        x, y = self.pick(step["first"]), self.pick(step["second"])
        width = x.shape[-1]
        made = getattr(self, step["kind"])(x, y, width, step)
        if made is not None:
            self.tensors.append(made)

    # -- layers with kernels ------------------------------------------------------------------

    def conv(self, x, y, width, step):
        return K.Conv2D(step["filters"], step["kernel"], padding="same", use_bias=step["flag"])(x)

    def quantised_conv(self, x, y, width, step):
        return Q.QuantConv2D(
            step["filters"], step["kernel"], padding="same", pad_values=float(step["flag"]),
            input_quantizer=quantiser(step["input_quantiser"], "activations"),
            kernel_quantizer=quantiser(step["quantiser"], "weights"),
        )(x)  # fmt: skip

    def grouped(self, x, y, width, step):
        groups = step["groups"] if width % step["groups"] == 0 else 1
        filters = step["filters"] * groups
        return Q.QuantConv2D(
            filters, 3, groups=groups, padding="same", kernel_quantizer=quantiser(step["quantiser"], "weights")
        )(x)

    def depthwise(self, x, y, width, step):
        return Q.QuantDepthwiseConv2D(
            3, depth_multiplier=1 + step["flag"], padding="same",
            depthwise_quantizer=quantiser(step["quantiser"], "weights"),
        )(x)  # fmt: skip

    def separable(self, x, y, width, step):
        return Q.QuantSeparableConv2D(
            step["filters"], 3, padding="same", depth_multiplier=1 + step["flag"],
            depthwise_quantizer=quantiser(step["quantiser"], "weights"),
            pointwise_quantizer=quantiser(step["quantiser"], "weights"),
        )(x)  # fmt: skip

    def transposed(self, x, y, width, step):
        return K.Conv2DTranspose(step["filters"], 3, padding="same")(x)

    def dense(self, x, y, width, step):
        return K.Dense(step["filters"], activation="relu" if step["flag"] else None)(x)

    # -- one in, one out ----------------------------------------------------------------------

    def norm(self, x, y, width, step):
        options = [
            K.BatchNormalization(),
            K.LayerNormalization(),
            K.LayerNormalization(axis=[1, 2, 3]),
            K.GroupNormalization(step["groups"] if width % step["groups"] == 0 else 1),
            K.GroupNormalization(-1),
            K.UnitNormalization(),
        ]
        return options[step["number"] % len(options)](x)

    def activation(self, x, y, width, step):
        options = [
            K.ReLU(),
            K.PReLU(shared_axes=[1, 2] if step["flag"] else None, alpha_initializer="random_normal"),
            K.Activation("tanh"),
            lq.quantizers.SteSign(),
            lq.quantizers.DoReFa(2),
            lq.quantizers.SteTern(ternary_weight_networks=True),
            K.Dropout(0.5),
            K.Softmax(axis=1 if step["flag"] else -1),
        ]
        return options[step["number"] % len(options)](x)

    def operator(self, x, y, width, step):
        half = max(width // 2, 1)
        options = [
            lambda: x * 2.0 + 1.0,
            lambda: tf.nn.relu6(x),
            lambda: x * np.linspace(1, 2, width, dtype="float32"),
            lambda: x[..., :half],
            lambda: x[..., half:] if width > 1 else None,
            lambda: tf.split(x, [half, width - half], axis=-1)[step["flag"]] if width > 1 else None,
            lambda: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
            lambda: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 2),
            lambda: K.Lambda(lambda t: tf.tanh(t) + 0.1)(x),
            lambda: K.Lambda(lambda t: tf.nn.softmax(t) if step["flag"] else t[..., ::-1])(x),
            lambda: tf.reduce_sum(x, -1, keepdims=True) if step["flag"] else tf.cumsum(x, 1),
        ]
        return options[step["number"] % len(options)]()

    def movement(self, x, y, width, step):
        options = [
            lambda: K.Reshape((6, 6, width))(K.Reshape((36, width))(x)),
            lambda: K.Permute((2, 1, 3))(x),
            lambda: K.Permute((2, 3, 1))(K.Permute((3, 1, 2))(x)),
            lambda: K.Reshape((6, 6, width))(K.Flatten()(x)),
            lambda: K.UpSampling2D()(K.MaxPooling2D()(x)),
            lambda: K.Cropping2D(1)(K.ZeroPadding2D(1)(x)),
            lambda: K.AveragePooling2D(3, 1, padding="same")(x),
        ]
        return options[step["number"] % len(options)]()

    # -- several in ---------------------------------------------------------------------------

    def merge(self, x, y, width, step):
        options = [K.Add, K.Subtract, K.Multiply, K.Average, K.Maximum, K.Minimum]
        if y.shape[-1] not in (width, 1) and width != 1:
            y = K.Conv2D(width, 1)(y)
        return options[step["number"] % len(options)]()([x, y])

    def concatenate(self, x, y, width, step):
        return K.Concatenate()([x, y]) if step["flag"] else tf.concat([x, y, x], -1)

    def squeeze_excite(self, x, y, width, step):
        gate = K.GlobalAveragePooling2D(keepdims=step["flag"])(x)
        gate = K.Dense(width, activation="sigmoid")(K.Dense(step["filters"], activation="relu")(gate))
        return K.Multiply()([x, gate if step["flag"] else K.Reshape((1, 1, width))(gate)])

    def shared(self, x, y, width, step):
        layer = K.Conv2D(step["filters"], 3, padding="same")
        if y.shape[-1] != width:
            y = K.Conv2D(width, 1)(y)
        return K.Add()([layer(x), layer(y)])

    def nested(self, x, y, width, step):
        inside = K.Input((6, 6, width))
        made = K.BatchNormalization()(K.Conv2D(width, 3, padding="same")(inside))
        made = K.Add()([inside, made]) if step["flag"] else made
        return tf.keras.Model(inside, made)(x)

    # -- the end ------------------------------------------------------------------------------

    def model(self, ends: list[int]) -> tf.keras.Model:
        outputs = []
        for number in ends:
            x = self.pick(-1 - number)
            x = K.Flatten()(x) if number % 2 else K.GlobalAveragePooling2D()(x)
            outputs.append(K.Dense(3)(x))
        return tf.keras.Model(self.inputs, outputs)


KINDS = [
    name for name in vars(Grower) if name not in ("__init__", "pick", "grow", "model") and not name.startswith("__")
]
STEPS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "first": st.integers(0, 12).map(lambda number: -1 - number),  # the newest tensor is the simplest choice
        "second": st.integers(0, 12),
        "filters": st.integers(1, 9),
        "kernel": st.sampled_from([1, 3]),
        "groups": st.sampled_from([2, 3, 4]),
        "quantiser": st.sampled_from(QUANTISERS),
        "input_quantiser": st.sampled_from(QUANTISERS),
        "flag": st.booleans(),
        "number": st.integers(0, 12),
    }
)


@hypothesis.given(
    steps=st.lists(STEPS, min_size=1, max_size=9),
    ends=st.lists(st.integers(0, 3), min_size=1, max_size=2),
    ratio=st.sampled_from([0.3, 0.5, 0.9]),
    seed=st.integers(0, 5),
    align=st.sampled_from([1, 1, 2]),
)
def test_law_on_random_graphs(steps: list[dict], ends: list[int], ratio: float, seed: int, align: int) -> None:
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    grower = Grower()
    grower.tensors.append(K.Conv2D(8, 3, padding="same")(grower.inputs[0]))
    for step in steps:
        if grower.tensors[-1].shape[-1] < 40:
            grower.grow(step)
    model = grower.model(ends)
    lawful = assert_law(model, ratios=ratio, seed=seed, align=align)
    for group in tq.ChannelGraph(model).groups:
        assert group.frozen is None or len(group.frozen) > 10
        assert len(lawful.plan.kept[group.name]) >= 1
