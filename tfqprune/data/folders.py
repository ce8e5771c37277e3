"""Images in folders, one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.data.splits import Raw, Split
from tfqprune.errors import DataError
from tfqprune.progress import track

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_DEEP = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # 16 bits a pixel, which conversions would clip
_GREY = {"1", "L", *_DEEP}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_HOW = "Expected a folder of images by class: folder/<class>/*.png, or folder/train/<class>/*.png"


def from_folder(name: str) -> Raw:
    """The paths of the images in a folder, with the numbers of their classes: alphabetical, from 0.

    Raises:
        DataError: there are no classes, a class without images, or a class that training does not know.
    """
    folder = Path(name).expanduser()
    homes = {
        part: next((folder / own for own in names if (folder / own).is_dir()), None) for part, names in _PARTS.items()
    }
    train = homes["train"]
    if train is None or not _classes(train):
        homes = {"train": folder, "validation": None, "test": None}
        train = folder
    classes = _classes(train)
    if len(classes) < 2:
        raise DataError(f"{_HOW}, with at least two classes. Received: '{train}', with {len(classes)}.")
    validation, test = (
        None if home is None else _paths(home, classes, complete=False) for home in (homes["validation"], homes["test"])
    )
    return Raw(name, _paths(train, classes, complete=True), validation, test, len(classes), class_names=tuple(classes))


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _paths(folder: Path, classes: Sequence[str], *, complete: bool) -> Split:
    """The images of one part; where it is to be complete, each class has one at least."""
    unknown = set(_classes(folder)) - set(classes)
    if unknown:
        raise DataError(
            f"Expected the classes of the training images, {', '.join(classes)}. Received: "
            f"{', '.join(sorted(unknown))} in '{folder}'."
        )
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        files = sorted((folder / name).glob("*")) if (folder / name).is_dir() else []
        images = [path for path in files if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
        if complete and not images:
            raise DataError(
                f"{_HOW}. Received: the class '{name}' without an image in '{folder / name}' "
                f"(read are {', '.join(sorted(_SUFFIXES))})."
            )
        paths += images
        labels += [number] * len(images)
    if not paths:
        raise DataError(f"{_HOW}. Received: '{folder}', without an image.")
    return Split(np.array(paths, dtype=object), np.array(labels, np.int64))


class ImageReader:
    """Reads images as arrays of one shape.

    Args:
        name: of the data, for errors.
        shape: height, width and channels to bring them to; None: as they are.
    """

    def __init__(self, name: str, shape: tuple[int | None, ...]) -> None:
        self.name = name
        self.height, self.width, self.channels = shape

    def settle(self, paths: Sequence[Path]) -> tuple[int, int, int]:
        """The shape that all images will have, from the heads of their files.

        Raises:
            DataError: they have different sizes and none was asked for, or a file is no image.
        """
        from PIL import Image, UnidentifiedImageError

        colour, first = False, None
        for path in track(paths, "looking at the images"):
            try:
                with Image.open(path) as image:
                    size, mode = image.size, image.mode
            except (OSError, UnidentifiedImageError) as error:
                raise DataError(f"Expected an image. Received: '{path}' ({type(error).__name__}).") from error
            colour = colour or mode not in _GREY
            first = first or (size, path)
            if None in (self.height, self.width) and size != first[0]:
                raise DataError(
                    f"Expected images of one size. Received: {first[0][0]}x{first[0][1]} pixels in '{first[1]}' and "
                    f"{size[0]}x{size[1]} in '{path}'. Have them resized to the model's input with --resize (in "
                    "Python: image_shape=(height, width, channels))."
                )
        assert first is not None  # a folder without images was refused
        self.height, self.width = self.height or first[0][1], self.width or first[0][0]
        self.channels = self.channels or (3 if colour else 1)
        if self.channels not in _MODES:
            raise DataError(f"Expected images of 1, 3 or 4 channels. Received: {self.channels} asked for.")
        return self.height, self.width, self.channels

    def read(self, paths: Sequence[Path]) -> np.ndarray:
        """Images as float32 ``[images, height, width, channels]`` from 0 to 1, after :meth:`settle`."""
        images = np.empty((len(paths), self.height or 0, self.width or 0, self.channels or 0), np.float32)
        for number, path in enumerate(track(paths, "reading images", len(paths))):
            images[number] = self._one(path)
        return images

    def _one(self, path: Path) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(path) as file:
                image: Any = file
                largest = 255.0
                if image.mode == "F":
                    raise DataError(
                        f"Expected images of 8 or 16 bits a channel. Received: '{path}', whose pixels are floats, in a "
                        "range that is not known. Hand over a .npz file with x of floats as the model takes them."
                    )
                if image.mode in _DEEP:
                    image, largest = image.convert("F"), 65535.0
                    mode = "F"
                else:
                    mode = _MODES[self.channels or 1]
                    image = image.convert(mode)
                if image.size != (self.width, self.height):
                    image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
                pixels = np.asarray(image, np.float32) / np.float32(largest)
        except OSError as error:
            raise DataError(f"Expected an image. Received: '{path}' ({error}).") from error
        return pixels.reshape(*pixels.shape[:2], -1)  # one channel of 16-bit grey goes into all that are asked for
