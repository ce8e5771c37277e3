"""Trained networks that benchmarks start from: how they are trained, named, kept and loaded.

A baseline lies in ``--cache``, in a folder named after data set, precision and epochs; all benchmarks with the same
options share it. Training that was interrupted goes on there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import data, zoo

import tensorflow as tf  # isort: skip
from tfqprune.criteria import FlipFrequencyCallback

#: data set -> network; resnet20 for all others
_NETWORKS = {"digits": "resnet_digits", "fashion_mnist": "resnet_digits"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the baselines: the same for every benchmark that uses them."""
    parser.add_argument("--quick", action="store_true", help="digits and a few epochs, to show that it runs")
    parser.add_argument("--dataset", help="default: cifar10 (digits with --quick)")
    parser.add_argument("--network", help="of the zoo; default resnet20 (resnet_digits for small images)")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the network's channels, where it takes one")
    parser.add_argument("--limit", type=int, help="at most so many images in each part of the data; default: all")
    parser.add_argument("--epochs", type=int, help="epochs of each baseline; default 50 (10)")
    parser.add_argument("--finish", type=int, help="of these, the last ones in float32; default 5 (2)")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--cache", type=Path, help="folder of baselines; default runs/criteria[_quick]")


def fill_in(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Fills in defaults that depend on ``--quick``, and refuses what makes no sense."""
    given.dataset = given.dataset or ("digits" if given.quick else "cifar10")
    given.network = given.network or _NETWORKS.get(given.dataset, "resnet20")
    given.epochs = given.epochs or (10 if given.quick else 50)
    given.finish = given.finish or (2 if given.quick else 5)
    given.cache = given.cache or Path("runs/criteria_quick" if given.quick else "runs/criteria")
    if not 1 <= given.finish < given.epochs:
        parser.error(f"--finish must be at least 1 and below --epochs ({given.epochs}); received {given.finish}.")


def load_data(given: argparse.Namespace) -> data.DataSplits:
    """The data set, in its three parts."""
    return data.load(given.dataset, limit=given.limit)


def network(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tf.keras.Model:
    """The untrained network for a data set."""
    own = {} if given.width == 1 else {"width": given.width}
    return zoo.build(
        given.network,
        precision=int(precision) if precision.isdigit() else precision,
        input_shape=splits.input_shape,
        classes=splits.num_classes,
        **own,
    )


def batches(given: argparse.Namespace, part: data.Split, seed: int) -> tf.data.Dataset:
    """Shuffled batches; natural images shifted by up to an eighth and mirrored."""
    dataset = tf.data.Dataset.from_tensor_slices((part.x, part.y)).shuffle(len(part), seed=seed)
    dataset = dataset.batch(given.batch_size, drop_remainder=len(part) > given.batch_size)
    if given.dataset != "digits":
        dataset = dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Images mirrored at random, and shifted by up to an eighth."""
    size = images.shape[1]
    border = size // 8
    images = tf.image.random_flip_left_right(images)
    images = tf.pad(images, [[0, 0], [border, border], [border, border], [0, 0]], mode="REFLECT")
    count = tf.shape(images)[0]
    # one shift for a quarter of the batch each: cheaper than one for each image, and as good over many batches
    parts = [
        tf.image.random_crop(quarter, [tf.shape(quarter)[0], size, size, images.shape[-1]])
        for quarter in tf.split(images, [count // 4, count // 4, count // 4, count - 3 * (count // 4)])
    ]
    return tf.ensure_shape(tf.concat(parts, 0), [None, size, size, images.shape[-1]]), labels


def folder_of(given: argparse.Namespace, precision: str) -> Path:
    """Where a baseline is kept."""
    parts: list[Any] = [given.dataset, precision, given.epochs]
    if given.network != _NETWORKS.get(given.dataset, "resnet20"):
        parts.insert(1, given.network)
    parts += [] if given.width == 1 else [f"width{given.width}"]
    parts += [] if given.limit is None else [given.limit]
    return given.cache / "_".join(map(str, parts))


def coarse_copy(model: tf.keras.Model) -> tf.keras.Model:
    """The same network and weights, trained at half the time of an epoch: bfloat16 within, float32 at its outputs."""
    last = {id(layer) for layer in model.layers if layer.name in model.output_names}

    def copy(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = layer.get_config()
        return type(layer).from_config(config if id(layer) in last else _without_types(config))

    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        coarse = tf.keras.models.clone_model(model, clone_function=copy)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    coarse.set_weights(model.get_weights())
    return coarse


def _without_types(config: Any) -> Any:
    """A layer's configuration that leaves types to the policy, those of its quantisers too."""
    if isinstance(config, dict):
        return {name: _without_types(value) for name, value in config.items() if name != "dtype"}
    return config


def train(
    given: argparse.Namespace,
    model: tf.keras.Model,
    splits: data.DataSplits,
    epochs: int,
    finish: int,
    seed: int,
    learning_rate: float,
    folder: Path | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> None:
    """Trains a model in place, along half a cosine; the last epochs in float32, for 1/3 is no bfloat16.

    Args:
        given: options of the baselines.
        model: what is trained.
        splits: the data.
        epochs: in all.
        finish: of these, the last ones in float32; with 0 of them, re-estimate the batch norms.
        seed: of the order of images.
        learning_rate: of the first step.
        folder: where the state after each coarse epoch is kept, to go on from; None: nowhere.
        callbacks: of the last epochs.
        verbose: as for ``fit``.
    """
    first = epochs - finish
    steps = len(batches(given, splits.train, 0))
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps * epochs)
    held_out = None  # looked at where someone reads along
    if verbose:
        held_out = tf.data.Dataset.from_tensor_slices((splits.validation.x, splits.validation.y)).batch(500)
    tf.keras.utils.set_random_seed(seed)
    if first:
        coarse = coarse_copy(model)
        coarse.compile(tf.keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", ["accuracy"])
        coarse.fit(
            batches(given, splits.train, seed + 1),
            epochs=first,
            validation_data=held_out,
            callbacks=[] if folder is None else [tf.keras.callbacks.BackupAndRestore(str(folder / "backup"))],
            verbose=verbose,
        )
        model.set_weights(coarse.get_weights())
    if finish:
        rate = float(schedule(steps * first))
        tq.finetune(
            model, batches(given, splits.train, seed + 2), held_out, finish, learning_rate=rate,
            callbacks=list(callbacks), verbose=verbose,
        )  # fmt: skip


def baseline(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tuple[tf.keras.Model, Any]:
    """A trained network and the flips of its last epochs; from the cache, or trained (and resumed) there."""
    folder = folder_of(given, precision)
    folder.mkdir(parents=True, exist_ok=True)
    final, flips = folder / "final.weights.h5", folder / "flips.npz"
    model = network(given, precision, splits)
    callback = FlipFrequencyCallback(every=10 if given.dataset != "digits" else 1)
    if not final.exists():
        train(
            given, model, splits, given.epochs, given.finish, 0, given.learning_rate, folder, [callback], verbose=2
        )  # fmt: skip
        arrays = {"/".join(key): value for key, value in callback.flips.items()}
        np.savez(flips, looks=callback.looks, **arrays)
        model.save_weights(final)
    model.load_weights(final)
    stored = np.load(flips)
    callback.looks = int(stored["looks"])
    callback.flips = {tuple(key.rsplit("/", 1)): stored[key] for key in stored.files if key != "looks"}
    return model, callback


def accuracy(model: tf.keras.Model, part: data.Split) -> float:
    """Share of images of which the model finds the class."""
    right = 0
    for start in range(0, len(part), 500):
        answer = model(part.x[start : start + 500], training=False)
        right += int((np.argmax(answer, axis=-1) == part.y[start : start + 500]).sum())
    return right / len(part)
