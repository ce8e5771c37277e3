"""Parameters and memory of every network, derived by hand beside the test and, where published, equal to that."""

from __future__ import annotations

import larq as lq
import pytest
import tensorflow as tf

from tfqprune import zoo


def _counted(model: tf.keras.Model) -> int:
    return int(model.count_params())


def _memory(model: tf.keras.Model) -> float:
    """Bytes as larq counts them: deployed bits, two floats per channel of a batch norm."""
    return lq.models.ModelProfile(model).memory / 8


# Batch norms hold four numbers a channel (gamma, beta, mean, variance).
#
# ResNet of depth 6 n + 2 on 32x32x3, channels 16, 32, 64:
#   first convolution  9*3*16                              = 432
#   stage 1            2n * 9*16*16                        = 4,608 n
#   stage 2            9*16*32 + (2n - 1) * 9*32*32        = 18,432 n - 4,608
#   stage 3            9*32*64 + (2n - 1) * 9*64*64        = 73,728 n - 18,432
#   shortcuts          16*32 + 32*64                       = 2,560
#   batch norms        4 * (16 + 2n (16 + 32 + 64) + 32 + 64) = 896 n + 448
#   dense              64*10 + 10                          = 650
#   sum                97,664 n - 18,950
@pytest.mark.parametrize("precision", ["binary", 2])
@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet32", 5), ("resnet56", 9)])
def test_resnet_for_small_images(name: str, n: int, precision: str | int | None) -> None:
    assert _counted(zoo.build(name, precision=precision)) == 97_664 * n - 18_950


def test_float_and_ternary_resnets_count_the_same() -> None:
    assert _counted(zoo.resnet(20, precision=None)) == _counted(zoo.resnet(20, precision="ternary")) == 274_042


def test_resnet_digits() -> None:
    # n = 2 as above, but one input channel: 288 numbers less in the first convolution. 195,328 - 18,950 - 288.
    assert _counted(zoo.build("resnet_digits")) == 176_090


def test_width() -> None:
    # Channels 8, 16, 32 and n = 1: first 216; stages 2*576, 1152 + 2304, 4608 + 9216; shortcuts 128 + 512;
    # batch norms 4 * (8 + 2*56 + 48); dense 330.
    expected = 216 + 1_152 + 3_456 + 13_824 + 640 + 672 + 330
    assert _counted(zoo.resnet(8, width=0.5)) == expected == 20_290


# ResNet-18 on ImageNet:
#   3x3 convolutions   4 * 9*64*64                                 =    147,456
#                      9*64*128 + 3 * 9*128*128                    =    516,096
#                      9*128*256 + 3 * 9*256*256                   =  2,064,384
#                      9*256*512 + 3 * 9*512*512                   =  8,257,536  -> 10,985,472
#   shortcuts          64*128 + 128*256 + 256*512                  =    172,032
#   first convolution  49*3*64                                     =      9,408
#   dense              512*1000 + 1000                             =    513,000
#   batch norms        64 + 4*64 + 5*128 + 5*256 + 5*512           =      4,800 channels
#   sum                11,679,912 + 4 * 4,800                      = 11,699,112
INNER, SHORTCUTS, FIRST, DENSE, NORMED = 10_985_472, 172_032, 9_408, 513_000, 4_800


@pytest.mark.parametrize("precision", ["binary", 2, None])
def test_resnet18(precision: str | int | None) -> None:
    model = zoo.build("resnet18", precision=precision)
    assert _counted(model) == 11_699_112 == INNER + SHORTCUTS + FIRST + DENSE + 4 * NORMED
    bits = {"binary": 1, 2: 2, None: 32}[precision]
    expected = (INNER + SHORTCUTS) * bits / 8 + 4 * (FIRST + DENSE) + 8 * NORMED
    assert _memory(model) == expected


def test_binary_resnet18_is_the_size_that_was_published() -> None:
    # 2.47 MB after 26.12 % were pruned: 3.343 before. Here 3,522,720 bytes = 3.360 MiB with two floats a channel of
    # the batch norms, 3,484,320 bytes = 3.323 MiB without any.
    memory = _memory(zoo.build("resnet18", precision="binary"))
    assert memory == 3_522_720
    assert (memory - 8 * NORMED) / 2**20 == pytest.approx(3.323, abs=5e-4)
    assert memory / 2**20 == pytest.approx(2.47 / (1 - 0.2612), rel=0.02)


def test_bireal18() -> None:
    # The parameters of ResNet-18, as its authors' reimplementation in Larq Zoo (11 699 112); shortcuts stay float.
    model = zoo.build("bireal18")
    assert _counted(model) == 11_699_112
    assert _memory(model) == INNER / 8 + 4 * (SHORTCUTS + FIRST + DENSE) + 8 * NORMED


def test_binary_densenet28() -> None:
    # Channels before block 1: 64. Blocks add 6, 6, 6, 5 times 64: 448, then 448 // 2.7 = 165 -> 160; 544, then
    # 544 // 2.7 = 201 -> 192; 576, then 576 // 2.2 = 261 -> 256; 576 at the end.
    first = 49 * 3 * 64
    binary = sum(9 * 64 * (start + 64 * i) for start, n in [(64, 6), (160, 6), (192, 6), (256, 5)] for i in range(n))
    transitions = 448 * 160 + 544 * 192 + 576 * 256
    layers = sum(start + 64 * i for start, n in [(64, 6), (160, 6), (192, 6), (256, 5)] for i in range(n))
    normed = 64 + layers + 448 + 544 + 576 + 576
    dense = 576 * 1000 + 1000
    model = zoo.build("binary_densenet28")
    # Published by Larq Zoo for this network: 5 150 504.
    assert _counted(model) == 5_150_504 == first + binary + transitions + 4 * normed + dense
    assert _memory(model) == binary / 8 + 4 * (first + transitions + dense) + 8 * normed


def test_quicknet() -> None:
    stem = 9 * 3 * 16 + 9 * 16 + 16 * 64
    binary = 4 * 9 * (64**2 + 128**2 + 256**2 + 512**2)
    transitions = 9 * (64 + 128 + 256) + 64 * 128 + 128 * 256 + 256 * 512
    normed = 16 + 64 + 4 * (64 + 128 + 256 + 512) + (128 + 256 + 512)
    bare = 16  # the stem's second batch norm has neither scale nor centre: mean and variance only
    model = zoo.build("quicknet")
    assert _counted(model) == stem + binary + transitions + 4 * normed + 2 * bare + 513_000 == 13_243_720
    # Published by Larq Zoo for QuickNet 1.0, two numbers a channel: 13 234 088.
    assert _counted(model) - 2 * normed == 13_234_088
    assert _memory(model) == binary / 8 + 4 * (stem + transitions + 2 * normed + 2 * bare + 513_000)


def test_vgg_small() -> None:
    # 9 * (3*128) float; 9 * (128*128 + 128*256 + 256*256 + 256*512 + 512*512) inner; 4x4x512 features to 10 classes.
    inner = 9 * (128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
    first, dense, normed = 3_456, 8_192 * 10 + 10, 2 * (128 + 256 + 512)
    model = zoo.build("vgg_small", precision=2)
    assert _counted(model) == first + inner + dense + 4 * normed == 4_663_690
    assert _memory(model) == inner * 2 / 8 + 4 * (first + dense) + 8 * normed


def test_dorefa_alexnet() -> None:
    # 224 -> 54 (12x12, stride 4) -> 27 -> 14 -> 6 (3x3, stride 2, valid): 6*6*256 = 9,216 features.
    first, last = 12 * 12 * 3 * 96 + 96, 4096 * 1000 + 1000
    inner = 25 * 96 * 256 + 9 * (256 * 384 + 384 * 384 + 384 * 256) + 9216 * 4096 + 4096 * 4096
    normed = 256 + 384 + 384 + 256 + 4096 + 4096  # beta, mean and variance
    model = zoo.build("dorefa_alexnet", precision=2)
    # Published by Larq Zoo for DoReFaNet: 62 403 912.
    assert _counted(model) == first + inner + last + 3 * normed == 62_403_912
    assert _memory(model) == inner * 2 / 8 + 4 * (first + last) + 8 * normed


@pytest.mark.parametrize(("precision", "bits"), [("binary", 1), ("ternary", 2), (1, 1), (2, 2), (3, 3), (4, 4)])
def test_quantised_ends(precision: str | int, bits: int) -> None:
    # ResNet-8, all kernels at k bits: 9*16 first, 9*(2*256 + 512 + 1024 + 2048 + 4096) inner, 2,560 shortcuts,
    # 640 dense; batch norms of 16 + 2*112 + 96 and, behind the dense layer, 10 channels.
    model = zoo.resnet(8, precision=precision, input_shape=(8, 8, 1), quantize_ends=True)
    kernels = 144 + 9 * 8_192 + 2_560 + 640
    assert _memory(model) == kernels * bits / 8 + 8 * (336 + 10)
    assert not any("bias" in weight.name for weight in model.weights)


def test_float_shortcuts() -> None:
    quantised, real = (zoo.resnet(8, quantize_shortcuts=flag) for flag in (True, False))
    assert _counted(quantised) == _counted(real)
    assert _memory(real) - _memory(quantised) == 2_560 * 31 / 8
