"""What a search is about, kept beside its trials, so that another one cannot be taken for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation.oracle import write_json
from tfqprune.channels import ChannelGraph
from tfqprune.errors import OutputError
from tfqprune.plan import fingerprint
from tfqprune.rebuild import values_of

_FILE = "project.json"
_VERSION = 1


class Project:
    """The folder of one search and its identity.

    Args:
        folder: the folder.
        facts: what must stay the same for trials to be comparable, as plain JSON values.
        overwrite: start anew, removing what an earlier search left there.

    Raises:
        OutputError: the folder holds another search, or something else; nothing is touched.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        self.facts = dict(facts)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"Expected a folder for the search. Received: {str(folder)!r}, which is a file.")
        occupied = folder.is_dir() and any(folder.iterdir())
        if occupied and overwrite:
            if not (folder / _FILE).exists() and not (folder / "oracle.json").exists():
                raise OutputError(
                    f"Expected the folder of an earlier search to overwrite. Received: {str(folder)!r}, which holds "
                    "other files. Choose another directory or project_name."
                )
            shutil.rmtree(folder)
        elif occupied:
            self._compare()
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def add(self, facts: Mapping[str, Any]) -> None:
        """Adds facts that were not known at first (the data).

        Raises:
            OutputError: they differ from those of the search in the folder.
        """
        known = self.read()
        self._refuse([key for key in facts if key in known and known[key] != _plain(facts[key])])
        self.facts.update(facts)
        self._write()

    def read(self) -> dict[str, Any]:
        """The facts on disk."""
        try:
            content = json.loads((self.folder / _FILE).read_text(encoding="utf-8"))
            return dict(content["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"Expected the folder of a ratio search. Received: {str(self.folder)!r}, which holds something else "
                f"({error}). Choose another directory or project_name."
            ) from error

    def _compare(self) -> None:
        known = self.read()
        self._refuse([key for key, value in self.facts.items() if known.get(key) != _plain(value)])
        self.facts = {**known, **self.facts}

    def _refuse(self, changed: list[str]) -> None:
        if changed:
            raise OutputError(
                f"Expected the search that {str(self.folder)!r} was begun with. Received: one in which "
                f"{', '.join(changed)} changed. Choose another project_name, or start anew with overwrite=True."
            )

    def _write(self) -> None:
        write_json(self.folder / _FILE, {"tfqprune_search": _VERSION, "facts": _plain(self.facts)})


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


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


def data_digest(dataset: tf.data.Dataset, *, contents: bool) -> str:
    """Changes with the form and size of a data set and, if asked for, with its samples (in any order)."""
    described = f"{dataset.element_spec} {int(dataset.cardinality())}"
    if not contents:
        return described
    total, count = 0, 0
    for batch in dataset:
        arrays = [np.ascontiguousarray(part) for part in tf.nest.flatten(batch)]
        for sample in zip(*arrays, strict=True):
            checksum = 0
            for part in sample:
                checksum = zlib.crc32(np.ascontiguousarray(part).tobytes(), checksum)
            total, count = (total + checksum) % 2**64, count + 1
    return f"{described} {count} samples {total:016x}"
