"""Costs: by hand, against larq.models.summary, and against TensorFlow's profiler."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.models import ModelProfile
from tensorflow.python.framework import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import tfqprune as tq
from tfqprune import zoo
from tfqprune.costs import CostModel
from tfqprune.layers.base import bits_of
from tfqprune.testing import assert_law, random_plan

K, Q = tf.keras.layers, lq.layers


def mixed() -> tf.keras.Model:
    """
    8x8x3 -> conv 3x3 (8, float, same) -> bn -> qconv 3x3 (16, 1-bit in, 2-bit weights, stride 2, same) -> bn
          -> flatten (4*4*16 = 256) -> dense (10)
    """
    inputs = K.Input((8, 8, 3))
    x = K.BatchNormalization(name="bn1")(K.Conv2D(8, 3, padding="same", name="conv")(inputs))
    x = Q.QuantConv2D(
        16, 3, strides=2, padding="same", use_bias=False, name="qconv",
        input_quantizer="ste_sign", kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"),
    )(x)  # fmt: skip
    x = K.Flatten()(K.BatchNormalization(name="bn2")(x))
    return tf.keras.Model(inputs, K.Dense(10, name="dense")(x))


def test_by_hand() -> None:
    """
    conv:  weights 3*3*3*8 = 216, biases 8; 64 pixels x 216 = 13,824 MACs at 32 x 32 bits
    bn1:   2 x 8 = 16
    qconv: weights 3*3*8*16 = 1,152 of 2 bits; 16 pixels x 1,152 = 18,432 MACs at 2 x 1 bits
    bn2:   2 x 16 = 32
    dense: weights 256*10 = 2,560, biases 10; 2,560 MACs
    """
    cost = tq.cost(mixed())
    layers = {layer.name: layer for layer in cost.layers}
    assert [layers[name].params for name in ("conv", "bn1", "qconv", "bn2", "dense")] == [224, 16, 1152, 32, 2570]
    assert [layers[name].macs for name in ("conv", "qconv", "dense")] == [13_824, 18_432, 2_560]
    assert cost.params == 224 + 16 + 1152 + 32 + 2570
    assert cost.macs == 13_824 + 18_432 + 2_560
    assert cost.bops == (13_824 + 2_560) * 1024 + 18_432 * 2
    assert cost.memory == (224 + 16 + 32 + 2570) * 4 + 1152 * 2 / 8
    assert (layers["qconv"].weight_bits, layers["qconv"].input_bits) == (2, 1)


def test_under_a_plan_by_hand() -> None:
    """Half of conv's 8 and qconv's 16 go: conv 3*3*3*4 + 4, qconv 3*3*4*8, dense 4*4*8*10 + 10."""
    model = mixed()
    plan = random_plan(tq.ChannelGraph(model), 0.5)
    layers = {layer.name: layer.params for layer in tq.cost(model, plan).layers}
    assert layers == {"conv": 112, "bn1": 8, "qconv": 288, "bn2": 16, "dense": 1290}
    assert tq.cost(model, plan) == tq.cost(tq.prune(model, plan))


SUMMARISED = {
    "mixed": mixed,
    "vgg_small": lambda: zoo.build("vgg_small", precision="binary", width=0.25),
    "resnet20": lambda: zoo.build("resnet20", precision=2),
    "resnet20_ternary": lambda: zoo.build("resnet20", precision="ternary"),
    "resnet18": lambda: zoo.build("resnet18", precision="binary"),
    "binary_densenet28": lambda: zoo.build("binary_densenet28", precision="binary"),
    "quicknet": lambda: zoo.build("quicknet", precision="binary"),
    "dorefa_alexnet": lambda: zoo.build("dorefa_alexnet", precision=2, width=0.25),
    "mobilenet": lambda: tf.keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)),
    "separable": lambda: tf.keras.applications.Xception(weights=None, input_shape=(71, 71, 3)),
}


@pytest.mark.parametrize("name", SUMMARISED)
def test_agrees_with_larq(name: str) -> None:
    model = SUMMARISED[name]()
    profile, cost = ModelProfile(model), tq.cost(model)
    assert cost.params == profile.weight_count()
    assert cost.macs == profile.op_count("mac")
    assert cost.memory * 8 == profile.memory


def test_transposed_convolution_differs_from_larq() -> None:
    """Each of 16 input pixels meets the 3*3*3*4 = 108 weights once: 1,728 MACs.

    larq counts the 9 x 9 output pixels, as if each of them met the whole kernel: 8,748.
    """
    model = tf.keras.Sequential([K.Input((4, 4, 3)), K.Conv2DTranspose(4, 3, strides=2, use_bias=False)])
    assert ModelProfile(model).op_count("mac") == 81 * 108
    assert tq.cost(model).macs == 16 * 108


def test_a_kernel_that_reads_across_the_channels_multiplies_too() -> None:
    """
    4x6x3 -> conv "made" 1x1 (5) -> permute to 5x4x6, channels first -> conv "across" 1x1 (2) over 5x4 positions

    made: 24 positions x 3 x 5 = 360 MACs; across: 20 positions x 6 x 2 = 240. The 5 cannot be cut, the 2 can.
    """
    inputs = K.Input((4, 6, 3))
    x = K.Permute((3, 1, 2))(K.Conv2D(5, 1, name="made")(inputs))
    x = K.Conv2D(2, 1, name="across")(x)
    model = tf.keras.Model(inputs, K.Dense(3, name="last")(K.Flatten()(x)))
    groups = {group.layers: group for group in tq.ChannelGraph(model).groups}
    assert "along another axis than its channels" in groups["made",].frozen
    assert groups["across",].frozen is None
    lawful = assert_law(model, ratios=0.5)
    macs = {layer.name: layer.macs for layer in tq.cost(model).layers}
    assert macs == {"made": 360, "across": 240, "last": 5 * 4 * 2 * 3}
    assert {layer.name: layer.macs for layer in tq.cost(model, lawful.plan).layers} == {
        "made": 360, "across": 120, "last": 5 * 4 * 3,
    }  # fmt: skip


def test_a_single_channel_is_found_again_after_it_moved() -> None:
    """A group of one has no order to follow: 6x6x1 -> 1x6x6 -> 6x6x1 still ends with one channel, not six."""
    inputs = K.Input((6, 6, 3))
    x = K.Conv2D(1, 1, name="one")(inputs)
    x = K.Permute((2, 3, 1))(K.Permute((3, 1, 2))(x))
    model = tf.keras.Model(inputs, K.GlobalAveragePooling2D()(K.Conv2D(4, 1, name="behind")(x)))
    macs = {layer.name: layer.macs for layer in tq.cost(model).layers}
    assert macs == {"one": 36 * 3, "behind": 36 * 4}


def test_shared_layer_multiplies_twice() -> None:
    inputs = K.Input((4, 4, 3))
    layer = K.Conv2D(3, 1, use_bias=False)
    model = tf.keras.Model(inputs, layer(layer(inputs)))
    assert (tq.cost(model).params, tq.cost(model).macs) == (9, 2 * 16 * 9)


class NormRelu(K.BatchNormalization):
    """More than a batch norm: who says that it can be folded?"""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.nn.relu(super().call(inputs, training=training))


@pytest.mark.parametrize(
    ("norm", "each"), [(K.BatchNormalization, 2), (tf.compat.v1.keras.layers.BatchNormalization, 2), (NormRelu, 4)]
)
def test_floats_a_channel_of_batch_norms(norm: type, each: int) -> None:
    model = tf.keras.Sequential([K.Input((4, 4, 3)), norm(), K.Flatten()])
    assert tq.cost(model).params == each * 3


def test_no_weights_at_all() -> None:
    model = tf.keras.Sequential([K.Input((4,)), K.Dropout(0.5)])
    assert tq.cost(model).as_dict() == {"params": 0, "macs": 0, "bops": 0, "memory": 0}


def test_half_precision_weights() -> None:
    model = tf.keras.Sequential([K.Input((4,), dtype="float16"), K.Dense(2, dtype="float16")])
    assert tq.cost(model).memory == 10 * 2


class Scaled(K.Layer):
    """Has a weight that is called as one of its options is."""

    def __init__(self, scale: bool = True, **options: object) -> None:
        super().__init__(**options)
        self.scale = scale

    def build(self, shape: tf.TensorShape) -> None:
        self.factor = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones") if self.scale else None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.factor

    def get_config(self) -> dict:
        return {**super().get_config(), "scale": self.scale}


def test_weights_named_as_an_option_is() -> None:
    """Dense 4 on 3 inputs: 16 floats; one factor for each of its 4 outputs."""
    model = tf.keras.Sequential([K.Input((3,)), K.Dense(4, name="first"), Scaled(), K.Dense(2)])
    costs = {layer.type: layer for layer in tq.cost(model).layers}
    assert (costs["Scaled"].params, costs["Scaled"].memory, costs["Scaled"].weight_bits) == (4, 16, 32)
    assert bits_of(model.layers[1], "scale") == bits_of(model.layers[1], 0) == 32


def profiled_flops(model: tf.keras.Model) -> tuple[int, int]:
    """FLOPs by the statistics that TensorFlow's profiler adds up: of kernels alone, and of everything."""
    function = tf.function(lambda values: model(values, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]), tf.float32))
    graph_def = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    kernels = everything = 0
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        for operation in graph.get_operations():
            flops = ops.get_stats_for_node_def(graph, operation.node_def, "flops").value or 0
            everything += flops
            kernels += flops if operation.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul") else 0
    return kernels, everything


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_agrees_with_the_profiler(name: str) -> None:
    """Kernels: FLOPs are 2 x MACs, exactly. The profiler also counts what we do not: biases and pooling."""
    model = getattr(tf.keras.applications, name)(weights=None, input_shape=(64, 64, 3))
    kernels, everything = profiled_flops(model)
    assert kernels == 2 * tq.cost(model).macs
    assert everything == pytest.approx(kernels, rel=0.01)


def test_imagenet_resnet18() -> None:
    """3.34 MiB is what the published 2.47 MB after 26.12 % imply: 2.47 / (1 - 0.2612) = 3.343.

    First convolution and last dense layer float32, all others 1 bit. With batch norms at two floats
    a channel (as counted here) 3.36; without them 3.32.
    """
    cost = tq.cost(zoo.build("resnet18", precision="binary"))
    norms = sum(layer.memory for layer in cost.layers if layer.type == "BatchNormalization")
    assert cost.memory / 2**20 == pytest.approx(3.36, abs=0.01)
    assert (cost.memory - norms) / 2**20 == pytest.approx(3.32, abs=0.01)
    assert abs(cost.memory / 2**20 - 2.47 / (1 - 0.2612)) < 0.02 * 3.34


def test_plan_cost_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan's cost is counted without a layer being made."""
    model = zoo.build("resnet20", precision=2)
    graph = tq.ChannelGraph(model)
    costs, plan = CostModel(graph), random_plan(graph)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(tf.keras.layers.Layer, "__init__", refuse)
    totals = costs.totals(plan.alive_units(graph))
    monkeypatch.undo()
    assert totals == tq.cost(tq.prune(model, plan)).as_dict()
    assert np.all(np.array(list(totals.values())) < np.array(list(costs.totals().values())))


# A 3x3 kernel from 3 to 4 channels, 108 weights: of 2 bits 27 bytes, of 1 bit 13.5; a batch norm's 2 floats a channel.
@pytest.mark.parametrize(("bits", "expected"), [(2, 27.0), (1, 13.5)])
def test_kernels_inside_a_layer_count_their_bits(bits: int, expected: float) -> None:
    quantizer = "ste_sign" if bits == 1 else lq.quantizers.DoReFa(bits, mode="weights")
    inner = lq.layers.QuantConv2D(4, 3, kernel_quantizer=quantizer, use_bias=False, name="inner")
    inputs = K.Input((5, 6, 6, 3))
    model = tf.keras.Model(inputs, K.TimeDistributed(inner, name="each")(inputs))
    with pytest.warns(UserWarning, match=r"'each' \(TimeDistributed\), which count as none: MACs"):
        found = tq.cost(model)
    assert (found.params, found.memory, found.macs) == (108, expected, 0)


@pytest.mark.filterwarnings("error")
def test_layers_that_multiply_nothing_are_not_warned_of() -> None:
    inputs = K.Input((5,), dtype="int32")
    x = K.LayerNormalization()(K.Embedding(7, 4, name="table")(inputs))
    assert tq.cost(tf.keras.Model(inputs, x)).macs == 0
