"""How long scoring takes, against training and against the forward pass; memory of the pairwise distances.

    python benchmarks/scoring.py            # some minutes on two cores
    python benchmarks/scoring.py --quick    # small parts of it, to show that it runs

Three measurements in one run, written to ``--output`` as JSON:

1. scoring a 2-bit DoReFa ResNet-20 with the default criterion against one training epoch over 45,000 images of 32x32
   (random ones: time does not depend on what they show). Aim: at most a twentieth.
2. scoring a 2-bit DoReFa ResNet-50 on 256 images of 224x224 against its own forward pass over the same images. Aim: at
   most ten times.
3. all pairwise distances of 2,048 filters with 18,432 weights each: time and peak memory against the size of an array
   filters x filters x weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import zoo

import larq as lq  # isort: skip
import tensorflow as tf  # isort: skip
from tfqprune.criteria.pairwise import squared_distances

K = tf.keras.layers


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def against_training(images: int, epoch: int) -> dict[str, Any]:
    """Scoring a ResNet-20 against an epoch; where fewer images are trained on, the time is scaled up."""
    model = zoo.build("resnet20", precision=2)
    rng = np.random.default_rng(0)
    x, y = rng.random((images, 32, 32, 3), np.float32), rng.integers(0, 10, images)
    model.compile(tf.keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    model.fit(x[:256], y[:256], batch_size=128, verbose=0)  # traced before the clock runs
    training, _ = timed(lambda: model.fit(x, y, batch_size=128, verbose=0))
    scoring = min(timed(lambda: tq.score(model, data=(x[:256], y[:256])))[0] for _ in range(3))
    whole = training * epoch / images
    return {
        "scoring_seconds": scoring, "epoch_seconds": whole, "images_trained_on": images, "epoch_images": epoch,
        "share": scoring / whole, "aim": 1 / 20,
    }  # fmt: skip


def resnet50(size: int) -> tf.keras.Model:
    """A 2-bit DoReFa ResNet-50: bottlenecks of quantised convolutions, first and last layer float."""
    quantised = {
        "kernel_quantizer": lq.quantizers.DoReFa(2, mode="weights"),
        "input_quantizer": lq.quantizers.DoReFa(2, mode="activations"),
        "use_bias": False,
        "padding": "same",
    }

    def conv(x: Any, filters: int, kernel: int, strides: int = 1) -> Any:
        return K.BatchNormalization()(lq.layers.QuantConv2D(filters, kernel, strides=strides, **quantised)(x))

    image = K.Input((size, size, 3))
    x = K.BatchNormalization()(K.Conv2D(64, 7, strides=2, padding="same", use_bias=False)(image))
    x = K.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            shortcut = x if block else conv(x, 256 * 2**stage, 1, strides)
            y = conv(conv(x, 64 * 2**stage, 1), 64 * 2**stage, 3, strides)
            x = K.Add()([conv(y, 256 * 2**stage, 1), shortcut])
    return tf.keras.Model(image, K.Dense(1000, activation="softmax")(K.GlobalAveragePooling2D()(K.ReLU()(x))))


def against_forward(images: int, size: int) -> dict[str, Any]:
    model = resnet50(size)
    x = np.random.default_rng(0).random((images, size, size, 3), np.float32)
    model.predict(x[:32], verbose=0)
    forward, _ = timed(lambda: model.predict(x, batch_size=32, verbose=0))
    scoring, _ = timed(lambda: tq.score(model, data=x))
    return {
        "scoring_seconds": scoring, "forward_seconds": forward, "images": images, "image_size": size,
        "parameters": model.count_params(), "times": scoring / forward, "aim": 10,
    }  # fmt: skip


def distances(filters: int, weights: int) -> dict[str, Any]:
    codes = np.random.default_rng(0).integers(0, 2, (filters, weights)).astype(np.int8) * 2 - 1
    tracemalloc.start()
    seconds, result = timed(lambda: squared_distances(codes, flipped=True))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first, second = codes[0].astype(int), codes[1].astype(int)
    assert result[0, 1] == min(((first - second) ** 2).sum(), ((first + second) ** 2).sum())
    return {
        "filters": filters, "weights": weights, "seconds": seconds, "peak_bytes": peak,
        "filters_x_filters_x_weights_bytes": 4 * filters * filters * weights,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, help="default runs/scoring[_quick].json; what it holds is not run again")
    given = parser.parse_args()
    quick = given.quick
    path = given.output or Path("runs/scoring_quick.json" if quick else "runs/scoring.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, run in {
        "resnet20": lambda: against_training(1280 if quick else 45_000, 45_000),
        "resnet50": lambda: against_forward(32 if quick else 256, 64 if quick else 224),
        "distances": lambda: distances(512 if quick else 2048, 18_432),
    }.items():
        if name in results:
            print(f"{name}: known already, from {path}")
            continue
        results[name] = {**run(), "cores": os.cpu_count()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1), encoding="utf-8")
        os.replace(part, path)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
