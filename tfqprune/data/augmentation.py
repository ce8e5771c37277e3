"""The standard augmentation of images, as a training pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfqprune.data.batching import untuned
from tfqprune.errors import DataError


def augmented(
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    seed: int = 0,
    pad: int | None = None,
    flip: bool | None = None,
    targets: Sequence[np.ndarray] = (),
) -> Any:
    """A training pipeline with the standard augmentation: pad, crop at random, flip left to right.

    Shuffled anew in every epoch; the same seed gives the same epochs.

    Args:
        x: float ``[images, height, width, channels]``.
        y: ``[images, ...]``.
        batch_size: images in a batch; the last batch of an epoch may be smaller.
        seed: of the order and of the augmentation.
        pad: pixels of zero padding on each side before the crop; by default an eighth of the height for colour images
            (4 for 32x32) and none for others.
        flip: mirror half of the images; by default colour images only.
        targets: further arrays ``[images, ...]`` that travel with the labels, as ``(x, (y, *targets))``.

    Returns:
        A ``tf.data.Dataset`` of ``(x, y)`` batches.

    Raises:
        DataError: shapes that do not fit, or numbers that make no sense.
    """
    import tensorflow as tf

    if x.ndim != 4 or any(len(other) != len(x) for other in (y, *targets)) or len(x) == 0:
        raise DataError(
            "Expected images [images, height, width, channels] and as many labels. "
            f"Received: x {x.shape}, others {[np.shape(other) for other in (y, *targets)]}."
        )
    height, width, channels = x.shape[1:]
    pad = (height // 8 if channels == 3 else 0) if pad is None else pad
    flip = channels == 3 if flip is None else flip
    if batch_size < 1 or not 0 <= pad < min(height, width):
        raise DataError(f"Expected batch_size of 1 or more and 0 <= pad < {min(height, width)}. Received: {pad=}.")
    images, labels = tf.constant(x), tuple(tf.constant(other) for other in (y, *targets))

    def batch(indices: Any, noise: Any) -> tuple[Any, Any]:
        picked = tf.gather(images, indices)
        if pad or flip:
            picked = _crop_and_flip(picked, noise, pad, flip)
        chosen = tuple(tf.gather(other, indices) for other in labels)
        return picked, chosen if targets else chosen[0]

    order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=seed, reshuffle_each_iteration=True).batch(batch_size)
    noise = tf.data.Dataset.random(seed=seed + 1, rerandomize_each_iteration=True).batch(2)
    batches = tf.data.Dataset.zip((order, noise)).map(batch, num_parallel_calls=os.cpu_count() or 1)
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-len(x) // batch_size)))
    return untuned(batches)


def _crop_and_flip(images: Any, noise: Any, pad: int, flip: bool) -> Any:
    """Shifts each image by whole pixels (zeros move in, as if it had been padded and cropped), mirrors half of them."""
    import tensorflow as tf

    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    shift = tf.random.stateless_uniform([count, 2], noise, -pad, pad + 1, dtype=tf.int32)
    mirrored = tf.random.stateless_uniform([count], noise + 1, 0, 2, dtype=tf.int32) * int(flip)
    sign = tf.cast(1 - 2 * mirrored, tf.float32)
    ones, zeros = tf.ones([count]), tf.zeros([count])
    # Output pixel (x, y) comes from input (a0 x + a2, y + b2): rows [a0 a1 a2 b0 b1 b2 c0 c1].
    across = tf.cast(shift[:, 0] + mirrored * (width - 1), tf.float32)
    down = tf.cast(shift[:, 1], tf.float32)
    transforms = tf.stack([sign, zeros, across, zeros, ones, down, zeros, zeros], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
