"""Data from wherever the user has them: a named set, a folder of images, a file of arrays, or a function."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfqprune.data.arrays import from_file, from_function
from tfqprune.data.catalogue import from_catalogue
from tfqprune.data.folders import ImageReader, from_folder
from tfqprune.data.splits import DataSplits, Raw, Split, divide, limited, refuse_too_large
from tfqprune.errors import DataError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load(
    name: str,
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    image_shape: Sequence[int | None] = (None, None, None),
) -> DataSplits:
    """Loads labelled samples as arrays.

    ``name`` is one of

    - ``digits``, the 1,797 handwritten 8x8 digits of scikit-learn; nothing is downloaded for them;
    - a name of TensorFlow Datasets ("cifar10", "fashion_mnist", "name/config"), downloaded on first use;
    - a folder of images by class, ``folder/<class>/*.png``, optionally below ``train``, ``validation`` and ``test``
      (a folder with the name of a set is written "./cifar10");
    - a ``.npz`` file with ``x`` and ``y``, or ``x_train`` and ``y_train`` with ``_validation`` and ``_test`` beside;
    - ``module:function``, called without arguments: returns such arrays as a mapping, ``(x, y)``, two or three such
      pairs (train, test; or train, validation, test), or :class:`DataSplits`.

    Args:
        name: see above.
        seed: of all splits: the same seed gives the same parts in the same order.
        data_dir: folder of TensorFlow Datasets; else the environment variable TFDS_DATA_DIR, else its own default.
        limit: at most so many samples in each part, classes in proportion. At least the number of classes.
        image_shape: height, width and channels that the images of a folder are brought to; None: as they are.

    Raises:
        DataError: there are no such data, they are no classification set with samples of one shape, cannot be
            downloaded or read, are too large for memory without ``limit``, or ``limit`` is below the number of classes.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise DataError(f"Expected limit, a positive number of images per split, or None. Received: {limit!r}.")
    form = source_form(name)
    if form == "folder":
        raw = from_folder(name)
        parts = divide(raw, seed, limit)
        reader = ImageReader(name, tuple(image_shape))
        shape = reader.settle([path for part in parts for path in part.x])
        refuse_too_large(name, sum(map(len, parts)), shape)
        parts = (_read(parts[0], reader), _read(parts[1], reader), _read(parts[2], reader))
    else:
        if form == "function":
            found = from_function(name)
            if isinstance(found, DataSplits):
                return limited(found, seed, limit)
            raw = found
        else:
            makers = {"digits": lambda: _digits(), "file": lambda: from_file(name)}
            raw = makers[form]() if form in makers else from_catalogue(name, data_dir, limit)
        parts = divide(raw, seed, limit)
    return DataSplits(name, *parts, raw.num_classes, tuple(parts[0].x.shape[1:]), raw.class_names)


def source_form(name: str) -> str:
    """What a name of data means: "digits", "file", "function", "folder" or "set"; nothing is loaded.

    Raises:
        DataError: a path at which there is nothing, or a file that is no ``.npz``.
    """
    if name == "digits":
        return "digits"
    path = Path(name).expanduser()
    if path.suffix == ".npz" or path.is_file():
        if path.suffix != ".npz" or not path.is_file():
            raise DataError(
                f"Expected data: a set's name, a folder of images, a .npz file or module:function. Received: '{name}', "
                f"{'which is no .npz file' if path.is_file() else 'which does not exist'}."
            )
        return "file"
    if _FUNCTION.fullmatch(name) and not path.exists():
        return "function"
    explicit = name.startswith((".", "~", os.sep)) or name.endswith(os.sep)
    if path.is_dir() and (explicit or not _is_known(name)):
        return "folder"
    if explicit:
        raise DataError(f"Expected a folder of images by class. Received: '{name}', which does not exist.")
    return "set"


def _is_known(name: str) -> bool:
    import tensorflow_datasets as tfds

    return name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype(np.float32)
    return Raw("digits", Split(x, digits.target.astype(np.int64)), None, None, 10, validation_share=0.15)


def _read(part: Split, reader: ImageReader) -> Split:
    return Split(reader.read(list(part.x)), part.y)
