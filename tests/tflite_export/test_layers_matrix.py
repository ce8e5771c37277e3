"""Every product by bit-width, padding and stride, in every format and runtime that takes it.

All layers of one bit-width are outputs of one model, so that one file holds them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.runtime import predict
from tflite_export.verification import keras_outputs

layers = tf.keras.layers
Builder = Callable[..., Any]

_PRODUCTS: dict[str, Builder] = {
    "conv": lambda q, **k: lq.layers.QuantConv2D(5, 3, kernel_quantizer=q, **k),
    "pointwise": lambda q, **k: lq.layers.QuantConv2D(6, 1, kernel_quantizer=q, **k),
    "depthwise": lambda q, **k: lq.layers.QuantDepthwiseConv2D(3, depthwise_quantizer=q, **k),
    "transposed": lambda q, **k: lq.layers.QuantConv2DTranspose(4, 3, kernel_quantizer=q, **k),
}
_KERNELS = {
    "sign": lambda: "ste_sign",
    "ternary": lambda: lq.quantizers.SteTern(0.02),
    **{f"dorefa{bits}": (lambda bits=bits: lq.quantizers.DoReFa(bits, mode="weights")) for bits in (1, 2, 3, 4, 5, 7)},
}


def _all_layers(kernel: str, activations: str) -> Any:
    """Every product x padding x stride on one image, and a dense layer on its flat form."""
    image = layers.Input((7, 6, 4), name="image")

    def given() -> Any:
        return "ste_sign" if activations == "sign" else lq.quantizers.DoReFa(2, mode="activations")

    outputs = []
    for product, padding, strides in itertools.product(_PRODUCTS, ("same", "valid"), (1, 2)):
        name = f"{product}_{padding}_{strides}"
        pad = {"pad_values": 1.0} if activations == "sign" and padding == "same" and product == "conv" else {}
        layer = _PRODUCTS[product](
            _KERNELS[kernel](), input_quantizer=given(), padding=padding, strides=strides, use_bias=False,
            name=name, **pad,
        )  # fmt: skip
        outputs.append(layers.Activation("linear", name=f"{name}_out")(layer(image)))
    dense = lq.layers.QuantDense(
        5, kernel_quantizer=_KERNELS[kernel](), input_quantizer=given(), use_bias=False, name="dense"
    )
    outputs.append(layers.Activation("linear", name="dense_out")(dense(layers.Flatten()(image))))
    return tf.keras.Model(image, outputs)


_CASES = [
    *[(kernel, "dorefa", name) for kernel in ("dorefa2", "dorefa3") for name in ("packed", "fast", "hybrid")],
    *[(kernel, "dorefa", "packed") for kernel in ("dorefa1", "dorefa4", "dorefa5", "dorefa7")],
    ("dorefa4", "dorefa", "fast"), ("dorefa7", "dorefa", "fast"), ("dorefa4", "dorefa", "hybrid"),
    ("ternary", "sign", "packed"), ("ternary", "sign", "fast"),
    *[("sign", "sign", name) for name in ("packed", "fast", "hybrid", "binary")],
]  # fmt: skip


_SOON = {("dorefa2", "dorefa", "packed"), ("dorefa3", "dorefa", "fast"), ("sign", "sign", "binary")}


@pytest.mark.parametrize(
    ("kernel", "activations", "format"),
    [pytest.param(*case, marks=[] if case in _SOON else pytest.mark.slow) for case in _CASES],
)
def test_layers(tmp_path: Path, kernel: str, activations: str, format: str) -> None:
    if format == "binary":
        pytest.importorskip("larq_compute_engine")
    tf.keras.utils.set_random_seed(3)
    model = _all_layers(kernel, activations)
    path = tmp_path / "layers.tflite"
    result = te.export(model, path, format, samples=4, strict=False)
    rng = np.random.default_rng(0)
    data = rng.normal(0.5, 0.7, size=(4, 7, 6, 4)).astype(np.float32)
    agreement = te.verify(model, path, data)
    # one layer on levels: sums of few terms, so nothing but float rounding may differ
    assert agreement.max_error < 3e-6
    assert not any("stays float" in note for note in result.notes)
    weights = [row for row in result.breakdown.rows if row.kind == "weights"]
    assert len({row.layer for row in weights}) >= 17
    if format != "binary":  # Larq Compute Engine's converter keeps the smallest kernels as floats
        assert "FLOAT32" not in {row.type for row in weights}


@pytest.mark.parametrize("format", [pytest.param("float32", marks=pytest.mark.slow), "fast"])
def test_one_file_in_both_runtimes(tmp_path: Path, format: str) -> None:
    """Larq Compute Engine's interpreter runs float and 8-bit files, too."""
    pytest.importorskip("larq_compute_engine")
    model = _all_layers("dorefa2", "dorefa")
    data = np.random.default_rng(1).normal(0.5, 0.7, size=(3, 7, 6, 4)).astype(np.float32)
    expected = keras_outputs(model, [data])
    path = tmp_path / "both.tflite"
    te.export(model, path, format, samples=4, strict=False, batch_size=1)
    for runtime in ("litert", "lce"):
        agreement = te.verify(model, path, data, runtime=runtime)
        assert (agreement.runtime, agreement.max_error < 3e-6) == (runtime, True)
    assert len(predict(path, [data], runtime="lce")) == len(expected) == 17
