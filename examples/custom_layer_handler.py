"""A layer of your own: why it is frozen at first, and the handler that lets it be cut.

    python examples/custom_layer_handler.py [--quick] [--output runs/custom_layer]

Squeeze-and-excite in one layer has weights along its channels. Without a handler nobody can know which, so what feeds
it stays whole, and the graph says so. One method tells. Nothing is trained or downloaded; both forms are the same.
"""

from __future__ import annotations

import numpy as np
from common import arguments

import tfqprune as tq
from tfqprune.layers import LayerHandler
from tfqprune.testing import assert_law

import tensorflow as tf  # isort: skip  (tfqprune selects legacy Keras first)


@tf.keras.utils.register_keras_serializable(package="examples")
class SqueezeExcite(tf.keras.layers.Layer):
    """Scales channels by what the mean of the image says (arXiv 1709.01507)."""

    def __init__(self, hidden: int, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, shape):
        self.squeeze = self.add_weight(name="squeeze", shape=(shape[-1], self.hidden))
        self.excite = self.add_weight(name="excite", shape=(self.hidden, shape[-1]))

    def call(self, x):
        seen = tf.nn.relu(tf.reduce_mean(x, axis=(1, 2)) @ self.squeeze)
        return x * tf.sigmoid(seen @ self.excite)[:, None, None, :]

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden}


class SqueezeExciteHandler(LayerHandler):
    """Channels pass; both kernels have an axis along them."""

    def flow(self, call):
        for role in ("in", "out"):  # a role names an index set of the layer's weights; "in" is what a kernel reads
            call.role(role, call.inputs[0].ids)
        call.weight("squeeze", ("in", None), reuse=1)  # reuse: multiplications per weight and sample
        call.weight("excite", (None, "out"), reuse=1)
        return [call.inputs[0]]  # what comes out has the channels of what goes in


def network() -> tf.keras.Model:
    """Two convolutions with a squeeze-and-excite between them."""
    image = tf.keras.Input((16, 16, 3), name="image")
    x = tf.keras.layers.Conv2D(32, 3, activation="relu", name="wide")(image)
    x = SqueezeExcite(8, name="attention")(x)
    x = tf.keras.layers.Conv2D(16, 3, activation="relu", name="narrow")(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(10, name="classes")(x))


def main() -> None:
    given = arguments(__doc__, "runs/custom_layer")
    tf.keras.utils.set_random_seed(0)
    model = network()
    print("before:", {group.name: group.frozen or "can be cut" for group in tq.ChannelGraph(model).groups})

    tq.register_handler(SqueezeExcite)(SqueezeExciteHandler)  # or as a decorator of the handler
    print("after: ", {group.name: group.frozen or "can be cut" for group in tq.ChannelGraph(model).groups})

    slim = tq.prune(model, tq.make_plan(model, 0.5))
    print(f"{tq.cost(model).params:,} -> {tq.cost(slim).params:,} parameters")
    assert_law(model, ratios=0.5)  # slim(x) == masked(x); tfqprune.testing.LayerHandlerConformance checks more

    slim.save(given.output / "slim.keras")
    again = tf.keras.models.load_model(given.output / "slim.keras")
    x = np.random.default_rng(0).random((4, 16, 16, 3), dtype=np.float32)
    np.testing.assert_array_equal(slim(x), again(x))
    print("saved and loaded; same results")


if __name__ == "__main__":
    main()
