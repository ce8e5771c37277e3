"""Measures one variant of a network: accuracy, cost, and its .tflite file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.costs import cost
from tfqprune.errors import ExportError, MissingDependencyError
from tfqprune.report import VariantRow

_COMPARED = 256  # samples on which file and Keras model are compared


def accuracy(model: tf.keras.Model, x: np.ndarray, y: np.ndarray) -> float | None:
    """Share of samples whose first class is the label; None where the model is no classifier of such labels.

    Args:
        model: one input, one output ``[samples, classes]``.
        x: inputs ``[samples, ...]``.
        y: class numbers ``[samples]``, or one-hot labels ``[samples, classes]``.
    """
    if len(model.outputs) != 1 or len(model.output_shape) != 2 or model.output_shape[-1] < 2:
        return None
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[-1] == model.output_shape[-1]:
        labels = labels.argmax(axis=-1)
    answers = np.asarray(model.predict(x, batch_size=256, verbose=0)).argmax(axis=-1)
    return float((answers == labels.reshape(-1)).mean())


def measure_variant(
    name: str,
    model: tf.keras.Model,
    file: Path,
    x: np.ndarray,
    y: np.ndarray,
    *,
    format: str = "auto",
    optimize: str = "size",
) -> dict[str, Any]:
    """Counts, exports, compares and runs a model.

    A runtime that is not installed here, or a file that would not be faithful, leaves the measured fields empty, with
    a note that says why.

    Args:
        name: of the variant.
        model: the Keras model.
        file: where the .tflite file goes.
        x: test inputs.
        y: their labels.
        format: as for ``tflite_export.export``.
        optimize: as for ``tflite_export.export``.

    Returns:
        The fields of a :class:`tfqprune.report.VariantRow`.
    """
    import tflite_export as te  # only floors above the export know it

    total = cost(model)
    row: dict[str, Any] = {"name": name, "accuracy": accuracy(model, x, y), **total.as_dict()}
    row.update({key: round(row[key]) for key in ("params", "macs", "bops")})
    try:
        result = te.export(model, file, format=format, optimize=optimize, data=x, samples=_COMPARED)
        row.update(
            tflite_bytes=result.bytes,
            floor_bytes=result.floor_bytes,
            format=result.format,
            agreement=result.agreement.top1,
            off_share=result.agreement.off_share,
            max_error=result.agreement.max_error,
            tolerance=result.agreement.tolerance,
            compared=result.agreement.samples,
            file_kinds=result.breakdown.by_kind,
            file_layers=result.breakdown.by_layer,
            floor_layers=result.breakdown.floor_by_layer,
        )
        measured = te.benchmark(file)
        row.update(
            ram_bytes=measured.peak_memory,
            latency_ms=measured.latency_ms,
            latency_spread_ms=measured.latency_spread_ms,
            runtime=f"{measured.runtime}, {measured.threads} {'thread' if measured.threads == 1 else 'threads'}, "
            f"XNNPACK {'on' if measured.xnnpack else 'off'}",
        )
    except (MissingDependencyError, ExportError) as error:
        # The figures so far stand; what is missing, and why, is said in the table, the report and on the terminal.
        row["note"] = f"no .tflite file: {error}"
    return asdict(VariantRow(**row))
