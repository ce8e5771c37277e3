"""Data in three disjoint parts, cut with a seed, so that a search can be repeated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfqprune.errors import DataError

_TEST_SHARE = 0.2  # of data that have no test part of their own
_LARGEST = 4 * 2**30  # bytes of float32 inputs that are loaded without being asked twice


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and their labels.

    Attributes:
        x: float32 ``[samples, ...]``; images are ``[images, height, width, channels]``, from 0 to 1 unless the user's
            own arrays say otherwise.
        y: int64 ``[samples]``, from 0 to ``num_classes - 1``.
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
        validation: to choose by (ratios, epochs); cut from the training samples unless the source has its own.
        test: to report on, and for nothing else.
        num_classes: number of labels.
        input_shape: of one sample; of images (height, width, channels).
        class_names: by label, where the source names its classes.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()

    def fitted(self, input_shape: Sequence[int | None], outputs: int | None = None) -> DataSplits:
        """The same data for a model, or a refusal.

        Grey images without an axis of channels get one where the model wants it.

        Args:
            input_shape: of one sample as the model takes it; None where any size will do.
            outputs: classes that the model tells apart; None: not checked.

        Raises:
            DataError: samples of another shape, or more classes than the model has outputs.
        """
        wanted, data = tuple(input_shape), self
        if len(wanted) == len(self.input_shape) + 1 and wanted[-1] == 1:
            parts = [Split(part.x[..., None], part.y) for part in (self.train, self.validation, self.test)]
            data = replace(self, train=parts[0], validation=parts[1], test=parts[2], input_shape=(*self.input_shape, 1))
        if len(wanted) != len(data.input_shape) or any(
            size is not None and size != own for size, own in zip(wanted, data.input_shape, strict=True)
        ):
            shape = "x".join("any" if size is None else str(size) for size in wanted)
            raise DataError(
                f"Expected samples of {shape}, as the model takes them. Received: '{self.name}', with samples of "
                f"{'x'.join(map(str, self.input_shape))}. Choose the data that the model was trained on; images in "
                "folders are resized to the model's input with --resize."
            )
        if outputs is not None and self.num_classes > outputs:
            raise DataError(
                f"Expected labels of at most {outputs} classes, as many as the model tells apart. Received: "
                f"'{self.name}', with {self.num_classes}."
            )
        return data


@dataclass(frozen=True, eq=False)
class Raw:
    """What a source delivers: training samples, and the other parts where it has them.

    Attributes:
        name: as it was asked for.
        train: training samples; ``x`` may be anything that numpy indexes, paths for example.
        validation: its own validation samples, or None.
        test: its own test samples, or None.
        num_classes: number of labels.
        validation_share: of all samples in ``train``, cut off where there are no validation samples.
        class_names: by label, or empty.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    num_classes: int
    validation_share: float = 0.1
    class_names: tuple[str, ...] = ()


def divide(raw: Raw, seed: int, limit: int | None) -> tuple[Split, Split, Split]:
    """Train, validation and test; what the source does not have is cut from training, classes in proportion.

    Args:
        raw: what the source delivers.
        seed: of all cuts.
        limit: at most so many samples in each part.

    Raises:
        DataError: ``limit`` is below the number of classes, or there are too few samples for three parts.
    """
    _check_limit(limit, raw.num_classes, raw.name)
    train, validation, test = raw.train, raw.validation, raw.test
    total = len(train)
    if test is None:
        train, test = _cut(train, round(_TEST_SHARE * total), seed, raw.name)
    if validation is None:
        train, validation = _cut(train, round(raw.validation_share * total), seed + 1, raw.name)
    parts = [_at_most(part, limit, seed, raw.name) for part in (train, validation, test)]
    return parts[0], parts[1], parts[2]


def limited(data: DataSplits, seed: int, limit: int | None) -> DataSplits:
    """Parts that exist already, with at most so many samples each, classes in proportion.

    Raises:
        DataError: ``limit`` is below the number of classes.
    """
    _check_limit(limit, data.num_classes, data.name)
    train, validation, test = (
        _at_most(part, limit, seed, data.name) for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def _check_limit(limit: int | None, num_classes: int, name: str) -> None:
    if limit is not None and limit < num_classes:
        raise DataError(
            f"Expected limit of at least {num_classes}, one image per class of '{name}'. Received: {limit}."
        )


def _at_most(part: Split, limit: int | None, seed: int, name: str) -> Split:
    return part if limit is None or len(part) <= limit else _cut(part, limit, seed + 2, name)[1]


def _cut(part: Split, count: int, seed: int, name: str) -> tuple[Split, Split]:
    """The rest and ``count`` samples, both shuffled, each class in proportion (classes of one sample at random)."""
    from sklearn.model_selection import train_test_split

    if not 0 < count < len(part):
        raise DataError(
            f"Expected enough samples to train, to validate and to test on. Received: '{name}', of whose {len(part)} "
            f"samples {count} would have to be set aside."
        )
    indices = np.arange(len(part))
    occurring, counts = np.unique(part.y, return_counts=True)
    even = counts.min() > 1 and min(count, len(part) - count) >= len(occurring)
    rest, cut = train_test_split(indices, test_size=count, random_state=seed, stratify=part.y if even else None)
    return Split(part.x[rest], part.y[rest]), Split(part.x[cut], part.y[cut])


def refuse_too_large(name: str, samples: int, shape: Sequence[int]) -> None:
    """Says so before data are read that are larger than a computer's memory usually is.

    Raises:
        DataError: they are.
    """
    size = samples * int(np.prod(shape)) * 4
    if size > _LARGEST:
        raise DataError(
            f"Expected a set that fits in memory. Received: '{name}', {samples:,} images of {tuple(shape)}, "
            f"{size / 2**30:.1f} GiB as float32. Give a limit on the images per split (limit=10000, --limit 10000)."
        )


def scaled(x: np.ndarray) -> np.ndarray:
    """Integers on 0 to 1, by the largest that their type holds; other numbers as they are."""
    return x.astype(np.float32) / np.float32(np.iinfo(x.dtype).max) if x.dtype.kind in "iu" else x
