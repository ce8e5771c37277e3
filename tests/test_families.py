"""Whole families of networks: half of everything that may go goes, and the law holds."""

from __future__ import annotations

import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune import zoo
from tfqprune.testing import assert_law

APPLICATIONS = {
    "VGG16": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "DenseNet121": 64,
    "InceptionV3": 75,
    "Xception": 71,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "RegNetX002": 64,
    "ConvNeXtTiny": 64,
}
#: name -> (arguments, the precisions of the quick tests; the slow ones take all)
ZOO = {
    "vgg_small": ({"width": 0.25}, ["binary", "ternary", 1, 2, 3, 4, None]),
    "resnet20": ({}, ["binary", "ternary", 1, 2, 3, 4, None]),
    "resnet32": ({}, ["binary", 2]),
    "resnet56": ({}, ["binary", 2]),
    "resnet18": ({"input_shape": (64, 64, 3)}, ["binary", 2, None]),
    "bireal18": ({"input_shape": (64, 64, 3)}, ["binary", 2]),
    "binary_densenet28": ({"input_shape": (64, 64, 3)}, ["binary", 2]),
    "quicknet": ({"input_shape": (64, 64, 3)}, ["binary"]),
    "dorefa_alexnet": ({"input_shape": (96, 96, 3), "width": 0.25}, [1, 2, 3, 4]),
}


def cuts(model: tf.keras.Model) -> list[str]:
    """Reasons of frozen groups apart from those of inputs and outputs."""
    reasons = [group.frozen for group in tq.ChannelGraph(model).groups if group.frozen]
    return [reason for reason in reasons if "model input" not in reason and "model output" not in reason]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name: str) -> None:
    tf.keras.backend.clear_session()
    size = APPLICATIONS[name]
    model = getattr(tf.keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    # Only the classifier may be frozen where its softmax is a layer of its own.
    assert all("looks at all channels" in reason for reason in cuts(model))
    lawful = assert_law(model)
    assert lawful.slim.count_params() < 0.3 * model.count_params()


def test_aligned_application() -> None:
    tf.keras.backend.clear_session()
    model = tf.keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=10)
    slim = assert_law(model, align=8).slim
    for layer in slim.layers:
        if isinstance(layer, tf.keras.layers.Conv2D) and not isinstance(layer, tf.keras.layers.DepthwiseConv2D):
            assert layer.filters % 8 == 0


PRECISIONS = ["binary", "ternary", 1, 2, 3, 4, None]


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=[] if precision in quick else pytest.mark.slow)
        for name, (_, quick) in ZOO.items()
        for precision in PRECISIONS
    ],
)
def test_zoo(name: str, precision: str | int | None) -> None:
    tf.keras.backend.clear_session()
    arguments, _ = ZOO[name]
    model = zoo.build(name, precision=precision, **arguments)
    assert all("looks at all channels" in reason for reason in cuts(model))
    lawful = assert_law(model)
    assert tq.cost(lawful.slim).memory < 0.6 * tq.cost(model).memory
