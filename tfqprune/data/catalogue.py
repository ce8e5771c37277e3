"""Every image-classification set of TensorFlow Datasets."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.data.splits import Raw, Split, refuse_too_large, scaled
from tfqprune.errors import DataError


def from_catalogue(name: str, data_dir: str | os.PathLike[str] | None, limit: int | None) -> Raw:
    """A set of TensorFlow Datasets, downloaded on first use; with a limit, at least so many images of each part.

    Raises:
        DataError: see :func:`tfqprune.data.load`.
    """
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
    return Raw(name, loaded[0], None, loaded[1] if len(loaded) > 1 else None, classes)


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
    images = sum(split.num_examples for split in builder.info.splits.values())
    if limit is None:
        refuse_too_large(name, images, builder.info.features[image].shape)


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
    x = scaled(x)
    if not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise DataError(f"Expected images of integers, or of numbers from 0 to 1. Received: '{name}', {x.dtype}.")
    if y.min() < 0:
        raise DataError(f"Expected a label for every image. Received: the split '{split}' of '{name}' has none.")
    return Split(x.astype(np.float32, copy=False), y)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"
