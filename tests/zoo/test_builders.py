"""Networks of the zoo compute, are quantised where they say so, can be saved, and refuse nonsense."""

from __future__ import annotations

from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune import zoo
from tfqprune.errors import TfqpruneError, ZooError
from tfqprune.precision import codes, input_bits, weight_bits

# name -> arguments that make it small
SMALL = {
    "resnet20": {"width": 0.5, "input_shape": (16, 16, 3)},
    "resnet32": {"width": 0.25, "input_shape": (8, 8, 3)},
    "resnet56": {"width": 0.25, "input_shape": (8, 8, 3)},
    "resnet_digits": {},
    "resnet18": {"width": 0.125, "input_shape": (32, 32, 3), "classes": 7},
    "bireal18": {"width": 0.125, "input_shape": (32, 32, 3), "classes": 7},
    "binary_densenet28": {"width": 0.125, "input_shape": (64, 64, 3), "classes": 7},
    "quicknet": {"width": 0.125, "input_shape": (64, 64, 3), "classes": 7},
    "vgg_small": {"width": 0.0625, "input_shape": (16, 16, 3)},
    "dorefa_alexnet": {"width": 0.03125, "input_shape": (67, 67, 3), "classes": 7},
}
ENDS = {"stem_conv", "conv1", "dense"}
# Float by design: shortcuts of Bi-Real-Net, transitions of DenseNet and QuickNet, QuickNet's stem.
FLOAT_PARTS = ("shortcut_conv", "transition", "stem_")


def test_every_network_is_tried() -> None:
    assert set(SMALL) == set(zoo.names())


def _forward(model: tf.keras.Model) -> np.ndarray:
    x = np.random.default_rng(0).random((3, *model.input_shape[1:]), dtype=np.float32)
    return np.asarray(model(x, training=False))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, bits) for name in sorted(set(SMALL) - {"resnet56", "resnet32", "resnet20"}) for bits in ("binary", 3)),
        *((name, None) for name in ("resnet18", "bireal18", "binary_densenet28", "dorefa_alexnet", "vgg_small")),
        *(("resnet_digits", bits) for bits in ("ternary", 1, 2, 4, None)),
    ],
)
def test_forward_pass_and_precision(name: str, precision: str | int | None) -> None:
    model = zoo.build(name, precision=precision, **SMALL[name])
    probabilities = _forward(model)
    assert probabilities.shape == (3, SMALL[name].get("classes", 10))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert probabilities.std() > 0

    bits = {"binary": 1, "ternary": 2, None: 32}.get(precision, precision)
    quantised = 0
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        if layer.name in ENDS or (name != "resnet18" and any(part in layer.name for part in FLOAT_PARTS)):
            if name == "resnet_digits" and "shortcut" in layer.name:
                assert weight_bits(layer, "kernel") == bits
            else:
                assert weight_bits(layer, "kernel") == 32, layer.name
        else:
            assert (weight_bits(layer, "kernel"), input_bits(layer)) == (bits, bits), layer.name
            quantised += 1
    assert quantised >= 5


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet56"])
def test_deep_networks_compute(name: str) -> None:
    assert _forward(zoo.build(name, **SMALL[name])).shape == (3, 10)


@pytest.mark.parametrize("name", ["resnet_digits", "bireal18", "quicknet", "binary_densenet28"])
def test_binary_convolutions_pad_with_one(name: str) -> None:
    model = zoo.build(name, precision="binary", **SMALL[name])
    inner = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert {float(layer.pad_values) for layer in inner} == {1.0}
    assert all(layer.kernel_constraint is not None for layer in inner)


@pytest.mark.parametrize("precision", [1, 2, "ternary"])
def test_others_pad_with_zero(precision: str | int) -> None:
    model = zoo.build("resnet_digits", precision=precision)
    inner = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert {float(layer.pad_values) for layer in inner} == {0.0}


@pytest.mark.parametrize(
    ("precision", "levels"),
    [("binary", {-1, 1}), ("ternary", {-1, 0, 1}), (1, {-1, 1}), (2, {-3, -1, 1, 3}), (3, set(range(-7, 8, 2)))],
)
def test_deployed_levels(precision: str | int, levels: set[int]) -> None:
    model = zoo.build("resnet_digits", precision=precision)
    layer = next(layer for layer in model.layers if layer.name in {"stage3_block2a_conv", "stage3_block2_conv1"})
    found = codes(layer, "kernel")
    assert found is not None
    assert set(np.unique(found.integers)) == levels


def test_a_shortcut_around_every_binary_convolution() -> None:
    model = zoo.resnet(20, precision="binary")
    # 18 inner 3x3 convolutions, so 18 sums; the DoReFa network ties two convolutions in each of its 9 blocks.
    assert sum(isinstance(layer, tf.keras.layers.Add) for layer in model.layers) == 18
    assert sum(isinstance(layer, tf.keras.layers.Add) for layer in zoo.resnet(20, precision=2).layers) == 9


def test_mixed_bits() -> None:
    model = zoo.build("dorefa_alexnet", precision=1, activation_bits=2, **SMALL["dorefa_alexnet"])
    assert model.name == "dorefa_alexnet_dorefa1a2"
    layer = model.get_layer("conv3")
    assert (weight_bits(layer, "kernel"), input_bits(layer)) == (1, 2)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"resnet56", "resnet32", "resnet20"}))
def test_quantised_ends(name: str) -> None:
    model = zoo.build(name, precision=2, quantize_ends=True, **SMALL[name])
    ends = [layer for layer in model.layers if layer.name in ENDS and hasattr(layer, "kernel")]
    assert len(ends) == 2
    assert {weight_bits(layer, "kernel") for layer in ends} == {2}
    assert getattr(ends[0], "input_quantizer", None) is None  # images stay real-valued
    assert input_bits(ends[1]) == 2
    assert _forward(model).std() > 0


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
def test_saves_and_loads(form: str, tmp_path: Path) -> None:
    model = zoo.build("quicknet", **SMALL["quicknet"])  # has an initialiser of our own
    model.save(tmp_path / form)
    loaded = tf.keras.models.load_model(tmp_path / form)
    np.testing.assert_array_equal(_forward(loaded), _forward(model))


def test_blur_kernel() -> None:
    layer = zoo.build("quicknet", **SMALL["quicknet"]).get_layer("transition1_blur")
    # Outer product of (1, 2, 1) / 4: 1/16 in the corners, 1/8 on the edges, 1/4 in the middle.
    expected = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    np.testing.assert_array_equal(layer.get_weights()[0], np.broadcast_to(expected[:, :, None, None], (3, 3, 8, 1)))
    assert layer.trainable is False


@pytest.mark.parametrize("name", ["resnet_digits", "vgg_small", "quicknet", "binary_densenet28"])
def test_quantised_last_layer_sees_both_signs(name: str) -> None:
    """Behind a ReLU a sign would be constant, and the network could learn nothing."""
    model = zoo.build(name, precision="binary", quantize_ends=True, **SMALL[name])
    x = np.random.default_rng(0).random((8, *model.input_shape[1:]), dtype=np.float32)
    features = np.asarray(tf.keras.Model(model.input, model.get_layer("dense").input)(x))
    assert features.min() < 0 < features.max()


@pytest.mark.parametrize("precision", ["binary", 2])
def test_learns(precision: str | int) -> None:
    """Both demonstration networks fit 64 digits in a few steps, their ends quantised."""
    from tfqprune import data

    digits = data.load("digits", seed=0, limit=64).train
    model = zoo.resnet(8, precision=precision, input_shape=(8, 8, 1), quantize_ends=True)
    model.compile(tf.keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    history = model.fit(digits.x, digits.y, epochs=25, batch_size=32, verbose=0).history
    assert max(history["accuracy"][-5:]) > 0.9


class TestBadRequests:
    @pytest.mark.parametrize(
        ("name", "nearest"), [("resnet-20", "resnet20"), ("BiReal18", "bireal18"), ("vgg", "vgg_small")]
    )
    def test_unknown_network(self, name: str, nearest: str) -> None:
        with pytest.raises(ZooError, match=f"Received: '{name}'. Did you mean '{nearest}'"):
            zoo.build(name)

    def test_unknown_argument(self) -> None:
        with pytest.raises(ZooError, match=r"among precision, .*\. Received: deepth"):
            zoo.build("resnet18", deepth=20)

    @pytest.mark.parametrize("precision", ["float8", 0, 9, 16, True, 2.5, -1])
    def test_precision(self, precision: object) -> None:
        with pytest.raises(ZooError, match="Expected precision 'binary', 'ternary'"):
            zoo.build("resnet20", precision=precision)

    @pytest.mark.parametrize("bits", [0, 9, True, 1.5])
    def test_activation_bits(self, bits: object) -> None:
        with pytest.raises(ZooError, match="Expected activation_bits from 1 to 8"):
            zoo.build("dorefa_alexnet", activation_bits=bits)

    def test_activation_bits_of_another_precision(self) -> None:
        with pytest.raises(ZooError, match="goes with a DoReFa precision"):
            zoo.build("dorefa_alexnet", precision="binary", activation_bits=2)

    @pytest.mark.parametrize("depth", [7, 18, 2, 20.0, True])
    def test_depth(self, depth: object) -> None:
        with pytest.raises(ZooError, match=r"Expected a depth of 6 n \+ 2"):
            zoo.resnet(depth)  # type: ignore[arg-type]

    @pytest.mark.parametrize("shape", [(32, 32), (32, 32, 0), (32, 32, -3), (32.0, 32, 3), (None, None, 3)])
    def test_input_shape(self, shape: object) -> None:
        with pytest.raises(ZooError, match="Expected input_shape"):
            zoo.build("resnet20", input_shape=shape)

    @pytest.mark.parametrize(
        ("name", "side"), [("resnet18", 31), ("vgg_small", 7), ("dorefa_alexnet", 63), ("resnet20", 3)]
    )
    def test_image_too_small(self, name: str, side: int) -> None:
        with pytest.raises(ZooError, match=f"at least {side + 1}x{side + 1} pixels"):
            zoo.build(name, input_shape=(side, side, 3))

    @pytest.mark.parametrize("name", sorted(SMALL))
    def test_the_smallest_image_works(self, name: str) -> None:
        smallest = {"resnet18": 32, "bireal18": 32, "quicknet": 32, "dorefa_alexnet": 64, "vgg_small": 8}
        side = smallest.get(name, 8 if "densenet" in name else 4)
        model = zoo.build(name, width=0.0625, input_shape=(side, side, 3))
        assert np.isfinite(_forward(model)).all()

    @pytest.mark.parametrize("classes", [0, -1, 2.0, True])
    def test_classes(self, classes: object) -> None:
        with pytest.raises(ZooError, match="Expected classes"):
            zoo.build("vgg_small", classes=classes)

    @pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf"), True, "1"])
    def test_width(self, width: object) -> None:
        with pytest.raises(ZooError, match="Expected width"):
            zoo.build("vgg_small", width=width)

    def test_error_family(self) -> None:
        assert issubclass(ZooError, TfqpruneError)
        assert issubclass(ZooError, ValueError)
