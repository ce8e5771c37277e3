"""Measures one variant of a network: accuracy, cost, and its .tflite file."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.data.arrays import is_one_hot
from tfqprune.errors import ExportError, MissingDependencyError
from tfqprune.report import VariantRow
from tfqprune.samples import own_batch

_COMPARED = 256  # samples on which file and Keras model are compared


def accuracy(model: tf.keras.Model, x: np.ndarray, y: np.ndarray) -> float | None:
    """Share of samples whose first class is the label; None where the model is no classifier of such labels.

    Args:
        model: one input, one output ``[samples, classes]``.
        x: inputs ``[samples, ...]``.
        y: class numbers ``[samples]`` or ``[samples, 1]``, or one-hot labels ``[samples, classes]``.
    """
    if len(model.outputs) != 1 or len(model.output_shape) != 2 or model.output_shape[-1] < 2:
        return None
    labels = np.asarray(y)
    if is_one_hot(labels) and labels.shape[-1] == model.output_shape[-1]:
        labels = labels.argmax(axis=-1)
    if labels.size != len(labels) or not (labels == np.floor(labels)).all():
        return None  # values, not classes
    own = own_batch(model)
    count = len(labels) // own * own if own else len(labels)
    answers = np.asarray(model.predict(x[:count], batch_size=own or 256, verbose=0)).argmax(axis=-1)
    return float((answers == labels.reshape(-1)[:count]).mean())


def counts(model: tf.keras.Model) -> dict[str, Any]:
    """Parameters, MACs, BOPs and memory (bytes) as a ``VariantRow`` has them.

    None stands for what cannot be counted, where the input has no fixed size.
    """
    totals = CostModel(ChannelGraph(model)).totals()
    found = {name: total if math.isfinite(total) else None for name, total in totals.items()}
    return {name: total if total is None or name == "memory" else round(total) for name, total in found.items()}


def check_format(model: tf.keras.Model, format: str, optimize: str) -> None:
    """Refuses, before any work, a format in which no file could be written.

    Raises:
        ExportError: there is no such format or purpose, or the format cannot store the model.
    """
    from tflite_export.exporting import gather_facts
    from tflite_export.formats import choose_format, get_format

    facts = gather_facts(model)
    choose_format(facts, optimize)  # looks at the purpose
    if format != "auto":
        get_format(format).check(facts)


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

    row: dict[str, Any] = {"name": name, "accuracy": accuracy(model, x, y), **counts(model)}
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
