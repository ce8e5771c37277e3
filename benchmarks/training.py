"""How benchmarks train: batches, a faster epoch, what a plan leaves brought back, accuracy."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune import data

import tensorflow as tf  # isort: skip
from tfqprune.allocation.identity import model_digest
from tfqprune.channels import ChannelGraph
from tfqprune.data.batching import untuned
from tfqprune.plan import PruningPlan

# Now, not when the last epochs begin: a checkout may change while a training runs for hours.
from tfqprune.recovery import finetune, reestimate_batch_norms
from tfqprune.slim import prune

CALIBRATION = 4096  # training images for batch norms after a cut
SLOWER = 0.1  # of the baseline's learning rate: where training after a cut starts


def batches(given: argparse.Namespace, part: data.Split, seed: int) -> tf.data.Dataset:
    """Shuffled batches; natural images shifted by up to an eighth and mirrored."""
    dataset = tf.data.Dataset.from_tensor_slices((part.x, part.y)).shuffle(len(part), seed=seed)
    dataset = dataset.batch(given.batch_size, drop_remainder=len(part) > given.batch_size)
    if given.dataset != "digits":
        dataset = dataset.map(augment, num_parallel_calls=2)
    return untuned(dataset)


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


def coarse_copy(model: tf.keras.Model) -> tf.keras.Model:
    """The same network and weights, trained faster: bfloat16 within, float32 at its outputs.

    Three quarters of the time of a step of the whole ResNet-20, but twice that of one with half its channels: batch
    norms in bfloat16 are slow where channels are no multiple of 16.
    """
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
        finish: of these, the last ones in float32.
        seed: of the order of images.
        learning_rate: of the first step.
        folder: where the state after each epoch is kept, to go on from; None: nowhere.
        callbacks: of the last epochs.
        verbose: as for ``fit``.
    """
    first = epochs - finish
    steps = len(batches(given, splits.train, 0))
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps * epochs)
    held_out = None  # looked at where someone reads along
    if verbose:
        held_out = tf.data.Dataset.from_tensor_slices((splits.validation.x, splits.validation.y))
        held_out = untuned(held_out.batch(500))
    tf.keras.utils.set_random_seed(seed)
    if first:
        coarse = coarse_copy(model)
        coarse.compile(tf.keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", ["accuracy"])
        coarse.fit(
            batches(given, splits.train, seed + 1),
            epochs=first,
            validation_data=held_out,
            callbacks=_backup(folder, "coarse"),
            verbose=verbose,
        )
        model.set_weights(coarse.get_weights())
    if finish:
        rate = float(schedule(steps * first))
        finetune(
            model, batches(given, splits.train, seed + 2), held_out, finish, learning_rate=rate,
            callbacks=[*callbacks, *_backup(folder, "finish")], verbose=verbose,
        )  # fmt: skip


def _backup(folder: Path | None, name: str) -> list[tf.keras.callbacks.Callback]:
    """Keeps the state after each epoch; that of the last one, too, for the next part of the training may fail."""
    if folder is None:
        return []
    return [
        tf.keras.callbacks.BackupAndRestore(str(folder / name), delete_checkpoint=False),
        tf.keras.callbacks.CSVLogger(str(folder / f"{name}.csv"), append=True),
    ]


def cut_and_trained(
    given: argparse.Namespace,
    model: tf.keras.Model,
    plan: PruningPlan,
    splits: data.DataSplits,
    epochs: int,
    seed: int,
    calibration: np.ndarray | None = None,
    folder: Path | None = None,
) -> tf.keras.Model:
    """What a plan leaves of a baseline, brought back: batch norms re-estimated, then trained at a tenth of the rate.

    All in float32 (see :func:`coarse_copy`).

    Args:
        given: options of the baselines.
        model: the baseline.
        plan: what goes.
        splits: the data.
        epochs: of training.
        seed: of the order of images.
        calibration: images for the batch norms; None: the first 4,096 of the training.
        folder: where the trained weights are kept, so that other images are judged without training again; None:
            nowhere.
    """
    slim = prune(model, plan)
    kept = None if folder is None else folder / f"{_identity(given, model, plan, epochs, seed)}.weights.h5"
    if kept is not None and kept.exists():
        slim.load_weights(kept)
        return slim
    reestimate_batch_norms(slim, splits.train.x[:CALIBRATION] if calibration is None else calibration)
    train(given, slim, splits, epochs, epochs, seed, SLOWER * given.learning_rate)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        in_one_step(kept, slim.save_weights)
    return slim


def in_one_step(path: Path, save: Callable[[Path], Any]) -> None:
    """Saves a file: a process that is killed leaves no half of it behind."""
    part = path.with_name(f"part_{path.name}")  # the end of the name says in which format
    save(part)
    part.replace(path)


def _identity(given: argparse.Namespace, model: tf.keras.Model, plan: PruningPlan, epochs: int, seed: int) -> str:
    """Changes with what training after a cut depends on."""
    options = [given.dataset, given.limit, given.learning_rate, given.batch_size, epochs, seed]
    facts = [model_digest(ChannelGraph(model)), sorted(plan.removed.items()), *options]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def accuracy(model: Callable[[np.ndarray], Any], part: data.Split) -> float:
    """Share of images of which a model, or its twin, finds the class."""
    right = 0
    for start in range(0, len(part), 500):
        answer = model(part.x[start : start + 500])
        right += int((np.argmax(answer, axis=-1) == part.y[start : start + 500]).sum())
    return right / len(part)
