"""Networks to prune: residual, plain and dense ones, at 1 to 8 bits, ternary or float.

``build(name, **arguments)`` makes one; ``names()`` lists them. Every builder returns an untrained functional Keras
model that ends in softmax probabilities, with the first convolution and the last dense layer in float unless
``quantize_ends=True``.
"""

from __future__ import annotations

from tfqprune.zoo.alexnet import dorefa_alexnet
from tfqprune.zoo.bireal import bireal18
from tfqprune.zoo.densenet import binary_densenet28
from tfqprune.zoo.quicknet import quicknet
from tfqprune.zoo.registry import build, builder, names
from tfqprune.zoo.resnet import resnet, resnet18, resnet20, resnet32, resnet56, resnet_digits
from tfqprune.zoo.vgg import vgg_small

__all__ = [
    "binary_densenet28",
    "bireal18",
    "build",
    "builder",
    "dorefa_alexnet",
    "names",
    "quicknet",
    "resnet",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet56",
    "resnet_digits",
    "vgg_small",
]
