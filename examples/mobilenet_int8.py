"""A float MobileNetV2: pruned to 60 % of its MACs, fine-tuned, quantised to int8, measured beside the dense one.

    python examples/mobilenet_int8.py [--quick] [--output runs/mobilenet]

Plain Keras layers are pruned like quantised ones. The network learns CIFAR-10, enlarged to 64x64 inside the model; the
quick form takes the digits, a quarter of the width and few images.
"""

from __future__ import annotations

from common import accuracy, arguments, trained

import tflite_export as te
import tfqprune as tq
from tfqprune import data

import tensorflow as tf  # isort: skip  (tfqprune selects legacy Keras first)


def mobilenet(input_shape: tuple[int, int, int], size: int, alpha: float) -> tf.keras.Model:
    """MobileNetV2 behind a layer that enlarges small images; grey ones get three equal channels."""
    image = tf.keras.Input(input_shape, name="image")
    x = image if input_shape[-1] == 3 else tf.keras.layers.Concatenate()([image] * 3)
    x = tf.keras.layers.UpSampling2D(size // input_shape[0])(x)
    body = tf.keras.applications.MobileNetV2((size, size, 3), alpha, include_top=False, weights=None, pooling="avg")
    return tf.keras.Model(image, tf.keras.layers.Dense(10, "softmax", name="classes")(body(x)), name="mobilenet")


def main() -> None:
    given = arguments(__doc__, "runs/mobilenet")
    if given.quick:
        splits, epochs = data.load("digits", limit=400), 6
        model = mobilenet(splits.input_shape, 32, 0.35)
    else:
        splits, epochs = data.load("cifar10"), 40
        model = mobilenet(splits.input_shape, 64, 1.0)
    model = trained(model, splits, given.output / "dense.weights.h5", epochs)
    tq.reestimate_batch_norms(model, splits.train)

    # align=8: keep multiples of 8 channels, as fast kernels like them.
    plan = tq.UniformAllocator(tq.Budget(macs=0.6)).allocate(model, "auto", splits.train, align=8)
    slim = tq.prune(model, plan)
    tq.reestimate_batch_norms(slim, splits.train)
    tq.finetune(slim, splits.train, splits.validation, max(epochs // 3, 1), batch_size=64)
    tq.reestimate_batch_norms(slim, splits.train)

    for name, net in (("dense", model), ("slim", slim)):
        # An untrained-looking network moves a lot when it is rounded: the agreement says how much, and you decide.
        file = te.export(net, given.output / f"{name}.tflite", "int8", data=splits.train.x[:256], strict=False)
        speed = te.benchmark(file.path)
        cost = tq.cost(net)
        print(
            f"{name:5s} float accuracy {accuracy(net, splits.test):.4f}, {cost.macs / 1e6:.2f} MMAC; int8 file "
            f"{file.bytes:,} B, top-1 agreement {file.agreement.top1:.3f}, {speed.latency_ms:.3f} ms"
        )


if __name__ == "__main__":
    main()
