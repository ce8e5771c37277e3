"""Images to train and judge on: the digits that scikit-learn ships, and every set of TensorFlow Datasets.

All sets come as numpy arrays in the same form, split with a seed, so that a search can be repeated exactly.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.errors import DataError

_TEST_SHARE = 0.2  # of a set that has no test split of its own
_VALIDATION_SHARE = 0.1  # of the training images of a set that has a test split
_LARGEST = 4 * 2**30  # bytes of float32 images that are loaded without being asked twice


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        x: float32 ``[images, height, width, channels]``, from 0 to 1.
        y: int64 ``[images]``, from 0 to ``num_classes - 1``.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class DataSplits:
    """A data set in three disjoint parts.

    Attributes:
        name: as it was asked for.
        train: to train on.
        validation: to choose by (ratios, epochs); cut from the training images.
        test: to report on, and for nothing else.
        num_classes: number of labels.
        input_shape: (height, width, channels).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, int, int]


def load(
    name: str, *, seed: int = 0, data_dir: str | os.PathLike[str] | None = None, limit: int | None = None
) -> DataSplits:
    """Loads an image-classification set as arrays.

    ``digits`` are the 1,797 handwritten 8x8 digits of scikit-learn; nothing is downloaded for them. Every other name
    is one of TensorFlow Datasets ("cifar10", "fashion_mnist", "name/config"), downloaded on first use.

    Args:
        name: of the set.
        seed: of all splits: the same seed gives the same parts in the same order.
        data_dir: folder of TensorFlow Datasets; else the environment variable TFDS_DATA_DIR, else its own default.
        limit: at most so many images in each part, classes in proportion. At least the number of classes.

    Raises:
        DataError: the set is unknown, is no image classification with images of one size, cannot be downloaded, is too
            large for memory without ``limit``, or ``limit`` is below the number of classes.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise DataError(f"Expected limit, a positive number of images per split, or None. Received: {limit!r}.")
    if name == "digits":
        parts = _digits()
    else:
        parts = _from_tfds(name, data_dir, limit)
    return _split(parts, seed, limit)


@dataclass(frozen=True, eq=False)
class _Raw:
    """What a source delivers: training images, test images where it has them, and the share of each cut."""

    name: str
    train: Split
    test: Split | None
    num_classes: int
    validation_share: float


def _digits() -> _Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype(np.float32)
    return _Raw("digits", Split(x, digits.target.astype(np.int64)), None, 10, validation_share=0.15)


def _split(raw: _Raw, seed: int, limit: int | None) -> DataSplits:
    """Cuts validation (and test where there is none) from the training images, classes in proportion."""
    if limit is not None and limit < raw.num_classes:
        raise DataError(
            f"Expected limit of at least {raw.num_classes}, one image per class of '{raw.name}'. Received: {limit}."
        )
    train, test = raw.train, raw.test
    total = len(train)
    if test is None:
        train, test = _cut(train, round(_TEST_SHARE * total), seed)
    train, validation = _cut(train, round(raw.validation_share * total), seed + 1)
    parts = [
        part if limit is None or len(part) <= limit else _cut(part, limit, seed + 2)[1]
        for part in (train, validation, test)
    ]
    height, width, channels = train.x.shape[1:]
    return DataSplits(raw.name, parts[0], parts[1], parts[2], raw.num_classes, (height, width, channels))


def _cut(part: Split, count: int, seed: int) -> tuple[Split, Split]:
    """The rest and ``count`` images, both shuffled, each class in proportion (classes of one image at random)."""
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(part))
    occurring, counts = np.unique(part.y, return_counts=True)
    even = counts.min() > 1 and min(count, len(part) - count) >= len(occurring)
    rest, cut = train_test_split(indices, test_size=count, random_state=seed, stratify=part.y if even else None)
    return Split(part.x[rest], part.y[rest]), Split(part.x[cut], part.y[cut])


def _from_tfds(name: str, data_dir: str | os.PathLike[str] | None, limit: int | None) -> _Raw:
    builder = _builder(name, data_dir)
    image, label = _image_and_label(name, builder)
    _split_names(name, builder)
    _refuse_too_large(name, builder, image, limit)  # before the download, where the set's own card says its size
    try:
        builder.download_and_prepare()
        _refuse_too_large(name, builder, image, limit)
        loaded = [_read(name, builder, split, image, label, limit) for split in _split_names(name, builder)]
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise DataError(
            f"Expected to download and prepare '{name}' in {builder.data_path}. Received: "
            f"{type(error).__name__}: {_first_line(error)}. Check the network, the space on the disk and whether the "
            "set has to be fetched by hand, or prepare it on another machine and point data_dir (or TFDS_DATA_DIR) at "
            "it."
        ) from error
    classes = int(builder.info.features[label].num_classes)
    return _Raw(name, loaded[0], loaded[1] if len(loaded) > 1 else None, classes, _VALIDATION_SHARE)


def _builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The builder of a set, before anything is downloaded."""
    import tensorflow_datasets as tfds

    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"Expected data_dir, an existing folder of TensorFlow Datasets. Received: '{data_dir}'.")
    try:
        # data_dir=None lets TensorFlow Datasets read TFDS_DATA_DIR at import; read it here so that later changes count.
        folder = data_dir if data_dir is not None else os.environ.get("TFDS_DATA_DIR") or None
        return tfds.builder(name, data_dir=folder, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as error:
        base = name.split("/")[0].split(":")[0]
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if base in known:
            raise DataError(
                f"Expected a set that TensorFlow Datasets can open. Received: '{name}': {_first_line(error)}."
            ) from error
        near = difflib.get_close_matches(base.lower().replace("-", "_"), known, n=1, cutoff=0.0)
        raise DataError(
            "Expected 'digits' or the name of an image-classification set of TensorFlow Datasets. "
            f"Received: '{name}'. Did you mean '{near[0]}'?"
        ) from error


def _image_and_label(name: str, builder: Any) -> tuple[str, str]:
    """The names of the image and the label among the features of a set."""
    import tensorflow_datasets as tfds

    features, keys = builder.info.features, builder.info.supervised_keys
    if (
        not keys
        or len(keys) != 2
        or not all(isinstance(key, str) and key in features for key in keys)
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise DataError(
            "Expected an image-classification set: one image and one class label in each example. "
            f"Received: '{name}', whose (input, target) are {keys}."
        )
    shape = features[keys[0]].shape
    if len(shape) != 3 or any(size is None for size in shape):
        raise DataError(f"Expected a set with images of one size. Received: '{name}', with images of shape {shape}.")
    return keys[0], keys[1]


def _refuse_too_large(name: str, builder: Any, image: str, limit: int | None) -> None:
    """Says so before a set is read that is larger than a computer's memory usually is."""
    shape = builder.info.features[image].shape
    images = sum(split.num_examples for split in builder.info.splits.values())
    size = images * int(np.prod(shape)) * 4
    if limit is None and size > _LARGEST:
        raise DataError(
            f"Expected a set that fits in memory. Received: '{name}', {images:,} images of {shape}, "
            f"{size / 2**30:.1f} GiB as float32. Give a limit on the images per split (limit=10000)."
        )


def _split_names(name: str, builder: Any) -> list[str]:
    """Its training split, and the split to test on where it has one with labels."""
    available = list(builder.info.splits)
    if available and "train" not in available:
        raise DataError(f"Expected a set with a 'train' split. Received: '{name}', with {available}.")
    test = next((split for split in ("test", "validation") if split in available), None)
    return ["train"] if test is None else ["train", test]


def _read(name: str, builder: Any, split: str, image: str, label: str, limit: int | None) -> Split:
    """One split as arrays."""
    import tensorflow_datasets as tfds

    # With a limit, a few times more than asked for, so that the cut can still keep the classes in proportion.
    wanted = f"{split}[:{20 * limit}]" if limit is not None else split
    count = builder.info.splits[split].num_examples
    if limit is not None and 20 * limit >= count:
        wanted = split
    examples = tfds.as_numpy(builder.as_dataset(split=wanted, batch_size=-1, shuffle_files=False))
    x, y = examples[image], np.asarray(examples[label], dtype=np.int64)
    if np.issubdtype(x.dtype, np.integer):
        x = x.astype(np.float32) / np.float32(np.iinfo(x.dtype).max)
    if not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise DataError(f"Expected images of integers, or of numbers from 0 to 1. Received: '{name}', {x.dtype}.")
    if y.min() < 0:
        raise DataError(f"Expected a label for every image. Received: the split '{split}' of '{name}' has none.")
    return Split(x.astype(np.float32, copy=False), y)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"


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
    batches = tf.data.Dataset.zip((order, noise)).map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(-(-len(x) // batch_size))).prefetch(tf.data.AUTOTUNE)


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
