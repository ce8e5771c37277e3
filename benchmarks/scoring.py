"""How long scoring takes, against training and against the forward pass; memory of the pairwise distances.

    python benchmarks/scoring.py            # some minutes on two cores
    python benchmarks/scoring.py --quick    # small parts of it, to show that it runs
    python benchmarks/scoring.py --report   # the table of what is kept, into docs/criteria.md

Three measurements in one run, kept in ``--output`` as JSON (what it holds is not run again):

1. scoring a 2-bit DoReFa ResNet-20 with the default criterion against one training epoch over 45,000 images of 32x32
   (random ones: time does not depend on what they show). Aim: at most a twentieth.
2. scoring a 2-bit DoReFa ResNet-50 on 256 images of 224x224 against its own forward pass over the same images. Aim: at
   most ten times.
3. all pairwise distances of 2,048 filters with 18,432 weights each: time and peak memory against the size of an array
   filters x filters x weights.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import Rows
from tables import source, table

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import zoo

import larq as lq  # isort: skip
import tensorflow as tf  # isort: skip
from tfqprune.criteria.pairwise import squared_distances
from tfqprune.data.batching import untuned

HERE = Path(__file__).parent
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
    batches = untuned(tf.data.Dataset.from_tensor_slices((x, y)).shuffle(images).batch(128))
    model.fit(batches.take(2), verbose=0)  # traced before the clock runs
    training, _ = timed(lambda: model.fit(batches, verbose=0))
    scoring = min(timed(lambda: tq.score(model, data=(x[:256], y[:256])))[0] for _ in range(3))
    whole = training * epoch / images
    return {
        "own_seconds": scoring, "epoch_seconds": whole, "images_trained_on": images, "epoch_images": epoch,
        "share": scoring / whole,
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
    batches = untuned(tf.data.Dataset.from_tensor_slices(x).batch(32))
    model.predict(batches.take(1), verbose=0)
    forward, _ = timed(lambda: model.predict(batches, verbose=0))
    scoring, _ = timed(lambda: tq.score(model, data=x))
    return {
        "own_seconds": scoring, "forward_seconds": forward, "images": images, "image_size": size,
        "parameters": model.count_params(), "times": scoring / forward,
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
        "filters": filters, "weights": weights, "own_seconds": seconds, "peak_bytes": peak,
        "filters_x_filters_x_weights_bytes": 4 * filters * filters * weights,
    }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> str:
    """A line for each measurement, in Markdown."""
    lines = []
    for row in rows:
        name, own = row["part"], f"{row['own_seconds']:.1f} s"
        if name == "ResNet-20, 2 bits":
            other = f"an epoch of {row['epoch_images']:,} images: {row['epoch_seconds']:.1f} s"
            lines.append([f"scoring {name}", own, other, f"{row['share']:.3f}", "at most 0.05"])
        elif name == "ResNet-50, 2 bits":
            other = f"its forward pass over the same {row['images']} images: {row['forward_seconds']:.1f} s"
            lines.append([f"scoring {name}", own, other, f"{row['times']:.2f}", "at most 10"])
        else:
            whole = row["filters_x_filters_x_weights_bytes"]
            other = (
                f"memory at its peak {row['peak_bytes'] / 2**20:,.0f} MiB, of {whole / 2**20:,.0f} MiB for all products"
            )
            name = f"distances of {row['filters']:,} filters"
            lines.append([name, own, other, f"{row['peak_bytes'] / whole:.5f}", "below 1"])
    return f"{table(['what', 'time', 'beside', 'ratio', 'aim'], lines)}\n\n{source(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true", help="render the table of the rows that are there, and end")
    parser.add_argument(
        "--output", type=Path, help="JSON file; default benchmarks/results/scoring.json (runs/scoring_quick.json)"
    )
    given = parser.parse_args()
    quick = given.quick
    usual = Path("runs/scoring_quick.json") if quick else HERE / "results" / "scoring.json"
    rows = Rows(given.output or usual, ("part",))
    for name, run in {
        "ResNet-20, 2 bits": lambda: against_training(1280 if quick else 45_000, 45_000),
        "ResNet-50, 2 bits": lambda: against_forward(32 if quick else 256, 64 if quick else 224),
        "distances": lambda: distances(512 if quick else 2048, 18_432),
    }.items():
        if not given.report:
            rows.once({"part": name}, run)
    rows.publish(report(rows.rows), "criteria.md")


if __name__ == "__main__":
    main()
