"""Arrays of the user's own: from a ``.npz`` file, or from a function."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.data.splits import DataSplits, Raw, Split, scaled
from tfqprune.errors import DataError

_VALIDATION, _TEST = ("validation", "val", "valid"), ("test",)
_HOW = "Expected arrays x and y, or x_train and y_train (with x_validation, y_validation, x_test, y_test beside)"


def from_file(name: str) -> Raw:
    """The arrays of a ``.npz`` file. Nothing in it is run: pickled objects are refused.

    Raises:
        DataError: it cannot be read, or does not hold what is expected.
    """
    try:
        file = np.load(Path(name).expanduser(), allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{_HOW} in a .npz file. Received: '{name}', a .npy file with one array, renamed.")
        with file:
            arrays = {key: file[key] for key in file.files}
    except DataError:
        raise
    except Exception as error:  # whatever numpy and zipfile make of a damaged file
        raise DataError(f"{_HOW} in a .npz file. Received: '{name}', which cannot be read ({error}).") from error
    return _from_mapping(name, arrays)


def from_function(name: str) -> Raw | DataSplits:
    """What ``module:function`` returns; modules are looked for in the working folder, too.

    Raises:
        DataError: there is no such function, it fails, or does not return what is expected.
    """
    with _working_folder_on_path():  # of the call, too: functions may import
        found = _called(name)
    if isinstance(found, DataSplits):
        return found
    if isinstance(found, Mapping):
        return _from_mapping(name, found)
    return _from_pairs(name, found)


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have taken it away
            sys.path.remove(folder)


def _called(name: str) -> Any:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # a module runs when it is imported, and may fail in any way
        reason = error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"Expected module:function, a function that returns data. Received: '{name}' ({reason})."
        ) from error
    if not callable(function):
        raise DataError(f"Expected module:function. Received: '{name}', which is {type(function).__name__}.")
    try:
        return function()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"Expected '{name}' to return data. Received: {type(error).__name__}: {error}. The function is called "
            "without arguments."
        ) from error


def _from_mapping(name: str, arrays: Mapping[str, Any]) -> Raw:
    parts = {}
    for part, spellings in (("train", ("train",)), ("validation", _VALIDATION), ("test", _TEST)):
        own = next((own for own in spellings if f"x_{own}" in arrays), None)
        if own is not None:
            if f"y_{own}" not in arrays:
                raise DataError(f"{_HOW}. Received: x_{own} without y_{own} in '{name}'.")
            parts[part] = (arrays[f"x_{own}"], arrays[f"y_{own}"])
    if "train" not in parts and "x" in arrays and "y" in arrays:
        parts["train"] = (arrays["x"], arrays["y"])
    if "train" not in parts:
        raise DataError(f"{_HOW}. Received: {', '.join(arrays) or 'none'} in '{name}'.")
    return _raw(name, parts)


def _from_pairs(name: str, found: Any) -> Raw:
    """(x, y), or two or three such pairs: train, test; train, validation, test."""
    if isinstance(found, tuple | list):
        if len(found) == 2 and not any(isinstance(entry, tuple | list) for entry in found):
            return _raw(name, {"train": (found[0], found[1])})
        names = {2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(found), ())
        pairs = [(entry.x, entry.y) if isinstance(entry, Split) else entry for entry in found]
        if names and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            return _raw(name, dict(zip(names, pairs)))
    raise DataError(
        "Expected DataSplits, a mapping of arrays, (x, y), or two or three such pairs (train, test; train, validation, "
        f"test). Received: {type(found).__name__} from '{name}'."
    )


def _raw(name: str, parts: Mapping[str, tuple[Any, Any]]) -> Raw:
    made = {part: _part(f"{part} of '{name}'", np.asarray(x), np.asarray(y)) for part, (x, y) in parts.items()}
    shapes = {part: split.x.shape[1:] for part, split in made.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"Expected samples of one shape in all parts. Received: {shapes} in '{name}'.")
    classes = max(int(split.y.max()) for split in made.values()) + 1
    return Raw(name, made["train"], made.get("validation"), made.get("test"), max(classes, 2))


def _part(what: str, x: np.ndarray, y: np.ndarray) -> Split:
    """Checked arrays: float inputs, whole-number labels."""
    y = np.atleast_1d(y)
    if x.ndim < 2 or len(x) == 0 or len(x) != len(y):
        raise DataError(
            f"Expected x [samples, ...] with as many labels, at least one. Received: x {x.shape} and y {y.shape} as "
            f"{what}."
        )
    if x.dtype.kind not in "fb" and x.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"Expected x of floats as the model takes them, or of uint8 or uint16, which are scaled to 0 to 1. "
            f"Received: {x.dtype} as {what}."
        )
    x = scaled(x).astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise DataError(f"Expected finite values in x. Received: NaN or infinity in {what}.")
    if is_one_hot(y):
        y = y.argmax(axis=1)
    y = y.reshape(len(y), -1)
    if y.shape[1] != 1 or y.dtype.kind not in "iufb" or not (np.isfinite(y) & (y >= 0) & (y == np.floor(y))).all():
        raise DataError(
            f"Expected y of class numbers from 0, or one-hot. Received: {y.dtype} of shape {y.shape} as {what}. Other "
            "labels: use tfqprune.compress in a script."
        )
    return Split(x, y[:, 0].astype(np.int64))


def is_one_hot(y: np.ndarray) -> bool:
    """Whether labels are ``[samples, classes]``, two or more, with a single 1 in each row and zeros beside."""
    return y.ndim == 2 and y.shape[1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())
