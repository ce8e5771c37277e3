"""Digests of models, scores and data: whether two searches are about the same thing."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.plan import fingerprint
from tfqprune.rebuild import values_of


def model_digest(graph: ChannelGraph) -> str:
    """Changes with the structure of a model and with every one of its weights."""
    digest = hashlib.sha256(json.dumps(fingerprint(graph), sort_keys=True).encode())
    for name, record in graph.records.items():
        digest.update(name.encode())
        for value in values_of(record):
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def scores_digest(scores: Mapping[str, np.ndarray]) -> str:
    """Changes with the order that scores give the units of any group."""
    digest = hashlib.sha256()
    for name in sorted(scores):
        digest.update(name.encode())
        digest.update(np.argsort(np.asarray(scores[name]), kind="stable").astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def data_digest(data: Any, *, contents: bool = False) -> str:
    """Changes with the form and size of data, and with its samples, in whatever order they come.

    Args:
        data: arrays, (x, y), an object with ``x`` and ``y``, or a tf.data.Dataset.
        contents: go through the samples of a tf.data.Dataset, too. One that is augmented never yields
            the same samples twice; for that, form and size have to do.
    """
    if isinstance(data, tf.data.Dataset):
        described = f"{data.element_spec} {int(data.cardinality())}"
        return described + (f" {_checksum(data)}" if contents else "")
    if hasattr(data, "x") and hasattr(data, "y"):
        data = (data.x, data.y)
    arrays = [np.asarray(array) for array in tf.nest.flatten(data)]
    described = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
    return f"{described} {_checksum([arrays])}"


def _checksum(batches: Iterable[Any]) -> str:
    total, count = 0, 0
    for batch in batches:
        parts = [np.ascontiguousarray(part) for part in tf.nest.flatten(batch)]
        for sample in zip(*parts, strict=True):
            checksum = 0
            for part in sample:
                checksum = zlib.crc32(np.asarray(part).tobytes(), checksum)
            total, count = (total + checksum) % 2**64, count + 1
    return f"{count} samples {total:016x}"
