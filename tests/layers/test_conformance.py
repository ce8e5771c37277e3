"""The conformance suite on our own handlers, on a user's handler, and on layers that must freeze."""

from __future__ import annotations

from collections.abc import Iterator

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.channels import ChannelGraph
from tfqprune.layers import base
from tfqprune.layers.activation import PassThrough
from tfqprune.testing import LayerHandlerConformance

K = tf.keras.layers


class TestConv(LayerHandlerConformance):
    def make_layer(self):
        return K.Conv2D(8, 3)


class TestBinaryConv(LayerHandlerConformance):
    def make_layer(self):
        return lq.layers.QuantConv2D(
            8, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
            kernel_constraint="weight_clip",
        )  # fmt: skip


class TestDoReFaDense(LayerHandlerConformance):
    input_shape = ()

    def make_layer(self):
        return lq.layers.QuantDense(
            8,
            input_quantizer=lq.quantizers.DoReFa(2),
            kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
        )


class TestLayerNorm(LayerHandlerConformance):
    def make_layer(self):
        return K.LayerNormalization()


class TestDepthwise(LayerHandlerConformance):
    def make_layer(self):
        return K.DepthwiseConv2D(3, depth_multiplier=2)


class TestSoftmax(LayerHandlerConformance):
    cuttable = False

    def make_layer(self):
        return K.Softmax()


@tf.keras.utils.register_keras_serializable("test")
class PerChannelPower(K.Layer):
    """A user's layer whose weight is named by nobody but its own handler, and twice as long as there are channels."""

    def build(self, shape):
        self.table = self.add_weight("table", (2 * shape[-1],), initializer="ones")

    def call(self, inputs):
        first, second = tf.split(self.table, 2)
        return inputs * first + second


class PowerHandler(tq.LayerHandler):
    """Position j and position C + j of the table belong to channel j."""

    def flow(self, call):
        channels = call.inputs[0]
        call.role("out", channels.ids)
        call.record.roles["twice"] = np.concatenate([channels.ids, channels.ids])
        call.weight("table", ("twice",))
        return [channels]


class TestUsersHandler(LayerHandlerConformance):
    @pytest.fixture(autouse=True)
    def registered(self) -> Iterator[None]:
        tq.register_handler(PerChannelPower)(PowerHandler)
        yield
        del base._HANDLERS[PerChannelPower]

    def make_layer(self):
        return PerChannelPower()


def test_without_its_handler_that_layer_is_frozen() -> None:
    """No axis of its weight is as long as there are channels, so probing cannot cut it."""
    inputs = K.Input((4, 3))
    x = PerChannelPower()(K.Dense(6, name="producer")(inputs))
    reason = tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(2)(x)))["producer"].frozen
    assert reason is not None
    assert "PerChannelPower" in reason


class Doubled(K.Layer):
    """Channels beside themselves."""

    def call(self, inputs):
        return tf.concat([inputs, inputs], axis=-1)


class TooSimple(PassThrough):
    """Knows nothing of the second half."""


def test_a_handler_that_is_wrong_about_the_number_of_channels_freezes_them() -> None:
    base.register_handler(Doubled)(TooSimple)
    try:
        inputs = K.Input((4,))
        model = tf.keras.Model(inputs, K.Dense(3)(Doubled(name="doubled")(K.Dense(6, name="producer")(inputs))))
        reason = ChannelGraph(model)["producer"].frozen
    finally:
        del base._HANDLERS[Doubled]
    assert reason == "feeds 'doubled' (Doubled), whose output has other channels than its handler knows"
