"""The samples that data-driven criteria look at: taken from arrays or a tf.data.Dataset, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.errors import DataError, whole_number

#: samples that are looked at unless another number is asked for
SAMPLES = 256


@dataclass(frozen=True, eq=False)
class Samples:
    """A fixed number of samples, in memory.

    Attributes:
        inputs: one array ``[samples, ...]`` for each input of the model.
        labels: one array ``[samples, ...]`` for each output of the model, or None.
        batch: the only batch size that the model takes (:func:`own_batch`), or None.
    """

    inputs: list[np.ndarray]
    labels: list[np.ndarray] | None
    batch: int | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batches(self, size: int) -> Iterator[tuple[list[tf.Tensor], list[tf.Tensor] | None]]:
        """The samples in order, ``size`` at a time, or as the model wants them: inputs, and labels or None."""
        size = self.batch or size
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            labels = None if self.labels is None else [tf.constant(array[part]) for array in self.labels]
            yield [tf.constant(array[part]) for array in self.inputs], labels

    def steps(self, size: int) -> int:
        """How many :meth:`batches` there are."""
        return -(-len(self) // (self.batch or size))

    def mixed(self) -> Samples:
        """The same samples, in a fixed random order where they are sorted by class.

        Batches of sorted samples have one class or two each, and their statistics are not those of the data.
        """
        if self.labels is None or not any(map(_is_sorted, self.labels)):
            return self
        order = np.random.default_rng(0).permutation(len(self))
        inputs, labels = ([array[order] for array in arrays] for arrays in (self.inputs, self.labels))
        return replace(self, inputs=inputs, labels=labels)


def _is_sorted(labels: np.ndarray) -> bool:
    """Whether class numbers, or shares of classes, come in the order of the classes."""
    classes = labels.argmax(axis=-1) if labels.ndim == 2 and labels.shape[-1] > 1 else labels.reshape(len(labels), -1)
    steps = np.diff(classes.reshape(len(labels), -1).astype(np.float64), axis=0)
    return steps.shape[1] == 1 and bool((steps >= 0).all() or (steps <= 0).all()) and bool(steps.any())


def input_names(model: tf.keras.Model) -> list[str]:
    """By which names ``fit`` takes a mapping of inputs, in the order of ``model.inputs``."""
    return _names(model._nested_inputs, model.input_names)


def output_names(model: tf.keras.Model) -> list[str]:
    """By which names ``fit`` takes a mapping of labels or weights, in the order of ``model.outputs``."""
    return _names(model._nested_outputs, model.output_names)


def _names(structure: Any, layers: list[str]) -> list[str]:
    """The keys of a mapping, in the order in which Keras flattens it; the names of the layers where there is none."""
    return sorted(structure) if isinstance(structure, Mapping) and len(structure) == len(layers) else list(layers)


def take_samples(model: tf.keras.Model, data: Any, count: int = SAMPLES) -> Samples:
    """Takes samples from data and checks them against the model.

    Args:
        model: whose inputs they are.
        data: an array ``[samples, ...]``; a pair ``(x, y)``; for several inputs a list or a mapping of arrays in place
            of x; an object with attributes ``x`` and ``y`` (``tfqprune.data.Split``); or a tf.data.Dataset of such
            elements, batched or not. Sample weights (a third entry) are not looked at: see :func:`sample_weights`.
        count: how many; of arrays a fixed random choice, of a data set the first ones. Of a model that takes batches of
            one size only, as many as fill them, one batch at least.

    Raises:
        DataError: no data, less than such a batch, too few inputs, a wrong shape or type, NaN or infinity (also as the
            model's type), unequal lengths of inputs or labels.
    """
    count = whole_number("the number of samples", count, DataError)
    if isinstance(data, Samples):
        return data
    batch = own_batch(model)
    if batch is not None:
        count = max(count // batch, 1) * batch
    arrays, labels = arrays_of(model, _from_dataset(model, data, count) if isinstance(data, tf.data.Dataset) else data)
    total = len(arrays[0])
    if batch is not None and total < batch:
        raise DataError(
            f"Expected at least {batch} samples, for {model.name!r} takes no other batches. Received: {total}."
        )
    chosen: Any = slice(0, min(count, total) // batch * batch if batch else count)
    if total > count and not isinstance(data, tf.data.Dataset):
        # Arrays may be sorted by class, so the first ones will not do; the choice is always the same.
        chosen = np.sort(np.random.default_rng(0).permutation(total)[:count])
    inputs = [
        _finite(array[chosen], tensor.dtype.as_numpy_dtype, f"input {name!r}")
        for array, tensor, name in zip(arrays, model.inputs, input_names(model), strict=True)
    ]
    return Samples(inputs, None if labels is None else [array[chosen] for array in labels], batch)


def own_batch(model: tf.keras.Model) -> int | None:
    """The batch size of a model's inputs, where it takes no other: stateful layers and some reshapes do not."""
    size = model.inputs[0].shape[0]
    if size is None:
        return None
    shapes = [[size + 1, *(length or 8 for length in tensor.shape[1:])] for tensor in model.inputs]
    arrays = [tf.zeros(shape, tensor.dtype) for shape, tensor in zip(shapes, model.inputs, strict=True)]
    try:
        model(tf.nest.pack_sequence_as(model._nested_inputs, arrays), training=False)
    except Exception:  # layers say so in as many ways as there are
        return int(size)
    return None


def arrays_of(model: tf.keras.Model, data: Any) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """All samples of data that is no tf.data.Dataset, as they are: an array for each input; labels, or None.

    Raises:
        DataError: as for :func:`take_samples`, except for values that are not finite.
    """
    if isinstance(data, Samples):
        return data.inputs, data.labels
    x, y = _split(entries_of(data))
    arrays = [
        _checked_input(array, tensor, f"input {name!r}")
        for array, tensor, name in zip(_per_input(model, x), model.inputs, input_names(model), strict=True)
    ]
    total = _common_length(arrays)
    return arrays, None if y is None else _checked_labels(model, y, total)


def entries_of(data: Any) -> Any:
    """The pair that an object with ``x`` and ``y`` holds; other data as they are.

    Raises:
        DataError: what yields batches, whose ``x`` and ``y``, if it has any, are not what it yields.
    """
    if isinstance(data, tf.keras.utils.Sequence | Iterator):
        raise DataError(
            f"Expected arrays, (x, y), a split of tfqprune.data or a tf.data.Dataset. Received: {type(data).__name__}, "
            "which yields batches. Make a data set of it with tf.data.Dataset.from_generator, or hand over arrays."
        )
    return (data.x, data.y) if hasattr(data, "x") and hasattr(data, "y") else data


def sample_weights(model: tf.keras.Model, data: Any, total: int) -> np.ndarray | list[np.ndarray] | None:
    """The sample weights (a third entry) of data that is no tf.data.Dataset.

    Args:
        model: whose samples they weigh.
        data: as for :func:`take_samples`.
        total: how many samples there are.

    Returns:
        An array ``[samples, ...]`` for all outputs; a list with one for each where they came in a list or a mapping (1
        for an output that the mapping leaves out); or None.

    Raises:
        DataError: not one finite number for each sample; outputs that the model does not have.
    """
    given = data[2] if isinstance(data, tuple) and len(data) == 3 else None
    if given is None:
        return None
    names = output_names(model)
    if isinstance(given, Mapping):
        if not set(given) <= set(names):
            raise DataError(f"Expected sample weights for the outputs {names}. Received: {sorted(map(str, given))}.")
        return [_checked_weights(given.get(name, np.ones(total)), total) for name in names]
    each = isinstance(given, list | tuple) and all(isinstance(entry, list | tuple | np.ndarray) for entry in given)
    if len(names) > 1 and each and len(given) == len(names):
        return [_checked_weights(entry, total) for entry in given]
    return _checked_weights(given, total)


def _checked_weights(data: Any, total: int) -> np.ndarray:
    """All sample weights of one output, or of all."""
    array = _numbers(data, "the sample weights")
    if array.ndim == 0 or len(array) != total:
        raise DataError(f"Expected a weight for each of {total} samples. Received: sample weights {array.shape}.")
    return _finite(array, np.float32, "the sample weights")


def batched(model: tf.keras.Model, data: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """The data set itself, or its elements in batches of ``size`` where they have no batch axis.

    Args:
        model: whose inputs the elements are.
        data: elements in Keras' form.
        size: of a batch.

    Raises:
        DataError: elements that are not in Keras' form, or not one for each input.
    """
    x_spec, _ = _split(data.element_spec)
    rank = getattr(_per_input(model, x_spec)[0], "shape", tf.TensorShape(None)).rank
    if rank is None:  # a generator that does not say its shapes
        element = next(iter(data), None)
        rank = None if element is None else _per_input(model, _split(element)[0])[0].shape.rank
    return data.batch(size) if rank == len(model.inputs[0].shape) - 1 else data


def _split(element: Any) -> tuple[Any, Any]:
    """Inputs and labels of data in Keras' form: x, (x,), (x, y) or (x, y, weights)."""
    if isinstance(element, tuple):
        if not 1 <= len(element) <= 3:
            raise DataError(f"Expected data as (x, y). Received: a tuple of {len(element)} entries.")
        return element[0], element[1] if len(element) > 1 else None
    return element, None


def _from_dataset(model: tf.keras.Model, data: tf.data.Dataset, count: int) -> tuple[Any, Any]:
    """The first elements of a data set, strung together; elements without a batch axis are batched."""
    data = batched(model, data, min(count, 64))
    parts: list[list[np.ndarray]] = []
    total, structure = 0, None
    try:
        for element in data:
            structure = _split(element)  # labels that are missing (None) are part of the structure, not of its leaves
            parts.append([np.asarray(leaf) for leaf in tf.nest.flatten(structure) if leaf is not None])
            total += len(parts[-1][0]) if parts[-1] and parts[-1][0].ndim else 1
            if total >= count:
                break
    except tf.errors.InvalidArgumentError as error:
        if "different shapes" not in error.message:  # anything else is the data set's own
            raise
        raise DataError(f"Expected samples of one shape. Received: a data set of several ({error.message}).") from error
    if not parts:
        raise DataError("Expected at least one sample. Received: an empty tf.data.Dataset.")
    try:
        joined = iter([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
    except ValueError as error:
        raise DataError(f"Expected samples of one shape. Received: a data set of several ({error}).") from error
    x, y = tf.nest.map_structure(lambda leaf: None if leaf is None else next(joined), structure)
    return x, y


def _per_input(model: tf.keras.Model, x: Any) -> list[Any]:
    """The arrays in the order of the model's inputs."""
    names = input_names(model)
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise DataError(f"Expected data for the inputs {names}. Received: {sorted(map(str, x))}.")
        return [x[name] for name in names]
    if len(names) == 1:
        return [x[0]] if isinstance(x, list | tuple) and len(x) == 1 and hasattr(x[0], "shape") else [x]
    if not isinstance(x, list | tuple) or len(x) != len(names):
        received = f"{len(x)} arrays" if isinstance(x, list | tuple) else type(x).__name__
        raise DataError(f"Expected a list of {len(names)} arrays, for the inputs {names}. Received: {received}.")
    return list(x)


def _checked_input(data: Any, tensor: tf.Tensor, name: str) -> np.ndarray:
    """All samples of one input, of the model's shape."""
    array = _numbers(data, name)
    expected = tuple(tensor.shape)
    if array.ndim != len(expected) or any(
        size is not None and size != own for size, own in zip(expected[1:], array.shape[1:], strict=True)
    ):
        shape = ", ".join("any" if size is None else str(size) for size in expected[1:])
        raise DataError(
            f"Expected an array of shape (samples, {shape}) for {name}. Received: an array {array.shape}."
            f"{_remedy(array.shape, expected)}"
        )
    if tensor.dtype.is_integer and array.dtype.kind == "f":
        raise DataError(f"Expected whole numbers ({tensor.dtype.name}) for {name}. Received: {array.dtype}.")
    return array


def _remedy(received: tuple[int, ...], expected: tuple[int | None, ...]) -> str:
    """What to do about an array that is not of the model's shape."""
    if len(received) == len(expected) - 1:
        return " A single sample needs an axis in front: x[None]."
    return " Bring the data to the model's input, or choose the data that the model was made for."


def _checked_labels(model: tf.keras.Model, y: Any, total: int) -> list[np.ndarray]:
    """All labels, one array an output, one entry for each of ``total`` samples."""
    arrays = []
    for data, output in zip(_labels(model, y), output_names(model), strict=True):
        name = f"the labels of output {output!r}"
        array = _numbers(data, name)
        if array.ndim == 0 or len(array) != total:
            raise DataError(
                f"Expected one label for each of {total} samples. Received: {name} with shape {array.shape}."
            )
        if array.dtype.kind not in "iub":
            _finite(array, np.float32, name)  # the type in which losses are computed
        arrays.append(array)
    return arrays


def _numbers(data: Any, name: str) -> np.ndarray:
    """Data as an array of numbers."""
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(
            f"Expected an array for {name}. Received: a {type(data).__name__} whose entries have unequal shapes. "
            "Inputs and labels go together in a tuple: (x, y)."
        ) from error
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise DataError(
            f"Expected numbers for {name}. Received: {type(data).__name__} with values of type {array.dtype}."
        )
    return array


def _finite(array: np.ndarray, dtype: Any, name: str) -> np.ndarray:
    """An array as another type, which must hold all of its values."""
    with np.errstate(over="ignore"):  # values beyond the type become infinite, and are counted below
        cast = array.astype(dtype)
    bad = cast.size - int(np.isfinite(cast).sum())
    if bad:
        raise DataError(f"Expected finite values for {name}. Received: {bad} that are NaN or infinite as {cast.dtype}.")
    return cast


def _common_length(arrays: list[np.ndarray]) -> int:
    """How many samples the inputs hold."""
    lengths = [len(array) for array in arrays]
    if 0 in lengths:
        raise DataError("Expected at least one sample. Received: empty data.")
    if len(set(lengths)) > 1:
        raise DataError(f"Expected as many samples for each input. Received: {lengths}.")
    return lengths[0]


def _labels(model: tf.keras.Model, y: Any) -> list[Any]:
    names = output_names(model)
    if isinstance(y, Mapping):
        if not set(names) <= set(y):
            raise DataError(f"Expected labels for the outputs {names}. Received: {sorted(map(str, y))}.")
        return [y[name] for name in names]
    if len(names) == 1:
        return [y[0]] if isinstance(y, list | tuple) and len(y) == 1 and hasattr(y[0], "shape") else [y]
    if not isinstance(y, list | tuple) or len(y) != len(names):
        raise DataError(f"Expected a list of labels for the outputs {names}. Received: {type(y).__name__}.")
    return list(y)
