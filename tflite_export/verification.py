"""Does the file compute what the Keras model computes? Asked in the runtime that will run the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tflite_export.convert import check_graph
from tflite_export.flatbuffer import read_model
from tflite_export.graph import Graph
from tflite_export.levels import LevelMismatch, compare_levels
from tflite_export.runtime import check_runtime, check_threads, predict
from tflite_export.samples import generated_inputs
from tfqprune.errors import DataError, ExportError, real_number, whole_number

TOLERANCE = 1e-4
_BATCH = 32
_NOISE = 4e-6
# A larger share of samples that answer otherwise in another batch is more than flips of levels.
_FLIPS = 0.1
# Outputs below float32's rounding of numbers about 1 count as zero.
_SMALLEST = 1e-7
# Numbers that differ by less than this share of the largest, some steps of 8 bits, count as if they did.
_RESOLUTION = 0.02


@dataclass(frozen=True)
class Agreement:
    """How far a file and its Keras model agree.

    A level that lies on a rounding boundary may flip between two correct float implementations and move an output
    by 0.01 to 0.3; so the share of samples and the top-1 agreement tell more than the largest error.

    Attributes:
        top1: share of samples with the same class first (over the last axis; ties within tolerance count as equal),
            the smallest over outputs; 1.0 where no output has two or more entries.
        off_share: share of samples with an error above ``tolerance``.
        max_error: largest error of any output, relative to the sample's largest output where that is over 1, and to
            the largest of all samples where that is below 1; infinite where one side is no finite number.
        mean_error: mean over samples of their largest error.
        unexplained: for outputs of single numbers, which have no first class: the mean error over the mean distance
            of Keras's answers from their median. A file that always says the same has 1 or more. The largest over
            outputs; 0.0 where all have two or more entries.
        samples: number of samples compared.
        tolerance: what counts as off.
        runtime: ``litert`` or ``lce``.
        threads: threads of the runtime.
        xnnpack: whether the XNNPACK delegate ran.
        generated: whether the inputs were generated rather than the user's.
        levels: mismatches of quantised activations layer by layer, where asked for.
    """

    top1: float
    off_share: float
    max_error: float
    mean_error: float
    unexplained: float
    samples: int
    tolerance: float
    runtime: str
    threads: int
    xnnpack: bool
    generated: bool
    levels: tuple[LevelMismatch, ...] = ()

    def __str__(self) -> str:
        return (
            f"top-1 {self.top1:.2%}, {self.off_share:.2%} of {self.samples} samples off by more than "
            f"{self.tolerance:g}, largest error {self.max_error:.3g} ({self.runtime}, {self.threads} thread(s), "
            f"XNNPACK {'on' if self.xnnpack else 'off'})"
        )


def verify(
    model: Any,
    path: str | os.PathLike[str],
    data: Any = None,
    *,
    samples: int = 64,
    tolerance: float = TOLERANCE,
    runtime: str | None = None,
    threads: int = 1,
    xnnpack: bool | None = None,
    seed: int = 0,
    levels: bool = False,
) -> Agreement:
    """Compares a .tflite file with the Keras model it came from.

    Args:
        model: a Keras model (legacy Keras).
        path: the .tflite file.
        data: inputs as an array [samples, ...], a list of arrays (several inputs) or a dict by input name; these with
            labels as (x, y); an object with ``x`` and ``y``; a tf.data.Dataset; or None for generated inputs that
            include all-zero, saturated and boundary cases.
        samples: how many samples to generate, or at most to take from ``data``.
        tolerance: error above which a sample counts as off, relative as in :class:`Agreement`.
        runtime: ``litert``, ``lce`` or None for the one that the file needs.
        threads: threads of the runtime.
        xnnpack: whether LiteRT may use the XNNPACK delegate; None for what suits the file (see
            :func:`tflite_export.runtime.suits_xnnpack`).
        seed: of the generated inputs.
        levels: also compare the quantised activations in front of every layer that has them, level by level.

    Returns:
        An :class:`Agreement`.

    Raises:
        ModelTypeError: no legacy Keras model with a graph of layers.
        ExportError: the file is damaged, does not run, or its inputs and outputs are not the model's.
        DataError: ``data`` does not fit the model's inputs, the model does not take generated ones, or ``samples``,
            ``tolerance`` or ``seed`` make no sense.
        MissingDependencyError: the file needs a runtime that is not installed.
    """
    check_graph(model)
    tolerance, threads = check_tolerance(tolerance), check_threads(threads)
    chosen, use_xnnpack = check_runtime(path, runtime, xnnpack)
    arrays = generated_inputs(model, samples, seed) if data is None else as_inputs(model, data, samples)
    inputs_of_file, outputs_of_file = _positions(path, model)
    expected = _answers(model, arrays, data is None)
    received = predict(path, [arrays[i] for i in inputs_of_file], runtime=chosen, threads=threads, xnnpack=use_xnnpack)
    received = [received[i] for i in outputs_of_file]
    for name, want, have in zip(model.output_names, expected, received, strict=True):
        if want.shape != have.shape:
            raise ExportError(
                f"Expected output {name} of shape {want.shape}. Received: {have.shape} from {os.fspath(path)!r}. "
                "The file belongs to another model."
            )
    return Agreement(
        **_figures(expected, received, tolerance), runtime=chosen, threads=threads, xnnpack=use_xnnpack,
        generated=data is None,
        levels=compare_levels(model, path, arrays, inputs_of_file, chosen, threads, use_xnnpack) if levels else (),
    )  # fmt: skip


def rounding_noise(
    model: Any, data: Any = None, *, samples: int = 64, tolerance: float = TOLERANCE, seed: int = 0
) -> Agreement:
    """How far a Keras model agrees with itself when its inputs move by 4e-6 of their size.

    Float implementations differ by about as much inside a network, so this tells flips of levels that lie on a
    rounding boundary, which no file can avoid, from a file that is wrong.

    Args and raised errors are those of :func:`verify`.
    """
    arrays = generated_inputs(model, samples, seed) if data is None else as_inputs(model, data, samples)
    rng = np.random.default_rng(seed + 1)
    moved = [
        (a + _NOISE * max(1.0, float(np.abs(a).max())) * rng.standard_normal(a.shape)).astype(a.dtype)
        if a.dtype.kind == "f"
        else a
        for a in arrays
    ]
    still = _answers(model, arrays, data is None)
    return Agreement(
        **_figures(still, keras_outputs(model, moved), tolerance), runtime="keras", threads=1, xnnpack=False,
        generated=data is None,
    )  # fmt: skip


def depends_on_batch(model: Any, data: Any = None, *, tolerance: float = TOLERANCE, seed: int = 0) -> bool:
    """Whether a Keras model answers otherwise for a sample alone than for the same sample among others.

    Args and raised errors are those of :func:`verify`.
    """
    from tfqprune.samples import own_batch

    if own_batch(model) is not None:
        return False
    arrays = generated_inputs(model, _BATCH, seed) if data is None else as_inputs(model, data, _BATCH)
    alone = [keras_outputs(model, [a[i : i + 1] for a in arrays]) for i in range(len(arrays[0]))]
    found = compare(keras_outputs(model, arrays), [np.concatenate(column) for column in zip(*alone)], tolerance)
    return bool(np.mean(found.errors > tolerance) > _FLIPS)


def check_tolerance(tolerance: Any) -> float:
    """What counts as off, made sure of.

    Raises:
        DataError: no finite number of at least 0.
    """
    return real_number("tolerance", tolerance, DataError, 0)


class Comparison(NamedTuple):
    """What :func:`compare` finds: see :class:`Agreement`; ``errors`` are the samples' largest, [samples]."""

    top1: float
    errors: np.ndarray
    unexplained: float


def compare(expected: list[np.ndarray], received: list[np.ndarray], tolerance: float) -> Comparison:
    """Compares outputs [samples, ...]; where either is no finite number and they differ the error is infinite."""
    errors = np.zeros(len(expected[0]))
    top1, unexplained = 1.0, 0.0
    for want, have in zip(expected, received, strict=True):
        rows = (len(want), -1)
        want_, have_ = want.reshape(rows).astype(np.float64), have.reshape(rows).astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(want_ - have_)
        sound = (np.isfinite(want_) & np.isfinite(have_)) | (want_ == have_)
        error = np.where(sound, np.nan_to_num(error), np.inf)  # equal infinities have a difference that is no number
        errors = np.maximum(errors, error.max(axis=1, initial=0.0) / _scale(want_))
        if want.ndim >= 2 and want.shape[-1] >= 2:
            classes, received_ = want_.reshape(-1, want.shape[-1]), have_.reshape(-1, want.shape[-1])
            best, there = classes.max(axis=-1), classes[np.arange(len(classes)), np.argmax(received_, axis=-1)]
            with np.errstate(invalid="ignore"):
                same = (best == there) | (best - there <= tolerance * _scale(classes))
            top1 = min(top1, float(np.mean(same & sound.reshape(classes.shape).all(axis=-1))))
        elif want.size:
            unexplained = max(unexplained, _unexplained(want_, error))
    return Comparison(top1, errors, unexplained)


def _scale(values: np.ndarray) -> np.ndarray:
    """What errors in each row are relative to: the row's largest over 1, or the largest of all rows below 1."""
    largest = np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=1, initial=0.0)
    overall = float(largest.max(initial=0.0))
    return np.maximum(1.0, largest) if overall >= 1 else np.full(len(values), max(overall, _SMALLEST))


def _unexplained(want: np.ndarray, error: np.ndarray) -> float:
    """The mean error over what the best constant would be off by (a single number: over its size)."""
    finite = np.abs(want[np.isfinite(want)])
    if not np.all(np.isfinite(error)) or not finite.size:
        return float("inf") if error.max() > 0 else 0.0
    values = want[np.isfinite(want)]
    spread = np.abs(values - np.median(values)).mean() if values.size > 1 else finite.max()
    return float(error.mean() / max(spread, _RESOLUTION * finite.max(), _SMALLEST))


def _figures(expected: list[np.ndarray], received: list[np.ndarray], tolerance: float) -> dict[str, Any]:
    """The fields of an :class:`Agreement` that outputs tell."""
    found = compare(expected, received, tolerance)
    return {
        "top1": found.top1, "off_share": float(np.mean(found.errors > tolerance)),
        "max_error": float(found.errors.max()), "mean_error": float(found.errors.mean()),
        "unexplained": found.unexplained, "samples": len(found.errors), "tolerance": tolerance,
    }  # fmt: skip


def keras_outputs(model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a Keras model in the order of its names, in inference mode, eagerly and in small batches."""
    import tensorflow as tf

    from tfqprune.samples import own_batch

    own, chunks = own_batch(model), []
    for start in range(0, len(arrays[0]), own or _BATCH):
        part = [a[start : start + (own or _BATCH)] for a in arrays]
        count = len(part[0])
        if own is not None:
            part = [np.resize(a, (own, *a.shape[1:])) for a in part]  # the first ones again, to fill the last batch
        answer = model(part if len(part) > 1 else part[0], training=False)
        chunks.append([np.asarray(a)[:count] for a in tf.nest.flatten(answer)])
    return [np.concatenate(column) for column in zip(*chunks, strict=True)]


def _answers(model: Any, arrays: list[np.ndarray], generated: bool) -> list[np.ndarray]:
    """What :func:`keras_outputs` says; an error on inputs that were made up here is no fault of the model.

    Raises:
        DataError: the model does not take the generated inputs.
    """
    try:
        return keras_outputs(model, arrays)
    except Exception as error:
        if not generated:
            raise
        said = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])[:300]
        raise DataError(
            f"Expected {model.name!r} to take generated inputs (see tflite_export/samples.py). Received: "
            f"{type(error).__name__}: {said}. It wants inputs of a kind of its own: pass data=..."
        ) from error


def as_inputs(model: Any, data: Any, samples: int) -> list[np.ndarray]:
    """User data as one array for each input of the model, checked against its shapes; labels are left out.

    Raises:
        DataError: it does not fit, or ``samples`` is no number of samples.
    """
    samples = whole_number("samples", samples, DataError)
    names = list(model.input_names)
    data = _without_labels(model, data, samples)
    if isinstance(data, Mapping):
        if set(data) != set(names):
            raise DataError(f"Expected data for the inputs {names}. Received: {sorted(data)}.")
        data = [data[name] for name in names]
    # a list of numbers is one input written out; a list of arrays is one array for each input
    several = isinstance(data, list | tuple) and len(data) > 0 and all(hasattr(a, "shape") for a in data)
    arrays = [np.asarray(a) for a in (data if several else [data])]
    if len(arrays) != len(names):
        raise DataError(f"Expected {len(names)} input arrays ({', '.join(names)}). Received: {len(arrays)}.")
    for name, tensor, array in zip(names, model.inputs, arrays, strict=True):
        wanted = tuple(tensor.shape)[1:]
        fits = array.ndim == len(wanted) + 1 and all(
            w is None or w == n for w, n in zip(wanted, array.shape[1:], strict=False)
        )
        if not fits or len(array) == 0 or len(array) != len(arrays[0]) or array.dtype.kind not in "fiub":
            raise DataError(
                f"Expected numbers of shape (samples, {', '.join(map(str, wanted))}) for input {name}, with at least "
                f"one sample. Received: shape {array.shape}, dtype {array.dtype}."
            )
    return [_cast(n, a[:samples], t.dtype.as_numpy_dtype) for n, a, t in zip(names, arrays, model.inputs, strict=True)]


def _without_labels(model: Any, data: Any, samples: int) -> Any:
    """The inputs of data in one of the forms that hold labels, too; other data as they are."""
    import tensorflow as tf

    from tfqprune.samples import entries_of, take_samples

    if isinstance(data, tf.data.Dataset):
        return take_samples(model, data, samples).inputs
    data = entries_of(data)
    if isinstance(data, tuple) and len(data) in (2, 3):
        one, first = len(model.inputs) == 1, data[0]
        if hasattr(first, "shape") if one else isinstance(first, list | tuple | Mapping):
            return first
    return data


def _cast(name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise DataError(
            f"Expected whole numbers that {cast.dtype} holds for input {name}. Received: {array.dtype} from "
            f"{array.min():g} to {array.max():g}. Pass the values that the model is fed, such as pixels from 0 to 255."
        )
    return cast


def _positions(path: str | os.PathLike[str], model: Any) -> tuple[list[int], list[int]]:
    """For each input of the file the model's input, and for each output of the model the file's, by name."""
    parsed = read_model(path)
    graph = Graph(parsed)
    inputs, outputs = [int(i) for i in graph.subgraph.inputs], [int(i) for i in graph.subgraph.outputs]
    if len(inputs) != len(model.inputs) or len(outputs) != len(model.outputs):
        raise ExportError(
            f"Expected a file with {len(model.inputs)} input(s) and {len(model.outputs)} output(s). "
            f"Received: {len(inputs)} and {len(outputs)} in {os.fspath(path)!r}. The file belongs to another model."
        )
    signature = (parsed.signatureDefs or [None])[0]
    named_in = _by_name(signature.inputs if signature else None)
    named_out = _by_name(signature.outputs if signature else None)
    order_in, order_out = list(range(len(inputs))), list(range(len(outputs)))
    for found, tensors in ((named_in, inputs), (named_out, outputs)):
        if found and set(found.values()) != set(tensors):
            raise ExportError(
                f"Expected the signature of {os.fspath(path)!r} to name the file's inputs and outputs. Received: "
                f"tensors {sorted(found.values())} for {sorted(tensors)}. The file is damaged: export the model again."
            )
    if set(named_in) == set(model.input_names):
        place = {named_in[name]: i for i, name in enumerate(model.input_names)}
        order_in = [place[tensor] for tensor in inputs]
    if set(named_out) == set(model.output_names):
        order_out = [outputs.index(named_out[name]) for name in model.output_names]
    return order_in, order_out


def _by_name(entries: Any) -> dict[str, int]:
    return {bytes(entry.name or b"").decode(errors="replace"): int(entry.tensorIndex) for entry in entries or []}
